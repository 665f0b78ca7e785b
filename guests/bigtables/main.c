/* Page tables so large, and batches so long, that Xen is interrupted in them: nothing shows of it. */
#include "guest.h"

const char guest_name[] = "bigtables";

#define L1_TABLES 420
#define UPDATES 6000

static u64 *l4, *l3, *l2, *l1[L1_TABLES];
static char *page;
static struct mmu_update updates[UPDATES];
static struct mmuext_op ops[2000];

static u64 table(void *at)
{
    return mfn_of(at) << 12 | PTE_TABLE;
}

static void protect_all(s64 (*how)(void *))
{
    u64 wrong = 0;
    wrong += how(l4) != 0;
    wrong += how(l3) != 0;
    wrong += how(l2) != 0;
    for (int i = 0; i < L1_TABLES; i++)
        wrong += how(l1[i]) != 0;
    printf("pages that are in use as something else: %lu\n", wrong);
}

static void fill(void)
{
    u64 value = mfn_of(page) << 12 | PTE_P;
    for (int i = 0; i < L1_TABLES; i++) {
        for (int k = 0; k < 512; k++)
            l1[i][k] = value;
        l2[i] = table(l1[i]);
    }
    l3[7] = table(l2);
    l3[500] = table(l2);
    l4[3] = table(l3);
    l4[300] = table(l3);
}

static void whole(void)
{
    protect_all(page_readonly);
    expect_result("pin", mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(l4), 0), 0);
    printf("first and last entry: %lx %lx\n", l1[0][0] & 0xfff0000000000fff, l1[L1_TABLES - 1][511] & 0xfff0000000000fff);
    expect_result("pin L2", mmuext(MMUEXT_PIN_L2_TABLE, mfn_of(l2), 0), 0);
    expect_result("unpin", mmuext(MMUEXT_UNPIN_TABLE, mfn_of(l4), 0), 0);
    printf("L4 %s, L3 %s, L2 %s\n", error_name(page_writable(l4)), error_name(page_writable(l3)),
           error_name(page_writable(l2)));
    expect_result("unpin L2", mmuext(MMUEXT_UNPIN_TABLE, mfn_of(l2), 0), 0);
    protect_all(page_writable);
}

static void one_is_bad(int which, int entry)
{
    u64 good = l1[which][entry];
    l1[which][entry] = good | PTE_PCD;
    protect_all(page_readonly);
    printf("table %d is bad: pin L4 %s", which, error_name(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(l4), 0)));
    printf(", pin L3 %s", error_name(mmuext(MMUEXT_PIN_L3_TABLE, mfn_of(l3), 0)));
    printf(", pin L2 %s", error_name(mmuext(MMUEXT_PIN_L2_TABLE, mfn_of(l2), 0)));
    printf(", user base %s\n", error_name(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(l4), 0)));
    protect_all(page_writable);
    l1[which][entry] = good;
}

static void by_entry(void)
{
    u64 *root = (u64 *)kernel_l4;
    protect_all(page_readonly);
    expect_result("enter an L3 table", set_entry(&root[320], table(l3)), 0);
    check(*(char *)(0xffff000000000000 | 320UL << 39 | 7UL << 30) == 42);
    expect_result("take it out", set_entry(&root[320], 0), 0);
    protect_all(page_writable);
    protect_all(page_readonly);
    expect_result("user base", mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(l4), 0), 0);
    expect_result("user base none", mmuext(MMUEXT_NEW_USER_BASEPTR, 0, 0), 0);
    protect_all(page_writable);
}

static void in_batches(void)
{
    u32 done = 99;
    protect_all(page_readonly);
    ops[0] = (struct mmuext_op){MMUEXT_PIN_L4_TABLE, mfn_of(l4), 0};
    ops[1] = (struct mmuext_op){MMUEXT_UNPIN_TABLE, mfn_of(l4), 0};
    ops[2] = ops[0];
    ops[3] = ops[0];
    expect_result("pin, unpin, pin, pin", xen_mmuext_op(ops, 4, &done, DOMID_SELF), -EINVAL);
    printf("done %u\n", done);
    ops[0] = (struct mmuext_op){MMUEXT_UNPIN_TABLE, mfn_of(l4), 0};
    expect_result("unpin", xen_mmuext_op(ops, 1, &done, DOMID_SELF), 0);
    printf("done %u\n", done);
    struct multicall_entry calls[3] = {
        {__HYPERVISOR_mmuext_op, 99, {(u64)(ops + 2), 1, (u64)&done, DOMID_SELF}},
        {__HYPERVISOR_mmuext_op, 99, {(u64)ops, 1, 0, DOMID_SELF}},
        {__HYPERVISOR_mmuext_op, 99, {(u64)ops, 1, (u64)&done, DOMID_SELF}},
    };
    expect_result("as a multicall", xen_multicall(calls, 3), 0);
    printf("results %ld %ld %ld, done %u\n", (s64)calls[0].result, (s64)calls[1].result, (s64)calls[2].result, done);
    protect_all(page_writable);
}

static void long_batches(void)
{
    u32 done = 99;
    for (u32 i = 0; i < UPDATES; i++)
        updates[i] = (struct mmu_update){machine_of(l1[i % L1_TABLES] + i / L1_TABLES) | MMU_NORMAL_PT_UPDATE,
                                         mfn_of(page) << 12 | PTE_P | PTE_RW};
    protect_all(page_readonly);
    expect_result("pin", mmuext(MMUEXT_PIN_L4_TABLE, mfn_of(l4), 0), 0);
    expect_result("updates", xen_mmu_update(updates, UPDATES, &done, DOMID_SELF), 0);
    printf("done %u\n", done);
    updates[UPDATES - 2].val |= PTE_PCD;
    expect_result("the last but one is bad", xen_mmu_update(updates, UPDATES, &done, DOMID_SELF), -EINVAL);
    printf("done %u\n", done);
    expect_result("without a count", xen_mmu_update(updates, UPDATES, 0, DOMID_SELF), -EINVAL);
    expect_result("unpin", mmuext(MMUEXT_UNPIN_TABLE, mfn_of(l4), 0), 0);
    for (u32 i = 0; i < ARRAY_SIZE(ops); i++)
        ops[i] = (struct mmuext_op){MMUEXT_CLEAR_PAGE, mfn_of(page), 0};
    printf("still mapped writable by nobody: %s\n", error_name(page_writable(l1[0])));
    expect_result("operations", xen_mmuext_op(ops, ARRAY_SIZE(ops), &done, DOMID_SELF), 0);
    printf("done %u\n", done);
}

void guest_main(void)
{
    page = page_alloc();
    page[0] = 42;
    l4 = page_alloc(), l3 = page_alloc(), l2 = page_alloc();
    for (int i = 0; i < L1_TABLES; i++)
        l1[i] = page_alloc();
    fill();
    whole();
    one_is_bad(0, 0);
    one_is_bad(0, 1);
    one_is_bad(1, 0);
    one_is_bad(L1_TABLES - 1, 511);
    by_entry();
    in_batches();
    long_batches();
}
