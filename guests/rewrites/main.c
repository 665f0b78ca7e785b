/* A guest that changes its own code and page tables all the time, and looks whether it sees what it wrote: for hosts
 * that move it from one physical CPU to another meanwhile. */
#include "guest.h"

const char guest_name[] = "rewrites";

#define MS 1000000UL
#define FUNCTIONS 32
#define WINDOW 0x500000000000UL
#define WRITABLE 0x67

static u8 code[FUNCTIONS][16] __attribute__((aligned(4096)));
static u64 wrong;

static void round_of_code(u32 seed)
{
    for (u32 i = 0; i < FUNCTIONS; i++) {
        u32 value = seed + i;
        code[i][0] = 0xb8; /* mov $value, %eax; ret */
        memcpy(&code[i][1], &value, 4);
        code[i][5] = 0xc3;
        wrong += ((u32(*)(void))(u64)code[i])() != value;
    }
}

static void round_of_mappings(u64 *const pages[2], u64 seed)
{
    for (u64 i = 0; i < 2; i++) {
        *pages[i] = seed + i;
        wrong += map_page(WINDOW, machine_of(pages[i]) | WRITABLE) != 0;
        wrong += *(volatile u64 *)WINDOW != seed + i;
    }
}

void guest_main(void)
{
    u64 *const pages[2] = {page_alloc(), page_alloc()};
    map_in(kernel_l4, WINDOW, machine_of(pages[0]) | WRITABLE);
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    for (u64 round = 1;; round++) {
        u64 kept = round * 0x9e3779b97f4a7c15UL, found;
        __asm__ volatile("movq %0, %%xmm9" : : "r"(kept)) /* nothing else here uses it */;
        for (u32 i = 0; i < 10; i++) {
            round_of_code((u32)(round * 1000 + i));
            round_of_mappings(pages, round * 1000 + i);
        }
        if (round % 2 == 0)
            sleep_until(system_time() + MS / 4);
        __asm__ volatile("movq %%xmm9, %0" : "=r"(found));
        wrong += found != kept;
        if (round % 4 == 0)
            printf("rewrites: round %lu, wrong %lu\n", round, wrong);
    }
}
