/* Event channels, timers, vcpus and the scheduler. */
#include "fuzz.h"

#define EVENT_OPERATIONS 14
#define PORTS 48

static u32 ports[PORTS], unbound_port;
static char second_stack[4096] __attribute__((aligned(16)));
static struct vcpu_guest_context context;
static u8 info_moved[2], control_set;
static struct vcpu_info *vcpu1;

/* About now: the time record may lie in a page that calls have spoiled, and so must not be waited for. */
static u64 about_now(void)
{
    return vcpu0->time.system_time;
}

static void take_events(struct regs *r)
{
    int is_second = (char *)r >= second_stack && (char *)r < second_stack + sizeof(second_stack);
    struct vcpu_info *info = is_second ? vcpu1 : vcpu0;
    info->evtchn_upcall_pending = 0;
    info->evtchn_pending_sel = 0;
}

static void nothing(struct regs *r)
{
    (void)r;
}

/* A breakpoint that some random value armed. */
static void disarm(struct regs *r)
{
    H2(__HYPERVISOR_set_debugreg, 7, 0x400);
    r->rflags &= ~(u64)X86_EFLAGS_TF;
}

/* The second vcpu sleeps whenever somebody has woken it up. */
static void second(void)
{
    for (;;)
        xen_sched_op(SCHEDOP_block, 0);
}

static u32 some_port(void)
{
    return chance(90) ? ports[below(PORTS)] : (u32)odd_value();
}

/* Neither the console's nor xenstore's: without them nobody would learn of the end. */
static int is_spared(u32 port)
{
    return port == start_info->console.domU.evtchn || port == start_info->store_evtchn;
}

static void new_port(struct call *c, s64 result)
{
    u32 at = (u32)below(PORTS), *port = (u32 *)c->cookie[0];
    struct evtchn_port old = {ports[at]};
    (void)result;
    if (c->sub == EVTCHNOP_alloc_unbound)
        unbound_port = *port;
    if (old.port && !is_spared(old.port))
        xen_event_channel_op(EVTCHNOP_close, &old);
    ports[at] = *port;
}

static void event_channel(struct call *c)
{
    u32 op = (u32)below(EVENT_OPERATIONS);
    u64 *words = arena(32);
    void *arg = words;
    u64 size = 12;
    switch (op) {
    case EVTCHNOP_alloc_unbound:
        *(struct evtchn_alloc_unbound *)arg = (struct evtchn_alloc_unbound){some_domid(), chance(20) ? peer_domid : DOMID_SELF, 0};
        c->cookie[0] = (u64)arg + 4;
        break;
    case EVTCHNOP_bind_interdomain:
        *(struct evtchn_bind_interdomain *)arg = (struct evtchn_bind_interdomain){chance(90) ? DOMID_SELF : peer_domid,
                                                                                   chance(80) ? unbound_port : some_port(), 0};
        c->cookie[0] = (u64)arg + 8;
        break;
    case EVTCHNOP_bind_virq:
        *(struct evtchn_bind_virq *)arg = (struct evtchn_bind_virq){(u32)below(12), (u32)below(2), 0};
        c->cookie[0] = (u64)arg + 8;
        break;
    case EVTCHNOP_bind_ipi:
        *(struct evtchn_bind_ipi *)arg = (struct evtchn_bind_ipi){(u32)below(2), 0};
        c->cookie[0] = (u64)arg + 4;
        break;
    case EVTCHNOP_status:
        *(struct evtchn_status *)arg = (struct evtchn_status){.dom = some_domid(), .port = some_port()};
        break;
    case EVTCHNOP_bind_vcpu:
        *(struct evtchn_bind_vcpu *)arg = (struct evtchn_bind_vcpu){some_port(), (u32)below(2)};
        break;
    case EVTCHNOP_reset: /* of one's own ends the console: of others */
        *(u16 *)arg = chance(50) ? peer_domid : DOMID_IO;
        break;
    case EVTCHNOP_init_control:
        if (!with_fifo || control_set)
            return;
        *(struct evtchn_init_control *)arg = (struct evtchn_init_control){odd_mfn(), (u32)below(2048) & ~7u, (u32)below(2), 0, {0}};
        size = 16;
        break;
    case EVTCHNOP_expand_array:
        words[0] = chance(2) ? toy_mfn(any_toy(FIRST_DATA_TOY, FIRST_SPARE_TOY, -1)) : odd_value();
        break;
    case EVTCHNOP_set_priority:
        *(struct evtchn_set_priority *)arg = (struct evtchn_set_priority){some_port(), (u32)below(17)};
        break;
    default:
        words[0] = some_port();
    }
    if (op != EVTCHNOP_reset)
        spoil(arg, size);
    if ((op == EVTCHNOP_close || op == EVTCHNOP_bind_vcpu) && is_spared(*(u32 *)arg))
        return;
    if (c->cookie[0])
        c->done = new_port;
    if (op < EVTCHNOP_reset && chance(15)) { /* the old way: number and argument in one structure */
        u32 *compat = arena(64);
        compat[0] = op;
        memcpy(&compat[1], arg, 24);
        if (c->cookie[0])
            c->cookie[0] = (u64)&compat[1] + (c->cookie[0] - (u64)arg);
        fill(c, __HYPERVISOR_event_channel_op_compat, op, (u64)compat, 0, 0, 0);
        return;
    }
    fill(c, __HYPERVISOR_event_channel_op, op, op, chance(98) ? (u64)arg : 0x7ffff000 + (u64)below(4096), 0, 0);
}

static void moved_info(struct call *c, s64 result)
{
    u64 *where = (u64 *)c->cookie[0];
    struct vcpu_info *info = (void *)(toys[c->cookie[1]] + (u32)where[1]);
    (void)result;
    info_moved[c->args[1]] = 1;
    *(c->args[1] ? &vcpu1 : &vcpu0) = info;
    info->evtchn_upcall_mask = 0;
}

static void vcpu(struct call *c)
{
    u32 op = (u32)below(14), number = (u32)below(2), toy = any_toy(FIRST_DATA_TOY, FIRST_SPARE_TOY, LOOSE);
    u64 *words = arena(64), arg = (u64)words;
    switch (op) {
    case VCPUOP_initialise:
        number = 1, arg = (u64)&context;
        if (chance(50))
            return;
        break;
    case VCPUOP_up: case VCPUOP_down:
        number = 1; /* vcpu 0 would not come back */
        break;
    case VCPUOP_register_runstate_memory_area: case VCPUOP_register_vcpu_time_memory_area:
        words[0] = chance(90) ? (u64)toys[toy] + below(PAGE_SIZE - 64) / 8 * 8 : odd_value();
        break;
    case VCPUOP_set_periodic_timer:
        words[0] = (1 + below(50)) * 1000000;
        break;
    case VCPUOP_set_singleshot_timer:
        words[0] = about_now() + below(1000000), words[1] = below(2);
        number = 0;
        break;
    case VCPUOP_stop_singleshot_timer:
        number = 0;
        break;
    case VCPUOP_register_vcpu_info:
        words[0] = toy_mfn(toy), words[1] = below(4000) & ~7UL;
        if (info_moved[number] && chance(90))
            return;
        /* Events come only once this kernel knows where they do. */
        (number ? vcpu1 : vcpu0)->evtchn_upcall_mask = 1;
        c->cookie[0] = arg, c->cookie[1] = toy, c->done = moved_info;
        break;
    case VCPUOP_send_nmi:
        arg = 0;
    }
    if (op != VCPUOP_initialise && !c->done)
        spoil(words, 16);
    if (chance(3) && op != VCPUOP_down)
        number = 2 + (u32)odd_value();
    fill(c, __HYPERVISOR_vcpu_op, op, op, number, chance(98) || c->done ? arg : 0x7ffff000, 0);
}

static void scheduler(struct call *c)
{
    u32 op = (u32)below(9);
    u64 *words = arena(32);
    switch (op) {
    case SCHEDOP_block: /* there is something to wake up for, and it comes no earlier */
        events_mask();
        vcpu0->evtchn_upcall_pending = 1;
        break;
    case SCHEDOP_shutdown: /* would be the end: only where it cannot be read */
        fill(c, __HYPERVISOR_sched_op, op, op, 0x7ffff000, 0, 0);
        return;
    case SCHEDOP_poll: {
        struct sched_poll *poll = (void *)words;
        u32 *list = arena(16);
        list[0] = some_port();
        *poll = (struct sched_poll){list, (u32)below(2), 1 + below(2)};
        break;
    }
    case SCHEDOP_watchdog: /* far away */
        words[0] = below(3);
        if (!words[0] || chance(80))
            words[0] |= 3000000UL << 32;
        break;
    case SCHEDOP_shutdown_code:
        words[0] = below(3); /* and not a crash, when the domain ends */
        break;
    default:
        words[0] = odd_value();
    }
    if (op == SCHEDOP_yield || op == SCHEDOP_block)
        if (chance(30)) {
            fill(c, __HYPERVISOR_sched_op_compat, op, op, 0, 0, 0);
            return;
        }
    fill(c, __HYPERVISOR_sched_op, op, op, (u64)words, 0, 0);
}

static void set_timer(struct call *c)
{
    fill(c, __HYPERVISOR_set_timer_op, 0, chance(80) ? about_now() + below(2000000) : odd_value(), 0, 0, 0);
}

void events_init(void)
{
    struct vcpu_guest_context *v = &context;
    vcpu1 = &shared_info->vcpu_info[1];
    handlers[VEC_EVENT] = take_events;
    handlers[VEC_NMI] = handlers[2] = handlers[VEC_FAILSAFE] = nothing;
    handlers[1] = disarm;
    register_callback(CALLBACKTYPE_nmi, 0, nmi_callback);
    v->flags = VGCF_in_kernel;
    v->user_regs.rip = (u64)second;
    v->user_regs.rsp = (u64)second_stack + sizeof(second_stack) - 8;
    v->user_regs.cs = FLAT_KERNEL_CS;
    v->user_regs.ss = v->kernel_ss = FLAT_KERNEL_SS;
    v->kernel_sp = (u64)second_stack + sizeof(second_stack);
    v->ctrlreg[3] = mfn_of((void *)kernel_l4) << 12;
    v->event_callback_eip = (u64)event_callback;
    v->failsafe_callback_eip = (u64)failsafe_callback;
    v->syscall_callback_eip = (u64)syscall_callback;
    for (u32 i = 0; i < 20; i++)
        v->trap_ctxt[i] = (struct trap_info){(u8)i, 0, FLAT_KERNEL_CS, TRAP_STUB((u64)i)};
}

const struct family event_families[] = {
    {event_channel, 90, 0}, {vcpu, 50, 1}, {scheduler, 20, 1}, {set_timer, 8, 0}, {0},
};
