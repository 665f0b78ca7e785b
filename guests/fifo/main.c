/* The FIFO event channel ABI: set-up, event words, queues by priority, masks, and refusals. */
#include "guest.h"

const char guest_name[] = "fifo";

#define BIT(n) (1U << (n))
#define PENDING BIT(EVTCHN_FIFO_PENDING)
#define MASKED BIT(EVTCHN_FIFO_MASKED)
#define LINKED BIT(EVTCHN_FIFO_LINKED)
#define LINK (BIT(EVTCHN_FIFO_LINK_BITS) - 1)

static volatile struct evtchn_fifo_control_block *control;
static volatile u32 *words;
static int upcalls;
static u32 ready_seen;

static void on_event(struct regs *r)
{
    (void)r;
    upcalls++;
    vcpu0->evtchn_upcall_pending = 0;
    ready_seen = __atomic_exchange_n(&control->ready, 0, __ATOMIC_SEQ_CST);
}

static u32 bind_ipi(void)
{
    struct evtchn_bind_ipi b = {0, 0};
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &b) == 0);
    return b.port;
}

static s64 port_op(u32 op, u32 port)
{
    struct evtchn_port p = {port};
    return xen_event_channel_op(op, &p);
}

static s64 init(u64 frame, u32 offset, u32 vcpu, u32 *link_bits)
{
    struct evtchn_init_control i = {frame, offset, vcpu, 0, {0}};
    s64 result = xen_event_channel_op(EVTCHNOP_init_control, &i);
    *link_bits = i.link_bits;
    return result;
}

static s64 expand(u64 frame)
{
    struct evtchn_expand_array e = {frame};
    return xen_event_channel_op(EVTCHNOP_expand_array, &e);
}

static s64 priority(u32 port, u32 value)
{
    struct evtchn_set_priority p = {port, value};
    return xen_event_channel_op(EVTCHNOP_set_priority, &p);
}

static void show(const char *label, u32 port)
{
    u32 w = words[port];
    printf("%s: %s%s%slink=%u\n", label, w & PENDING ? "pending " : "", w & MASKED ? "masked " : "",
           w & LINKED ? "linked " : "", w & LINK ? 1 : 0);
}

/* Take a queue apart as a guest must; the ports in order. */
static int drain(u32 queue, u32 *ports)
{
    int n = 0;
    u32 head = control->head[queue];
    while (head) {
        u32 w = __atomic_fetch_and(&words[head], ~(LINKED | LINK), __ATOMIC_SEQ_CST);
        if ((w & PENDING) && !(w & MASKED))
            ports[n++] = head;
        __atomic_fetch_and(&words[head], ~PENDING, __ATOMIC_SEQ_CST);
        head = w & LINK;
    }
    return n;
}

static u32 early; /* bound and sent while the two-level ABI was in use */

static void set_up(void)
{
    char *page = page_alloc(), *array = page_alloc();
    u32 bits;
    early = bind_ipi();
    port_op(EVTCHNOP_send, early);
    printf("before: two-level pending=%d\n", test_bit(shared_info->evtchn_pending, early));
    printf("init_control: odd offset: %s", error_name(init(mfn_of(page), 4, 0, &bits)));
    printf(", beyond the page: %s", error_name(init(mfn_of(page), 4096 - 64, 0, &bits)));
    printf(", no frame: %s", error_name(init(0xffffff, 0, 0, &bits)));
    printf(", no vcpu: %s", error_name(init(mfn_of(page), 0, 9, &bits)));
    printf(", a page table: %s\n", error_name(init(mfn_of((void *)kernel_l4), 0, 0, &bits)));
    expect_result("init_control", init(mfn_of(page), 64, 0, &bits), 0);
    printf("link bits: %u\n", bits);
    control = (void *)(page + 64);
    printf("again: %s\n", error_name(init(mfn_of(page), 512, 0, &bits)));
    printf("expand_array: no frame: %s", error_name(expand(0xffffff)));
    printf(", a page table: %s\n", error_name(expand(mfn_of((void *)kernel_l4))));
    words = (void *)array;
    /* The rings' events must not slip in between ours. */
    words[start_info->console.domU.evtchn] = words[start_info->store_evtchn] = MASKED;
    expect_result("expand_array", expand(mfn_of(array)), 0);
    printf("one page more than the ports need: %s\n", error_name(expand(mfn_of(page_alloc()))));
    show("the early event", early);
    printf("ready=%x upcall pending=%d\n", control->ready, vcpu0->evtchn_upcall_pending);
}

static void events(void)
{
    u32 ports[8], a = bind_ipi(), b = bind_ipi(), c = bind_ipi();
    handlers[VEC_EVENT] = on_event;
    drain(7, ports);
    control->ready = 0;
    vcpu0->evtchn_upcall_pending = 0;
    show("a new port", a);
    words[a] = 0;
    port_op(EVTCHNOP_send, a);
    show("sent", a);
    printf("ready=%x, head of queue 7 is it: %d, upcall pending=%d\n", control->ready, control->head[7] == a,
           vcpu0->evtchn_upcall_pending);
    check(control->ready == 1 << 7 && control->head[7] == a);
    port_op(EVTCHNOP_send, a);
    port_op(EVTCHNOP_send, b);
    port_op(EVTCHNOP_send, c);
    printf("a links to b: %d, b links to c: %d\n", (words[a] & LINK) == b, (words[b] & LINK) == c);
    events_unmask();
    printf("upcalls=%d ready was %x\n", upcalls, ready_seen);
    events_mask();
    int n = drain(7, ports);
    printf("drained %d in order: %d\n", n, n == 3 && ports[0] == a && ports[1] == b && ports[2] == c);
    check(n == 3 && ports[0] == a && ports[1] == b && ports[2] == c);
    upcalls = 0;
    words[a] |= MASKED;
    port_op(EVTCHNOP_send, a);
    show("sent while masked", a);
    printf("ready=%x\n", control->ready);
    expect_result("unmask", port_op(EVTCHNOP_unmask, a), 0);
    show("unmasked", a);
    printf("ready=%x\n", control->ready);
    n = drain(7, ports);
    check(n == 1);
    control->ready = 0;
    expect_result("priority 3", priority(a, 3), 0);
    expect_result("priority 15", priority(b, 15), 0);
    expect_result("priority 0", priority(c, 0), 0);
    port_op(EVTCHNOP_send, a);
    port_op(EVTCHNOP_send, b);
    port_op(EVTCHNOP_send, c);
    printf("ready=%x heads right: %d\n", control->ready,
           control->head[3] == a && control->head[15] == b && control->head[0] == c);
    check(control->ready == (1 << 3 | 1 << 15 | 1 << 0));
    drain(0, ports), drain(3, ports), drain(15, ports);
    control->ready = 0;
    printf("priority 16: %s", error_name(priority(a, 16)));
    printf(", of port 0: %s", error_name(priority(0, 1)));
    printf(", of a free port: %s", error_name(priority(60, 1)));
    printf(", of port 5000: %s\n", error_name(priority(5000, 1)));
    printf("two-level bit untouched: %d\n", !test_bit(shared_info->evtchn_pending, a));
    port_op(EVTCHNOP_send, a);
    expect_result("close with the event pending", port_op(EVTCHNOP_close, a), 0);
    show("closed", a);
}

void guest_main(void)
{
    set_up();
    events();
}
