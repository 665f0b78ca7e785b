/*
 * One domain of many: a paravirtual kernel that, by its command line,
 *
 *     burn from=MS to=MS    computes for ever, and says how long it had a processor, and what it did, between two
 *                           system times: "bench: had NANOSECONDS did UNITS"; with `both` on two vcpus, and says
 *                           how long the first one had, and what both did
 *     wake count=N          sleeps N times, and says how late each alarm came: "bench: late NANOSECONDS", "bench: end"
 *     yield                 gives its processor away for ever
 *     idle                  says "bench: idle" and sleeps for ever
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "boot.h"

#define MS 1000000UL
#define UNIT 2000 /* steps */
enum { VCPU_OP = 24 };
enum { INITIALISE, UP, VGCF_IN_KERNEL = 4 };
enum { GET_RUNSTATE = 4, STOP_PERIODIC = 7, SET_SINGLESHOT = 8, SCHED_BLOCK = 1, BIND_VIRQ = 1, VIRQ_TIMER = 0 };

static u64 system_time(void)
{
    const volatile struct vcpu_info *vcpu = (struct vcpu_info *)shared_page;
    u32 version;
    u64 time;
    do {
        version = vcpu->time_version & ~1u;
        time = vcpu->system_time + to_ns(rdtsc() - vcpu->tsc_timestamp);
    } while (vcpu->time_version != version);
    return time;
}

static u64 time_running(void)
{
    static struct {
        u32 state;
        u64 since, time[4];
    } runstate;
    need(hypercall(VCPU_OP, GET_RUNSTATE, 0, (u64)&runstate, 0) == 0, "get_runstate_info");
    return runstate.time[0];
}

static u64 number(const char *name)
{
    const char *at = word(name);
    u64 value = 0;
    need(at != 0, name);
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (u64)(*at - '0');
    return value;
}

static u64 burn_until(u64 time)
{
    u64 units = 0;
    while (system_time() < time) {
        for (volatile int i = 0; i < UNIT; i++)
            ;
        units++;
    }
    return units;
}

/* vcpu_guest_context */
struct context {
    u8 floating_point[512];
    u64 flags, r15_to_rdi[15], error_and_vector, rip;
    u16 cs, pad0[3];
    u64 rflags, rsp;
    u16 ss, pad1[3];
    u64 data_segments[4], traps[256][2], ldt[2], gdt_frames[16], gdt_entries, kernel_ss, kernel_sp;
    u64 control[8], debug[8], callbacks[3], assists, bases[3];
};
_Static_assert(sizeof(struct context) == 5168, "vcpu_guest_context");

static struct {
    u64 from, to;
    volatile u64 did;
    volatile u8 ended;
} other;

static _Noreturn void burn_beside(void)
{
    burn_until(other.from);
    other.did = burn_until(other.to);
    other.ended = 1;
    for (;;)
        burn_until(~0UL);
}

static void start_other(u64 from, u64 to)
{
    static struct context context;
    static char its_stack[4096] __attribute__((aligned(16)));
    other.from = from;
    other.to = to;
    context.flags = VGCF_IN_KERNEL;
    context.rip = (u64)burn_beside;
    context.rsp = context.kernel_sp = (u64)its_stack + sizeof(its_stack) - 8;
    context.cs = FLAT_CS;
    context.ss = FLAT_SS;
    context.kernel_ss = FLAT_SS;
    context.control[3] = ((u64 *)info->mfn_list)[(info->pt_base - VIRT_BASE) / PAGE] * PAGE;
    context.callbacks[0] = (u64)event_entry;
    need(hypercall(VCPU_OP, INITIALISE, 1, (u64)&context, 0) == 0, "initialise");
    need(hypercall(VCPU_OP, UP, 1, 0, 0) == 0, "up");
}

static void burn(void)
{
    u64 from = number("from=") * MS, to = number("to=") * MS;
    if (word("both"))
        start_other(from, to);
    burn_until(from);
    u64 before = time_running(), did = burn_until(to), had = time_running() - before;
    while (word("both") && !other.ended)
        hypercall(SCHED_OP, SCHED_YIELD, 0, 0, 0);
    did += other.did;
    say("bench: had ");
    say_number(had);
    say(" did ");
    say_number(did);
    say("\n");
    for (;;) /* what the others get is not to grow */
        burn_until(~0UL);
}

static void wake(void)
{
    static struct {
        u32 virq, vcpu, port;
    } timer = {VIRQ_TIMER, 0, 0};
    static struct {
        u64 at;
        u32 flags;
    } alarm;
    u64 *masks = (u64 *)(shared_page + 2048 + 512);
    need(hypercall(EVENT_CHANNEL_OP, BIND_VIRQ, (u64)&timer, 0, 0) == 0, "bind_virq");
    for (u64 i = 0; i < 64; i++)
        masks[i] = i == timer.port / 64 ? ~(1UL << timer.port % 64) : ~0UL;
    for (u64 count = number("count="), i = 0; i < count; i++) {
        alarm.at = system_time() + (3 + i * 7 % 11) * MS; /* in step with nothing */
        need(hypercall(VCPU_OP, SET_SINGLESHOT, 0, (u64)&alarm, 0) == 0, "set_singleshot_timer");
        do {
            hypercall(SCHED_OP, SCHED_BLOCK, 0, 0, 0); /* unmasks events, and one is taken */
            ((struct vcpu_info *)shared_page)->upcall_mask = 1;
        } while (system_time() < alarm.at);
        u64 late = system_time() - alarm.at;
        say("bench: late ");
        say_number(late);
        say("\n");
    }
    say("bench: end\n");
    shut_down(SHUTDOWN_POWEROFF);
}

static void idle(void)
{
    u64 *masks = (u64 *)(shared_page + 2048 + 512);
    for (u64 i = 0; i < 64; i++)
        masks[i] = ~0UL; /* no event ends the sleep */
    say("bench: idle\n");
    for (;;)
        hypercall(SCHED_OP, SCHED_BLOCK, 0, 0, 0);
}

__attribute__((used)) void kernel(struct start_info *start)
{
    static struct {
        u16 type, flags;
        u64 address;
    } callback;
    info = start;
    map_shared();
    callback.address = (u64)event_entry;
    need(hypercall(CALLBACK_OP, 0, (u64)&callback, 0, 0) == 0, "callback_op");
    hypercall(VCPU_OP, STOP_PERIODIC, 0, 0, 0);
    if (word("burn"))
        burn();
    if (word("wake"))
        wake();
    if (word("idle"))
        idle();
    while (word("yield"))
        hypercall(SCHED_OP, SCHED_YIELD, 0, 0, 0);
    need(0, "no work");
}
