/*
 * Bringing a vcpu up on page tables that nobody validated before: it takes longer than one hypercall may, so it is
 * interrupted and made again, and nothing shows of that.
 */
#include "attack.h"

const char guest_name[] = "bounded_start";

#define TABLES 400
#define FIRST_PFN 4096
#define LAST_PFN 4095
#define WHERE 0x10000000000UL

static char stack[4096] __attribute__((aligned(16)));
static struct vcpu_guest_context context;
static volatile int said;

static void second(void)
{
    said = 1;
    for (;;)
        xen_vcpu_op(VCPUOP_down, 1, 0);
}

/* Page tables of the guest's own memory beyond what is mapped: 400 L1 tables, each full, under one L2. */
static u64 *big_root(u64 first_pfn, int spoiled)
{
    u64 *root = table_alloc(), *upper = table_alloc(), *middle = table_alloc();
    static u64 window[512] __attribute__((aligned(4096)));
    u64 window_entry = *pte_of((u64)window);
    check(page_writable(root) == 0 && page_writable(upper) == 0 && page_writable(middle) == 0);
    for (u64 i = 0; i < TABLES; i++) {
        u64 mfn = p2m[first_pfn + i];
        check(map_page((u64)window, mfn << 12 | PTE_P | PTE_RW) == 0);
        for (u64 e = 0; e < 512; e++)
            window[e] = p2m[LAST_PFN] << 12 | PTE_P;
        if (spoiled && i == TABLES - 1)
            window[511] = mfn_of((void *)kernel_l4) << 12 | PTE_P | PTE_RW;
        middle[i] = mfn << 12 | PTE_TABLE;
    }
    check(map_page((u64)window, window_entry) == 0);
    upper[0] = mfn_of(middle) << 12 | PTE_TABLE;
    memcpy(root, (void *)kernel_l4, PAGE_SIZE);
    for (int i = 256; i < 272; i++)
        root[i] = 0;
    root[WHERE >> 39 & 511] = mfn_of(upper) << 12 | PTE_TABLE;
    check(page_readonly(root) == 0 && page_readonly(upper) == 0 && page_readonly(middle) == 0);
    return root;
}

static s64 start(const u64 *kernel, const u64 *user)
{
    vcpu_context(&context, second, stack, sizeof(stack));
    context.ctrlreg[3] = mfn_of(kernel) << 12;
    context.ctrlreg[1] = user ? mfn_of(user) << 12 : 0;
    return xen_vcpu_op(VCPUOP_initialise, 1, &context);
}

void guest_main(void)
{
    u64 end, *good = root_copy(kernel_l4), *bad = big_root(FIRST_PFN, 1), *big;
    rule("tables whose very last entry is bad are refused, and let go of");
    attack("as the kernel's", start(bad, 0), -EBUSY);
    /* What is left over goes with the next calls about page tables. */
    for (int i = 0; i < 10; i++)
        check(mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0) == 0);
    twin("the root may be written", page_writable(bad));
    check(page_readonly(bad) == 0);
    attack("as the processes'", start(good, bad), -EBUSY);
    rule("good tables of that size are taken");
    good = root_copy(kernel_l4);
    big = big_root(FIRST_PFN + TABLES, 0);
    twin("start", start(good, big));
    attack("again", start(good, big), -EEXIST);
    attack("its root may not be written", page_writable(big), -EBUSY);
    twin("up", xen_vcpu_op(VCPUOP_up, 1, 0));
    end = system_time() + PATIENCE;
    while (!said && system_time() < end)
        xen_sched_op(SCHEDOP_yield, 0);
    stays("it runs", said == 1);
}
