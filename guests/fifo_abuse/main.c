/* The FIFO event channel ABI with a guest that writes nonsense into the words and queues it shares with the hypervisor. */
#include "attack.h"

const char guest_name[] = "fifo_abuse";

#define BIT(n) (1U << (n))
#define PENDING BIT(EVTCHN_FIFO_PENDING)
#define MASKED BIT(EVTCHN_FIFO_MASKED)
#define LINKED BIT(EVTCHN_FIFO_LINKED)
#define BUSY BIT(EVTCHN_FIFO_BUSY)
#define LINK (BIT(EVTCHN_FIFO_LINK_BITS) - 1)

static volatile struct evtchn_fifo_control_block *control;
static char *control_page;
static volatile u32 *words;

static s64 init(const void *page, u32 offset)
{
    struct evtchn_init_control i = {mfn_of(page), offset, 0, 0, {0}};
    return xen_event_channel_op(EVTCHNOP_init_control, &i);
}

static s64 expand(const void *page)
{
    struct evtchn_expand_array e = {mfn_of(page)};
    return xen_event_channel_op(EVTCHNOP_expand_array, &e);
}

static s64 port_op(u32 op, u32 port)
{
    struct evtchn_port p = {port};
    return xen_event_channel_op(op, &p);
}

static s64 priority(u32 port, u32 value)
{
    struct evtchn_set_priority p = {port, value};
    return xen_event_channel_op(EVTCHNOP_set_priority, &p);
}

static u32 bind_ipi(void)
{
    struct evtchn_bind_ipi b = {0, 0};
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &b) == 0);
    words[b.port] = 0;
    return b.port;
}

static s64 retype(void *page)
{
    check(page_readonly(page) == 0);
    s64 result = pin(4, page);
    if (result == 0)
        check(unpin(page) == 0);
    check(page_writable(page) == 0);
    return result;
}

static void pages(void)
{
    u64 *array = page_alloc(), *other = page_alloc();
    control_page = page_alloc();
    rule("the pages of the ABI are writable memory of the guest, and stay that");
    attack("an array without control blocks", expand(array), -EOPNOTSUPP);
    attack("a block not aligned to 8", init(control_page, 4), -EINVAL);
    attack("a block that leaves its page", init(control_page, 4096 - 64), -EINVAL);
    attack("a block that starts behind its page", init(control_page, 4096), -EINVAL);
    attack("a block at an offset that wraps", init(control_page, 0xfffffff8), -EINVAL);
    attack("a page table", init((void *)kernel_l4, 0), -EINVAL);
    twin("the last place where it fits", init(control_page, 4096 - 72));
    control = (void *)(control_page + 4096 - 72);
    attack("another", init(other, 0), -EINVAL);
    twin("the other is no part of it", retype(other));
    attack("a page table as the array", expand((void *)kernel_l4), -EINVAL);
    words = (void *)array;
    twin("the array", expand(array));
    attack("the block's page as a table", retype(control_page), -EINVAL);
    attack("the array as a table", retype(array), -EINVAL);
    twin("a second one", expand(other));
    attack("that as a table", retype(other), -EINVAL);
    u64 frame = mfn_of(array);
    struct xen_memory_reservation r = {&frame, 1, 0, 0, DOMID_SELF};
    u64 pfn = ((u64)array - VIRT_BASE) >> 12;
    twin_is("the array is given back by the guest", xen_memory_op(XENMEM_decrease_reservation, &r), 1);
    stays("but not lost while it is in use", m2p[frame] == pfn && mfn_of(array) == frame);
    __atomic_fetch_or(&words[start_info->console.domU.evtchn], MASKED, __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&words[start_info->store_evtchn], MASKED, __ATOMIC_SEQ_CST);
}

static int works(u32 queue)
{
    u32 port = bind_ipi();
    check(priority(port, queue) == 0);
    control->ready = 0;
    check(port_op(EVTCHNOP_send, port) == 0);
    int good = words[port] & PENDING && words[port] & LINKED && control->ready & BIT(queue) && control->head[queue] == port;
    words[port] = MASKED;
    control->head[queue] = 0;
    check(port_op(EVTCHNOP_close, port) == 0);
    return good;
}

static void links(void)
{
    static const u32 nonsense[] = {1023, 1024, 4096, LINK, 0};
    rule("nonsense in a queue harms that queue only, whatever its links say");
    for (u64 i = 0; i < ARRAY_SIZE(nonsense); i++) {
        u32 a = bind_ipi(), b = bind_ipi();
        char label[64];
        check(priority(a, 5) == 0 && priority(b, 5) == 0);
        check(port_op(EVTCHNOP_send, a) == 0);
        words[a] = PENDING | LINKED | nonsense[i];
        control->head[5] = nonsense[i];
        snprintf(label, sizeof(label), "send behind a link to %u", nonsense[i]);
        attack(label, port_op(EVTCHNOP_send, b), 0);
        snprintf(label, sizeof(label), "unmask behind it, %u", nonsense[i]);
        attack(label, port_op(EVTCHNOP_unmask, b), 0);
        check(port_op(EVTCHNOP_close, a) == 0 && port_op(EVTCHNOP_close, b) == 0);
        stays("another queue works", works(9));
    }
    u32 a = bind_ipi(), b = bind_ipi();
    check(priority(a, 6) == 0 && priority(b, 6) == 0);
    check(port_op(EVTCHNOP_send, a) == 0);
    words[a] = PENDING | LINKED | a; /* a circle */
    attack("send behind a link to itself", port_op(EVTCHNOP_send, b), 0);
    words[a] = LINKED | BUSY | b;
    words[b] = LINKED | BUSY | a;
    attack("send on a busy word", port_op(EVTCHNOP_send, a), 0);
    attack("unmask of a busy word", port_op(EVTCHNOP_unmask, b), 0);
    for (u32 queue = 0; queue < 16; queue++)
        control->head[queue] = 0xffffffff;
    control->ready = 0xffffffff;
    attack("send with every head all ones", port_op(EVTCHNOP_send, a), 0);
    for (u32 queue = 0; queue < 16; queue++)
        control->head[queue] = 0;
    words[a] = words[b] = MASKED;
    check(port_op(EVTCHNOP_close, a) == 0 && port_op(EVTCHNOP_close, b) == 0);
    int good = 1;
    for (u32 queue = 8; queue < 16; queue++)
        good &= works(queue);
    stays("other queues work", good);
}

static void ports_in_use(void)
{
    u32 a = bind_ipi();
    rule("priorities and ports beyond the bounds are refused");
    attack("priority 16", priority(a, 16), -EINVAL);
    attack("priority 2^32 - 1", priority(a, 0xffffffff), -EINVAL);
    attack("priority of port 131072", priority(131072, 1), -EINVAL);
    attack("priority of port 0", priority(0, 1), -EACCES);
    twin("priority 15", priority(a, 15));
    attack("send on port 131072", port_op(EVTCHNOP_send, 131072), -EINVAL);
    twin("send", port_op(EVTCHNOP_send, a));
    twin("close", port_op(EVTCHNOP_close, a));
}

void guest_main(void)
{
    pages();
    links();
    ports_in_use();
}
