/* Stores into a page table whose operand is elsewhere, or wider, than it looks: what they change is checked. */
#include "attack.h"

const char guest_name[] = "write_forms";

#define OWN 1 /* the entry that maps the table itself, read-only */
#define PAGE 4 /* one that maps a plain page */

static u64 *table;
static u64 own, plain;

/* Entry 0 is empty. */
static void fresh_table(void)
{
    u64 *page = page_alloc();
    table = table_alloc();
    own = mfn_of(table) << 12 | PTE_P | PTE_A | PTE_D;
    plain = mfn_of(page) << 12 | PTE_P | PTE_A | PTE_D;
    check(set_entry(&table[OWN], own) == 0);
    check(set_entry(&table[PAGE], plain) == 0);
    check(pin(1, table) == 0);
}

static u64 shown(u64 index)
{
    return table[index] & ~(PTE_US | PTE_G | 1UL << 52);
}

static void set_bit_from(const u64 *entry, s64 bit)
{
    TRY("lock btsq %1, (%0)", ::"r"(entry), "r"(bit) : "memory", "cc");
}

static void far_bits(void)
{
    rule("the bit that a bit instruction names may lie in another entry: that one is checked");
    fresh_table();
    set_bit_from(&table[0], 64 * PAGE + 9);
    twin_runs("an available bit, four entries on");
    stays("it is there, and nowhere else", shown(PAGE) == (plain | 0x200) && !table[0]);
    set_bit_from(&table[0], 64 * OWN + 1);
    attack_faults("the writable bit of the table's own mapping, one entry on", 14, 3);
    set_bit_from(&table[PAGE], -64 * (PAGE - OWN) + 9);
    twin_runs("an available bit, three entries back");
    set_bit_from(&table[PAGE], -64 * (PAGE - OWN) + 1);
    attack_faults("the writable bit, three entries back", 14, 3);
    stays("the own mapping is read-only", shown(OWN) == (own | 0x200));
}

#define COMPARE(entry, old, new) \
    ({ \
        u32 low = (u32)(old), high = (u32)((old) >> 32); \
        TRY("lock cmpxchg8b (%2)", : "+a"(low), "+d"(high) : "r"(entry), "b"((u32)(new)), \
            "c"((u32)((new) >> 32)) : "memory", "cc"); \
    })

static void wide_compare(void)
{
    /* QEMU's processor takes no prefix for two bytes here, which others ignore. */
    rule("a compare and exchange is carried out for one entry, and refused for two");
    fresh_table();
    COMPARE(&table[PAGE], table[PAGE], table[PAGE] | 0x200);
    twin_runs("eight bytes");
    stays("they are there", shown(PAGE) == (plain | 0x200));
    COMPARE(&table[OWN], table[OWN], table[OWN] | PTE_RW);
    attack_faults("the own mapping, writable", 14, 3);
    TRY("lock cmpxchg16b (%0)", ::"r"(&table[PAGE]), "a"(table[PAGE]), "d"(table[PAGE + 1]), "b"(table[PAGE]), "c"(0UL)
        : "memory", "cc");
    attack_faults("sixteen bytes", 14, 3);
    stays("the own mapping is read-only", shown(OWN) == own);
}

static void prefixes(void)
{
    /* Not fs: Xen leaves its base out here, and so stores elsewhere than where the fault was. */
    rule("a prefix for a segment without a base changes nothing");
    fresh_table();
    TRY(".byte 0x26; movq %1, (%0)", ::"r"(&table[PAGE]), "r"(plain | 0x400) : "memory");
    twin_runs("by es, into the plain page's entry");
    TRY(".byte 0x26; movq %1, (%0)", ::"r"(&table[OWN]), "r"(own | PTE_RW) : "memory");
    attack_faults("by es, into the own mapping", 14, 3);
    stays("each entry is what its own stores made of it", shown(PAGE) == (plain | 0x400) && shown(OWN) == own);
}

void guest_main(void)
{
    H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, 2); /* emulated page-table writes */
    far_bits();
    wide_compare();
    prefixes();
}
