/* mmuext_op: pinning and unpinning, base pointers, flushes, and every refused argument. */
#include "guest.h"

const char guest_name[] = "pinning";

static u64 frame(const void *p)
{
    return mfn_of(p);
}

static void levels(void)
{
    u64 *tables[4];
    static const char *const pins[] = {"pin L1", "pin L2", "pin L3", "pin L4"};
    for (int i = 0; i < 4; i++) {
        tables[i] = table_alloc();
        printf("%s, empty: %s\n", pins[i], error_name(mmuext(MMUEXT_PIN_L1_TABLE + (u32)i, frame(tables[i]), 0)));
        printf("again: %s\n", error_name(mmuext(MMUEXT_PIN_L1_TABLE + (u32)i, frame(tables[i]), 0)));
        printf("as another level: %s\n",
               error_name(mmuext(MMUEXT_PIN_L1_TABLE + (u32)(i + 1) % 4, frame(tables[i]), 0)));
        printf("writable: %s\n", error_name(page_writable(tables[i])));
        printf("unpin: %s\n", error_name(mmuext(MMUEXT_UNPIN_TABLE, frame(tables[i]), 0)));
        printf("unpin again: %s\n", error_name(mmuext(MMUEXT_UNPIN_TABLE, frame(tables[i]), 0)));
        printf("writable: %s\n", error_name(page_writable(tables[i])));
    }
    printf("slot 256 of the unpinned L4 was filled by Xen: %d\n", tables[3][256] != 0);
}

static void chain(void)
{
    u64 *l1 = table_alloc(), *l2 = table_alloc(), *l3 = table_alloc(), *l4 = table_alloc();
    char *page = page_alloc();
    /* Filled while they are plain memory, checked when they are pinned. */
    check(page_writable(l1) == 0 && page_writable(l2) == 0 && page_writable(l3) == 0 && page_writable(l4) == 0);
    l1[5] = frame(page) << 12 | PTE_P | PTE_RW;
    l2[4] = frame(l1) << 12 | PTE_TABLE;
    l3[3] = frame(l2) << 12 | PTE_TABLE;
    l4[2] = frame(l3) << 12 | PTE_TABLE;
    printf("pin L4, all writable: %s\n", error_name(mmuext(MMUEXT_PIN_L4_TABLE, frame(l4), 0)));
    check(page_readonly(l4) == 0 && page_readonly(l3) == 0 && page_readonly(l2) == 0);
    printf("pin L4, L1 still writable: %s\n", error_name(mmuext(MMUEXT_PIN_L4_TABLE, frame(l4), 0)));
    check(page_readonly(l1) == 0);
    printf("pin L4: %s\n", error_name(mmuext(MMUEXT_PIN_L4_TABLE, frame(l4), 0)));
    printf("L1 writable: %s\n", error_name(page_writable(l1)));
    printf("entries: L1 %lx L2 %lx L3 %lx L4 %lx\n", l1[5] & 0xfff0000000000fff, l2[4] & 0xfff0000000000fff,
           l3[3] & 0xfff0000000000fff, l4[2] & 0xfff0000000000fff);
    expect_result("user base pointer", mmuext(MMUEXT_NEW_USER_BASEPTR, frame(l4), 0), 0);
    expect_result("unpin what is the user base", mmuext(MMUEXT_UNPIN_TABLE, frame(l4), 0), 0);
    printf("still a table: %s\n", error_name(page_writable(l4)));
    expect_result("user base pointer none", mmuext(MMUEXT_NEW_USER_BASEPTR, 0, 0), 0);
    printf("no table any more: %s\n", error_name(page_writable(l4)));
    check(page_writable(l1) == 0);
    /* A table with a bad entry is refused as a whole. */
    l1[6] = 0xffffff000UL | PTE_P;
    check(page_readonly(l1) == 0);
    printf("pin L1 with a bad entry: %s\n", error_name(mmuext(MMUEXT_PIN_L1_TABLE, frame(l1), 0)));
    printf("pin L2 above it: %s\n", error_name(mmuext(MMUEXT_PIN_L2_TABLE, frame(l2), 0)));
    check(page_writable(l1) == 0);
    printf("writable after the refusal: yes\n");
}

static void bases(void)
{
    u64 own = frame((void *)kernel_l4);
    u64 *fresh = table_alloc();
    expect_result("base pointer as it is", mmuext(MMUEXT_NEW_BASEPTR, own, 0), 0);
    expect_result("unpin our own L4", mmuext(MMUEXT_UNPIN_TABLE, own, 0), 0);
    printf("in use, so still a table: %s\n", error_name(page_writable((void *)kernel_l4)));
    expect_result("pin it again", mmuext(MMUEXT_PIN_L4_TABLE, own, 0), 0);
    check(page_writable(fresh) == 0);
    memcpy(fresh, (void *)kernel_l4, PAGE_SIZE); /* Xen's own slots are read as zeros or ignored */
    for (int i = 256; i < 272; i++)
        fresh[i] = 0;
    check(page_readonly(fresh) == 0);
    expect_result("base pointer: a copy", mmuext(MMUEXT_NEW_BASEPTR, frame(fresh), 0), 0);
    printf("we still run; slot 256 is filled: %d\n", fresh[256] != 0);
    expect_result("back", mmuext(MMUEXT_NEW_BASEPTR, own, 0), 0);
    printf("the copy is no table now: %s\n", error_name(page_writable(fresh)));
    expect_result("base pointer: a writable page", mmuext(MMUEXT_NEW_BASEPTR, frame(page_alloc()), 0), -EINVAL);
    expect_result("base pointer: an L1 table", mmuext(MMUEXT_NEW_BASEPTR, (*entry_of((u64)fresh, 2) & PTE_ADDR) >> 12, 0),
                  -EINVAL);
    expect_result("base pointer: no frame", mmuext(MMUEXT_NEW_BASEPTR, 0xffffff, 0), -EINVAL);
    expect_result("user base pointer: a writable page", mmuext(MMUEXT_NEW_USER_BASEPTR, frame(page_alloc()), 0),
                  -EINVAL);
    expect_result("user base pointer: no frame", mmuext(MMUEXT_NEW_USER_BASEPTR, 0xffffff, 0), -EINVAL);
}

static void flushes(void)
{
    u64 mask = 1;
    expect_result("TLB_FLUSH_LOCAL", mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0), 0);
    expect_result("INVLPG_LOCAL", mmuext(MMUEXT_INVLPG_LOCAL, (u64)&mask, 0), 0);
    expect_result("INVLPG_LOCAL non-canonical", mmuext(MMUEXT_INVLPG_LOCAL, 1UL << 62, 0), 0);
    expect_result("TLB_FLUSH_MULTI", mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, (u64)&mask), 0);
    expect_result("TLB_FLUSH_MULTI bad bitmap", mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, 0x12345000), -EINVAL);
    expect_result("INVLPG_MULTI", mmuext(MMUEXT_INVLPG_MULTI, (u64)&mask, (u64)&mask), 0);
    expect_result("TLB_FLUSH_ALL", mmuext(MMUEXT_TLB_FLUSH_ALL, 0, 0), 0);
    expect_result("INVLPG_ALL", mmuext(MMUEXT_INVLPG_ALL, (u64)&mask, 0), 0);
    printf("FLUSH_CACHE: %s\n", error_name(mmuext(MMUEXT_FLUSH_CACHE, 0, 0)));
    printf("FLUSH_CACHE_GLOBAL: %s\n", error_name(mmuext(MMUEXT_FLUSH_CACHE_GLOBAL, 0, 0)));
}

static void pages(void)
{
    char *a = page_alloc(), *b = page_alloc();
    a[9] = 9, b[9] = 8;
    expect_result("COPY_PAGE", mmuext(MMUEXT_COPY_PAGE, frame(b), frame(a)), 0);
    printf("copied: %d\n", b[9]);
    expect_result("CLEAR_PAGE", mmuext(MMUEXT_CLEAR_PAGE, frame(b), 0), 0);
    printf("cleared: %d\n", b[9]);
    check(b[9] == 0);
    expect_result("CLEAR_PAGE of a table", mmuext(MMUEXT_CLEAR_PAGE, frame((void *)kernel_l4), 0), -EINVAL);
    expect_result("COPY_PAGE of a table", mmuext(MMUEXT_COPY_PAGE, frame(b), frame((void *)kernel_l4)), 0);
    expect_result("COPY_PAGE onto a table", mmuext(MMUEXT_COPY_PAGE, frame((void *)kernel_l4), frame(b)), -EINVAL);
    expect_result("CLEAR_PAGE of no frame", mmuext(MMUEXT_CLEAR_PAGE, 0xffffff, 0), -EINVAL);
    expect_result("COPY_PAGE from no frame", mmuext(MMUEXT_COPY_PAGE, frame(b), 0xffffff), -EINVAL);
}

static void refusals(void)
{
    char *page = page_alloc();
    struct mmuext_op ops[3] = {{MMUEXT_TLB_FLUSH_LOCAL, 0, 0}, {MMUEXT_PIN_L1_TABLE, 0xffffff, 0}, {MMUEXT_TLB_FLUSH_LOCAL, 0, 0}};
    u32 done = 99;
    expect_result("pin a writable page", mmuext(MMUEXT_PIN_L1_TABLE, frame(page), 0), -EINVAL);
    expect_result("pin no frame", mmuext(MMUEXT_PIN_L1_TABLE, 0xffffff, 0), -EINVAL);
    expect_result("unpin no frame", mmuext(MMUEXT_UNPIN_TABLE, 0xffffff, 0), -EINVAL);
    printf("second of three refused: %s", error_name(xen_mmuext_op(ops, 3, &done, DOMID_SELF)));
    printf(", done=%u\n", done);
    for (u32 cmd = 14; cmd < 24; cmd++)
        if (cmd == 14 || cmd > 18)
            printf("command %u: %s\n", cmd, error_name(mmuext(cmd, frame(page), 0)));
    printf("no operations: %s\n", error_name(xen_mmuext_op(ops, 0, &done, DOMID_SELF)));
    printf("list not mapped: %s\n", error_name(xen_mmuext_op((void *)0x12345000, 1, 0, DOMID_SELF)));
    printf("domain 999: %s\n", error_name(xen_mmuext_op(ops, 1, 0, 999)));
    if (is_domU())
        printf("domain 0: %s\n", error_name(xen_mmuext_op(ops, 1, 0, 0)));
    struct mmuext_op ldt = {MMUEXT_SET_LDT, (u64)page, 8193};
    printf("LDT with too many entries: %s\n", error_name(xen_mmuext_op(&ldt, 1, 0, DOMID_SELF)));
    ldt.arg2 = 1, ldt.arg1 = (u64)page + 1;
    printf("LDT not aligned: %s\n", error_name(xen_mmuext_op(&ldt, 1, 0, DOMID_SELF)));
    ldt.arg1 = 0xffff830000000000;
    printf("LDT in Xen's range: %s\n", error_name(xen_mmuext_op(&ldt, 1, 0, DOMID_SELF)));
    ldt.arg1 = 0x12345000;
    printf("LDT not mapped: %s\n", error_name(xen_mmuext_op(&ldt, 1, 0, DOMID_SELF)));
    ldt.arg2 = 0;
    printf("LDT none: %s\n", error_name(xen_mmuext_op(&ldt, 1, 0, DOMID_SELF)));
}

void guest_main(void)
{
    levels();
    chain();
    bases();
    flushes();
    pages();
    refusals();
}
