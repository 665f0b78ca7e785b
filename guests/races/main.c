/*
 * Two vcpus: one writes to a page without a pause, while the other makes something else of the page. Whatever the
 * writer does in between, its writes land before that, or fault: nothing changes afterwards.
 */
#include "attack.h"

const char guest_name[] = "races";

#define TURNS 8
#define WATCHED 20000 /* ticks of the time-stamp counter */

static char stack[8192] __attribute__((aligned(16)));
static struct vcpu_guest_context context;
static u64 *volatile place; /* where the second vcpu writes; null: nowhere */
static volatile u64 written, refused;
extern char the_write[], behind_it[];

/* Even numbers: whatever of them is in the page, it is no entry that is present. */
static void second(void)
{
    for (u64 value = 2;; value += 2) {
        u64 *where = place;
        if (!where)
            xen_sched_op(SCHEDOP_yield, 0);
        else
            asm volatile("the_write: movq %1, (%0)\n\tincq written(%%rip)\nbehind_it:" ::"r"(where), "r"(value) : "memory");
    }
}

static void on_page_fault(struct regs *r)
{
    if (r->rip == (u64)the_write) {
        r->rip = (u64)behind_it;
        refused++;
        if (system_time() & 0x100000) /* where vcpus take turns, the other one gets one now and then */
            xen_sched_op(SCHEDOP_yield, 0);
    }
}

static int passes(volatile u64 *counter, u64 value)
{
    u64 end = system_time() + PATIENCE;
    while (*counter <= value && system_time() < end)
        xen_sched_op(SCHEDOP_yield, 0);
    return *counter > value;
}

/* Let the second vcpu write to the page, which is memory, and see that it does. */
static void let_it_write(u64 *page)
{
    place = page;
    check(passes(&written, written + 1));
}

/* Whether a word stays as it is though the other vcpu goes on. */
static int is_still(volatile u64 *word)
{
    u64 before = *word, end = rdtsc() + WATCHED;
    while (rdtsc() < end)
        asm volatile("pause");
    int tried = passes(&refused, refused);
    return tried && *word == before;
}

static s64 quietly(void *va, u64 pte)
{
    return xen_update_va_mapping((u64)va, pte, UVMF_NONE);
}

static void begin(void)
{
    handlers[14] = on_page_fault;
    vcpu_context(&context, second, stack, sizeof(stack));
    vcpu_takes_callbacks(&context);
    vcpu_takes_traps(&context, 0, 19, 0);
    check(xen_vcpu_op(VCPUOP_initialise, 1, &context) == 0);
    check(xen_vcpu_op(VCPUOP_up, 1, 0) == 0);
}

static void becoming_tables(void)
{
    rule("a page that becomes a page table while another vcpu writes to it does not change any more");
    for (int level = 1; level <= 4; level++) {
        u64 *page = page_alloc();
        int still = 1;
        char label[32];
        for (int turn = 0; turn < TURNS; turn++) {
            let_it_write(page);
            check(quietly(page, mfn_of(page) << 12 | PTE_P) == 0);
            check(pin(level, page) == 0);
            still &= is_still(page);
            place = 0;
            check(unpin(page) == 0);
            check(page_writable(page) == 0);
        }
        snprintf(label, sizeof(label), "an L%d", level);
        stays(label, still);
    }
}

static void becoming_descriptors(void)
{
    u64 *page = page_alloc(), frame = mfn_of(page);
    int still = 1;
    rule("nor one that becomes a descriptor table");
    for (int turn = 0; turn < TURNS; turn++) {
        let_it_write(page);
        check(quietly(page, frame << 12 | PTE_P) == 0);
        still &= H2(__HYPERVISOR_set_gdt, &frame, 512) == 0 && is_still(page);
        place = 0;
        check(H2(__HYPERVISOR_set_gdt, &frame, 0) == 0);
        check(page_writable(page) == 0);
    }
    stays("a GDT", still);
}

static void given_back(void)
{
    u64 *page = page_alloc(), *window = page_alloc(), pfn = ((u64)page - VIRT_BASE) >> 12, frame;
    struct xen_memory_reservation r = {&frame, 1, 0, 0, DOMID_SELF};
    int still = 1;
    rule("nor a frame that was given back, when it is in use again");
    for (int turn = 0; turn < TURNS; turn++) {
        let_it_write(page);
        check(quietly(page, 0) == 0);
        frame = p2m[pfn];
        check(xen_memory_op(XENMEM_decrease_reservation, &r) == 1);
        frame = pfn;
        check(xen_memory_op(XENMEM_populate_physmap, &r) == 1);
        p2m[pfn] = frame;
        check(map_page((u64)window, frame << 12 | PTE_P | PTE_RW) == 0);
        window[0] = 0x1234567;
        still &= is_still(window) && window[0] == 0x1234567;
        place = 0;
        check(map_page((u64)window, 0) == 0);
        check(page_writable(page) == 0);
    }
    stays("the frame's new use", still);
}

void guest_main(void)
{
    begin();
    becoming_tables();
    becoming_descriptors();
    given_back();
}
