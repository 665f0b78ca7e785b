/* Callbacks: how the event upcall looks, what callback_op and set_callbacks accept and refuse. */
#include "guest.h"

const char guest_name[] = "callbacks";

static struct regs seen;
static u8 mask_inside, pending_inside;
static int upcalls;
static u32 port;

static void on_event(struct regs *r)
{
    seen = *r;
    mask_inside = vcpu0->evtchn_upcall_mask;
    pending_inside = vcpu0->evtchn_upcall_pending;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    clear_bit(shared_info->evtchn_pending, port);
    upcalls++;
}

static void send(void)
{
    struct evtchn_port p = {port};
    check(xen_event_channel_op(EVTCHNOP_send, &p) == 0);
}

static void event(void)
{
    struct evtchn_bind_ipi ipi = {0, 0};
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &ipi) == 0);
    port = ipi.port;
    clear_bit(shared_info->evtchn_mask, port);
    handlers[VEC_EVENT] = on_event;
    send();
    printf("sent while masked: upcalls=%d pending=%d\n", upcalls, vcpu0->evtchn_upcall_pending);
    check(upcalls == 0);
    events_unmask();
    printf("unmasked: upcalls=%d, mask inside=%d pending inside=%d\n", upcalls, mask_inside, pending_inside);
    printf("frame: cs=%lx ss=%lx mask saved=%lu IF=%d\n", seen.cs & 0xffff, seen.ss & 0xffff,
           seen.cs >> 32 & 0xff, !!(seen.rflags & X86_EFLAGS_IF));
    check(upcalls == 1 && mask_inside == 1);
    printf("after iret: mask=%d\n", vcpu0->evtchn_upcall_mask);
    send();
    printf("sent while unmasked: upcalls=%d\n", upcalls);
    check(upcalls == 2);
    events_mask();
}

/* Taking an upcall with the result of the hypercall that was interrupted at its end still right. */
static void results(void)
{
    vcpu0->evtchn_upcall_mask = 0;
    struct evtchn_port bad = {1 << 20}, good = {port};
    s64 first = xen_event_channel_op(EVTCHNOP_send, &good);
    s64 second = xen_event_channel_op(EVTCHNOP_send, &bad);
    events_mask();
    printf("upcalls=%d results: %s %s\n", upcalls, error_name(first), error_name(second));
    check(upcalls == 3 && first == 0 && second == -EINVAL);
}

static s64 try_register(u16 type, u16 flags, u64 address)
{
    return register_callback(type, flags, (void *)address);
}

static s64 try_unregister(u16 type)
{
    struct callback_unregister u = {type, 0};
    return xen_callback_op(CALLBACKOP_unregister, &u);
}

static void registration(void)
{
    static const char *const names[] = {"event", "failsafe", "syscall", "sysenter_deprecated",
                                        "nmi", "sysenter", "6", "syscall32", "8"};
    u64 address = (u64)nmi_callback;
    for (u16 type = 0; type < 9; type++) {
        char label[64];
        s64 good = try_register(type, 0, type == 0   ? (u64)event_callback
                                         : type == 1 ? (u64)failsafe_callback
                                         : type == 2 ? (u64)syscall_callback
                                                     : address);
        snprintf(label, sizeof(label), "register %s", names[type]);
        printf("%s: %s", label, error_name(good));
        printf(", non-canonical: %s", error_name(try_register(type, 0, 1UL << 62)));
        printf(", odd flags: %s", error_name(try_register(type, 0xfffe, type == 0   ? (u64)event_callback
                                                                        : type == 1 ? (u64)failsafe_callback
                                                                        : type == 2 ? (u64)syscall_callback
                                                                                    : address)));
        printf("\n");
    }
    for (u16 type = 0; type < 9; type++) {
        char label[64];
        snprintf(label, sizeof(label), "unregister %s", names[type]);
        printf("%s: %s\n", label, error_name(try_unregister(type)));
    }
    expect_result("register with a bad pointer", xen_callback_op(CALLBACKOP_register, (void *)0x12345000), -EFAULT);
    expect_result("unregister with a bad pointer", xen_callback_op(CALLBACKOP_unregister, (void *)0x12345000),
                  -EFAULT);
    expect_result("operation 2", xen_callback_op(2, 0), -ENOSYS);
    expect_result("set_callbacks",
                  H3(__HYPERVISOR_set_callbacks, event_callback, failsafe_callback, syscall_callback), 0);
    /* This older call does not say that it refused; the callback that was there stays. */
    expect_result("set_callbacks, non-canonical event",
                  H3(__HYPERVISOR_set_callbacks, 1UL << 62, failsafe_callback, syscall_callback), 0);
    vcpu0->evtchn_upcall_mask = 0;
    send();
    events_mask();
    printf("upcalls=%d\n", upcalls);
    check(upcalls == 4);
}

void guest_main(void)
{
    event();
    results();
    registration();
}
