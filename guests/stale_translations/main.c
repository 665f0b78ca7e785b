/*
 * A translation that was legal must not outlive its frame's change of type or owner. Every entry below is changed
 * without asking for a flush, after the address was used, so that a processor may still hold the old translation.
 */
#include "attack.h"

const char guest_name[] = "stale_translations";

static int write_to(void *va)
{
    return TRY("movq $0, (%0)", ::"r"(va) : "memory");
}

static s64 quietly(void *va, u64 pte)
{
    return xen_update_va_mapping((u64)va, pte, UVMF_NONE);
}

static void before_pin(void)
{
    rule("a page that was written before it became a table cannot be written by the old translation: #PF");
    for (int level = 1; level <= 4; level++) {
        u64 *page = page_alloc();
        char label[48];
        write_to(page);
        twin_runs("write while it is memory");
        check(quietly(page, mfn_of(page) << 12 | PTE_P) == 0);
        check(pin(level, page) == 0);
        write_to(page);
        snprintf(label, sizeof(label), "write after it is an L%d", level);
        attack_faults(label, 14, 3);
        check(unpin(page) == 0);
        check(page_writable(page) == 0);
        write_to(page);
        twin_runs("write when it is memory again");
    }
}

static void by_an_entry(void)
{
    u64 *l1 = page_alloc();
    u64 va = 0x600000000000;
    map_in(kernel_l4, va, mfn_of(page_alloc()) << 12 | PTE_P | PTE_RW);
    rule("the same when it becomes a table by an entry that names it, or a descriptor table");
    write_to(l1);
    twin_runs("write while it is memory");
    check(quietly(l1, mfn_of(l1) << 12 | PTE_P) == 0);
    check(set_entry(entry_of(va + (1UL << 21), 2), mfn_of(l1) << 12 | PTE_TABLE) == 0);
    write_to(l1);
    attack_faults("write after an L2 names it", 14, 3);
    u64 *gdt = page_alloc(), frame = mfn_of(gdt);
    write_to(gdt);
    twin_runs("write while it is memory");
    check(quietly(gdt, frame << 12 | PTE_P) == 0);
    check(H2(__HYPERVISOR_set_gdt, &frame, 512) == 0);
    write_to(gdt);
    attack_faults("write after it is a GDT", 14, 3);
    check(H2(__HYPERVISOR_set_gdt, &frame, 0) == 0);
}

#define SOME 16

/*
 * A frame that was given back is nobody's, and until it is somebody's again an old translation does no harm: Xen
 * flushes when it gives the frame out. So what counts is that nothing written through one ever shows.
 */
static void given_back(void)
{
    u64 *pages[SOME], frames[SOME], first, hurt = 0;
    struct xen_memory_reservation r = {frames, SOME, 0, 0, DOMID_SELF};
    rule("nothing can be written to a frame that was given back, when it is in use again");
    u64 *windows[SOME];
    for (int i = 0; i < SOME; i++) {
        pages[i] = page_alloc(), windows[i] = page_alloc();
        frames[i] = mfn_of(pages[i]);
        write_to(pages[i]);
        check(fault.vector < 0);
    }
    first = ((u64)pages[0] - VIRT_BASE) >> 12;
    for (int i = 0; i < SOME; i++)
        check(quietly(pages[i], 0) == 0);
    twin_is("decrease_reservation of all", xen_memory_op(XENMEM_decrease_reservation, &r), SOME);
    for (int i = 0; i < SOME; i++)
        frames[i] = ((u64)pages[i] - VIRT_BASE) >> 12;
    twin_is("populate_physmap of all", xen_memory_op(XENMEM_populate_physmap, &r), SOME);
    for (int i = 0; i < SOME; i++) {
        p2m[((u64)pages[i] - VIRT_BASE) >> 12] = frames[i];
        check(map_page((u64)windows[i], frames[i] << 12 | PTE_P | PTE_RW) == 0);
        windows[i][0] = 0x1234567;
    }
    for (int i = 0; i < SOME; i++) /* whether these fault is not told: their frames may be nobody's */
        write_to(pages[i]);
    for (int i = 0; i < SOME; i++)
        hurt += windows[i][0] != 0x1234567;
    stays("what is in the new frames", hurt == 0);
    check(mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0) == 0);
    write_to(pages[0]);
    attack_faults("write to the old address after a flush", 14, 2);
    check(m2p[frames[0]] == first);
    for (int i = 0; i < SOME; i++)
        check(page_writable(pages[i]) == 0);
    write_to(pages[0]);
    twin_runs("write to the new frame there");
}

static void exchanged(void)
{
    u64 *page = page_alloc(), in = mfn_of(page), pfn = ((u64)page - VIRT_BASE) >> 12, out = pfn;
    struct {
        struct xen_memory_reservation in, out;
        u64 nr_exchanged;
    } e = {{&in, 1, 0, 0, DOMID_SELF}, {&out, 1, 0, 0, DOMID_SELF}, 0};
    u64 *window = page_alloc();
    rule("nor to one that was exchanged, when it comes back by another exchange");
    for (int turn = 0; turn < 8; turn++) {
        write_to(page);
        check(fault.vector < 0);
        check(quietly(page, 0) == 0);
        in = p2m[pfn], out = pfn, e.nr_exchanged = 0;
        check(xen_memory_op(XENMEM_exchange, &e) == 0);
        p2m[pfn] = out;
        check(map_page((u64)window, out << 12 | PTE_P | PTE_RW) == 0);
        window[0] = 0x1234567;
        write_to(page);
        check(window[0] == 0x1234567);
        check(map_page((u64)window, 0) == 0);
        check(page_writable(page) == 0);
    }
    stays("what is in the new frame, eight times", failures == 0);
    write_to(page);
    twin_runs("write to the last one");
}

static void tables_in_between(void)
{
    u64 *page = page_alloc(), *l1 = table_alloc(), *l2 = table_alloc(), *l3 = table_alloc();
    u64 *tables[] = {l1, l2, l3};
    u64 va = 0x610000000000;
    check(set_entry(entry_of(va, 4), 0) == 0);
    check(pin(3, l3) == 0 && pin(2, l2) == 0 && pin(1, l1) == 0);
    rule("a freed page table is no longer walked: an address that went through it faults");
    for (int level = 1; level <= 3; level++) {
        u64 *above[] = {l2, l3, (u64 *)kernel_l4};
        char label[64];
        check(set_entry(l1, mfn_of(page) << 12 | PTE_P | PTE_RW) == 0);
        check(set_entry(l2, mfn_of(l1) << 12 | PTE_TABLE) == 0);
        check(set_entry(l3, mfn_of(l2) << 12 | PTE_TABLE) == 0);
        check(set_entry((u64 *)kernel_l4 + (va >> 39 & 511), mfn_of(l3) << 12 | PTE_TABLE) == 0);
        snprintf(label, sizeof(label), "write through the L%d", level);
        write_to((void *)va);
        twin_runs(label);
        u64 *entry = level == 3 ? above[2] + (va >> 39 & 511) : above[level - 1];
        u64 *freed = tables[level - 1];
        check(set_entry(entry, 0) == 0);
        check(unpin(freed) == 0);
        check(page_writable(freed) == 0);
        for (int i = 0; i < 512; i++)
            freed[i] = 0; /* memory now: nothing written to it may be followed */
        freed[0] = mfn_of((void *)kernel_l4) << 12 | PTE_P | PTE_RW;
        snprintf(label, sizeof(label), "write after the L%d is memory", level);
        write_to((void *)va);
        attack_faults(label, 14, 2);
        freed[0] = 0;
        check(page_readonly(freed) == 0);
        check(pin(level, freed) == 0);
    }
}

static void other_tables(void)
{
    u64 *fresh = page_alloc(), own = mfn_of((void *)kernel_l4), va = 0x620000000000;
    u64 *page = page_alloc();
    map_in(kernel_l4, va, mfn_of(page) << 12 | PTE_P | PTE_RW);
    memcpy(fresh, (void *)kernel_l4, PAGE_SIZE);
    for (int i = 256; i < 272; i++)
        fresh[i] = 0;
    fresh[va >> 39 & 511] = 0;
    check(page_readonly(fresh) == 0);
    check(pin(4, fresh) == 0);
    rule("another base pointer shows its own tables and no old translation: #PF");
    write_to((void *)va);
    twin_runs("write under the tables that map it");
    check(mmuext(MMUEXT_NEW_BASEPTR, mfn_of(fresh), 0) == 0);
    write_to((void *)va);
    int vector = fault.vector;
    u64 error = fault.error;
    check(mmuext(MMUEXT_NEW_BASEPTR, own, 0) == 0);
    fault.vector = vector, fault.error = error;
    attack_faults("write under those that do not", 14, 2);
    write_to((void *)va);
    twin_runs("write under the first again");
}

void guest_main(void)
{
    before_pin();
    by_an_entry();
    given_back();
    exchanged();
    tables_in_between();
    other_tables();
}
