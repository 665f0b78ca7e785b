/* Two domains that do not trust each other: what one granted to the other is all that the other gets. */
#include "grant.h"

const char guest_name[] = "neighbours";

enum { WRITABLE = 8, READABLE, OF_ANOTHER, EMPTY, REFS };
#define OFFERED_PORT 3 /* the first one behind the store's and the console's */
#define BEGIN 0x1111

static volatile u64 *page, *second; /* of the granter's, or the attacker's views of them */
static u16 peer;

static u64 at(volatile void *p)
{
    return (u64)p;
}

static void entry(struct grant_entry_v1 *table, int ref, u16 flags, u16 domid, volatile void *frame)
{
    table[ref].domid = domid;
    table[ref].frame = (u32)mfn_of((void *)frame);
    table[ref].flags = flags;
}

/* Grant two pages to the domain made next, and wait for ever. */
static void grant(void)
{
    u64 frame;
    peer = own_domid() + 1;
    check(grant_frames(1, &frame) == 0);
    struct grant_entry_v1 *table = page_alloc();
    check(map_page(at(table), frame << 12 | PTE_P | PTE_RW) == 0);
    page[0] = second[0] = BEGIN;
    struct evtchn_alloc_unbound offer = {DOMID_SELF, peer, 0};
    check(xen_event_channel_op(EVTCHNOP_alloc_unbound, &offer) == 0);
    check(offer.port == OFFERED_PORT);
    entry(table, READABLE, GTF_permit_access | GTF_readonly, peer, second);
    entry(table, OF_ANOTHER, GTF_permit_access, peer + 1, page);
    entry(table, WRITABLE, GTF_permit_access, peer, page); /* the attacker waits for this one */
    for (;;)
        xen_sched_op(SCHEDOP_yield, 0);
}

static struct grant_map map(volatile void *address, u32 flags, u32 ref)
{
    struct grant_map m = {at(address), flags, ref, peer, 99, 0, 0};
    check(grant_op(GNTTABOP_map_grant_ref, &m, 1) == 0);
    return m;
}

static s64 copy(u32 ref, int from_peer, u64 offset, u64 length)
{
    static u64 *buffer;
    if (!buffer)
        buffer = page_alloc();
    struct grant_copy c = {.len = (u16)length, .status = 99};
    struct grant_copy_end theirs = {ref, peer, (u16)offset}, ours = {mfn_of(buffer), DOMID_SELF, 0};
    c.source = from_peer ? theirs : ours;
    c.dest = from_peer ? ours : theirs;
    c.flags = from_peer ? 1 : 2;
    check(grant_op(GNTTABOP_copy, &c, 1) == 0);
    return c.status;
}

static s64 set(volatile void *address, u64 value, u16 foreign)
{
    struct mmu_update u = {machine_of(pte_of(at(address))), value};
    return xen_mmu_update(&u, 1, 0, foreign);
}

static struct grant_map references(void)
{
    struct grant_map m;
    do
        m = map(page, GNTMAP_host_map, WRITABLE);
    while (m.status); /* it is not ready yet */
    rule("a reference can be mapped by whom it is for, and as it was granted");
    twin_is("the granter's word", (s64)page[0], BEGIN);
    attack_status("granted to another domain", map(second, GNTMAP_host_map, OF_ANOTHER).status, GNTST_general_error);
    attack_status("granted to nobody", map(second, GNTMAP_host_map, EMPTY).status, GNTST_general_error);
    attack_status("beyond the table", map(second, GNTMAP_host_map, 100000).status, GNTST_bad_gntref);
    attack_status("writable, granted for reading", map(second, GNTMAP_host_map, READABLE).status, GNTST_general_error);
    struct grant_map r = map(second, GNTMAP_host_map | GNTMAP_readonly, READABLE);
    twin_status("for reading", r.status);
    TRY("movq $0, (%0)", : : "r"(second) : "memory");
    attack_faults("write there", 14, 3);
    twin_is("the granter's word", (s64)second[0], BEGIN);
    twin_status("unmap it", grant_unmap(at(second), 0, r.handle));
    return m;
}

static void copies(void)
{
    rule("copies keep to what was granted too");
    attack_status("from what is another domain's", copy(OF_ANOTHER, 1, 0, 8), GNTST_general_error);
    attack_status("into what is granted for reading", copy(READABLE, 0, 0, 8), GNTST_general_error);
    attack_status("across the page's end", copy(READABLE, 1, 4090, 8), GNTST_bad_copy_arg);
    twin_status("from it", copy(READABLE, 1, 4088, 8));
    twin_status("into what is granted for writing", copy(WRITABLE, 0, 0, 8));
    twin_is("it is there", (s64)page[0], 0);
}

static void frames(struct grant_map m)
{
    u64 frame, *own = page_alloc(), *table = page_alloc();
    struct grant_map device = map(0, GNTMAP_device_map, WRITABLE);
    twin_status("map for a device, which tells the frame", device.status);
    frame = device.dev_bus_addr >> 12;
    rule("a granted frame is mapped by the grant, and by nothing else");
    attack("an entry for it, as our own", set(second, frame << 12 | PTE_P | PTE_RW, DOMID_SELF), -EBUSY);
    attack("an entry for it, read-only", set(second, frame << 12 | PTE_P, DOMID_SELF), -EBUSY);
    attack("an entry for it, as the granter's", set(second, frame << 12 | PTE_P | PTE_RW, peer), -EPERM);
    twin("an entry for a frame of ours", set(second, mfn_of(own) << 12 | PTE_P | PTE_RW, DOMID_SELF));
    rule("a frame of another domain is no page table of ours, and nothing that we can give away");
    attack("pinned as an L1", mmuext(MMUEXT_PIN_L1_TABLE, 0, frame), -EINVAL);
    table[0] = frame << 12 | PTE_P | PTE_RW;
    check(page_readonly(table) == 0);
    attack("in an L1 that is pinned", pin(1, table), -EBUSY);
    check(page_writable(table) == 0);
    table[0] = 0;
    check(page_readonly(table) == 0);
    twin("that L1 without it", pin(1, table));
    twin("unpin it", unpin(table));
    struct xen_memory_reservation give = {&frame, 1, 0, 0, DOMID_SELF};
    stays("decrease_reservation takes none", xen_memory_op(XENMEM_decrease_reservation, &give) == 0);
    twin_status("unmap for the device", grant_unmap(0, device.dev_bus_addr, device.handle));
    twin_status("unmap", grant_unmap(at(page), 0, m.handle));
    TRY("movq (%0), %%rax", : : "r"(page) : "rax", "memory");
    attack_faults("read it", 14, 0);
    attack_status("unmap again", grant_unmap(at(page), 0, m.handle), GNTST_bad_handle);
}

static void events(void)
{
    struct evtchn_bind_interdomain b = {peer, OFFERED_PORT + 1, 0};
    rule("an event channel is bound to what was offered to us, once");
    attack("a port that is free", xen_event_channel_op(EVTCHNOP_bind_interdomain, &b), -EINVAL);
    b.remote_port = 1;
    attack("a port that is bound to Domain 0", xen_event_channel_op(EVTCHNOP_bind_interdomain, &b), -EINVAL);
    b.remote_port = OFFERED_PORT;
    twin("the port that was offered", xen_event_channel_op(EVTCHNOP_bind_interdomain, &b));
    attack("again", xen_event_channel_op(EVTCHNOP_bind_interdomain, &b), -EINVAL);
    struct evtchn_status s = {.dom = peer, .port = OFFERED_PORT};
    attack("the state of the granter's port", xen_event_channel_op(EVTCHNOP_status, &s), -EPERM);
    struct evtchn_alloc_unbound a = {peer, DOMID_SELF, 0};
    attack("a port in the granter", xen_event_channel_op(EVTCHNOP_alloc_unbound, &a), -EPERM);
}

void guest_main(void)
{
    page = page_alloc(), second = page_alloc();
    if (starts_with(start_info->cmd_line, "grant"))
        grant();
    peer = own_domid() - 1;
    check(map_page(at(page), 0) == 0 && map_page(at(second), 0) == 0);
    struct grant_map m = references();
    copies();
    frames(m);
    events();
}
