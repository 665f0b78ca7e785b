/* A timer that goes off at any moment while a process calls its kernel, or computes: it notices when a register is
 * another. */
#include "returns.h"

#define MS 1000000UL

/* Patterns are in all registers, and at 0x500200 and on; rax says how the kernel is to be called. */
USER_ASM(u_checks,
         "std\n"
         "movq 0x500200, %rax; movq 0x500208, %rbx; movq 0x500210, %rcx; movq 0x500218, %rdx; movq 0x500220, %rsi\n"
         "movq 0x500228, %rdi; movq 0x500230, %rbp; movq 0x500238, %r8; movq 0x500240, %r9; movq 0x500248, %r10\n"
         "movq 0x500250, %r11; movq 0x500258, %r12; movq 0x500260, %r13; movq 0x500268, %r14; movq 0x500270, %r15\n"
         "1: incq 0x500300; syscall\n"
         "2: cmpq 0x500200, %rax; jne 3f; cmpq 0x500208, %rbx; jne 3f; cmpq 0x500210, %rcx; jne 3f\n"
         "cmpq 0x500218, %rdx; jne 3f; cmpq 0x500220, %rsi; jne 3f; cmpq 0x500228, %rdi; jne 3f\n"
         "cmpq 0x500230, %rbp; jne 3f; cmpq 0x500238, %r8; jne 3f; cmpq 0x500240, %r9; jne 3f\n"
         "cmpq 0x500248, %r10; jne 3f; cmpq 0x500250, %r11; jne 3f; cmpq 0x500258, %r12; jne 3f\n"
         "cmpq 0x500260, %r13; jne 3f; cmpq 0x500268, %r14; jne 3f; cmpq 0x500270, %r15; jne 3f\n"
         "cmpq 0x500280, %rsp; jne 3f; pushfq; testl $0x400, (%rsp); leaq 8(%rsp), %rsp; jz 3f\n"
         "jmp 1b\n"
         "3: ud2; int3");
/* A long sum of everything with everything, by way of the carry. */
USER_ASM(u_computes,
         "movl $400000, %ecx\n"
         "1: addq %rax, %rbx; adcq %rbx, %rdx; adcq %rdx, %rsi; adcq %rsi, %rdi; adcq %rdi, %rbp; adcq %rbp, %r8\n"
         "adcq %r8, %r9; adcq %r9, %r10; adcq %r10, %r11; adcq %r11, %r12; adcq %r12, %r13; adcq %r13, %r14\n"
         "adcq %r14, %r15; adcq $0, %rax; rolq $7, %rax; decl %ecx; jnz 1b\n"
         "int3");

static u32 ipi, timer;
static u64 due, period;
static int fired, wanted, sent, taken, wrong, calls;

static s64 singleshot(u64 at)
{
    struct vcpu_set_singleshot_timer t = {at, 0};
    return xen_vcpu_op(VCPUOP_set_singleshot_timer, 0, &t);
}

static void set_next(void)
{
    u64 now = system_time();
    due = due + period > now ? due + period : now + MS / 4; /* who was held up too long begins anew */
    if (!period)
        due = now + MS / 8 + random_word() % MS;
    wrong += singleshot(due) != 0;
}

static void on_upcall(struct regs *r)
{
    wrong += vcpu0->evtchn_upcall_mask != 1 || (r->cs >> 32 & 0xff) != 0 || !(r->rflags & X86_EFLAGS_IF);
    wrong += r->cs != FLAT_USER_CS;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    taken += test_and_clear_bit(shared_info->evtchn_pending, ipi);
    if (test_and_clear_bit(shared_info->evtchn_pending, timer)) {
        wrong += system_time() + 100000 < due; /* Xen lets timers fire together that are due within 50 microseconds */
        fired++;
        set_next();
    }
}

/* A timer that is set and never fires would have the process go on for ever. */
static int is_over(void)
{
    return fired >= wanted || system_time() > due + PATIENCE;
}

static void on_call(struct regs *r)
{
    wrong += r->rip != r->rcx || r->r11 != r->rflags || (r->cs >> 32 & 0xff) != 0 || taken != sent;
    wrong += r->rax != SAVED[64] || r->rbx != SAVED[65] || r->rsp != SAVED[80] || r->r15 != SAVED[78];
    r->rcx = SAVED[66];
    r->r11 = SAVED[74];
    if (++calls % 64 == 0) {
        by_hand(ipi);
        sent++;
    }
    if (is_over())
        r->rip = USER_CODE + (u64)(u_checks_end - u_checks) - 1;
}

static void show(const char *label)
{
    int lost = (fired < wanted ? wanted - fired : 0) + sent - taken;
    printf("%s, %d ticks: %d lost, %d wrong\n", label, wanted, lost, wrong);
    check(lost == 0 && wrong == 0);
}

static void begin(struct regs *r, u64 every)
{
    user_frame(r);
    fired = sent = taken = wrong = calls = 0;
    period = every;
    due = system_time() + 2 * MS;
    handlers[VEC_EVENT] = on_upcall;
    singleshot(due);
}

static void end(void)
{
    xen_vcpu_op(VCPUOP_stop_singleshot_timer, 0, 0);
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    clear_bit(shared_info->evtchn_pending, timer);
}

static void checks(const char *label, u64 every)
{
    struct regs r;
    begin(&r, every);
    for (int i = 0; i < GENERAL; i++)
        SAVED[64 + i] = random_word();
    SAVED[80] = r.rsp;
    SAVED[96] = 0;
    handlers[VEC_SYSCALL] = on_call;
    PROCESS(u_checks, &r);
    wrong += user_exit.vector != 3 || SAVED[96] != (u64)calls;
    end();
    show(label);
}

static void start_sum(struct regs *r)
{
    for (int i = 0; i < GENERAL; i++)
        ((u64 *)r)[i] = 0x0123456789abcdefUL * (u64)(i + 1);
}

static void computes(const char *label, u64 every)
{
    struct regs r, alone;
    user_frame(&r);
    start_sum(&r);
    PROCESS(u_computes, &r);
    alone = user_exit;
    begin(&r, every);
    while (!is_over()) {
        trap_handler *kept = handlers[VEC_EVENT];
        start_sum(&r);
        PROCESS(u_computes, &r);
        handlers[VEC_EVENT] = kept;
        wrong += memcmp(&user_exit, &alone, GENERAL * sizeof(u64)) != 0 || user_exit.rip != alone.rip;
        wrong += user_exit.vector != 3 || user_exit.rsp != alone.rsp;
    }
    end();
    show(label);
}

void ticks(void)
{
    struct evtchn_bind_virq b = {VIRQ_TIMER, 0, 0};
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    check(xen_event_channel_op(EVTCHNOP_bind_virq, &b) == 0);
    timer = b.port;
    end(); /* a tick of before */
    clear_bit(shared_info->evtchn_mask, timer);
    ipi = bind_ipi();
    wanted = 250;
    /* How processes end: no event comes after that. */
    check(set_gate(3, 4 | 3, FLAT_KERNEL_CS, TRAP_STUB(3UL)) == 0);
    checks("a process that calls, every ms", MS);
    checks("a process that calls, at random", 0);
    computes("a process that computes, every ms", MS);
    computes("a process that computes, at random", 0);
}
