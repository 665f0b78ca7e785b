/* Timers: set_timer_op, the single-shot and periodic timers, and events that arrive in user mode. */
#include "timer.h"

const char guest_name[] = "timers";

USER_ASM(u_spin, "1: jmp 1b");

static s64 periodic(u64 period)
{
    return xen_vcpu_op(VCPUOP_set_periodic_timer, 0, &period);
}

static void boot_tick(void)
{
    struct evtchn_bind_virq b = {VIRQ_TIMER, 0, 0};
    check(xen_event_channel_op(EVTCHNOP_bind_virq, &b) == 0);
    struct evtchn_port p = {port = b.port};
    /* A tick that has come by now would be the last one, if only the bit were cleared. */
    check(xen_event_channel_op(EVTCHNOP_unmask, &p) == 0);
    printf("periodic timer at start: %d\n", wait(PATIENCE) > 0);
    expect_result("stop_periodic_timer", xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0), 0);
    drain();
    printf("after stop: %d\n", wait(60 * MS) > 0);
}

static void replaced(void)
{
    s64 earlier = singleshot(system_time() + 10 * MS, 0);
    u64 at = system_time() + 50 * MS;
    singleshot(at, 0);
    int fired = drain(); /* the earlier one, if the host stood still before it was replaced; or even the later one */
    expect_result("a later one replaces an earlier one", earlier, 0);
    if (fired && late_enough(at))
        printf("fired: 1, not early: 1\n");
    else
        await(at);
    xen_vcpu_op(VCPUOP_stop_singleshot_timer, 0, 0);
    drain();
}

static void one_shot(void)
{
    u64 at = system_time() + 5 * MS;
    expect_result("set_timer_op, 5 ms ahead", xen_set_timer_op(at), 0);
    await(at);
    printf("fires once: %d\n", wait(30 * MS) == 0);
    expect_result("set_timer_op, in the past", xen_set_timer_op(system_time() - 5 * MS), 0);
    printf("fired: %d\n", wait(PATIENCE));
    expect_result("set_timer_op, 30 ms ahead", xen_set_timer_op(system_time() + 30 * MS), 0);
    expect_result("set_timer_op, 0", xen_set_timer_op(0), 0);
    drain();
    printf("cancelled: %d\n", wait(60 * MS) == 0);
    expect_result("set_timer_op, 1 ns (ancient)", xen_set_timer_op(1), 0);
    printf("fired: %d\n", wait(PATIENCE));

    at = system_time() + 5 * MS;
    expect_result("singleshot, 5 ms ahead", singleshot(at, 0), 0);
    await(at);
    expect_result("singleshot in the past", singleshot(system_time() - 5 * MS, 0), 0);
    printf("fired: %d\n", wait(PATIENCE));
    /* The flag that once asked for -ETIME is ignored. */
    expect_result("singleshot in the past, future flag", singleshot(system_time() - 5 * MS, VCPU_SSHOTTMR_future),
                  0);
    printf("fired: %d\n", wait(PATIENCE));
    expect_result("singleshot ahead, future flag", singleshot(system_time() + 5 * MS, VCPU_SSHOTTMR_future), 0);
    printf("fired: %d\n", wait(PATIENCE));
    expect_result("singleshot, 40 ms ahead", singleshot(system_time() + 40 * MS, 0), 0);
    expect_result("stop_singleshot_timer", xen_vcpu_op(VCPUOP_stop_singleshot_timer, 0, 0), 0);
    drain();
    printf("stopped: %d\n", wait(60 * MS) == 0);
    replaced();
}

static void ticks(void)
{
    u64 start = system_time();
    expect_result("periodic, 5 ms", periodic(5 * MS), 0);
    for (int i = 0; i < 5; i++)
        check(wait(PATIENCE) > 0);
    printf("five ticks took at least 20 ms: %d\n", system_time() - start >= 20 * MS);
    expect_result("periodic, 0.9 ms", periodic(900000), -EINVAL);
    expect_result("periodic, 1 ms", periodic(MS), 0);
    expect_result("periodic, too long", periodic(1UL << 63), -EINVAL);
    expect_result("stop", xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0), 0);
    drain();
    printf("stopped: %d\n", wait(60 * MS) == 0);
}

static void blocking(void)
{
    u64 at = system_time() + 10 * MS;
    upcalls = 0;
    events_mask();
    singleshot(at, 0);
    expect_result("block", xen_sched_op(SCHEDOP_block, 0), 0);
    printf("block unmasked events: %d, upcalls=%d, not early: %d\n", !vcpu0->evtchn_upcall_mask, upcalls,
           late_enough(at));
    events_mask();
    set_bit(shared_info->evtchn_mask, port);
    struct sched_poll poll = {&port, 1, 0};
    at = system_time() + 10 * MS;
    singleshot(at, 0);
    expect_result("poll", xen_sched_op(SCHEDOP_poll, &poll), 0);
    printf("poll: pending=%d, not early: %d\n", test_bit(shared_info->evtchn_pending, port), late_enough(at));
    expect_result("poll of a pending port", xen_sched_op(SCHEDOP_poll, &poll), 0);
    clear_bit(shared_info->evtchn_pending, port);
    at = system_time() + 10 * MS;
    poll.timeout = at;
    expect_result("poll with a time limit", xen_sched_op(SCHEDOP_poll, &poll), 0);
    printf("poll: pending=%d, not early: %d\n", test_bit(shared_info->evtchn_pending, port), late_enough(at));
    clear_bit(shared_info->evtchn_mask, port);
}

static void from_user(void)
{
    struct regs r;
    user_init();
    user_frame(&r);
    handlers[VEC_EVENT] = 0;
    singleshot(system_time() + 5 * MS, 0);
    run_user(u_spin, 2, &r);
    printf("user mode is interrupted: %s at +%lu cs=%lx IF=%d\n", vector_name((int)user_exit.vector),
           user_exit.rip - USER_CODE, user_exit.cs, !!(user_exit.rflags & X86_EFLAGS_IF));
    check(user_exit.vector == VEC_EVENT && user_exit.rip == USER_CODE);
}

void guest_main(void)
{
    handlers[VEC_EVENT] = on_event;
    boot_tick();
    one_shot();
    ticks();
    blocking();
    from_user();
}
