/* sched_op: yield, block, poll, watchdog and the refusals; how a domain ends is another kernel's business. */
#include "guest.h"

const char guest_name[] = "sched";

#define MS 1000000UL

static int upcalls;
static u32 port;

static void on_event(struct regs *r)
{
    (void)r;
    upcalls++;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    clear_bit(shared_info->evtchn_pending, port);
}

static s64 poll(u32 *ports, u32 count, u64 timeout)
{
    struct sched_poll p = {ports, count, timeout};
    return xen_sched_op(SCHEDOP_poll, &p);
}

static void blocking(void)
{
    struct evtchn_bind_ipi b = {0, 0};
    struct evtchn_port p;
    handlers[VEC_EVENT] = on_event;
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &b) == 0);
    p.port = port = b.port;
    clear_bit(shared_info->evtchn_mask, port);
    events_mask();
    check(xen_event_channel_op(EVTCHNOP_send, &p) == 0);
    expect_result("block with an event pending", xen_sched_op(SCHEDOP_block, 0), 0);
    printf("came back at once: upcalls=%d mask=%d\n", upcalls, vcpu0->evtchn_upcall_mask);
    check(upcalls == 1 && !vcpu0->evtchn_upcall_mask);
    events_mask();
    expect_result("yield", xen_sched_op(SCHEDOP_yield, 0), 0);
    expect_result("compat yield", H2(__HYPERVISOR_sched_op_compat, SCHEDOP_yield, 0), 0);
    expect_result("yield keeps the mask", vcpu0->evtchn_upcall_mask, 1);
}

static void polling(void)
{
    u32 ports[3] = {port, port, 0};
    struct evtchn_port p = {port};
    set_bit(shared_info->evtchn_mask, port);
    check(xen_event_channel_op(EVTCHNOP_send, &p) == 0);
    expect_result("poll of a pending port", poll(ports, 1, 0), 0);
    clear_bit(shared_info->evtchn_pending, port);
    u64 at = system_time() + 5 * MS;
    expect_result("poll with a time limit", poll(ports, 1, at), 0);
    printf("not early: %d\n", system_time() + 100000 >= at);
    expect_result("poll of nothing with a time limit", poll(0, 0, system_time() + 2 * MS), 0);
    expect_result("poll with its limit in the past", poll(ports, 1, 1), 0);
    ports[0] = 5000;
    expect_result("poll of a port that cannot be", poll(ports, 1, 1), -EINVAL);
    ports[0] = 700;
    expect_result("poll of a free port", poll(ports, 1, system_time() + MS), -EINVAL);
    expect_result("poll of 129 ports", poll(ports, 129, 1), -EINVAL);
    expect_result("poll, ports not mapped", poll((u32 *)0x12345000, 1, 1), -EFAULT);
    printf("poll keeps the mask: %d\n", vcpu0->evtchn_upcall_mask);
    /* With an upcall pending and unmasked, or events masked, poll waits the same: only the ports count. */
    vcpu0->evtchn_upcall_pending = 1;
    expect_result("poll with an upcall pending", poll(ports, 0, system_time() + 2 * MS), 0);
    vcpu0->evtchn_upcall_pending = 0;
}

static void watchdogs(void)
{
    struct {
        u32 id, timeout;
    } w = {0, 100};
    s64 first = xen_sched_op(SCHEDOP_watchdog, &w), second = xen_sched_op(SCHEDOP_watchdog, &w);
    printf("watchdogs: %s", error_name(first));
    printf(" %s", error_name(second));
    printf(" third: %s\n", error_name(xen_sched_op(SCHEDOP_watchdog, &w)));
    w.id = (u32)first;
    printf("touch: %s\n", error_name(xen_sched_op(SCHEDOP_watchdog, &w)));
    w.timeout = 0;
    printf("stop: %s", error_name(xen_sched_op(SCHEDOP_watchdog, &w)));
    printf(", again: %s\n", error_name(xen_sched_op(SCHEDOP_watchdog, &w)));
    w.id = 7;
    printf("stop number 7: %s\n", error_name(xen_sched_op(SCHEDOP_watchdog, &w)));
    w.id = (u32)second;
    printf("stop the other: %s\n", error_name(xen_sched_op(SCHEDOP_watchdog, &w)));
}

static void refusals(void)
{
    static char zero[64];
    for (u32 op = 2; op < 10; op++)
        printf("operation %u: bad pointer: %s\n", op, error_name(xen_sched_op(op, (void *)0x12345000)));
    struct {
        u16 domain;
        u32 reason;
    } remote = {999, 0};
    printf("remote_shutdown of 999: %s\n", error_name(xen_sched_op(SCHEDOP_remote_shutdown, &remote)));
    if (is_domU()) {
        remote.domain = 0;
        printf("remote_shutdown of domain 0: %s\n", error_name(xen_sched_op(SCHEDOP_remote_shutdown, &remote)));
        printf("pin_override: %s\n", error_name(xen_sched_op(SCHEDOP_pin_override, zero)));
    }
    u32 code = 0;
    printf("shutdown_code: %s\n", error_name(xen_sched_op(SCHEDOP_shutdown_code, &code)));
    printf("shutdown_code again: %s\n", error_name(xen_sched_op(SCHEDOP_shutdown_code, &code)));
}

void guest_main(void)
{
    blocking();
    polling();
    watchdogs();
    refusals();
}
