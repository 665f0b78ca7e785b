/* Using grants: map, unmap and copy, with a grant that the domain gives to itself, and every status. */
#include "grant.h"

const char guest_name[] = "grant_use";

static struct grant_entry_v1 *table;
static u16 self; /* our domain's number, never printed */
static char *page, *window;

static s64 op(u32 cmd, void *arg, u32 count)
{
    return H3(__HYPERVISOR_grant_table_op, cmd, arg, count);
}

static void find_self(void)
{
    struct evtchn_alloc_unbound a = {DOMID_SELF, DOMID_SELF, 0};
    struct evtchn_status s = {.dom = DOMID_SELF};
    check(xen_event_channel_op(EVTCHNOP_alloc_unbound, &a) == 0);
    struct evtchn_bind_interdomain b = {DOMID_SELF, a.port, 0};
    check(xen_event_channel_op(EVTCHNOP_bind_interdomain, &b) == 0);
    s.port = b.local_port;
    check(xen_event_channel_op(EVTCHNOP_status, &s) == 0);
    self = s.u.interdomain.dom;
}

static void set_up(void)
{
    static u64 list[1];
    struct {
        u16 dom;
        u32 nr_frames;
        signed short status;
        u64 *frame_list;
    } s = {DOMID_SELF, 1, 0, list};
    check(op(GNTTABOP_setup_table, &s, 1) == 0 && s.status == 0);
    table = page_alloc();
    check(map_page((u64)table, list[0] << 12 | PTE_P | PTE_RW) == 0);
    page = page_alloc();
    window = page_alloc();
    check(map_page((u64)window, 0) == 0);
}

static void grant(u32 ref, u16 flags, u64 frame)
{
    table[ref].flags = 0;
    table[ref].domid = self;
    table[ref].frame = (u32)frame;
    table[ref].flags = flags;
}

static struct grant_map try_map(u64 address, u32 flags, u32 ref, u16 dom)
{
    struct grant_map m = {address, flags, ref, dom, 99, 0, 0};
    s64 result = op(GNTTABOP_map_grant_ref, &m, 1);
    check(result == 0);
    return m;
}

static signed short try_unmap(u64 address, u32 handle)
{
    struct grant_unmap u = {address, 0, handle, 99};
    check(op(GNTTABOP_unmap_grant_ref, &u, 1) == 0);
    return u.status;
}

static void show_unmap(const char *label, u32 handle)
{
    signed short status = try_unmap((u64)window, handle);
    printf("%s: status %d, entry flags %x, pte %lx\n", label, status, table[10].flags, *pte_of((u64)window));
}

static void mapping(void)
{
    grant(10, GTF_permit_access, mfn_of(page));
    page[3] = 33;
    struct grant_map m = try_map((u64)window, GNTMAP_host_map, 10, self);
    printf("map: status %d, entry flags %x, pte %lx\n", m.status, table[10].flags,
           *pte_of((u64)window) & 0xfff0000000000fffUL);
    printf("reads %d\n", window[3]);
    check(m.status == 0 && window[3] == 33);
    window[4] = 44;
    printf("written through it: %d\n", page[4]);
    struct grant_map second = try_map((u64)window, GNTMAP_host_map, 10, self);
    printf("mapped over itself: status %d\n", second.status);
    show_unmap("unmap the second", second.handle);
    printf("unmap at another address: status %d\n", try_unmap((u64)table, m.handle));
    show_unmap("unmap", m.handle);
    printf("unmap again: status %d\n", try_unmap((u64)window, m.handle));

    m = try_map((u64)window, GNTMAP_host_map | GNTMAP_readonly, 10, self);
    printf("map read-only: status %d, entry flags %x, pte %lx\n", m.status, table[10].flags,
           *pte_of((u64)window) & 0xfff0000000000fffUL);
    TRY("movb $1, (%0)", ::"r"(window));
    printf("write: %s(%lx)\n", vector_name(fault.vector), fault.error);
    show_unmap("unmap", m.handle);
    grant(11, GTF_permit_access | GTF_readonly, mfn_of(page));
    printf("writable map of a read-only grant: status %d\n", try_map((u64)window, GNTMAP_host_map, 11, self).status);
    m = try_map((u64)window, GNTMAP_host_map | GNTMAP_readonly, 11, self);
    printf("read-only map of it: status %d\n", m.status);
    try_unmap((u64)window, m.handle);
    m = try_map(machine_of(pte_of((u64)window)), GNTMAP_host_map | GNTMAP_contains_pte, 10, self);
    printf("map by the entry's address: status %d, reads %d\n", m.status, m.status == 0 ? window[3] : 0);
    printf("unmap: status %d\n", try_unmap(machine_of(pte_of((u64)window)), m.handle));
    /* A mapping that the guest clears by itself keeps the grant in use: this one is never given back. */
    grant(17, GTF_permit_access, mfn_of(page_alloc()));
    m = try_map((u64)window, GNTMAP_host_map, 17, self);
    printf("clearing a mapping by hand: %s\n", error_name(map_page((u64)window, 0)));
    signed short status = try_unmap((u64)window, m.handle);
    printf("unmap: status %d, entry flags %x\n", status, table[17].flags);
}

static void map_refusals(void)
{
    printf("reference beyond the table: %d\n", try_map((u64)window, GNTMAP_host_map, 100000, self).status);
    printf("empty entry: %d\n", try_map((u64)window, GNTMAP_host_map, 12, self).status);
    printf("no such domain: %d\n", try_map((u64)window, GNTMAP_host_map, 10, 999).status);
    printf("no kind of mapping: %d\n", try_map((u64)window, 0, 10, self).status);
    printf("address not mapped: %d\n", try_map(0x12345000, GNTMAP_host_map, 10, self).status);
    printf("address in Xen's range: %d\n", try_map(0xffff830000000000, GNTMAP_host_map, 10, self).status);
    grant(13, GTF_permit_access, 0xffffff);
    printf("no such frame: %d\n", try_map((u64)window, GNTMAP_host_map, 13, self).status);
    grant(14, GTF_permit_access, mfn_of((void *)kernel_l4));
    printf("a page table: %d\n", try_map((u64)window, GNTMAP_host_map, 14, self).status);
    printf("  read-only: %d\n", try_map((u64)window, GNTMAP_host_map | GNTMAP_readonly, 14, self).status);
    grant(15, GTF_permit_access, mfn_of(page));
    table[15].domid = 77;
    printf("granted to another domain: %d\n", try_map((u64)window, GNTMAP_host_map, 15, self).status);
    grant(16, GTF_accept_transfer, 0);
    printf("a transfer entry: %d\n", try_map((u64)window, GNTMAP_host_map, 16, self).status);
    printf("unmap a handle that is none: %d\n", try_unmap((u64)window, 12345));
}

static signed short copy(struct grant_copy_end source, struct grant_copy_end dest, u16 len, u16 flags)
{
    struct grant_copy c = {source, dest, len, flags, 99};
    s64 result = op(GNTTABOP_copy, &c, 1);
    check(result == 0);
    return c.status;
}

static void copying(void)
{
    char *from = page_alloc(), *to = page_alloc();
    for (int i = 0; i < 4096; i++)
        from[i] = (char)i;
    struct grant_copy_end frame_from = {mfn_of(from), DOMID_SELF, 16}, frame_to = {mfn_of(to), DOMID_SELF, 100};
    grant(20, GTF_permit_access, mfn_of(from));
    grant(21, GTF_permit_access, mfn_of(to));
    grant(22, GTF_permit_access | GTF_readonly, mfn_of(to));
    struct grant_copy_end ref_from = {20, self, 16}, ref_to = {21, self, 200}, ref_ro = {22, self, 300};
    signed short status = copy(frame_from, frame_to, 50, 0);
    printf("frame to frame: %d, right: %d\n", status, !memcmp(from + 16, to + 100, 50));
    status = copy(ref_from, frame_to, 50, GNTCOPY_source_gref);
    printf("grant to frame: %d\n", status);
    status = copy(frame_from, ref_to, 60, GNTCOPY_dest_gref);
    printf("frame to grant: %d, right: %d\n", status, !memcmp(from + 16, to + 200, 60) && !to[199] && !to[260]);
    status = copy(ref_from, ref_to, 60, GNTCOPY_source_gref | GNTCOPY_dest_gref);
    printf("grant to grant: %d, entry flags after: %x %x\n", status, table[20].flags, table[21].flags);
    printf("to a read-only grant: %d\n", copy(frame_from, ref_ro, 10, GNTCOPY_dest_gref));
    frame_to.offset = 4090;
    printf("across the page's end: %d\n", copy(frame_from, frame_to, 10, 0));
    frame_to.offset = 4096;
    printf("offset of a page: %d\n", copy(frame_from, frame_to, 0, 0));
    frame_to.offset = 0;
    printf("nothing: %d\n", copy(frame_from, frame_to, 0, 0));
    frame_to.u = 0xffffff;
    printf("to no frame: %d\n", copy(frame_from, frame_to, 10, 0));
    frame_to.u = mfn_of((void *)kernel_l4);
    printf("onto a page table: %d\n", copy(frame_from, frame_to, 10, 0));
    frame_to = (struct grant_copy_end){mfn_of(to), 0, 0};
    printf("frame of domain 0: %d\n", copy(frame_from, frame_to, 10, 0));
    ref_from.u = 100000;
    printf("reference beyond the table: %d\n", copy(ref_from, (struct grant_copy_end){mfn_of(to), DOMID_SELF, 0}, 10, 1));
    ref_from.u = 30;
    printf("empty entry: %d\n", copy(ref_from, (struct grant_copy_end){mfn_of(to), DOMID_SELF, 0}, 10, 1));
}

static void swapping(void)
{
    struct {
        u32 a, b;
        signed short status;
    } s = {20, 30, 99};
    printf("swap: %s", error_name(op(GNTTABOP_swap_grant_ref, &s, 1)));
    printf(" status %d, flags %x %x\n", s.status, table[20].flags, table[30].flags);
    s.b = 100000, s.status = 99;
    op(GNTTABOP_swap_grant_ref, &s, 1);
    printf("swap beyond the table: status %d\n", s.status);
    s.a = s.b = 30, s.status = 99;
    op(GNTTABOP_swap_grant_ref, &s, 1);
    printf("swap with itself: status %d\n", s.status);
}

static void lists(void)
{
    struct grant_map m[3];
    for (int i = 0; i < 3; i++)
        m[i] = (struct grant_map){(u64)window, GNTMAP_host_map, i == 1 ? 12U : 10U, self, 99, 0, 0};
    m[2].host_addr = 0x12345000;
    printf("a list with refusals: %s", error_name(op(GNTTABOP_map_grant_ref, m, 3)));
    printf(" %d %d %d\n", m[0].status, m[1].status, m[2].status);
    printf("unmap: %d\n", try_unmap((u64)window, m[0].handle));
    printf("the frame can be made read-only and pinned when nothing maps it: ");
    check(page_readonly(page) == 0);
    memset(m, 0, sizeof(m));
    printf("%s\n", error_name(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(page), 0)));
}

void guest_main(void)
{
    find_self();
    set_up();
    mapping();
    map_refusals();
    copying();
    swapping();
    page[3] = page[4] = 0; /* so that the page is good as an empty table */
    lists();
}
