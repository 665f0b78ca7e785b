/* Tables that map tables of their own level: read-only, one step deep, and counted. */
#include "attack.h"

const char guest_name[] = "linear_tables";

static u64 entry_for(const void *table, u64 flags)
{
    return mfn_of(table) << 12 | flags;
}

#define READ_ONLY (PTE_P | PTE_US | PTE_A)
#define WRITABLE (READ_ONLY | PTE_RW)

static void own_level(int level)
{
    static const char *const names[] = {"", "", "L2", "L3", "L4"};
    u64 *x = table_alloc(), *y = table_alloc(), *z = table_alloc();
    char text[96];
    check(pin(level, x) == 0 && pin(level, y) == 0 && pin(level, z) == 0);
    snprintf(text, sizeof(text), "%s: a table may map itself, read-only: -EINVAL otherwise", names[level]);
    rule(text);
    attack("itself, writable", set_entry(&x[1], entry_for(x, WRITABLE)), -EINVAL);
    twin("itself, read-only", set_entry(&x[1], entry_for(x, READ_ONLY)));
    attack("then the writable bit", set_entry(&x[1], entry_for(x, WRITABLE)), -EINVAL);
    attack("then the superpage bit", set_entry(&x[1], entry_for(x, READ_ONLY | PTE_PS)), -EINVAL);
    twin("then an available bit", set_entry(&x[1], entry_for(x, READ_ONLY | 0x200)));
    stays("read-only", !(x[1] & PTE_RW));
    twin("cleared", set_entry(&x[1], 0));

    snprintf(text, sizeof(text), "%s: a table that is mapped by another of its level maps none itself: -EINVAL",
             names[level]);
    rule(text);
    attack("another, writable", set_entry(&x[2], entry_for(y, WRITABLE)), -EINVAL);
    twin("another, read-only", set_entry(&x[2], entry_for(y, READ_ONLY)));
    attack("a chain: the mapped one maps a third", set_entry(&y[2], entry_for(z, READ_ONLY)), -EINVAL);
    attack("a circle: the mapped one maps the first", set_entry(&y[2], entry_for(x, READ_ONLY)), -EINVAL);
    attack("a chain from above: a third maps the first", set_entry(&z[2], entry_for(x, READ_ONLY)), -EINVAL);
    twin("the first maps the third too", set_entry(&x[3], entry_for(z, READ_ONLY)));
    twin("the mapped one maps itself", set_entry(&y[2], entry_for(y, READ_ONLY)));
    check(set_entry(&y[2], 0) == 0);
    check(set_entry(&x[2], 0) == 0 && set_entry(&x[3], 0) == 0);
    twin("the chain's link, when nothing maps it", set_entry(&y[2], entry_for(z, READ_ONLY)));
    attack("and nothing may map it now", set_entry(&x[2], entry_for(y, READ_ONLY)), -EINVAL);

    rule("a table is a table while another maps it: -EBUSY for a writable mapping");
    check(unpin(z) == 0);
    attack("unpinned, but mapped by another", page_writable(z), -EBUSY);
    check(set_entry(&y[2], 0) == 0);
    twin("the other's entry is cleared", page_writable(z));
    check(unpin(x) == 0 && unpin(y) == 0);
    twin("the first, unpinned", page_writable(x));
    twin("the second, unpinned", page_writable(y));
    memset(x, 0, PAGE_SIZE), memset(y, 0, PAGE_SIZE);

    if (level == 2)
        return; /* an L1 may map an L2 read-only, and that is what such a circle would be */
    rule("validation of a whole table finds chains and circles too: -EINVAL, and no reference is left");
    x[2] = entry_for(y, READ_ONLY), y[2] = entry_for(x, READ_ONLY);
    check(page_readonly(x) == 0 && page_readonly(y) == 0);
    attack("pin one of a circle", pin(level, x), -EINVAL);
    twin("both can be written again", page_writable(x) | page_writable(y));
    y[2] = 0;
    check(page_readonly(x) == 0 && page_readonly(y) == 0);
    twin("pin without the circle", pin(level, x));
    twin("unpin", unpin(x));
    twin("both can be written again", page_writable(x) | page_writable(y));
}

static void levels_confused(void)
{
    u64 *tables[5] = {0};
    rule("an entry names a table of the level below or its own, and no other: -EINVAL");
    for (int level = 1; level <= 4; level++) {
        tables[level] = table_alloc();
        check(pin(level, tables[level]) == 0);
    }
    for (int in = 2; in <= 4; in++)
        for (int of = 1; of <= 4; of++) {
            char label[32];
            if (of == in)
                continue;
            snprintf(label, sizeof(label), "an L%d in an L%d", of, in);
            u64 *slot = &tables[in][9];
            if (of == in - 1)
                twin(label, set_entry(slot, entry_for(tables[of], PTE_TABLE)));
            else
                attack(label, set_entry(slot, entry_for(tables[of], READ_ONLY)), -EINVAL);
            check(set_entry(slot, 0) == 0);
        }
}

static void seen_through(void)
{
    u64 *l4 = (u64 *)kernel_l4, slot = 2, *page = page_alloc(), va = (u64)page;
    u64 ending = va << 16 >> 16 >> 12 << 3; /* where the entry for va is within the linear map */
    volatile u64 *seen = (u64 *)(slot << 39 | ending);
    rule("through a linear map entries can be read but not written: #PF");
    twin("map the tables linearly", set_entry(&l4[slot], entry_for(l4, READ_ONLY)));
    u64 value = 0;
    TRY("movq (%1), %0", : "=&r"(value) : "r"(seen));
    twin_runs("read an entry");
    stays("what is read is the entry", (value | PTE_A | PTE_D) == (*pte_of(va) | PTE_A | PTE_D));
    TRY("movq %1, (%0)", ::"r"(seen), "r"(value) : "memory");
    attack_faults("write the same back", 14, 3);
    TRY("lock btsq $9, (%0)", ::"r"(seen) : "memory");
    attack_faults("locked bit set", 14, 3);
    twin("cleared", set_entry(&l4[slot], 0));
    check(mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0) == 0);
    TRY("movq (%1), %0", : "=&r"(value) : "r"(seen));
    attack_faults("read after it is gone", 14, 0);
}

void guest_main(void)
{
    own_level(4);
    own_level(3);
    own_level(2);
    levels_confused();
    seen_through();
}
