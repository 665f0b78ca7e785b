/* For kernels that are about timers: their events, and waiting for these. */
#ifndef TIMER_H
#define TIMER_H

#include "guest.h"

#define MS 1000000UL

static int upcalls;
static u32 port;
static struct regs seen;

static void on_event(struct regs *r)
{
    seen = *r;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    if (test_and_clear_bit(shared_info->evtchn_pending, port))
        upcalls++;
}

/* Wait at most so long, with events on; the number of timer events that came. A host may stand still anywhere: what
 * has to come is waited for with all patience, and only what must not come for a time. */
static int wait(u64 nanoseconds)
{
    u64 end = system_time() + nanoseconds;
    upcalls = 0;
    events_unmask();
    while (!upcalls && system_time() < end)
        ;
    events_mask();
    return upcalls;
}

/* Xen lets timers that are due within 50 microseconds fire together. */
static int late_enough(u64 at)
{
    return system_time() + 100000 >= at;
}

static void await(u64 at)
{
    int fired = wait(PATIENCE);
    printf("fired: %d, not early: %d\n", fired, late_enough(at));
    check(fired == 1 && late_enough(at));
}

/* Take what has come so far: a timer may have fired before it was stopped. */
static int drain(void)
{
    return wait(0);
}

static s64 singleshot(u64 at, u32 flags)
{
    struct vcpu_set_singleshot_timer t = {at, flags};
    return xen_vcpu_op(VCPUOP_set_singleshot_timer, 0, &t);
}

#endif
