/*
 * Two vcpus: what one of them changes, the other must not go on using by an old translation. The second only does
 * as it is told: writes to an address, or changes its base pointer.
 */
#include "attack.h"

const char guest_name[] = "stale_elsewhere";

static char stack[8192] __attribute__((aligned(16)));
static struct vcpu_guest_context context;
static volatile enum { IDLE, WRITE, MOVE } job;
static u64 *volatile place;
static s64 moved;

static void second(void)
{
    for (;;) {
        while (job == IDLE)
            xen_sched_op(SCHEDOP_yield, 0);
        if (job == WRITE)
            TRY("movq $0, (%0)", ::"r"(place) : "memory");
        if (job == MOVE)
            moved = mmuext(MMUEXT_NEW_BASEPTR, mfn_of((void *)kernel_l4), 0);
        job = IDLE;
    }
}

/* Have the second vcpu do it; what a fault there was is in `fault`. */
static void tell(int what, u64 *where)
{
    u64 end = system_time() + PATIENCE;
    place = where;
    job = what;
    while (job != IDLE && system_time() < end)
        xen_sched_op(SCHEDOP_yield, 0);
    check(job == IDLE);
}

static s64 quietly(void *va, u64 pte)
{
    return xen_update_va_mapping((u64)va, pte, UVMF_NONE);
}

static u64 *begin(void)
{
    u64 *fresh = root_copy(kernel_l4);
    check(pin(4, fresh) == 0);
    vcpu_context(&context, second, stack, sizeof(stack));
    context.ctrlreg[3] = mfn_of(fresh) << 12;
    vcpu_takes_callbacks(&context);
    vcpu_takes_traps(&context, 0, 19, 0);
    check(xen_vcpu_op(VCPUOP_initialise, 1, &context) == 0);
    check(xen_vcpu_op(VCPUOP_up, 1, 0) == 0);
    return fresh;
}

static void its_tables(u64 *fresh)
{
    u64 *page = page_alloc(), va = 0x630000000000;
    rule("the tables that another vcpu runs on are tables, pinned or not: -EBUSY for a writable mapping");
    twin("unpin them", unpin(fresh));
    attack("write them", page_writable(fresh), -EBUSY);
    attack("pin them as an L3", pin(3, fresh), -EINVAL);
    map_in((u64)fresh, va, mfn_of(page) << 12 | PTE_P | PTE_RW);
    tell(WRITE, (u64 *)va);
    twin_runs("the other vcpu writes through an entry of its own tables");
    check(set_entry(fresh + (va >> 39), 0) == 0);
    check(mmuext(MMUEXT_TLB_FLUSH_ALL, 0, 0) == 0);
    tell(WRITE, (u64 *)va);
    attack_faults("it writes after the entry was cleared", 14, 2);
    tell(MOVE, 0);
    twin("it leaves them", moved);
    twin("write them", page_writable(fresh));
}

static void becoming_tables(void)
{
    rule("a page that another vcpu wrote before it became a table cannot be written by it after: #PF");
    for (int level = 1; level <= 4; level++) {
        u64 *page = page_alloc();
        char label[48];
        tell(WRITE, page);
        twin_runs("written while it is memory");
        check(quietly(page, mfn_of(page) << 12 | PTE_P) == 0);
        check(pin(level, page) == 0);
        tell(WRITE, page);
        snprintf(label, sizeof(label), "written after it is an L%d", level);
        attack_faults(label, 14, 3);
        check(unpin(page) == 0);
        check(page_writable(page) == 0);
        tell(WRITE, page);
        twin_runs("written when it is memory again");
    }
}

static void flushes(void)
{
    static u64 both = 3;
    u64 *page = page_alloc();
    static const char *const names[] = {
        "INVLPG_ALL", "TLB_FLUSH_ALL", "INVLPG_MULTI", "TLB_FLUSH_MULTI", "update with INVLPG, all", "update with flush, all",
    };
    rule("a flush that names another vcpu has happened there when it returns: #PF");
    for (u64 i = 0; i < ARRAY_SIZE(names); i++) {
        u64 readonly = mfn_of(page) << 12 | PTE_P;
        tell(WRITE, page);
        twin_runs("written while it may be");
        u64 flags = i == 4 ? UVMF_INVLPG | UVMF_ALL : i == 5 ? UVMF_TLB_FLUSH | UVMF_ALL : UVMF_NONE;
        check(xen_update_va_mapping((u64)page, readonly, flags) == 0);
        if (i == 0)
            check(mmuext(MMUEXT_INVLPG_ALL, (u64)page, 0) == 0);
        if (i == 1)
            check(mmuext(MMUEXT_TLB_FLUSH_ALL, 0, 0) == 0);
        if (i == 2)
            check(mmuext(MMUEXT_INVLPG_MULTI, (u64)page, (u64)&both) == 0);
        if (i == 3)
            check(mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, (u64)&both) == 0);
        tell(WRITE, page);
        attack_faults(names[i], 14, 3);
        check(page_writable(page) == 0);
    }
}

static void given_back(void)
{
    u64 *page = page_alloc(), *window = page_alloc(), frame = mfn_of(page), pfn = ((u64)page - VIRT_BASE) >> 12;
    struct xen_memory_reservation r = {&frame, 1, 0, 0, DOMID_SELF};
    int hurt = 0;
    rule("nothing that another vcpu writes to a frame that was given back shows when it is in use again");
    for (int turn = 0; turn < 4; turn++) {
        tell(WRITE, page);
        check(fault.vector < 0);
        check(quietly(page, 0) == 0);
        frame = p2m[pfn];
        check(xen_memory_op(XENMEM_decrease_reservation, &r) == 1);
        frame = pfn;
        check(xen_memory_op(XENMEM_populate_physmap, &r) == 1);
        p2m[pfn] = frame;
        check(map_page((u64)window, frame << 12 | PTE_P | PTE_RW) == 0);
        window[0] = 0x1234567;
        tell(WRITE, page); /* a fault or not: the old frame may be nobody's */
        hurt += window[0] != 0x1234567;
        check(map_page((u64)window, 0) == 0);
        check(page_writable(page) == 0);
    }
    stays("what is in the new frame, four times", hurt == 0);
    tell(WRITE, page);
    twin_runs("written where the last one is mapped");
}

void guest_main(void)
{
    u64 *fresh = begin();
    its_tables(fresh);
    becoming_tables();
    flushes();
    given_back();
}
