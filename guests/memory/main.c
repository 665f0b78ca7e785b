/* memory_op: giving frames back and getting them, exchange, sizes, maps, and refusals. */
#include "guest.h"

const char guest_name[] = "memory";

static u64 list[4], list_out[4];

static struct xen_memory_reservation reservation(u64 count, u32 order)
{
    return (struct xen_memory_reservation){list, count, order, 0, DOMID_SELF};
}

static s64 current(void)
{
    u16 self = DOMID_SELF;
    return xen_memory_op(XENMEM_current_reservation, &self);
}

static void give_and_take(void)
{
    char *page = page_alloc();
    u64 pfn = ((u64)page - VIRT_BASE) >> 12, old = mfn_of(page);
    s64 before = current();
    page[0] = 55;
    list[0] = old;
    struct xen_memory_reservation r = reservation(1, 0);
    printf("decrease, still mapped: %s", error_name(xen_memory_op(XENMEM_decrease_reservation, &r)));
    printf(", reservation changed by %ld\n", current() - before);
    printf("the page reads %d\n", page[0]);
    check(map_page((u64)page, 0) == 0);
    printf("unmapped: reservation changed by %ld\n", current() - before);
    printf("machine-to-phys says no frame of ours: %d\n", m2p[old] != pfn);
    printf("mapping it again is refused: %d\n", map_page((u64)page, old << 12 | PTE_P | PTE_RW) < 0);
    printf("decrease again: %s\n", error_name(xen_memory_op(XENMEM_decrease_reservation, &r)));
    list[0] = pfn;
    expect_result("populate_physmap", xen_memory_op(XENMEM_populate_physmap, &r), 1);
    printf("reservation changed by %ld, machine-to-phys of the new frame is right: %d\n", current() - before,
           m2p[list[0]] == pfn);
    p2m[pfn] = list[0];
    expect_result("map the new frame", page_writable(page), 0);
    page[0] = 66; /* what it held before is not defined */
    check(page[0] == 66);
}

static void increase(void)
{
    s64 before = current();
    struct xen_memory_reservation r = reservation(1, 0);
    u16 self = DOMID_SELF;
    s64 most = xen_memory_op(XENMEM_maximum_reservation, &self);
    s64 room = most - before, got = 0;
    for (s64 i = 0; i < room && xen_memory_op(XENMEM_increase_reservation, &r) == 1; i++)
        got++;
    printf("room for increases is used up exactly: %d\n", got == room);
    printf("one more: %s\n", error_name(xen_memory_op(XENMEM_increase_reservation, &r)));
    list[0] = 5;
    printf("populate without room: %s\n", error_name(xen_memory_op(XENMEM_populate_physmap, &r)));
}

static void exchange(void)
{
    char *page = page_alloc();
    u64 pfn = ((u64)page - VIRT_BASE) >> 12, old = mfn_of(page);
    struct {
        struct xen_memory_reservation in, out;
        u64 nr_exchanged;
    } e;
    list[0] = old;
    list_out[0] = pfn;
    e.in = reservation(1, 0);
    e.out = reservation(1, 0);
    e.out.extent_start = list_out;
    e.nr_exchanged = 0;
    check(map_page((u64)page, 0) == 0);
    printf("exchange: %s", error_name(xen_memory_op(XENMEM_exchange, &e)));
    printf(", exchanged %lu\n", e.nr_exchanged);
    if (e.nr_exchanged) {
        p2m[pfn] = list_out[0];
        printf("machine-to-phys of the new frame is right: %d\n", m2p[list_out[0]] == pfn);
    }
    expect_result("map", page_writable(page), 0);
    e.in.nr_extents = 2;
    printf("unequal sizes: %s\n", error_name(xen_memory_op(XENMEM_exchange, &e)));
    e.in.nr_extents = 1;
    e.in.domid = 0;
    printf("for domain 0: %s\n", error_name(xen_memory_op(XENMEM_exchange, &e)));
}

static void facts(void)
{
    static struct {
        u64 addr, size;
        u32 type;
    } __attribute__((packed)) entries[8];
    struct {
        u32 nr_entries;
        void *buffer;
    } map = {8, entries};
    printf("memory_map: %s\n", error_name(xen_memory_op(XENMEM_memory_map, &map)));
    printf("entries: %u, the first of %lx from %lx, type %u\n", map.nr_entries, entries[0].size, entries[0].addr,
           entries[0].type);
    printf("machine_memory_map: %s\n", error_name(xen_memory_op(XENMEM_machine_memory_map, &map)));
    printf("maximum_ram_page is a number: %d\n", xen_memory_op(XENMEM_maximum_ram_page, 0) > 0x1000);
    u16 self = DOMID_SELF, other = 0, none = 999;
    s64 gpfn = xen_memory_op(XENMEM_maximum_gpfn, &self);
    printf("maximum_gpfn: %s\n", gpfn < 0 ? error_name(gpfn) : "a number");
    printf("current_reservation of domain 0: %s\n", error_name(xen_memory_op(XENMEM_current_reservation, &other)));
    printf("current_reservation of domain 999: %s\n", error_name(xen_memory_op(XENMEM_current_reservation, &none)));
    struct {
        u32 max_extents;
        u64 *extent_start;
        u32 nr_extents;
    } mfns = {4, list_out, 0};
    printf("machphys_mfn_list: %s\n", error_name(xen_memory_op(XENMEM_machphys_mfn_list, &mfns)));
}

static void refusals(void)
{
    struct xen_memory_reservation r = reservation(1, 0);
    r.domid = 999;
    printf("decrease for domain 999: %s\n", error_name(xen_memory_op(XENMEM_decrease_reservation, &r)));
    r.domid = 0;
    printf("decrease for domain 0: %s\n", error_name(xen_memory_op(XENMEM_decrease_reservation, &r)));
    r = reservation(1, 0);
    list[0] = 0xffffff;
    printf("decrease of no frame: %s\n", error_name(xen_memory_op(XENMEM_decrease_reservation, &r)));
    list[0] = mfn_of((void *)kernel_l4);
    printf("decrease of a page table: %s\n", error_name(xen_memory_op(XENMEM_decrease_reservation, &r)));
    printf("it is still ours: %d\n", m2p[list[0]] == (kernel_l4 - VIRT_BASE) >> 12);
    r = reservation(1, 20);
    printf("populate of order 20: %s\n", error_name(xen_memory_op(XENMEM_populate_physmap, &r)));
    r = reservation(1, 9);
    printf("populate of order 9: %s\n", error_name(xen_memory_op(XENMEM_populate_physmap, &r)));
    r = reservation(0, 0);
    printf("decrease of nothing: %s\n", error_name(xen_memory_op(XENMEM_decrease_reservation, &r)));
    r = reservation(1, 0);
    r.extent_start = (u64 *)0x12345000;
    printf("decrease, list not mapped: %s\n", error_name(xen_memory_op(XENMEM_decrease_reservation, &r)));
    for (u32 op = 0; op < 32; op++)
        if (op != XENMEM_maximum_ram_page)
            printf("operation %u, bad pointer: %s\n", op, error_name(xen_memory_op(op, (void *)0x12345000)));
    /* The number's upper bits say where a preempted call goes on; beyond the list it has nothing to do. */
    r = reservation(1, 0);
    printf("start beyond the list: %s\n", error_name(xen_memory_op(XENMEM_decrease_reservation | 5 << 6, &r)));
}

void guest_main(void)
{
    facts();
    give_and_take();
    exchange();
    increase();
    refusals();
}
