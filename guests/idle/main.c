/* A guest that wants nothing: it says so, and waits for ever. */
#include "guest.h"

const char guest_name[] = "idle";

void guest_main(void)
{
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    printf("idle: %s\n", start_info->cmd_line);
    memset(shared_info->evtchn_mask, 0xff, sizeof(shared_info->evtchn_mask)); /* no event ends the wait */
    for (;;)
        xen_sched_op(SCHEDOP_block, 0);
}
