/* A changed flag of a present page-table entry is checked like a new entry, whichever way it is written. */
#include "attack.h"

const char guest_name[] = "flag_changes";

static s64 preserve_ad(const void *entry, u64 value)
{
    struct mmu_update update = {machine_of(entry) | MMU_PT_UPDATE_PRESERVE_AD, value};
    return xen_mmu_update(&update, 1, 0, DOMID_SELF);
}

/* An instruction that stores into the page table: Xen carries it out, or gives the page fault back. */
static int store(u64 *entry, u64 value)
{
    return TRY("movq %1, (%0)", ::"r"(entry), "r"(value) : "memory");
}

static void writable_bit_of_l1(void)
{
    u64 *table = table_alloc(), *entry = pte_of((u64)table);
    u64 seen = mfn_of(table) << 12 | PTE_P | PTE_A;
    check(pin(1, table) == 0);
    rule("a table's mapping does not become writable by a change of one bit: -EBUSY");
    twin("mmu_update, accessed bit", set_entry(entry, seen));
    attack("mmu_update, writable bit", set_entry(entry, seen | PTE_RW), -EBUSY);
    twin("preserve A and D, available bits", preserve_ad(entry, seen | 0xe00));
    attack("preserve A and D, writable bit", preserve_ad(entry, seen | 0xe00 | PTE_RW), -EBUSY);
    twin("update_va_mapping, no-execute bit", map_page((u64)table, seen | PTE_NX));
    attack("update_va_mapping, writable bit", map_page((u64)table, seen | PTE_RW), -EBUSY);
    store(entry, seen | PTE_D);
    twin_runs("store into the table, dirty bit");
    store(entry, seen | PTE_D | PTE_RW);
    attack_faults("store into the table, writable bit", 14, 3);
    TRY("lock btsq $1, (%0)", ::"r"(entry) : "memory");
    attack_faults("locked bit set, writable bit", 14, 3);
    TRY("lock btsq $9, (%0)", ::"r"(entry) : "memory");
    twin_runs("locked bit set, available bit");
    stays("the entry is read-only", !(*entry & PTE_RW));
    TRY("movq $0, (%0)", ::"r"(table) : "memory");
    twin_runs("store into the pinned table, an entry that is not present");
    TRY("movq %1, (%0)", ::"r"(table), "r"(seen | PTE_RW) : "memory");
    attack_faults("store into the pinned table, itself writable", 14, 3);
    check(unpin(table) == 0);
    twin("unpinned, writable bit", set_entry(entry, seen | PTE_RW));
}

static void presence_of_l1(void)
{
    u64 *table = table_alloc();
    u64 *entry = pte_of((u64)page_alloc());
    u64 hidden = mfn_of(table) << 12 | PTE_RW;
    check(pin(1, table) == 0);
    rule("an entry that is not present holds anything; setting its present bit checks all of it");
    twin("not present, a table's frame, writable", set_entry(entry, hidden));
    attack("present bit", set_entry(entry, hidden | PTE_P), -EBUSY);
    TRY("lock orb $1, (%0)", ::"r"(entry) : "memory");
    attack_faults("present bit, by a store of one byte", 14, 3);
    twin("present bit without the writable one", set_entry(entry, (hidden & ~PTE_RW) | PTE_P));
    TRY("lock orb $2, (%0)", ::"r"(entry) : "memory");
    attack_faults("writable bit, by a store of one byte", 14, 3);
    TRY("movl %1, (%0)", ::"r"(entry), "r"((u32)(hidden | PTE_P)) : "memory");
    attack_faults("a store of the low half", 14, 3);
    TRY("movl $0, 4(%0)", ::"r"(entry) : "memory");
    printf("  the high half, frame bits cleared: %s\n", vector_name(fault.vector));
}

static void cache_bits(void)
{
    u64 *page = page_alloc(), *entry = pte_of((u64)page);
    u64 plain = mfn_of(page) << 12 | PTE_P | PTE_RW;
    rule("a guest without devices maps memory write-back only: -EINVAL for other cache bits");
    attack("write-through", set_entry(entry, plain | PTE_PWT), -EINVAL);
    attack("uncached", set_entry(entry, plain | PTE_PCD), -EINVAL);
    attack("by way of a not-present entry", set_entry(entry, 0) | set_entry(entry, plain | PTE_PCD), -EINVAL);
    twin("write-back", set_entry(entry, plain));
}

static void upper_levels(void)
{
    u64 va = 0x600000000000, *page = page_alloc();
    map_in(kernel_l4, va, mfn_of(page) << 12 | PTE_P | PTE_RW);
    static const char *const names[] = {"L2", "L3", "L4"};
    rule("above L1, a superpage bit or a cached global bit is never a harmless change: -EINVAL");
    for (int level = 2; level <= 4; level++) {
        u64 *entry = entry_of(va, level), old = *entry;
        char label[48];
        snprintf(label, sizeof(label), "%s, superpage bit", names[level - 2]);
        attack(label, set_entry(entry, old | PTE_PS), -EINVAL);
        snprintf(label, sizeof(label), "%s, superpage bit, preserving A and D", names[level - 2]);
        attack(label, preserve_ad(entry, old | PTE_PS), -EINVAL);
        snprintf(label, sizeof(label), "%s, available bit", names[level - 2]);
        twin(label, set_entry(entry, old | 0x200));
        snprintf(label, sizeof(label), "%s, read-only", names[level - 2]);
        twin(label, set_entry(entry, old & ~PTE_RW));
        TRY("movq $0, (%0)", ::"r"(va) : "memory");
        attack_faults("write below it", 14, 3);
        twin("writable again", set_entry(entry, old));
        TRY("movq $0, (%0)", ::"r"(va) : "memory");
        twin_runs("write below it");
        TRY("movq %1, (%0)", ::"r"(entry), "r"(old | 0x200) : "memory");
        snprintf(label, sizeof(label), "%s, stored directly", names[level - 2]);
        attack_faults(label, 14, 3);
        stays("the entry", (*entry & ~(PTE_A | PTE_D)) == (old & ~(PTE_A | PTE_D)));
    }
}

static void reserved_slots(void)
{
    static const int slots[] = {256, 257, 260, 271};
    u64 *l4 = (u64 *)kernel_l4;
    rule("the hypervisor's slots of an L4 are nobody else's to change: -EINVAL");
    for (u64 i = 0; i < ARRAY_SIZE(slots); i++) {
        char label[32];
        u64 old = l4[slots[i]];
        snprintf(label, sizeof(label), "slot %d, as it is", slots[i]);
        attack(label, set_entry(&l4[slots[i]], old), -EINVAL);
        snprintf(label, sizeof(label), "slot %d, user and writable", slots[i]);
        attack(label, set_entry(&l4[slots[i]], old | PTE_US | PTE_RW), -EINVAL);
        stays("the slot", l4[slots[i]] == old);
    }
    twin("slot 255, cleared", set_entry(&l4[255], 0));
    twin("slot 272, cleared", set_entry(&l4[272], 0));
}

void guest_main(void)
{
    check(H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, 2) == 0); /* stores into page tables are carried out */
    writable_bit_of_l1();
    presence_of_l1();
    cache_bits();
    upper_levels();
    reserved_slots();
}
