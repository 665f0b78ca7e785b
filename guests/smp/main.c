/* A second vcpu: initialise, up, IPIs both ways, shared page tables, down and up again, refusals. */
#include "guest.h"

const char guest_name[] = "smp";

static char stack[8192] __attribute__((aligned(16)));
static struct vcpu_guest_context context;
static volatile int phase, said, upcalls[2];
static u32 to_first, to_second;
static volatile int nmis[2];
static volatile char *shared_page;

static struct vcpu_info *info(int vcpu)
{
    return &shared_info->vcpu_info[vcpu];
}

static int which(const struct regs *r)
{
    return (char *)r >= stack && (char *)r < stack + sizeof(stack);
}

static void on_event(struct regs *r)
{
    int vcpu = which(r);
    info(vcpu)->evtchn_upcall_pending = 0;
    info(vcpu)->evtchn_pending_sel = 0;
    if (test_and_clear_bit(shared_info->evtchn_pending, vcpu ? to_second : to_first))
        upcalls[vcpu]++;
}

static void on_nmi(struct regs *r)
{
    nmis[which(r)]++;
}

static void send(u32 port)
{
    struct evtchn_port p = {port};
    check(xen_event_channel_op(EVTCHNOP_send, &p) == 0);
}

/* Wait for the other vcpu without holding the processor; 0 when our patience ends. */
static int wait_for(volatile int *value, int wanted)
{
    u64 end = system_time() + PATIENCE;
    while (*value != wanted && system_time() < end)
        xen_sched_op(SCHEDOP_yield, 0);
    return *value == wanted;
}

/* Wait until the other vcpu is in this state: what it says of itself, it says before. */
static int wait_for_state(int wanted)
{
    struct vcpu_runstate_info r;
    u64 end = system_time() + PATIENCE;
    do {
        xen_sched_op(SCHEDOP_yield, 0);
        xen_vcpu_op(VCPUOP_get_runstate_info, 1, &r);
    } while (r.state != wanted && system_time() < end);
    return r.state;
}

/* The console belongs to the first vcpu; the second only leaves numbers. */
static void second(void)
{
    said = 1;
    info(1)->evtchn_upcall_mask = 0;
    while (phase != 1)
        xen_sched_op(SCHEDOP_yield, 0);
    send(to_first);
    while (phase != 2)
        xen_sched_op(SCHEDOP_yield, 0);
    said = *shared_page == 7 ? 2 : -2;
    info(1)->evtchn_upcall_mask = 1;
    xen_sched_op(SCHEDOP_block, 0); /* until the IPI of the first vcpu */
    said = 3;
    xen_vcpu_op(VCPUOP_down, 1, 0);
    said = 4; /* up again: it goes on where it went down */
    for (;;)
        xen_vcpu_op(VCPUOP_down, 1, 0);
}

static s64 initialise(u32 vcpu)
{
    return xen_vcpu_op(VCPUOP_initialise, vcpu, &context);
}

static void fill_context(void)
{
    vcpu_context(&context, second, stack, sizeof(stack));
    context.user_regs.rflags = 0x1000; /* what Xen makes of it is not shown */
    vcpu_takes_callbacks(&context);
    vcpu_takes_traps(&context, 0, 19, 0);
}

static void refusals(void)
{
    printf("is_up: %s", error_name(xen_vcpu_op(VCPUOP_is_up, 0, 0)));
    printf(" %s", error_name(xen_vcpu_op(VCPUOP_is_up, 1, 0)));
    printf(" %s\n", error_name(xen_vcpu_op(VCPUOP_is_up, 2, 0)));
    printf("up before initialise: %s\n", error_name(xen_vcpu_op(VCPUOP_up, 1, 0)));
    printf("initialise vcpu 2: %s\n", error_name(initialise(2)));
    printf("initialise with a bad pointer: %s\n", error_name(xen_vcpu_op(VCPUOP_initialise, 1, (void *)0x12345000)));
    context.ctrlreg[3] = mfn_of(stack) << 12;
    printf("initialise with a page table that is none: %s\n", error_name(initialise(1)));
    context.ctrlreg[3] = 0xffffffUL << 12;
    printf("initialise with no frame: %s\n", error_name(initialise(1)));
    context.ctrlreg[3] = mfn_of((void *)kernel_l4) << 12;
    context.user_regs.rip = 1UL << 62;
    printf("initialise with a non-canonical rip: %s\n", error_name(initialise(1)));
    context.user_regs.rip = (u64)second;
    context.gdt_ents = 512, context.gdt_frames[0] = 0xffffff;
    printf("initialise with a bad GDT: %s\n", error_name(initialise(1)));
    context.gdt_ents = 0;
}

static void bring_up(void)
{
    struct vcpu_runstate_info r = {9, 0, {0, 0, 0, 0}};
    expect_result("initialise", initialise(1), 0);
    printf("initialise again: %s\n", error_name(initialise(1)));
    expect_result("run state", xen_vcpu_op(VCPUOP_get_runstate_info, 1, &r), 0);
    printf("state=%d\n", r.state);
    expect_result("up", xen_vcpu_op(VCPUOP_up, 1, 0), 0);
    printf("it runs: %d\n", wait_for(&said, 1));
    expect_result("is_up", xen_vcpu_op(VCPUOP_is_up, 1, 0), 1);
    expect_result("up again", xen_vcpu_op(VCPUOP_up, 1, 0), 0);
    volatile u32 *version = &info(1)->time.version;
    while (*version & 1) /* it is being written: the other vcpu has just come to another processor */
        xen_sched_op(SCHEDOP_yield, 0);
    printf("its time record is valid: %d\n", *version != 0);
}

static void interrupts(void)
{
    struct evtchn_bind_ipi b = {1, 0};
    struct evtchn_status s = {.dom = DOMID_SELF};
    expect_result("bind_ipi vcpu 1", xen_event_channel_op(EVTCHNOP_bind_ipi, &b), 0);
    s.port = to_second = b.port;
    xen_event_channel_op(EVTCHNOP_status, &s);
    printf("status=%u vcpu=%u\n", s.status, s.vcpu);
    b.vcpu = 0;
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &b) == 0);
    to_first = b.port;
    clear_bit(shared_info->evtchn_mask, to_first);
    clear_bit(shared_info->evtchn_mask, to_second);
    handlers[VEC_EVENT] = on_event;
    send(to_second);
    printf("an IPI reaches vcpu 1: %d, not vcpu 0: %d\n", wait_for(&upcalls[1], 1), upcalls[0] == 0);
    events_unmask();
    phase = 1;
    printf("an IPI reaches vcpu 0: %d\n", wait_for(&upcalls[0], 1));
    events_mask();
    handlers[2] = on_nmi;
    expect_result("send_nmi vcpu 1", xen_vcpu_op(VCPUOP_send_nmi, 1, 0), 0);
    printf("its handler is in its trap table: %d, not on vcpu 0: %d\n", wait_for(&nmis[1], 1), nmis[0] == 0);
    struct evtchn_alloc_unbound a = {DOMID_SELF, 0, 0};
    check(xen_event_channel_op(EVTCHNOP_alloc_unbound, &a) == 0);
    struct evtchn_bind_vcpu bv = {a.port, 1};
    expect_result("bind_vcpu to vcpu 1", xen_event_channel_op(EVTCHNOP_bind_vcpu, &bv), 0);
    struct evtchn_bind_virq v = {VIRQ_TIMER, 1, 0};
    expect_result("bind_virq timer of vcpu 1", xen_event_channel_op(EVTCHNOP_bind_virq, &v), 0);
}

static void memory(void)
{
    char *page = page_alloc(), *other = page_alloc();
    page[0] = 6, other[0] = 7;
    shared_page = page;
    check(xen_update_va_mapping((u64)page, mfn_of(other) << 12 | PTE_P | PTE_RW, UVMF_INVLPG | UVMF_ALL) == 0);
    phase = 2;
    printf("it sees our change of the page tables: %d\n", wait_for(&said, 2));
}

static void down_and_up(void)
{
    printf("blocked: state=%d\n", wait_for_state(RUNSTATE_blocked));
    send(to_second);
    printf("woken by an IPI: %d\n", wait_for(&said, 3));
    int state = wait_for_state(RUNSTATE_offline);
    expect_result("it went down: is_up", xen_vcpu_op(VCPUOP_is_up, 1, 0), 0);
    printf("down: state=%d\n", state);
    expect_result("initialise once more", initialise(1), -EEXIST);
    expect_result("up again", xen_vcpu_op(VCPUOP_up, 1, 0), 0);
    printf("it goes on: %d\n", wait_for(&said, 4));
    wait_for_state(RUNSTATE_offline);
    expect_result("down by another vcpu", xen_vcpu_op(VCPUOP_down, 1, 0), 0);
    expect_result("stop_periodic_timer of vcpu 1", xen_vcpu_op(VCPUOP_stop_periodic_timer, 1, 0), 0);
    struct vcpu_set_singleshot_timer timer = {1, 0};
    printf("set_singleshot_timer of vcpu 1: %s\n", error_name(xen_vcpu_op(VCPUOP_set_singleshot_timer, 1, &timer)));
}

void guest_main(void)
{
    fill_context();
    refusals();
    bring_up();
    interrupts();
    memory();
    down_and_up();
}
