/* A table that is refused leaves no trace: every type and reference taken on the way is given back. */
#include "attack.h"

const char guest_name[] = "failed_validation";

#define BAD_FRAME 0xffffff000UL

static u64 *raw; /* a table that is written as memory and then made read-only */

static void make(u64 *table, u64 fill, int bad_at, u64 bad)
{
    check(page_writable(table) == 0);
    for (int i = 0; i < 512; i++)
        table[i] = fill;
    if (bad_at >= 0)
        table[bad_at] = bad;
    check(page_readonly(table) == 0);
}

static void of_l1(void)
{
    static const int places[] = {0, 1, 255, 511};
    u64 *page = page_alloc(), writable = mfn_of(page) << 12 | PTE_P | PTE_RW;
    check(page_readonly(page) == 0);
    rule("an L1 of 511 good entries and one of no frame is refused: -EPERM, and the page keeps no reference");
    for (u64 i = 0; i < ARRAY_SIZE(places); i++) {
        char label[48];
        make(raw, writable, places[i], BAD_FRAME | PTE_P);
        snprintf(label, sizeof(label), "bad entry %d", places[i]);
        attack(label, pin(1, raw), -EPERM);
        twin("the page takes another type", pin(4, page));
        check(unpin(page) == 0);
    }
    make(raw, writable, -1, 0);
    twin("all entries good", pin(1, raw));
    attack("the page takes no other type", pin(4, page), -EINVAL);
    twin("unpin", unpin(raw));
    twin("the page takes another type", pin(4, page));
    check(unpin(page) == 0);

    rule("entries of frames that have another type are refused: -EBUSY, and no count moves");
    u64 *typed = table_alloc();
    check(pin(3, typed) == 0);
    make(raw, writable, 300, mfn_of(typed) << 12 | PTE_P | PTE_RW);
    attack("a writable mapping of an L3 in entry 300", pin(1, raw), -EBUSY);
    make(raw, writable, 300, mfn_of(typed) << 12 | PTE_P);
    twin("a read-only mapping of it", pin(1, raw));
    check(unpin(raw) == 0);
    make(raw, writable, 300, mfn_of(raw) << 12 | PTE_P | PTE_RW);
    attack("a writable mapping of the table itself", pin(1, raw), -EBUSY);
    make(raw, writable, 300, mfn_of(raw) << 12 | PTE_P);
    twin("a read-only mapping of itself", pin(1, raw));
    check(unpin(raw) == 0);
    check(unpin(typed) == 0);
    twin("the L3 is free", page_writable(typed));
}

static void of_upper(int level)
{
    u64 *child = table_alloc();
    char label[64];
    snprintf(label, sizeof(label), "an L%d whose last child is bad leaves no type on the good ones: -EINVAL", level);
    rule(label);
    make(raw, 0, -1, 0);
    check(page_writable(raw) == 0);
    for (int i = 0; i < 200; i++)
        raw[i] = mfn_of(child) << 12 | PTE_TABLE;
    raw[200] = BAD_FRAME | PTE_TABLE;
    check(page_readonly(raw) == 0);
    attack("a frame beyond memory", pin(level, raw), -EINVAL);
    twin("the child is writable", page_writable(child));
    attack("a child that is mapped writable", pin(level, raw), -EINVAL);
    check(page_readonly(child) == 0);
    check(page_writable(raw) == 0);
    raw[200] = mfn_of(raw) << 12 | PTE_TABLE;
    check(page_readonly(raw) == 0);
    attack("itself, writable", pin(level, raw), -EINVAL);
    check(page_writable(raw) == 0);
    raw[200] = mfn_of(child) << 12 | PTE_TABLE;
    check(page_readonly(raw) == 0);
    twin("good", pin(level, raw));
    attack("the child is writable", page_writable(child), -EBUSY);
    attack("the child takes another type", pin(level == 2 ? 3 : 1, child), -EINVAL);
    twin("unpin", unpin(raw));
    twin("the child is writable", page_writable(child));
}

static void deep(void)
{
    u64 *l1 = page_alloc(), *l2 = page_alloc(), *l3 = page_alloc(), *l4 = page_alloc(), *page = page_alloc();
    u64 *all[] = {l1, l2, l3, l4};
    l1[0] = mfn_of(page) << 12 | PTE_P | PTE_RW;
    l1[511] = BAD_FRAME | PTE_P;
    l2[0] = l2[511] = mfn_of(l1) << 12 | PTE_TABLE;
    l3[0] = l3[511] = mfn_of(l2) << 12 | PTE_TABLE;
    l4[0] = l4[511] = mfn_of(l3) << 12 | PTE_TABLE;
    for (int i = 0; i < 4; i++)
        check(page_readonly(all[i]) == 0);
    check(page_readonly(page) == 0);
    rule("a bad entry four levels down refuses the whole tree, by every operation that takes one: -EPERM");
    attack("pin L4", pin(4, l4), -EPERM);
    attack("new base pointer", mmuext(MMUEXT_NEW_BASEPTR, mfn_of(l4), 0), -EPERM);
    attack("new user base pointer", mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(l4), 0), -EPERM);
    attack("pin L3", pin(3, l3), -EPERM);
    attack("an entry of our own L4", set_entry((u64 *)kernel_l4 + 5, mfn_of(l3) << 12 | PTE_TABLE), -EPERM);
    for (int i = 0; i < 4; i++)
        twin("a table of it is writable", page_writable(all[i]));
    twin("the page takes another type", pin(2, page));
    check(unpin(page) == 0);
    l1[511] = 0;
    for (int i = 0; i < 4; i++)
        check(page_readonly(all[i]) == 0);
    twin("pin L4 without it", pin(4, l4));
    attack("the page takes another type", pin(2, page), -EINVAL);
    twin("unpin", unpin(l4));
    twin("the page takes another type", pin(2, page));
    check(unpin(page) == 0);
}

static void of_lists(void)
{
    u64 *table = table_alloc(), *page = page_alloc(), *other = page_alloc();
    check(pin(1, table) == 0);
    u64 good = mfn_of(page) << 12 | PTE_P | PTE_RW;
    struct mmu_update list[4] = {
        {machine_of(&table[0]), good},
        {machine_of(&table[1]), good},
        {machine_of(&table[2]), BAD_FRAME | PTE_P},
        {machine_of(&table[3]), good},
    };
    u32 done = 99;
    rule("a list stops at its first bad request; what was done stays and is counted");
    attack("the third of four is bad", xen_mmu_update(list, 4, &done, DOMID_SELF), -EPERM);
    stays("two are done", done == 2 && table[0] && table[1] && !table[2] && !table[3]);
    list[2].val = good;
    twin("all good", xen_mmu_update(list, 4, &done, DOMID_SELF));
    stays("four are done", done == 4);
    check(page_readonly(page) == 0);
    attack("the page takes another type", pin(1, page), -EINVAL);
    for (int i = 0; i < 4; i++)
        list[i].val = 0;
    twin("all cleared", xen_mmu_update(list, 4, &done, DOMID_SELF));
    twin("the page takes another type", pin(1, page));
    check(unpin(page) == 0);
    check(page_readonly(other) == 0);
    struct mmuext_op ops[3] = {
        {MMUEXT_PIN_L1_TABLE, mfn_of(other), 0},
        {MMUEXT_PIN_L2_TABLE, mfn_of(table), 0},
        {MMUEXT_UNPIN_TABLE, mfn_of(other), 0},
    };
    attack("pin one, pin a table as another level", xen_mmuext_op(ops, 3, &done, DOMID_SELF), -EINVAL);
    stays("one is done, and stays done", done == 1 && page_writable(other) == -EBUSY);
    twin("unpin", unpin(other));
}

void guest_main(void)
{
    raw = page_alloc();
    of_l1();
    of_upper(2);
    of_upper(3);
    of_upper(4);
    deep();
    of_lists();
}
