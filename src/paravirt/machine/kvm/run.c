/* The inner loop of the KVM engine.
 *
 * One turn of the loop: registers go into the vcpu's shared page, KVM_RUN runs guest code at CPL 3 until an
 * exception or a system call reaches a stub of the trampoline, whose `out` ends it; registers come back, those that
 * the processor pushed from the stub's stack; the handler acts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "run.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define MAX_RETRIES 1000

/* --- the loop ------------------------------------------------------------------------------------------------ */

static int in_repair(const struct kvm_state *s)
{
    uint64_t offset = s->run->s.regs.regs.rip - kvm_repair_program(s);
    return s->run->s.regs.sregs.ss.dpl == 0 && offset < DEPARTURE_PROGRAM;
}

/* Whether the guest's state is whole: no exception is on its way, and none has just reached its stub.
 *
 * KVM does not say that a breakpoint or an overflow is on its way, as the instruction would raise it again; but some
 * hosts are past the instruction.  Its number is there all the same, since the last was forgotten. */
static int state_is_whole(const struct kvm_state *s)
{
    const struct kvm_vcpu_events *events = &s->run->s.regs.events;

    if (s->run->s.regs.sregs.ss.dpl != 3 || s->run->s.regs.sregs.cs.dpl != 3)
        return 0;
    return !events->exception.injected && !events->exception.pending && events->exception.nr != 3 &&
           events->exception.nr != 4;
}

enum outcome { OUTCOME_EXIT, OUTCOME_NOTHING, OUTCOME_AGAIN, OUTCOME_DROP };

/* KVM_RUN was interrupted. */
static enum outcome interrupted(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, int repairing)
{
    e->interrupted++;
    if (repairing && in_repair(s))
        return OUTCOME_NOTHING; /* what it did can be done again, and of the guest nothing has changed */
    if (!state_is_whole(s)) {
        kvm_stop_return(s);
        s->run->immediate_exit = 0;
        kvm_interrupt_again(e); /* a host where it never becomes that must not keep this thread for ever */
        return OUTCOME_AGAIN;
    }
    if (repairing)
        kvm_repairs_made(e, s);
    kvm_note_return(s, cpu);
    kvm_take_plain(s, cpu);
    return OUTCOME_NOTHING;
}

/* KVM_RUN: 0, or errno. */
static int run_inside(struct kvm_engine *e, struct kvm_state *s)
{
    uint64_t begin = __builtin_ia32_rdtsc();
    int error = ioctl(s->fd, KVM_RUN, 0) == 0 ? 0 : errno;

    e->inside_ticks += __builtin_ia32_rdtsc() - begin;
    return error;
}

static enum outcome run_once(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, int repairing,
                             struct cpu_exit *exit)
{
    struct kvm_run *run = s->run;
    int error = run_inside(e, s);

    if (error != 0) {
        if (error == EINTR || error == EAGAIN)
            return interrupted(e, s, cpu, repairing);
        *exit = kvm_gives_up("the host's KVM refuses to run it", (uint32_t)error);
        return OUTCOME_EXIT;
    }
    if (run->exit_reason == KVM_EXIT_INTR)
        return interrupted(e, s, cpu, repairing);
    kvm_note_return(s, cpu);
    if (run->exit_reason == KVM_EXIT_IO && run->io.port == STUB_PORT && run->io.direction == KVM_EXIT_IO_OUT) {
        if (repairing)
            kvm_repairs_made(e, s);
        if (kvm_has_only_repaired(s))
            return OUTCOME_NOTHING;
        if (kvm_has_only_returned(s)) {
            kvm_take_plain(s, cpu);
            kvm_take_process(cpu);
            return OUTCOME_NOTHING;
        }
        return kvm_take_io(s, cpu, exit) ? OUTCOME_EXIT : OUTCOME_NOTHING;
    }
    if (run->exit_reason == KVM_EXIT_IO)
        kvm_refuse_input(s, cpu, exit);
    else
        kvm_take_failure(s, cpu, exit);
    return OUTCOME_EXIT;
}

static enum outcome run_guest(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit)
{
    enum outcome outcome;
    int repairing, tries;

    kvm_offer_shortcuts(e, s, cpu);
    kvm_load_guest(s, cpu);
    repairing = kvm_prepare_repairs(e, s);
    if (repairing < 0)
        return OUTCOME_DROP;
    s->run->immediate_exit = 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (e->kicked || __atomic_load_n(&e->held, __ATOMIC_SEQ_CST))
        return OUTCOME_NOTHING; /* what was loaded is loaded again */
    e->entries++;
    for (tries = 0; tries < MAX_RETRIES; tries++) {
        outcome = run_once(e, s, cpu, repairing, exit);
        if (outcome != OUTCOME_AGAIN)
            return outcome;
    }
    *exit = kvm_gives_up("an exception never arrives", EINTR);
    return OUTCOME_EXIT;
}

/* Run guest code until something happens: its exit, or nothing but a kick. */
static enum outcome enter(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit)
{
    enum outcome outcome;

    if (!kvm_enter_guest_code(e))
        return OUTCOME_NOTHING;
    outcome = run_guest(e, s, cpu, exit);
    kvm_leave_guest_code(e);
    if (outcome == OUTCOME_DROP && kvm_drop_everything(e, s) != 0) {
        *exit = kvm_gives_up("the host's KVM refuses to make its memory anew", ENOMEM);
        return OUTCOME_EXIT;
    }
    return outcome;
}

static int engine_run(void *engine, struct cpu *cpu, cpu_handler handler, void *owner)
{
    struct kvm_engine *e = engine;
    struct kvm_state *s = cpu->engine_state;
    struct cpu_exit exit;
    int answer = CPU_RESUME;

    kvm_begin_vcpu(e, s);
    while (answer == CPU_RESUME) {
        if (e->kicked) {
            e->kicked = 0;
            exit = (struct cpu_exit){EXIT_KICKED, 0, 0, 0};
        } else if (enter(e, s, cpu, &exit) != OUTCOME_EXIT) {
            /* A process is not entered again before the hypervisor knows: an event may be pending that its kernel has just
             * unmasked, and that nobody kicks this vcpu for. */
            if (cpu->returned)
                e->kicked = 1;
            continue;
        }
        kvm_take_deferred(s, cpu);
        answer = handler(owner, cpu, &exit);
        if (exit.kind == EXIT_ENGINE)
            break;
    }
    kvm_end_vcpu(e);
    return 0;
}

/* --- state --------------------------------------------------------------------------------------------------- */

static void *engine_new_state(void *engine, const struct cpu *cpu)
{
    return kvm_state_open(((struct kvm_engine *)engine)->machine, cpu->space);
}

static void engine_free_state(void *engine, void *state)
{
    (void)engine;
    kvm_state_close(state);
}

static void engine_set_budget(void *engine, uint64_t blocks)
{
    (void)engine; /* not deterministic: nothing is counted */
    (void)blocks;
}

static void engine_commit(void *engine)
{
    (void)engine; /* repairs are made as the guest is entered */
}

static void engine_invalidate_code(void *engine, uint64_t start, uint64_t end)
{
    (void)engine; /* a processor sees what memory holds */
    (void)start;
    (void)end;
}

static void engine_reserved_entries(void *engine, int kernel, uint64_t *entries)
{
    struct kvm_engine *e = engine;

    entries[TRAMPOLINE_SLOT - 256] = trampoline_l4_entry(e->machine->trampoline_base, kernel && e->machine->findings.shortcuts);
    if (e->machine->findings.shadow_tables)
        entries[LINEAR_SLOT - 256] = linear_l4_entry(e->machine->trampoline_base);
}

const struct cpu_ops kvm_ops = {
    .name = "kvm",
    .parallel = 1,
    .run = engine_run,
    .kick = kvm_kick,
    .set_deadline = kvm_set_deadline,
    .set_budget = engine_set_budget,
    .store_pte = kvm_store_pte,
    .release_table = kvm_release_table,
    .defer_table = kvm_defer_table,
    .flush_tlb = kvm_flush_tlb,
    .flush_page = kvm_flush_page,
    .commit = engine_commit,
    .invalidate_code = engine_invalidate_code,
    .new_state = engine_new_state,
    .free_state = engine_free_state,
    .get_fxsave = kvm_get_fxsave,
    .set_fxsave = kvm_set_fxsave,
    .hold = kvm_hold,
    .unhold = kvm_unhold,
    .reserved_entries = engine_reserved_entries,
};

/* --- opening and closing ------------------------------------------------------------------------------------- */

struct kvm_engine *kvm_engine_open(struct kvm_machine *machine)
{
    struct kvm_engine *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return NULL;
    e->machine = machine;
    pthread_mutex_init(&e->leaving, NULL);
    e->next = machine->engines;
    machine->engines = e;
    kvm_catch_kicks();
    return e;
}

void kvm_engine_close(struct kvm_engine *e)
{
    struct kvm_engine **link;

    if (e == NULL)
        return;
    for (link = &e->machine->engines; *link != e; link = &(*link)->next)
        ;
    *link = e->next;
    delete_deadline(&e->deadline);
    pthread_mutex_destroy(&e->leaving);
    free(e);
}
