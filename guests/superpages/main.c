/* A guest gets no superpage by any way: its frames would escape the checks of each 4 KiB. */
#include "attack.h"

const char guest_name[] = "superpages";

#define VA 0x600000000000UL

static u64 aligned_frame(void)
{
    /* One of our frames that is aligned as a superpage must be; the rest of it may be anyone's. */
    for (u64 pfn = 0; pfn < start_info->nr_pages; pfn++)
        if (!(p2m[pfn] & 511))
            return p2m[pfn];
    return 0;
}

static void by_entry(void)
{
    u64 *page = page_alloc(), frame = aligned_frame();
    map_in(kernel_l4, VA, mfn_of(page) << 12 | PTE_P | PTE_RW);
    rule("no entry above L1 is present and has the superpage bit: -EINVAL");
    for (int level = 2; level <= 4; level++) {
        u64 *entry = entry_of(VA + (1UL << 30) * (level == 2) / 2, level), old = *entry;
        char label[64];
        for (int writable = 0; writable < 2; writable++) {
            u64 value = frame << 12 | PTE_P | PTE_PS | PTE_US | (writable ? PTE_RW : 0);
            snprintf(label, sizeof(label), "L%d, our aligned frame, %s", level, writable ? "writable" : "read-only");
            attack(label, set_entry(entry, value), -EINVAL);
        }
        snprintf(label, sizeof(label), "L%d, frame 0", level);
        attack(label, set_entry(entry, PTE_P | PTE_PS | PTE_RW), -EINVAL);
        snprintf(label, sizeof(label), "L%d, with the bit for PAT in bit 12", level);
        attack(label, set_entry(entry, frame << 12 | PTE_P | PTE_PS | 1UL << 12), -EINVAL);
        stays("the entry", *entry == old);
    }
    u64 *unused = entry_of(VA + (1UL << 29), 2);
    rule("the bit of an entry that is not present means nothing");
    twin("L2, not present, superpage bit", set_entry(unused, frame << 12 | PTE_PS | PTE_RW));
    attack("then the present bit", set_entry(unused, frame << 12 | PTE_PS | PTE_RW | PTE_P), -EINVAL);
    twin("cleared", set_entry(unused, 0));
    twin("L4, not present, superpage bit", set_entry((u64 *)kernel_l4 + 3, PTE_PS));
    twin("cleared", set_entry((u64 *)kernel_l4 + 3, 0));
    rule("at L1 the same bit is a cache bit, and refused as one: -EINVAL");
    u64 plain = mfn_of(page) << 12 | PTE_P | PTE_RW;
    attack("L1", set_entry(pte_of(VA), plain | PTE_PS), -EINVAL);
    twin("L1 without it", set_entry(pte_of(VA), plain));
}

static void by_validation(void)
{
    static const int places[] = {0, 1, 511};
    rule("validation of a table finds a superpage anywhere in it, and gives every reference back");
    for (int level = 2; level <= 4; level++)
        for (u64 i = 0; i < ARRAY_SIZE(places); i++) {
            u64 *table = page_alloc(), *child = table_alloc();
            char label[64];
            int place = places[i];
            table[5] = mfn_of(child) << 12 | PTE_TABLE;
            table[place] = aligned_frame() << 12 | PTE_P | PTE_PS | PTE_RW;
            check(page_readonly(table) == 0);
            snprintf(label, sizeof(label), "pin L%d, superpage in entry %d", level, place);
            attack(label, pin(level, table), -EINVAL);
            twin("its child may be written", page_writable(child));
            check(page_readonly(child) == 0);
            check(page_writable(table) == 0);
            table[place] = 0;
            check(page_readonly(table) == 0);
            twin("pinned without it", pin(level, table));
            attack("its child may not be written", page_writable(child), -EBUSY);
            check(unpin(table) == 0);
        }
}

static void by_command(void)
{
    rule("frames are not marked as superpages: -EOPNOTSUPP");
    attack("MARK_SUPER", mmuext(MMUEXT_MARK_SUPER, aligned_frame(), 0), -EOPNOTSUPP);
    attack("MARK_SUPER of an odd frame", mmuext(MMUEXT_MARK_SUPER, aligned_frame() + 1, 0), -EOPNOTSUPP);
    attack("UNMARK_SUPER", mmuext(MMUEXT_UNMARK_SUPER, aligned_frame(), 0), -EOPNOTSUPP);
}

void guest_main(void)
{
    by_entry();
    by_validation();
    by_command();
}
