/* One frame, one type: every use of a frame under one type is tried while it has another. */
#include "attack.h"

const char guest_name[] = "type_confusion";

static u64 *l2_for_entries;

static s64 as_writable(u64 *page)
{
    static u64 *window;
    window = window ? window : page_alloc();
    s64 result = map_page((u64)window, mfn_of(page) << 12 | PTE_P | PTE_RW);
    check(map_page((u64)window, 0) == 0);
    return result;
}

static s64 as_pinned(int level, u64 *page)
{
    s64 result = pin(level, page);
    if (result)
        return result;
    check(unpin(page) == 0);
    if (level == 4) { /* what the hypervisor put there would be refused at other levels */
        check(page_writable(page) == 0);
        memset(page, 0, PAGE_SIZE);
        check(page_readonly(page) == 0);
    }
    return 0;
}

static s64 as_l1(u64 *page)
{
    return as_pinned(1, page);
}
static s64 as_l2(u64 *page)
{
    return as_pinned(2, page);
}
static s64 as_l3(u64 *page)
{
    return as_pinned(3, page);
}
static s64 as_l4(u64 *page)
{
    return as_pinned(4, page);
}

static s64 as_entry_of_l2(u64 *page)
{
    s64 result = set_entry(&l2_for_entries[7], mfn_of(page) << 12 | PTE_TABLE);
    check(set_entry(&l2_for_entries[7], 0) == 0);
    return result;
}

static s64 as_gdt(u64 *page)
{
    u64 frame = mfn_of(page);
    s64 result = H2(__HYPERVISOR_set_gdt, &frame, 512);
    check(H2(__HYPERVISOR_set_gdt, &frame, 0) == 0);
    return result;
}

static s64 as_user_base(u64 *page)
{
    s64 result = mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(page), 0);
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, 0, 0) == 0);
    return result;
}

static s64 to_be_cleared(u64 *page)
{
    return mmuext(MMUEXT_CLEAR_PAGE, mfn_of(page), 0);
}

static s64 to_be_copied_onto(u64 *page)
{
    static u64 *zero;
    zero = zero ? zero : page_alloc();
    return mmuext(MMUEXT_COPY_PAGE, mfn_of(page), mfn_of(zero));
}

static s64 as_descriptors(u64 *page)
{
    return H2(__HYPERVISOR_update_descriptor, machine_of(page), 0);
}

static s64 as_event_array(u64 *page)
{
    struct evtchn_expand_array e = {mfn_of(page)};
    return xen_event_channel_op(EVTCHNOP_expand_array, &e);
}

static s64 as_control_block(u64 *page)
{
    struct evtchn_init_control i = {mfn_of(page), 4032, 0, 0, {0}}; /* it would cross the page: never accepted */
    return xen_event_channel_op(EVTCHNOP_init_control, &i);
}

static s64 as_page_table(u64 *page)
{
    return set_entry(&page[3], 0);
}

static const struct use {
    const char *name;
    s64 (*go)(u64 *page);
} uses[] = {
    {"writable", as_writable},
    {"L1", as_l1},
    {"L2", as_l2},
    {"L3", as_l3},
    {"L4", as_l4},
    {"in an L2", as_entry_of_l2},
    {"GDT", as_gdt},
    {"user base", as_user_base},
    {"clear page", to_be_cleared},
    {"copy onto", to_be_copied_onto},
    {"descriptor", as_descriptors},
    {"mmu_update", as_page_table},
    {"event array", as_event_array},
    {"control block", as_control_block},
};

static void row(const char *type, u64 *page)
{
    printf("  %s:", type);
    for (u64 i = 0; i < ARRAY_SIZE(uses); i++)
        printf("%s %s=%s", i ? "," : "", uses[i].name, error_name(uses[i].go(page)));
    printf("\n");
}

void guest_main(void)
{
    static const char *const names[] = {"", "L1", "L2", "L3", "L4"};
    l2_for_entries = table_alloc();
    check(pin(2, l2_for_entries) == 0);

    rule("a frame that is mapped writable has that type: only uses of writable memory succeed");
    u64 *page = page_alloc();
    row("writable", page);
    attack("pinned as L1 while mapped writable", pin(1, page), -EINVAL);
    check(page_readonly(page) == 0);
    twin("pinned as L1, mapped read-only", pin(1, page));
    check(unpin(page) == 0);

    rule("a frame without a type takes any one that its contents allow");
    row("none", page);

    rule("a page table takes no other type, and is written as its level only");
    for (int level = 1; level <= 4; level++) {
        u64 *table = table_alloc();
        check(pin(level, table) == 0);
        row(names[level], table);
        stays("pinned", pin(level, table) == -EINVAL);
        twin("a read-only alias", map_page((u64)page, mfn_of(table) << 12 | PTE_P));
        attack("a writable alias", map_page((u64)page, mfn_of(table) << 12 | PTE_P | PTE_RW), -EBUSY);
        check(page_readonly(page) == 0);
        check(unpin(table) == 0);
        twin("writable when unpinned", page_writable(table));
    }

    rule("a descriptor table takes no other type, and page-table updates do not reach it");
    u64 *gdt = table_alloc(), frame = mfn_of(gdt);
    check(H2(__HYPERVISOR_set_gdt, &frame, 512) == 0);
    printf("  descriptors:");
    for (u64 i = 0; i < ARRAY_SIZE(uses); i++)
        if (uses[i].go != as_gdt)
            printf("%s %s=%s", i ? "," : "", uses[i].name, error_name(uses[i].go(gdt)));
    printf("\n");
    attack("writable", page_writable(gdt), -EBUSY);
    check(H2(__HYPERVISOR_set_gdt, &frame, 0) == 0);
    twin("writable when no table any more", page_writable(gdt));
}
