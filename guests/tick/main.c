/* A timer that is set again and again, as a guest's tick is, and everything that can come instead of the next one. */
#include "timer.h"

const char guest_name[] = "tick";

/* Set again and again to a time that is 3 ms after the last, and let go off. */
static u64 clockwork(u64 at, int times, int *wrong)
{
    for (int i = 0; i < times; i++) {
        at += 3 * MS;
        *wrong += singleshot(at, 0) != 0;
        *wrong += wait(1000 * MS) != 1 || !late_enough(at);
    }
    return at;
}

/* Tick, set the timer to so long after the last tick, and then to something else (0: stop it).  All that before it could go
 * off first: who was held up too long begins anew.  The last tick's time. */
static u64 tick_and_set(u64 first, u64 then, int *wrong)
{
    u64 at;
    do {
        xen_vcpu_op(VCPUOP_stop_singleshot_timer, 0, 0);
        drain();
        at = clockwork(system_time(), 4, wrong);
        singleshot(at + first, 0);
        if (then)
            singleshot(at + then, 0);
        else
            xen_vcpu_op(VCPUOP_stop_singleshot_timer, 0, 0);
    } while (system_time() + 200000 > at + first);
    return at;
}

/* A guest's tick can be foreseen.  Whatever comes instead of the next one is no other than at any time. */
static void foreseen(void)
{
    static const struct {
        const char *name;
        u64 first, then; /* ns after the last tick; 0: it is stopped */
    } ends[] = {
        {"sooner", MS, MS},
        {"a little sooner", 3 * MS - 40000, 3 * MS - 40000},
        {"later", 20 * MS, 20 * MS},
        {"as foreseen, and then sooner", 3 * MS, 2 * MS},
        {"as foreseen, and then later", 3 * MS, 20 * MS},
        {"as foreseen, and then stopped", 3 * MS, 0},
    };
    int wrong = 0;
    u64 at = clockwork(system_time(), 20, &wrong);
    printf("a tick of 3 ms, 20 times: %d wrong\n", wrong);
    check(wrong == 0);
    for (u64 i = 0; i < ARRAY_SIZE(ends); i++) {
        at = tick_and_set(ends[i].first, ends[i].then, &wrong);
        printf("%s: ", ends[i].name);
        if (ends[i].then)
            await(at + ends[i].then);
        else
            printf("fired: %d\n", wait(60 * MS));
    }
    at = tick_and_set(3 * MS, 3 * MS, &wrong) + 3 * MS;
    upcalls = 0;
    xen_sched_op(SCHEDOP_block, 0);
    events_mask();
    printf("as foreseen, and asleep: upcalls=%d, not early: %d\n", upcalls, late_enough(at));
    printf("%d wrong\n", wrong);
}

void guest_main(void)
{
    struct evtchn_bind_virq b = {VIRQ_TIMER, 0, 0};
    handlers[VEC_EVENT] = on_event;
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    check(xen_event_channel_op(EVTCHNOP_bind_virq, &b) == 0);
    port = b.port;
    clear_bit(shared_info->evtchn_mask, port);
    drain();
    foreseen();
}
