/* Multicall: results, calls that change the world for later ones, refused nesting, bad lists. */
#include "guest.h"

const char guest_name[] = "multicall";

static struct multicall_entry calls[40];
static u32 used;

static void add(u64 op, u64 a1, u64 a2, u64 a3)
{
    calls[used++] = (struct multicall_entry){op, 0x5555, {a1, a2, a3, 4, 5, 6}};
}

static s64 run(void)
{
    s64 result = xen_multicall(calls, used);
    used = 0;
    return result;
}

static void results(void)
{
    char *page = page_alloc();
    add(__HYPERVISOR_xen_version, XENVER_version, 0, 0);
    add(__HYPERVISOR_update_va_mapping, (u64)page, mfn_of(page) << 12 | PTE_P, UVMF_INVLPG);
    add(__HYPERVISOR_xen_version, 99, 0, 0);
    add(63, 1, 2, 3);
    add(1000, 1, 2, 3);
    add(__HYPERVISOR_vcpu_op, VCPUOP_is_up, 0, 0);
    expect_result("list of six", run(), 0);
    for (int i = 0; i < 6; i++)
        printf("call %d: %s\n", i, i ? error_name((s64)calls[i].result) : calls[i].result > 0x40000 ? "version" : "?");
    check(calls[1].args[0] == (u64)page && calls[1].op == __HYPERVISOR_update_va_mapping);
    TRY("movb $1, (%0)", ::"r"(page));
    expect_fault("the mapping changed", 14, 3);
}

static void order(void)
{
    /* Each call sees what the one before did: a page made read-only, pinned, unpinned, writable again. */
    char *page = page_alloc();
    u64 mfn = mfn_of(page);
    static struct mmuext_op pin, unpin;
    pin = (struct mmuext_op){MMUEXT_PIN_L1_TABLE, mfn, 0};
    unpin = (struct mmuext_op){MMUEXT_UNPIN_TABLE, mfn, 0};
    add(__HYPERVISOR_update_va_mapping, (u64)page, mfn << 12 | PTE_P, UVMF_INVLPG);
    add(__HYPERVISOR_mmuext_op, (u64)&pin, 1, 0);
    calls[1].args[3] = DOMID_SELF;
    add(__HYPERVISOR_update_va_mapping, (u64)page, mfn << 12 | PTE_P | PTE_RW, UVMF_INVLPG);
    add(__HYPERVISOR_mmuext_op, (u64)&unpin, 1, 0);
    calls[3].args[3] = DOMID_SELF;
    add(__HYPERVISOR_update_va_mapping, (u64)page, mfn << 12 | PTE_P | PTE_RW, UVMF_INVLPG);
    expect_result("read-only, pin, writable (refused), unpin, writable", run(), 0);
    for (int i = 0; i < 5; i++)
        printf("call %d: %s\n", i, error_name((s64)calls[i].result));
    TRY("movb $1, (%0)", ::"r"(page));
    expect_fault("writable in the end", -1, 0);
}

static void nested(void)
{
    static struct multicall_entry inner = {__HYPERVISOR_xen_version, 0x5555, {XENVER_pagesize, 0, 0, 0, 0, 0}};
    add(__HYPERVISOR_multicall, (u64)&inner, 1, 0);
    add(__HYPERVISOR_xen_version, XENVER_pagesize, 0, 0);
    expect_result("nested", run(), 0);
    printf("inner list: %s, untouched: %d\n", error_name((s64)calls[0].result), inner.result == 0x5555);
    printf("call after it: %s\n", error_name((s64)calls[1].result));
}

static void scheduling(void)
{
    add(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0);
    add(__HYPERVISOR_vcpu_op, VCPUOP_is_up, 0, 0);
    expect_result("yield inside", run(), 0);
    printf("yield: %s, next: %s\n", error_name((s64)calls[0].result), error_name((s64)calls[1].result));
}

static void bad_lists(void)
{
    expect_result("no calls", xen_multicall(calls, 0), 0);
    expect_result("list not mapped", xen_multicall((void *)0x12345000, 1), -EFAULT);
    expect_result("list in Xen's range", xen_multicall((void *)MACH2PHYS_VIRT_START, 1), -EFAULT);
    expect_result("no calls, list not mapped", xen_multicall((void *)0x12345000, 0), 0);
    /* The list runs off the end of a mapped page: what fits is done, then the fault is reported. */
    char *pages = page_alloc(), *next = page_alloc();
    check(next == pages + PAGE_SIZE);
    check(map_page((u64)next, 0) == 0);
    struct multicall_entry *last = (struct multicall_entry *)next - 1;
    *last = (struct multicall_entry){__HYPERVISOR_vcpu_op, 0x5555, {VCPUOP_is_up, 0, 0, 0, 0, 0}};
    expect_result("list that runs into a hole", xen_multicall(last, 2), -EFAULT);
    printf("first call: %s\n", error_name((s64)last->result));
    check(page_readonly(pages) == 0);
    printf("read-only list: %s\n", error_name(xen_multicall(last, 1)));
}

void guest_main(void)
{
    results();
    order();
    nested();
    scheduling();
    bad_lists();
}
