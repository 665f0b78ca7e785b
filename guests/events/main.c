/* Two-level event channels: pending bits, masks, selectors, unmask, and every operation's refusals. */
#include "guest.h"

const char guest_name[] = "events";

static int upcalls;
static u64 selector_seen;

static void on_event(struct regs *r)
{
    (void)r;
    upcalls++;
    vcpu0->evtchn_upcall_pending = 0;
    asm volatile("xchgq %0, %1" : "=r"(selector_seen), "+m"(vcpu0->evtchn_pending_sel) : "0"(0UL));
}

static u32 bind_ipi(void)
{
    struct evtchn_bind_ipi b = {0, 0};
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &b) == 0);
    return b.port;
}

static s64 port_op(u32 op, u32 port)
{
    struct evtchn_port p = {port};
    return xen_event_channel_op(op, &p);
}

static s64 status(u32 port, struct evtchn_status *s)
{
    *s = (struct evtchn_status){.dom = DOMID_SELF, .port = port};
    return xen_event_channel_op(EVTCHNOP_status, s);
}

static void state(const char *label, u32 port)
{
    printf("%s: pending=%d masked=%d selector=%d upcall pending=%d upcalls=%d\n", label,
           test_bit(shared_info->evtchn_pending, port), test_bit(shared_info->evtchn_mask, port),
           test_bit(&vcpu0->evtchn_pending_sel, port / 64), vcpu0->evtchn_upcall_pending, upcalls);
}

static void reset_state(u32 port)
{
    clear_bit(shared_info->evtchn_pending, port);
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    upcalls = 0;
}

static void levels(void)
{
    u32 port = bind_ipi();
    check(test_bit(shared_info->evtchn_mask, port)); /* ours: the runtime masks all */
    reset_state(port);
    port_op(EVTCHNOP_send, port);
    state("masked port, sent", port);
    check(test_bit(shared_info->evtchn_pending, port) && !vcpu0->evtchn_upcall_pending);
    clear_bit(shared_info->evtchn_mask, port);
    state("mask bit cleared by hand", port);
    port_op(EVTCHNOP_send, port);
    state("sent again, still pending", port);
    set_bit(shared_info->evtchn_mask, port);
    expect_result("unmask", port_op(EVTCHNOP_unmask, port), 0);
    state("unmasked by hypercall", port);
    check(vcpu0->evtchn_upcall_pending && test_bit(&vcpu0->evtchn_pending_sel, port / 64));
    events_unmask();
    state("events on", port);
    printf("selector in the upcall has the port's word: %d\n", test_bit(&selector_seen, port / 64));
    port_op(EVTCHNOP_send, port);
    state("sent with the bit still pending", port);
    clear_bit(shared_info->evtchn_pending, port);
    port_op(EVTCHNOP_send, port);
    state("sent with the bit cleared", port);
    check(upcalls == 2);
    events_mask();
    reset_state(port);
    expect_result("unmask what is not pending", port_op(EVTCHNOP_unmask, port), 0);
    state("nothing happened", port);
    /* Closing takes the pending bit away; the mask bit stays as it is. */
    port_op(EVTCHNOP_send, port);
    expect_result("close", port_op(EVTCHNOP_close, port), 0);
    state("closed", port);
    reset_state(port);
}

static void statuses(void)
{
    struct evtchn_status s;
    struct evtchn_alloc_unbound unbound = {DOMID_SELF, 0, 0};
    struct evtchn_bind_virq virq = {VIRQ_TIMER, 0, 0};
    u32 ipi = bind_ipi();
    expect_result("status of an ipi", status(ipi, &s), 0);
    printf("status=%u vcpu=%u\n", s.status, s.vcpu);
    expect_result("bind_virq timer", xen_event_channel_op(EVTCHNOP_bind_virq, &virq), 0);
    status(virq.port, &s);
    printf("status=%u vcpu=%u virq=%u\n", s.status, s.vcpu, s.u.virq);
    expect_result("bind_virq timer again", xen_event_channel_op(EVTCHNOP_bind_virq, &virq), -EEXIST);
    expect_result("alloc_unbound for domain 0", xen_event_channel_op(EVTCHNOP_alloc_unbound, &unbound), 0);
    status(unbound.port, &s);
    printf("status=%u remote=%u\n", s.status, s.u.unbound.dom);
    expect_result("send to an unbound port", port_op(EVTCHNOP_send, unbound.port), 0);
    if (is_domU()) {
        status(start_info->console.domU.evtchn, &s);
        printf("console: status=%u remote=%u\n", s.status, s.u.interdomain.dom);
    }
    struct evtchn_alloc_unbound own = {DOMID_SELF, DOMID_SELF, 0};
    expect_result("alloc_unbound for ourselves", xen_event_channel_op(EVTCHNOP_alloc_unbound, &own), 0);
    struct evtchn_bind_interdomain loop = {DOMID_SELF, own.port, 0};
    expect_result("bind_interdomain to ourselves", xen_event_channel_op(EVTCHNOP_bind_interdomain, &loop), 0);
    status(loop.local_port, &s);
    printf("status=%u, remote port is the other one: %d\n", s.status, s.u.interdomain.port == own.port);
    /* Binding marks the local end pending at once; a send through one end appears at the other. */
    printf("pending after bind: local=%d remote=%d\n", test_bit(shared_info->evtchn_pending, loop.local_port),
           test_bit(shared_info->evtchn_pending, own.port));
    clear_bit(shared_info->evtchn_pending, loop.local_port);
    expect_result("send", port_op(EVTCHNOP_send, loop.local_port), 0);
    printf("pending after send: local=%d remote=%d\n", test_bit(shared_info->evtchn_pending, loop.local_port),
           test_bit(shared_info->evtchn_pending, own.port));
    expect_result("bind a bound port", xen_event_channel_op(EVTCHNOP_bind_interdomain, &loop), -EINVAL);
    expect_result("close one end", port_op(EVTCHNOP_close, loop.local_port), 0);
    status(own.port, &s);
    printf("the other end: status=%u\n", s.status);
    struct evtchn_bind_vcpu bv = {own.port, 0};
    expect_result("bind_vcpu of an unbound port", xen_event_channel_op(EVTCHNOP_bind_vcpu, &bv), 0);
    bv.port = virq.port;
    expect_result("bind_vcpu of a per-vcpu virq", xen_event_channel_op(EVTCHNOP_bind_vcpu, &bv), -EINVAL);
    bv.port = ipi;
    expect_result("bind_vcpu of an ipi", xen_event_channel_op(EVTCHNOP_bind_vcpu, &bv), -EINVAL);
    bv = (struct evtchn_bind_vcpu){own.port, 40};
    expect_result("bind_vcpu to vcpu 40", xen_event_channel_op(EVTCHNOP_bind_vcpu, &bv), -ENOENT);
    port_op(EVTCHNOP_close, virq.port);
    port_op(EVTCHNOP_close, unbound.port);
    port_op(EVTCHNOP_close, own.port);
    status(own.port, &s);
    printf("closed: status=%u\n", s.status);
    /* The lowest free port is given out first. */
    check(bind_ipi() < own.port);
}

static void refusals(void)
{
    static const u32 ops[] = {EVTCHNOP_close, EVTCHNOP_send, EVTCHNOP_unmask};
    static const char *const names[] = {"close", "send", "unmask"};
    struct evtchn_status s;
    struct evtchn_bind_virq virq = {24, 0, 0};
    struct evtchn_bind_ipi ipi = {40, 0};
    struct evtchn_alloc_unbound unbound = {DOMID_INVALID, 0, 0};
    struct evtchn_bind_interdomain inter = {DOMID_INVALID, 1, 0};
    struct evtchn_bind_pirq pirq = {1, 0, 0};
    for (u64 i = 0; i < ARRAY_SIZE(ops); i++) {
        printf("%s port 0: %s", names[i], error_name(port_op(ops[i], 0)));
        printf(", free port 60: %s", error_name(port_op(ops[i], 60)));
        printf(", free port 500: %s", error_name(port_op(ops[i], 500)));
        printf(", port 1024: %s", error_name(port_op(ops[i], 1024)));
        printf(", port 5000: %s", error_name(port_op(ops[i], 5000)));
        printf(", bad pointer: %s\n", error_name(xen_event_channel_op(ops[i], (void *)0x12345000)));
    }
    printf("status port 0: %s", error_name(status(0, &s)));
    printf(" (%u)", s.status);
    printf(", free port 60: %s", error_name(status(60, &s)));
    printf(" (%u)", s.status);
    printf(", free port 500: %s", error_name(status(500, &s)));
    printf(" (%u), port 5000: ", s.status);
    printf("%s\n", error_name(status(5000, &s)));
    s = (struct evtchn_status){.dom = DOMID_INVALID};
    expect_result("status of no domain", xen_event_channel_op(EVTCHNOP_status, &s), -ESRCH);
    if (is_domU()) {
        s = (struct evtchn_status){.dom = 0, .port = 1};
        expect_result("status of domain 0", xen_event_channel_op(EVTCHNOP_status, &s), -EPERM);
        unbound = (struct evtchn_alloc_unbound){0, 0, 0};
        expect_result("alloc_unbound in domain 0", xen_event_channel_op(EVTCHNOP_alloc_unbound, &unbound), -EPERM);
        expect_result("bind_pirq", xen_event_channel_op(EVTCHNOP_bind_pirq, &pirq), -EPERM);
        while (xen_event_channel_op(EVTCHNOP_bind_pirq, &pirq) == -EPERM)
            pirq.pirq++;
        printf("bind_pirq %u: %s\n", pirq.pirq, error_name(xen_event_channel_op(EVTCHNOP_bind_pirq, &pirq)));
    }
    unbound = (struct evtchn_alloc_unbound){DOMID_INVALID, 0, 0};
    expect_result("alloc_unbound in no domain", xen_event_channel_op(EVTCHNOP_alloc_unbound, &unbound), -ESRCH);
    expect_result("bind_virq 24", xen_event_channel_op(EVTCHNOP_bind_virq, &virq), -EINVAL);
    virq = (struct evtchn_bind_virq){VIRQ_TIMER, 40, 0};
    expect_result("bind_virq vcpu 40", xen_event_channel_op(EVTCHNOP_bind_virq, &virq), -ENOENT);
    if (is_domU())
        for (u32 v = 0; v < 24; v++) {
            virq = (struct evtchn_bind_virq){v, 0, 0};
            s64 result = xen_event_channel_op(EVTCHNOP_bind_virq, &virq);
            printf("bind_virq %u: %s\n", v, error_name(result));
            if (result == 0)
                port_op(EVTCHNOP_close, virq.port);
        }
    expect_result("bind_ipi vcpu 40", xen_event_channel_op(EVTCHNOP_bind_ipi, &ipi), -ENOENT);
    expect_result("bind_interdomain no domain", xen_event_channel_op(EVTCHNOP_bind_interdomain, &inter), -ESRCH);
    inter = (struct evtchn_bind_interdomain){DOMID_SELF, 500, 0};
    expect_result("bind_interdomain free port", xen_event_channel_op(EVTCHNOP_bind_interdomain, &inter), -EINVAL);
    struct evtchn_set_priority priority = {1, 0};
    printf("set_priority without FIFO: %s\n",
           error_name(xen_event_channel_op(EVTCHNOP_set_priority, &priority)));
    struct evtchn_expand_array expand = {0};
    printf("expand_array without FIFO: %s\n", error_name(xen_event_channel_op(EVTCHNOP_expand_array, &expand)));
    struct evtchn_reset reset = {DOMID_INVALID};
    printf("reset of no domain: %s\n", error_name(xen_event_channel_op(EVTCHNOP_reset, &reset)));
    for (u32 op = 14; op < 17; op++)
        printf("operation %u: %s\n", op, error_name(xen_event_channel_op(op, 0)));
    printf("null pointer: %s\n", error_name(xen_event_channel_op(EVTCHNOP_send, 0)));
}

static void use_up(void)
{
    struct evtchn_bind_ipi b = {0, 0};
    u32 highest = 0;
    s64 result;
    while ((result = xen_event_channel_op(EVTCHNOP_bind_ipi, &b)) == 0)
        highest = b.port;
    printf("ports run out: %s, the last was %u\n", error_name(result), highest);
    for (u32 port = 16; port <= highest; port++)
        port_op(EVTCHNOP_close, port);
}

void guest_main(void)
{
    handlers[VEC_EVENT] = on_event;
    levels();
    statuses();
    refusals();
    use_up();
}
