/* Counts of references far beyond what 16 bits hold: nothing wraps to zero, and the last one to go is noticed. */
#include "attack.h"

const char guest_name[] = "many_references";

#define TABLES 130 /* times 512 entries: more than 2^16 */

static u64 *tables[TABLES];

static void of_a_page(void)
{
    u64 *page = page_alloc(), writable = mfn_of(page) << 12 | PTE_P | PTE_RW;
    s64 bad = 0;
    rule("a page that is mapped writable 66560 times is no table: -EINVAL; when all have gone, it may be one");
    check(page_readonly(page) == 0);
    twin("a table before", pin(1, page) | unpin(page));
    for (int t = 0; t < TABLES; t++) {
        tables[t] = page_alloc();
        for (int i = 0; i < 512; i++)
            tables[t][i] = writable;
        bad |= page_readonly(tables[t]) | pin(1, tables[t]);
    }
    twin("the mappings", bad);
    attack("a table", pin(1, page), -EINVAL);
    for (int t = 0; t < TABLES - 2; t++) /* down to 1024, which is 2^16 less */
        bad |= unpin(tables[t]);
    attack("a table, 2^16 mappings fewer", pin(1, page), -EINVAL);
    bad |= unpin(tables[TABLES - 2]);
    for (int i = 1; i < 512; i++)
        bad |= set_entry(&tables[TABLES - 1][i], 0);
    attack("a table, with one mapping left", pin(1, page), -EINVAL);
    bad |= set_entry(&tables[TABLES - 1][0], 0);
    twin("the mappings' end", bad);
    twin("a table, with none", pin(1, page));
    check(unpin(page) == 0);
    check(unpin(tables[TABLES - 1]) == 0);
}

static void of_a_table(void)
{
    u64 *l1 = page_alloc(), entry = mfn_of(l1) << 12 | PTE_TABLE;
    s64 bad = page_readonly(l1);
    rule("a table that 66560 entries name is one until the last of them goes: -EBUSY for a writable mapping");
    for (int t = 0; t < TABLES; t++) {
        bad |= page_writable(tables[t]);
        for (int i = 0; i < 512; i++)
            tables[t][i] = entry;
        bad |= page_readonly(tables[t]) | pin(2, tables[t]);
    }
    twin("the entries", bad);
    attack("writable", page_writable(l1), -EBUSY);
    for (int t = 0; t < TABLES - 2; t++)
        bad |= unpin(tables[t]);
    attack("writable, 2^16 entries fewer", page_writable(l1), -EBUSY);
    bad |= unpin(tables[TABLES - 2]);
    for (int i = 1; i < 512; i++)
        bad |= set_entry(&tables[TABLES - 1][i], 0);
    attack("writable, with one entry left", page_writable(l1), -EBUSY);
    bad |= set_entry(&tables[TABLES - 1][0], 0);
    twin("the entries' end", bad);
    twin("writable, with none", page_writable(l1));
}

void guest_main(void)
{
    of_a_page();
    of_a_table();
}
