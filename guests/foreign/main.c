/* The page-table hypercalls about other domains and other kinds of frames, and arguments from the edge. */
#include "guest.h"

const char guest_name[] = "foreign";

#define MMIO 0xfee00000UL
#define UNTOUCHED 99

static u64 *l1;
static char *page;

static s64 raw_mmu_update(void *list, u32 count, u32 *done, u32 domains)
{
    return H4(__HYPERVISOR_mmu_update, list, count, done, domains);
}

static s64 raw_mmuext_op(void *list, u32 count, u32 *done, u32 domain)
{
    return H4(__HYPERVISOR_mmuext_op, list, count, done, domain);
}

/* Our own number: the one domain whose reservation we may ask for. */
static u16 own_number(void)
{
    for (u16 n = 0; n < 1000; n++) {
        u16 asked = n;
        if (xen_memory_op(XENMEM_current_reservation, &asked) > 0)
            return n;
    }
    return 0xffff;
}

static void updates(const char *whose, u32 domains)
{
    u64 good = mfn_of(page) << 12 | PTE_P;
    struct mmu_update entry = {machine_of(&l1[1]) | MMU_NORMAL_PT_UPDATE, good};
    struct mmu_update none = {machine_of(&l1[1]) | MMU_NORMAL_PT_UPDATE, 0};
    struct mmu_update m2p_one = {machine_of(page) | MMU_MACHPHYS_UPDATE, m2p[mfn_of(page)]};
    struct mmu_update bad = {machine_of(&l1[1]) | 5, good};
    struct mmu_update *all[] = {&entry, &none, &m2p_one, &bad};
    printf("mmu_update, %s:", whose);
    for (u32 i = 0; i < ARRAY_SIZE(all); i++) {
        u32 done = UNTOUCHED;
        s64 rc = raw_mmu_update(all[i], 1, &done, domains);
        printf(" %s (%u)", error_name(rc), done);
    }
    u32 done = UNTOUCHED;
    s64 rc = raw_mmu_update(&entry, 0, &done, domains);
    printf(", no entries %s (%u)", error_name(rc), done);
    done = UNTOUCHED;
    rc = raw_mmu_update((void *)0x12345000, 1, &done, domains);
    printf(", unmapped list %s (%u)", error_name(rc), done);
    done = UNTOUCHED;
    rc = raw_mmu_update((void *)0xffff830000000000, 1, &done, domains);
    printf(", Xen's list %s (%u)\n", error_name(rc), done);
}

static void operations(const char *whose, u32 domain)
{
    static const u32 commands[] = {MMUEXT_PIN_L1_TABLE,   MMUEXT_UNPIN_TABLE,    MMUEXT_NEW_USER_BASEPTR,
                                   MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_INVLPG_ALL,    MMUEXT_FLUSH_CACHE,
                                   MMUEXT_SET_LDT,        MMUEXT_CLEAR_PAGE,     MMUEXT_MARK_SUPER, 77};
    printf("mmuext_op, %s:", whose);
    for (u32 i = 0; i < ARRAY_SIZE(commands); i++) {
        u32 done = UNTOUCHED;
        struct mmuext_op op = {commands[i], 0, 0};
        if (commands[i] == MMUEXT_PIN_L1_TABLE || commands[i] == MMUEXT_UNPIN_TABLE || commands[i] == MMUEXT_CLEAR_PAGE)
            op.arg1 = mfn_of(page);
        s64 rc = raw_mmuext_op(&op, 1, &done, domain);
        printf(" %s (%u)", error_name(rc), done);
    }
    u32 done = UNTOUCHED;
    s64 rc = raw_mmuext_op((void *)0x12345000, 1, &done, domain);
    printf(", unmapped list %s (%u)", error_name(rc), done);
    done = UNTOUCHED;
    rc = raw_mmuext_op((void *)0xffff830000000000, 1, &done, domain);
    printf(", Xen's list %s (%u)\n", error_name(rc), done);
}

static void addresses(const char *whose, u16 domain)
{
    u64 va = (u64)page;
    printf("update_va_mapping_otherdomain, %s: %s", whose,
           error_name(H4(__HYPERVISOR_update_va_mapping_otherdomain, va, machine_of(page) | PTE_P | PTE_RW, 0, domain)));
    printf(", not present %s", error_name(H4(__HYPERVISOR_update_va_mapping_otherdomain, va, 0, UVMF_INVLPG, domain)));
    printf(", back %s\n", error_name(page_writable(page)));
}

static void mapped_frames(void)
{
    static const u64 values[] = {MMIO | PTE_P, MMIO | PTE_P | PTE_RW, PTE_ADDR | PTE_P, (PTE_ADDR & ~0x1000UL) | PTE_P,
                                 0xfffffffUL << 12 | PTE_P};
    struct mmu_update update = {machine_of(&l1[2]) | MMU_NORMAL_PT_UPDATE, 0};
    for (u32 i = 0; i < ARRAY_SIZE(values); i++) {
        update.val = values[i];
        printf("%016lx: %s", values[i], error_name(xen_mmu_update(&update, 1, 0, DOMID_SELF)));
        printf(", as I/O %s", error_name(xen_mmu_update(&update, 1, 0, DOMID_IO)));
        printf(", by address %s\n", error_name(map_page((u64)page, values[i])));
    }
    check(page_writable(page) == 0);
}

static void continuations(void)
{
    struct mmu_update update = {machine_of(&l1[1]) | MMU_NORMAL_PT_UPDATE, 0};
    u32 done = 40;
    printf("a null continuation answers %ld %ld\n", raw_mmu_update(0, 0x80000000, &done, 5),
           raw_mmuext_op(0, 0x80000000, &done, -7));
    s64 rc = raw_mmu_update(&update, 0x80000001, &done, DOMID_SELF);
    printf("one that goes on: %s, done %u\n", error_name(rc), done);
    rc = raw_mmu_update(&update, 0x80000001, (u32 *)0x12345000, DOMID_SELF);
    printf("with its count unmapped: %s\n", error_name(rc));
    rc = raw_mmu_update(&update, 0x80000000, &done, DOMID_SELF);
    printf("with nothing to do: %s, done %u\n", error_name(rc), done);
    rc = raw_mmu_update(&update, 1, (u32 *)0x12345000, DOMID_SELF);
    printf("count unmapped: %s\n", error_name(rc));
}

static void flushes(void)
{
    u64 value = machine_of(page) | PTE_P | PTE_RW;
    u64 bitmap[2] = {1, 0};
    static const u64 targets[] = {0, UVMF_ALL, 0x12345000, 0xffff830000000000};
    for (u32 i = 0; i < ARRAY_SIZE(targets); i++)
        for (u64 kind = 0; kind < 4; kind++) {
            printf("flush %lu of %lx: %s", kind, targets[i],
                   error_name(xen_update_va_mapping((u64)page, value, targets[i] | kind)));
            printf(", refused entry %s\n",
                   error_name(xen_update_va_mapping((u64)page, value | PTE_PCD, targets[i] | kind)));
        }
    expect_result("bitmap", xen_update_va_mapping((u64)page, value, (u64)bitmap | UVMF_TLB_FLUSH), 0);
    expect_result("nobody's bitmap", xen_update_va_mapping((u64)page, value, (u64)&bitmap[1] | UVMF_INVLPG), 0);
    printf("no table: %s\n", error_name(xen_update_va_mapping(0x12345000, value, UVMF_TLB_FLUSH | 0x12345000)));
    printf("Xen's address: %s\n", error_name(xen_update_va_mapping(0xffff830000000000, value, 0)));
    printf("the machine-to-phys table: %s\n", error_name(xen_update_va_mapping(MACH2PHYS_VIRT_START, value, 0)));
    printf("no address: %s\n", error_name(xen_update_va_mapping(1UL << 62, value, 0)));
}

void guest_main(void)
{
    u16 self = own_number();
    l1 = table_alloc();
    page = page_alloc();
    check(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(l1), 0) == 0);
    if (!is_domU()) {
        printf("for a domU\n");
        return;
    }
    updates("self", DOMID_SELF);
    updates("self by number", self);
    updates("domain 0", 0);
    updates("domain 999", 999);
    updates("I/O", DOMID_IO);
    updates("Xen", DOMID_XEN);
    updates("invalid", 0x7ff4);
    updates("tables of self by number", (self + 1u) << 16 | DOMID_SELF);
    updates("tables of self", (DOMID_SELF + 1u) << 16 | DOMID_SELF);
    updates("tables of domain 0", 1u << 16 | DOMID_SELF);
    updates("tables of domain 999", 1000u << 16 | DOMID_SELF);
    operations("self", DOMID_SELF);
    operations("self by number", self);
    operations("domain 0", 0);
    operations("domain 999", 999);
    operations("I/O", DOMID_IO);
    operations("Xen", DOMID_XEN);
    addresses("self", DOMID_SELF);
    addresses("self by number", self);
    addresses("domain 0", 0);
    addresses("domain 999", 999);
    addresses("I/O", DOMID_IO);
    addresses("Xen", DOMID_XEN);
    mapped_frames();
    continuations();
    flushes();
}
