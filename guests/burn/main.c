/* A guest that wants all the processor time there is, and says how much it had of one stretch of system time. */
#include "guest.h"

const char guest_name[] = "burn";

#define MS 1000000UL
#define BEGIN (100 * MS)
#define END (1600 * MS)

static u64 time_running(void)
{
    struct vcpu_runstate_info info;
    xen_vcpu_op(VCPUOP_get_runstate_info, 0, &info);
    return info.time[0];
}

static void burn_until(u64 time)
{
    while (system_time() < time)
        for (volatile int i = 0; i < 2000; i++)
            ;
}

void guest_main(void)
{
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    burn_until(BEGIN);
    u64 before = time_running();
    burn_until(END);
    printf("burn: had %lu us\n", (time_running() - before) / 1000);
    for (;;)
        burn_until(system_time() + MS); /* the others' shares are not to grow */
}
