/* The trap table, the default answer to a trap, and the fix-up that lets a test provoke faults. */
#include "guest.h"

struct fault fault = {.vector = -1};
u64 try_start, try_fixup;
trap_handler *handlers[0x106], *last_resort;

const char *vector_name(int vector)
{
    static const char *const names[] = {
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "vec9", "#TS",
        "#NP", "#SS", "#GP", "#PF", "vec15", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
    };
    static char text[16];
    if (vector < 0)
        return "no fault";
    if (vector < (int)ARRAY_SIZE(names))
        return names[vector];
    switch (vector) {
    case VEC_EVENT:
        return "event callback";
    case VEC_SYSCALL:
        return "syscall callback";
    case VEC_SYSCALL32:
        return "syscall32 callback";
    case VEC_SYSENTER:
        return "sysenter callback";
    case VEC_NMI:
        return "nmi callback";
    case VEC_FAILSAFE:
        return "failsafe callback";
    }
    snprintf(text, sizeof(text), "vec%d", vector);
    return text;
}

static int has_error_code(u64 vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

/* The console itself may be what broke, so this ends the domain rather than trying to go on. */
static _Noreturn void unexpected(struct regs *r)
{
    printf("unexpected %s error=%lx rip=%lx cs=%lx rflags=%lx rsp=%lx cr2=%lx\n", vector_name((int)r->vector),
           r->error, r->rip, r->cs, r->rflags, r->rsp, vcpu0->cr2);
    printf("TEST %s: FAIL unexpected trap\n", guest_name);
    shutdown(SHUTDOWN_crash);
}

void trap_entry(struct regs *r)
{
    u8 mask = vcpu0->evtchn_upcall_mask;
    if (r->vector < ARRAY_SIZE(handlers) && handlers[r->vector]) {
        handlers[r->vector](r);
        return;
    }
    if (!try_fixup) {
        if (last_resort)
            last_resort(r);
        unexpected(r);
    }
    fault = (struct fault){
        .vector = (int)r->vector,
        .error = r->error,
        .rip = r->rip,
        .cs = r->cs & 0xffff,
        .rflags = r->rflags,
        .rsp = r->rsp,
        .ss = r->ss & 0xffff,
        .cr2 = vcpu0->cr2,
        .saved_mask = (u8)(r->cs >> 32),
        .mask_inside = mask,
        .offset = r->rip - try_start,
    };
    r->rip = try_fixup;
    r->rflags &= ~(u64)X86_EFLAGS_TF;
    try_fixup = 0;
    r->error = 0;
}

s64 set_gate(u8 vector, u8 flags, u16 cs, u64 address)
{
    struct trap_info table[2] = {{vector, flags, cs, address}, {0, 0, 0, 0}};
    return xen_set_trap_table(table);
}

s64 register_callback(u16 type, u16 flags, void *address)
{
    struct callback_register reg = {type, flags, (u64)address};
    return xen_callback_op(CALLBACKOP_register, &reg);
}

void traps_init(void)
{
    static struct trap_info table[22];
    int n = 0;
    for (u8 vector = 0; vector < 20; vector++) {
        if (vector == 2 || vector == 15)
            continue;
        /* Breakpoint and overflow may be raised by user mode, as on real hardware. */
        u8 dpl = vector == 3 || vector == 4 ? 3 : 0;
        table[n++] = (struct trap_info){vector, dpl, FLAT_KERNEL_CS, TRAP_STUB(vector)};
    }
    table[n] = (struct trap_info){0, 0, 0, 0};
    check(xen_set_trap_table(table) == 0);
    check(register_callback(CALLBACKTYPE_event, 0, event_callback) == 0);
    check(register_callback(CALLBACKTYPE_failsafe, 0, failsafe_callback) == 0);
    check(register_callback(CALLBACKTYPE_syscall, CALLBACKF_mask_events, syscall_callback) == 0);
}

void show_fault(const char *label)
{
    printf("%s: %s", label, vector_name(fault.vector));
    if (fault.vector < 0) {
        printf("\n");
        return;
    }
    if (has_error_code((u64)fault.vector))
        printf("(%lx)", fault.error);
    printf(" at +%ld", fault.offset);
    if (fault.vector == 14 && fault.cr2 < 1UL << 32)
        printf(" cr2=%lx", fault.cr2);
    printf("\n");
}

void expect_fault(const char *label, int vector, u64 error)
{
    show_fault(label);
    if (fault.vector != vector || (vector >= 0 && has_error_code((u64)vector) && fault.error != error)) {
        failures++;
        printf("FAILED: %s: expected %s(%lx)\n", label, vector_name(vector), error);
    }
}

void events_unmask(void)
{
    vcpu0->evtchn_upcall_mask = 0;
    asm volatile("" ::: "memory");
    if (vcpu0->evtchn_upcall_pending)
        H2(__HYPERVISOR_xen_version, 0, 0); /* Xen looks at pending events when a hypercall returns */
}

u64 system_time(void)
{
    volatile struct vcpu_time_info *t = &vcpu0->time;
    for (;;) {
        u32 version = t->version;
        asm volatile("lfence" ::: "memory");
        u64 delta = rdtsc() - t->tsc_timestamp;
        delta = t->tsc_shift < 0 ? delta >> -t->tsc_shift : delta << t->tsc_shift;
        u64 now = t->system_time + (u64)((unsigned __int128)delta * t->tsc_to_system_mul >> 32);
        asm volatile("lfence" ::: "memory");
        if (!(version & 1) && version == t->version)
            return now;
    }
}

void sleep_until(u64 time)
{
    /* A poll of no port ends at any event, so one may not be enough. Xen may wake us 50 microseconds early. */
    struct sched_poll poll = {0, 0, time};
    do
        xen_sched_op(SCHEDOP_poll, &poll);
    while (system_time() + 100000 < time);
}
