/* Non-maskable interrupts by hypercall, and events that an iret lets in. */
#include "guest.h"

const char guest_name[] = "nmi";

static int nmis, depth, deepest, upcalls;
static struct regs seen;
static u8 mask_inside;
static u32 port;

static s64 send_nmi(void)
{
    return xen_vcpu_op(VCPUOP_send_nmi, 0, 0);
}

static void on_nmi(struct regs *r)
{
    depth++;
    deepest = depth > deepest ? depth : deepest;
    seen = *r;
    mask_inside = vcpu0->evtchn_upcall_mask;
    if (nmis++ == 1)
        send_nmi(); /* another one waits until this handler's iret */
    depth--;
}

static void on_event(struct regs *r)
{
    seen = *r;
    upcalls++;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    clear_bit(shared_info->evtchn_pending, port);
}

static void interrupts(void)
{
    expect_result("send_nmi without a handler", send_nmi(), 0);
    handlers[VEC_NMI] = on_nmi;
    expect_result("register", register_callback(CALLBACKTYPE_nmi, 0, nmi_callback), 0);
    printf("the earlier one came now: %d\n", nmis);
    nmis = 0;
    events_mask();
    expect_result("send_nmi", send_nmi(), 0);
    printf("came though events are masked: %d, mask inside=%d mask saved=%lu cs=%lx\n", nmis, mask_inside,
           seen.cs >> 32 & 0xff, seen.cs & 0xffff);
    check(nmis == 1);
    vcpu0->evtchn_upcall_mask = 0;
    expect_result("send_nmi whose handler sends one", send_nmi(), 0);
    events_mask();
    printf("came: %d, nested at most %d, mask inside=%d mask saved=%lu\n", nmis, deepest, mask_inside,
           seen.cs >> 32 & 0xff);
    check(nmis == 3 && deepest == 1);
    expect_result("with an argument", xen_vcpu_op(VCPUOP_send_nmi, 0, &nmis), -EINVAL);
}

static u64 context[8];
static struct regs landed;

static void land(struct regs *r)
{
    landed = *r;
    load_context(context);
}

static void pending_at_iret(void)
{
    static char stack[4096] __attribute__((aligned(16)));
    extern char target[];
    struct evtchn_bind_ipi b = {0, 0};
    struct regs r;
    handlers[VEC_EVENT] = on_event;
    handlers[3] = land;
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &b) == 0);
    port = b.port;
    clear_bit(shared_info->evtchn_mask, port);
    events_mask();
    struct evtchn_port p = {port};
    check(xen_event_channel_op(EVTCHNOP_send, &p) == 0);
    memset(&r, 0, sizeof(r));
    r.rip = (u64)target, r.cs = FLAT_KERNEL_CS & ~3, r.ss = FLAT_KERNEL_SS;
    r.rsp = (u64)stack + sizeof(stack);
    asm volatile("jmp 1f; .globl target; target: int3; 1:");
    if (!save_context(context))
        resume(&r);
    printf("iret that keeps events masked: upcalls=%d\n", upcalls);
    check(upcalls == 0);
    r.rflags = X86_EFLAGS_IF;
    if (!save_context(context))
        resume(&r);
    printf("iret that unmasks: upcalls=%d, taken before the first instruction: %d, rsp kept: %d\n", upcalls,
           seen.rip == (u64)target, seen.rsp == (u64)stack + sizeof(stack));
    check(upcalls == 1 && seen.rip == (u64)target);
    events_mask();
}

void guest_main(void)
{
    interrupts();
    pending_at_iret();
}
