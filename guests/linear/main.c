/* Page tables that map tables of their own level ("linear" page tables), and every confusion of levels. */
#include "guest.h"

const char guest_name[] = "linear";

#define SLOT 300 /* of an L4 table: the guest's, above Xen's */
#define RO(table) (mfn_of(table) << 12 | PTE_P | PTE_US | PTE_A)
#define RW(table) (RO(table) | PTE_RW)

static u64 *pinned(u32 level)
{
    u64 *table = table_alloc();
    check(mmuext(MMUEXT_PIN_L1_TABLE + level - 1, mfn_of(table), 0) == 0);
    return table;
}

static void set(const char *what, u64 *entry, u64 value)
{
    printf("%s: %s\n", what, error_name(set_entry(entry, value)));
}

static void unpin(u64 *table)
{
    expect_result("unpin", mmuext(MMUEXT_UNPIN_TABLE, mfn_of(table), 0), 0);
}

static void own_level(u32 level)
{
    u64 *a = pinned(level), *b = pinned(level), *c = pinned(level);
    printf("level %u\n", level);
    set("itself, read-only", &a[SLOT], RO(a));
    set("itself, writable", &a[SLOT], RW(a));
    set("itself, made writable", &a[SLOT], a[SLOT] | PTE_RW);
    set("itself, not accessed", &a[SLOT], RO(a) & ~PTE_A);
    set("another, writable", &a[SLOT + 1], RW(b));
    set("another, read-only", &a[SLOT + 1], RO(b));
    set("and once more", &a[SLOT + 2], RO(b));
    set("a third one, of the one that has such entries", &c[SLOT], RO(a));
    set("from the one that is named, back", &b[SLOT], RO(a));
    set("from the one that is named, on", &b[SLOT], RO(c));
    set("the one that is named, itself", &b[SLOT], RO(b));
    set("a third one, of the one that is named", &c[SLOT], RO(b));
    unpin(b);
    printf("still a table: %s\n", error_name(page_writable(b)));
    set("gone", &c[SLOT], 0);
    set("gone", &a[SLOT + 1], 0);
    printf("still a table: %s\n", error_name(page_writable(b)));
    set("gone", &a[SLOT + 2], 0);
    printf("writable: %s\n", error_name(page_writable(b)));
    set("what is no table", &a[SLOT + 1], RO(b));
    set("a third one, the other way round", &a[SLOT + 1], RO(c));
    set("and the first may be named no more", &c[SLOT], RO(a));
    unpin(a);
    printf("released with its entries: %s\n", error_name(page_writable(a)));
    unpin(c);
    printf("writable: %s\n", error_name(page_writable(c)));
}

/* What holds for a new entry holds for a table that is validated with it. */
static void validated(void)
{
    u64 *a = table_alloc(), *b = table_alloc();
    printf("validation\n");
    check(page_writable(a) == 0);
    a[SLOT] = RO(a);
    check(page_readonly(a) == 0);
    expect_result("itself, read-only", mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(a), 0), 0);
    unpin(a);
    check(page_writable(a) == 0);
    a[SLOT] = RW(a);
    check(page_readonly(a) == 0);
    printf("itself, writable: %s\n", error_name(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(a), 0)));
    check(page_writable(a) == 0);
    a[SLOT] = RO(b);
    a[SLOT + 1] = RO(a);
    check(page_readonly(a) == 0);
    printf("one that is none yet becomes one of the level below: %s", error_name(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(a), 0)));
    printf(", %s\n", error_name(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(b), 0)));
    unpin(a);
    check(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(b), 0) == 0);
    printf("one that is: %s\n", error_name(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(a), 0)));
    unpin(b);
    printf("held by the other: %s\n", error_name(page_writable(b)));
    unpin(a);
    printf("writable: %s", error_name(page_writable(a)));
    printf(", %s\n", error_name(page_writable(b)));
}

static void levels_confused(void)
{
    u64 *tables[5] = {0, pinned(1), pinned(2), pinned(3), pinned(4)};
    u64 *plain = page_alloc();
    for (u32 in = 1; in <= 4; in++) {
        for (u32 of = 1; of <= 4; of++)
            if (of != in) {
                printf("L%u table in an L%u table: read-only %s", of, in,
                       error_name(set_entry(&tables[in][SLOT], RO(tables[of]))));
                printf(", writable %s\n", error_name(set_entry(&tables[in][SLOT + of], RW(tables[of]))));
            }
        printf("a plain frame in an L%u table: %s\n", in, error_name(set_entry(&tables[in][SLOT + 8], RW(plain))));
        printf("no frame in an L%u table: %s\n", in, error_name(set_entry(&tables[in][SLOT + 9], 0x3ffffff067)));
        printf("the last frame in an L%u table: %s\n", in,
               error_name(set_entry(&tables[in][SLOT + 10], PTE_ADDR | PTE_P | PTE_US)));
    }
    set("an L1 table in itself, read-only", &tables[1][5], RO(tables[1]));
    set("an L1 table in itself, writable", &tables[1][6], RW(tables[1]));
    for (u32 level = 1; level <= 4; level++)
        printf("pin L%u again: %s\n", level,
               error_name(mmuext(MMUEXT_PIN_L1_TABLE + level - 1, mfn_of(tables[level]), 0)));
    for (u32 level = 4; level >= 1; level--)
        unpin(tables[level]);
    printf("writable:");
    for (u32 level = 1; level <= 4; level++)
        printf(" %s", error_name(page_writable(tables[level])));
    printf("\n");
}

/* What such an entry is good for: the tables themselves at addresses that can be computed. */
static void reading(void)
{
    u64 base = 0xffff000000000000 | (u64)SLOT << 39 | (u64)SLOT << 30 | (u64)SLOT << 21 | (u64)SLOT << 12;
    u64 *l4 = (u64 *)kernel_l4, *seen = (u64 *)base, value;
    set("our own table in itself", &l4[SLOT], RO(l4));
    printf("it is there: %d\n", seen[SLOT] == l4[SLOT] && seen[511] == l4[511]);
    TRY("movq %1, %0", : "=r"(value) : "m"(seen[511]));
    show_fault("read");
    TRY("movq %0, %1", : : "r"(0UL), "m"(seen[SLOT + 1]));
    printf("written: vector %d, error %lx\n", fault.vector, fault.error);
    set("gone", &l4[SLOT], 0);
    expect_result("flush", mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0), 0);
    TRY("movq %1, %0", : "=r"(value) : "m"(seen[511]));
    printf("gone: vector %d, error %lx\n", fault.vector, fault.error);
}

void guest_main(void)
{
    own_level(4);
    own_level(3);
    own_level(2);
    validated();
    levels_confused();
    reading();
}
