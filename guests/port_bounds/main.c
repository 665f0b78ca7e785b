/* Event channels: ports beyond the table or of no use, lists of ports, running out, reset; each operation on each. */
#include "attack.h"

const char guest_name[] = "port_bounds";

static s64 port_op(u32 op, u32 port)
{
    struct evtchn_port p = {port};
    return xen_event_channel_op(op, &p);
}

static s64 bind_vcpu(u32 port, u32 vcpu)
{
    struct evtchn_bind_vcpu b = {port, vcpu};
    return xen_event_channel_op(EVTCHNOP_bind_vcpu, &b);
}

static s64 status(u32 port)
{
    struct evtchn_status s = {.dom = DOMID_SELF, .port = port};
    return xen_event_channel_op(EVTCHNOP_status, &s);
}

static s64 interdomain(u32 remote)
{
    struct evtchn_bind_interdomain b = {DOMID_SELF, remote, 0};
    return xen_event_channel_op(EVTCHNOP_bind_interdomain, &b);
}

static s64 poll(u32 *ports, u32 count)
{
    struct sched_poll p = {ports, count, system_time() + 1000};
    return xen_sched_op(SCHEDOP_poll, &p);
}

static s64 bind_ipi(u32 *port)
{
    struct evtchn_bind_ipi b = {0, 0};
    s64 result = xen_event_channel_op(EVTCHNOP_bind_ipi, &b);
    *port = b.port;
    return result;
}

static void each_operation(void)
{
    static const u32 ports[] = {0, 900, 1023, 1024, 4095, 4096, 131071, 131072, 0x80000000, 0xffffffff};
    u32 good;
    rule("a port that is none is refused by every operation: -EINVAL, or where nothing can be wrong, ignored");
    check(bind_ipi(&good) == 0);
    for (u64 i = 0; i < ARRAY_SIZE(ports); i++) {
        u32 p = ports[i];
        printf("  attack: port %x: send %s", p, error_name(port_op(EVTCHNOP_send, p)));
        printf(", close %s", error_name(port_op(EVTCHNOP_close, p)));
        printf(", unmask %s", error_name(port_op(EVTCHNOP_unmask, p)));
        printf(", status %s", error_name(status(p)));
        printf(", bind_vcpu %s", error_name(bind_vcpu(p, 0)));
        printf(", bind to it %s", error_name(interdomain(p)));
        printf(", poll %s\n", error_name(poll(&p, 1)));
    }
    twin("send", port_op(EVTCHNOP_send, good));
    twin("unmask", port_op(EVTCHNOP_unmask, good));
    twin("status", status(good));
    attack("bind_vcpu of an IPI port", bind_vcpu(good, 0), -EINVAL);
    twin("poll", poll(&good, 1));
    attack("bind_vcpu to vcpu 32", bind_vcpu(good, 32), -ENOENT);
    twin("close", port_op(EVTCHNOP_close, good));
    attack("close again", port_op(EVTCHNOP_close, good), -EINVAL);
    attack("send on it", port_op(EVTCHNOP_send, good), -EINVAL);
}

static void polls(void)
{
    static u32 ports[200];
    rule("a poll's list is of bounded size and in the guest's memory, each port of it exists");
    check(bind_ipi(&ports[0]) == 0);
    for (int i = 1; i < 200; i++)
        ports[i] = ports[0];
    clear_bit(shared_info->evtchn_pending, ports[0]);
    twin("128 ports", poll(ports, 128));
    attack("129 ports", poll(ports, 129), -EINVAL);
    attack("2^31 ports", poll(ports, 0x80000000), -EINVAL);
    attack("2^32 - 1 ports", poll(ports, 0xffffffff), -EINVAL);
    attack("a list that is not mapped", poll((u32 *)0x12345000, 1), -EFAULT);
    attack("a list in the hypervisor's range", poll((u32 *)0xffff830000000000, 1), -EFAULT);
    ports[127] = 4096;
    attack("the last port is none", poll(ports, 128), -EINVAL);
    ports[127] = 0;
    printf("  port 0 in the list: %s\n", error_name(poll(ports, 128)));
    ports[127] = 900;
    printf("  a port that is not bound in the list: %s\n", error_name(poll(ports, 128)));
    twin("no port", poll((u32 *)0x12345000, 0));
    check(port_op(EVTCHNOP_close, ports[0]) == 0);
}

static void running_out(void)
{
    u32 first = 0, port = 0, count = 0, twice;
    rule("ports run out with -ENOSPC, each is given once, and each comes back");
    while (bind_ipi(&port) == 0 && count < 5000)
        first = first ? first : port, count++;
    stays("none beyond the domain's limit", first + count <= 1024 && count > 900);
    attack("one more IPI port", bind_ipi(&port), -ENOSPC);
    struct evtchn_alloc_unbound a = {DOMID_SELF, DOMID_SELF, 0};
    attack("one more port for others", xen_event_channel_op(EVTCHNOP_alloc_unbound, &a), -ENOSPC);
    struct evtchn_bind_virq v = {VIRQ_TIMER, 0, 0};
    attack("one more for a virtual interrupt", xen_event_channel_op(EVTCHNOP_bind_virq, &v), -ENOSPC);
    twin("close the last", port_op(EVTCHNOP_close, 1023));
    twin("the virtual interrupt gets it", xen_event_channel_op(EVTCHNOP_bind_virq, &v));
    stays("the port", v.port == 1023);
    attack("the virtual interrupt again", xen_event_channel_op(EVTCHNOP_bind_virq, &v), -EEXIST);
    check(port_op(EVTCHNOP_close, 1023) == 0);
    check(bind_ipi(&twice) == 0 && twice == 1023);
}

static void resets(void)
{
    struct evtchn_reset self = {DOMID_SELF}, zero = {0}, none = {999};
    u32 port;
    rule("a reset closes all ports of the domain itself, and of no other: -EPERM");
    attack("domain 0", xen_event_channel_op(EVTCHNOP_reset, &zero), -EPERM);
    attack("domain 999", xen_event_channel_op(EVTCHNOP_reset, &none), -ESRCH);
    stays("a port is bound", status(1023) == 0 && port_op(EVTCHNOP_send, 1023) == 0);
    /* The console goes with the ports: from here on it is only polled. */
    u32 console = start_info->console.domU.evtchn;
    for (u32 p = 1; p < 1024; p++)
        if (p != console && p != start_info->store_evtchn)
            check(port_op(EVTCHNOP_close, p) == 0);
    twin("one port, after all were closed", bind_ipi(&port));
    (void)self;
}

void guest_main(void)
{
    each_operation();
    polls();
    running_out();
    resets();
}
