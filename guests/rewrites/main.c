/* A guest that changes its own code and page tables all the time, on all of its vcpus, and looks whether it sees what it
 * wrote: for hosts that move it from one physical CPU to another meanwhile. */
#include "guest.h"

const char guest_name[] = "rewrites";

#define MS 1000000UL
#define FUNCTIONS 32
#define MOST_VCPUS 4
#define WINDOW 0x500000000000UL
#define COMMON (WINDOW + MOST_VCPUS * PAGE_SIZE) /* where the first vcpu changes what all see */
#define WRITABLE 0x67

static struct worker {
    u8 code[FUNCTIONS][16] __attribute__((aligned(4096)));
    char stack[8192];
    u64 *pages[2], window;
    volatile u64 round, wrong;
} workers[MOST_VCPUS];
static u32 nr_workers = 1;
static u64 *common[2];
static volatile u64 common_is; /* what is at COMMON; 0 while that changes */
static volatile u32 started;   /* by whom the next one is */

static void round_of_code(struct worker *w, u32 seed)
{
    for (u32 i = 0; i < FUNCTIONS; i++) {
        u32 value = seed + i;
        w->code[i][0] = 0xb8; /* mov $value, %eax; ret */
        memcpy(&w->code[i][1], &value, 4);
        w->code[i][5] = 0xc3;
        w->wrong += ((u32(*)(void))(u64)w->code[i])() != value;
    }
}

static void round_of_mappings(struct worker *w, u64 seed)
{
    for (u64 i = 0; i < 2; i++) {
        *w->pages[i] = seed + i;
        w->wrong += map_page(w->window, machine_of(w->pages[i]) | WRITABLE) != 0;
        w->wrong += *(volatile u64 *)w->window != seed + i;
    }
}

static void change_common(u64 value)
{
    u64 *page = common[value % 2];
    *page = value;
    common_is = 0;
    workers[0].wrong += xen_update_va_mapping(COMMON, machine_of(page) | WRITABLE, UVMF_INVLPG | UVMF_ALL) != 0;
    common_is = value;
}

static void look_at_common(struct worker *w)
{
    u64 before = common_is, seen = *(volatile u64 *)COMMON;
    w->wrong += before != 0 && common_is == before && seen != before;
}

/* How far the slowest is: whoever waits for that waits for all. */
static void report(void)
{
    static u64 reported;
    u64 slowest = workers[0].round, wrong = 0;
    for (u32 i = 0; i < nr_workers; i++) {
        slowest = workers[i].round < slowest ? workers[i].round : slowest;
        wrong += workers[i].wrong;
    }
    if (slowest / 4 > reported) {
        reported = slowest / 4;
        printf("rewrites: round %lu, wrong %lu\n", slowest, wrong);
    }
}

static _Noreturn void work(struct worker *w)
{
    xen_vcpu_op(VCPUOP_stop_periodic_timer, (u32)(w - workers), 0);
    for (u64 round = 1;; round++) {
        u64 kept = (round << 8 | (u64)(w - workers)) * 0x9e3779b97f4a7c15UL, found;
        __asm__ volatile("movq %0, %%xmm9" : : "r"(kept)) /* nothing else here uses it */;
        for (u32 i = 0; i < 10; i++) {
            round_of_code(w, (u32)(round * 1000 + i));
            round_of_mappings(w, round * 1000 + i);
            if (w == workers && nr_workers > 1)
                change_common(round * 1000 + i);
            else
                look_at_common(w);
        }
        if (round % 2 == 0)
            sleep_until(system_time() + MS / 4);
        __asm__ volatile("movq %%xmm9, %0" : "=r"(found));
        w->wrong += found != kept;
        w->round = round;
        if (w == workers)
            report();
    }
}

static void begin(void)
{
    work(&workers[started]);
}

static void prepare(struct worker *w, u64 window)
{
    w->pages[0] = page_alloc();
    w->pages[1] = page_alloc();
    w->window = window;
    map_in(kernel_l4, window, machine_of(w->pages[0]) | WRITABLE);
}

void guest_main(void)
{
    static struct vcpu_guest_context context;
    prepare(workers, WINDOW);
    common[0] = page_alloc();
    common[1] = page_alloc();
    map_in(kernel_l4, COMMON, machine_of(common[0]) | WRITABLE);
    for (u32 vcpu = 1; vcpu < MOST_VCPUS; vcpu++) {
        vcpu_context(&context, begin, workers[vcpu].stack, sizeof(workers[vcpu].stack));
        vcpu_takes_callbacks(&context);
        vcpu_takes_traps(&context, 0, 19, 0);
        if (xen_vcpu_op(VCPUOP_initialise, vcpu, &context) != 0)
            break;
        prepare(&workers[vcpu], WINDOW + vcpu * PAGE_SIZE);
        nr_workers = vcpu + 1;
    }
    for (u32 vcpu = 1; vcpu < nr_workers; vcpu++) {
        started = vcpu;
        check(xen_vcpu_op(VCPUOP_up, vcpu, 0) == 0);
        while (workers[vcpu].round == 0)
            xen_sched_op(SCHEDOP_yield, 0);
    }
    work(workers);
}
