/* The other memory operations: orders, counts and wrap-arounds, address limits, and who may have how much. */
#include "attack.h"

const char guest_name[] = "reservation_bounds";

static u64 list[520];
static char *page;
static u64 pfn;

static struct xen_memory_reservation one(u32 order)
{
    list[0] = pfn;
    return (struct xen_memory_reservation){list, 1, order, 0, DOMID_SELF};
}

static s64 size(void)
{
    u16 self = DOMID_SELF;
    return xen_memory_op(XENMEM_current_reservation, &self);
}

static s64 go(u32 op, struct xen_memory_reservation r)
{
    return xen_memory_op(op, &r);
}

static void give_page(void)
{
    check(map_page((u64)page, 0) == 0);
    struct xen_memory_reservation r = one(0);
    list[0] = p2m[pfn];
    check(go(XENMEM_decrease_reservation, r) == 1);
}

static void take_page(const char *label)
{
    struct xen_memory_reservation r = one(0);
    twin_is(label, go(XENMEM_populate_physmap, r), 1);
    p2m[pfn] = list[0];
    check(page_writable(page) == 0);
}

static void orders(void)
{
    static const u32 bad[] = {10, 18, 19, 20, 31, 32, 63, 64, 0x80000000, 0xffffffff};
    s64 before = size();
    rule("an extent is of no order above the guest's limit: nothing is done");
    for (u64 i = 0; i < ARRAY_SIZE(bad); i++) {
        char label[48];
        snprintf(label, sizeof(label), "populate, order %u", bad[i]);
        attack(label, go(XENMEM_populate_physmap, one(bad[i])), 0);
        snprintf(label, sizeof(label), "increase, order %u", bad[i]);
        attack(label, go(XENMEM_increase_reservation, one(bad[i])), 0);
        snprintf(label, sizeof(label), "decrease, order %u", bad[i]);
        struct xen_memory_reservation r = one(bad[i]);
        list[0] = p2m[pfn];
        attack(label, go(XENMEM_decrease_reservation, r), 0);
    }
    stays("the reservation", size() == before && m2p[p2m[pfn]] == pfn);
    give_page();
    stays("one page less", size() == before - 1);
    take_page("populate, order 0");
    stays("the reservation", size() == before);
}

static void counts(void)
{
    static const u64 many[] = {1UL << 58, 1UL << 61, 1UL << 63, ~0UL};
    s64 before = size();
    rule("counts whose lists do not fit the guest's memory are refused before the first extent");
    for (u64 i = 0; i < ARRAY_SIZE(many); i++) {
        struct xen_memory_reservation r = one(0);
        char label[64];
        r.nr_extents = many[i];
        snprintf(label, sizeof(label), "populate %lx extents", many[i]);
        attack(label, go(XENMEM_populate_physmap, r), 0);
        snprintf(label, sizeof(label), "decrease %lx extents", many[i]);
        attack(label, go(XENMEM_decrease_reservation, r), 0);
    }
    struct xen_memory_reservation r = one(0);
    r.extent_start = (u64 *)0xffff830000000000;
    attack("populate, list in the hypervisor's range", go(XENMEM_populate_physmap, r), 0);
    attack("decrease, list in the hypervisor's range", go(XENMEM_decrease_reservation, r), 0);
    attack("increase, list in the hypervisor's range", go(XENMEM_increase_reservation, r), 0);
    r = one(0), r.extent_start = (u64 *)0x7fffffffeffc, r.nr_extents = 2;
    attack("decrease, list across the end of the lower half", go(XENMEM_decrease_reservation, r), 0);
    r = one(0);
    attack("start beyond the count", xen_memory_op(XENMEM_populate_physmap | 2 << 6, &r), 2);
    attack("the greatest start", xen_memory_op(XENMEM_populate_physmap | 0xffffffc0, &r), 0x3ffffff);
    stays("the reservation", size() == before);
    r = one(0);
    twin_is("populate one that starts at the count", xen_memory_op(XENMEM_populate_physmap | 1 << 6, &r), 1);
    stays("the reservation", size() == before);
}

static void flags(void)
{
    s64 before = size();
    struct xen_memory_reservation r;
    rule("memory flags of others' trade: populate on demand is not for PV, nodes and address limits are bounded");
    give_page();
    r = one(0), r.mem_flags = 1 << 16;
    attack("populate on demand", go(XENMEM_populate_physmap, r), 0);
    stays("one page less", size() == before - 1);
    r = one(0), r.mem_flags = 1;
    attack("frames below 2 bytes", go(XENMEM_populate_physmap, r), 0);
    r = one(0), r.mem_flags = 12;
    attack("frames below 4 KiB", go(XENMEM_populate_physmap, r), 0);
    r = one(0), r.mem_flags = (200 + 1) << 8 | 1 << 17;
    attack("exactly node 200", go(XENMEM_populate_physmap, r), 0);
    stays("one page less", size() == before - 1);
    r = one(0), r.mem_flags = 64;
    s64 result = go(XENMEM_populate_physmap, r);
    twin_is("frames below 2^64", result, 1);
    p2m[pfn] = list[0];
    check(page_writable(page) == 0);
    stays("the reservation", size() == before);
}

static void limit(void)
{
    u16 self = DOMID_SELF;
    s64 most = xen_memory_op(XENMEM_maximum_reservation, &self), before = size(), got = 0;
    static u64 taken[600];
    rule("no operation takes a guest beyond its limit");
    give_page(); /* so that there is room, whatever the limit */
    before = size();
    while (got < 600) {
        struct xen_memory_reservation r = one(0);
        if (go(XENMEM_increase_reservation, r) != 1)
            break;
        taken[got++] = list[0];
    }
    stays("the limit is reached exactly", before + got == most && size() == most);
    attack("increase", go(XENMEM_increase_reservation, one(0)), 0);
    attack("populate", go(XENMEM_populate_physmap, one(0)), 0);
    attack("increase, order 3", go(XENMEM_increase_reservation, one(3)), 0);
    struct {
        struct xen_memory_reservation in, out;
        u64 nr_exchanged;
    } e = {one(0), one(0), 0};
    static u64 pfns[8];
    pfns[0] = pfn;
    list[0] = taken[0];
    e.out.extent_start = pfns;
    twin("an exchange takes no more", xen_memory_op(XENMEM_exchange, &e));
    taken[0] = pfns[0];
    stays("the limit", size() == most);
    struct xen_memory_reservation all = {taken, (u64)got, 0, 0, DOMID_SELF};
    stays("all taken can be given back", go(XENMEM_decrease_reservation, all) == got);
    stays("the reservation", size() == before);
    attack("decrease of the same again", go(XENMEM_decrease_reservation, all), 0);
    stays("the reservation", size() == before);
    take_page("populate, when there is room");
}

static void others(void)
{
    struct xen_memory_reservation r = one(0);
    s64 before = size();
    rule("no guest changes another domain's memory: nothing is done");
    r.domid = 0;
    attack("populate for domain 0", go(XENMEM_populate_physmap, r), 0);
    attack("increase for domain 0", go(XENMEM_increase_reservation, r), 0);
    attack("decrease for domain 0", go(XENMEM_decrease_reservation, r), 0);
    r.domid = DOMID_IO;
    attack("decrease for DOMID_IO", go(XENMEM_decrease_reservation, r), 0);
    r.domid = DOMID_XEN;
    attack("decrease for DOMID_XEN", go(XENMEM_decrease_reservation, r), 0);
    r = one(0), list[0] = mfn_of((void *)kernel_l4);
    s64 same = list[0];
    attack("decrease of the L4 in use", go(XENMEM_decrease_reservation, r), 1);
    stays("it is a table, and ours to map", map_page((u64)page, (u64)same << 12 | PTE_P | PTE_RW) == -EBUSY);
    printf("  the reservation changed by %ld\n", size() - before);
}

void guest_main(void)
{
    page = page_alloc();
    pfn = ((u64)page - VIRT_BASE) >> 12;
    orders();
    counts();
    flags();
    limit();
    others();
}
