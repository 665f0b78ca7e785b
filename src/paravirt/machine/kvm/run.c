/* The inner loop of the KVM engine.
 *
 * One turn of the loop: registers go into the vcpu's shared page, KVM_RUN runs guest code at CPL 3 until an
 * exception or a system call reaches a stub of the trampoline, whose `out` ends it; registers come back, those that
 * the processor pushed from the stub's stack; the handler acts.
 *
 * Page tables.  Where the host translates guest addresses in hardware, a store into a live table is a store.  Where
 * it keeps shadow tables, it learns of changes only from the guest's own writes: so each changed entry that was
 * present is noted, and before guest code runs again ring 0 makes, through its linear map, the write that changes
 * nothing (trampoline.c).  A frame that becomes a page table, or stops being one, is noted whole.
 *
 * Kicks.  A kick sets immediate_exit and signals the thread.  KVM_RUN can then return with an exception on its way:
 * to change registers at that point would lose or double it.  It is run on until the stub has it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RFLAGS_GUEST 0x254fd5ull /* what of the flags is the guest's own */
#define RFLAGS_ALWAYS 2ull
#define RFLAGS_RF 0x10000ull
#define PF_RESERVED 8u
#define CR0_TS 8ull
#define ADDRESS 0x000ffffffffff000ull
#define ENTRIES 512u
#define MAX_RETRIES 1000

/* --- stopping ------------------------------------------------------------------------------------------------ */

static int kick_signal(void)
{
    return SIGRTMIN + 6;
}

static void on_kick(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_code == SI_TIMER && info->si_value.sival_ptr != NULL) {
        struct kvm_engine *e = info->si_value.sival_ptr;
        e->deadline = 0;
        e->kicked = 1;
        if (e->entered != NULL)
            e->entered->immediate_exit = 1;
    }
}

static void catch_kicks(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_kick;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(kick_signal(), &action, NULL);
}

static void engine_kick(void *engine)
{
    struct kvm_engine *e = engine;
    struct kvm_run *entered;

    e->kicked = 1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    entered = e->entered;
    if (entered != NULL) {
        entered->immediate_exit = 1;
        if (e->on_thread && !pthread_equal(e->thread, pthread_self()))
            pthread_kill(e->thread, kick_signal());
    }
}

static void engine_set_deadline(void *engine, uint64_t deadline)
{
    struct kvm_engine *e = engine;
    struct itimerspec when = {{0, 0}, {0, 0}};

    /* A later deadline need not be programmed now: the early kick is cheap, and the loop asks again. */
    if (deadline == 0 || (e->deadline != 0 && e->deadline <= deadline))
        return;
    if (!e->have_timer) {
        struct sigevent event;
        memset(&event, 0, sizeof(event));
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = kick_signal();
        event.sigev_value.sival_ptr = e;
        event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
        if (timer_create(CLOCK_MONOTONIC, &event, &e->timer) != 0)
            return;
        e->have_timer = 1;
    }
    when.it_value.tv_sec = (time_t)(deadline / 1000000000ull);
    when.it_value.tv_nsec = (long)(deadline % 1000000000ull);
    e->deadline = deadline;
    timer_settime(e->timer, TIMER_ABSTIME, &when, NULL);
}

static void engine_set_budget(void *engine, uint64_t blocks)
{
    (void)engine; /* not deterministic: nothing is counted */
    (void)blocks;
}

/* --- moving state -------------------------------------------------------------------------------------------- */

static void to_gpr(const struct kvm_regs *r, uint64_t *gpr)
{
    gpr[GPR_RAX] = r->rax; gpr[GPR_RCX] = r->rcx; gpr[GPR_RDX] = r->rdx; gpr[GPR_RBX] = r->rbx;
    gpr[GPR_RSP] = r->rsp; gpr[GPR_RBP] = r->rbp; gpr[GPR_RSI] = r->rsi; gpr[GPR_RDI] = r->rdi;
    gpr[GPR_R8] = r->r8; gpr[GPR_R9] = r->r9; gpr[GPR_R10] = r->r10; gpr[GPR_R11] = r->r11;
    gpr[GPR_R12] = r->r12; gpr[GPR_R13] = r->r13; gpr[GPR_R14] = r->r14; gpr[GPR_R15] = r->r15;
}

static void from_gpr(struct kvm_regs *r, const uint64_t *gpr)
{
    r->rax = gpr[GPR_RAX]; r->rcx = gpr[GPR_RCX]; r->rdx = gpr[GPR_RDX]; r->rbx = gpr[GPR_RBX];
    r->rsp = gpr[GPR_RSP]; r->rbp = gpr[GPR_RBP]; r->rsi = gpr[GPR_RSI]; r->rdi = gpr[GPR_RDI];
    r->r8 = gpr[GPR_R8]; r->r9 = gpr[GPR_R9]; r->r10 = gpr[GPR_R10]; r->r11 = gpr[GPR_R11];
    r->r12 = gpr[GPR_R12]; r->r13 = gpr[GPR_R13]; r->r14 = gpr[GPR_R14]; r->r15 = gpr[GPR_R15];
}

static struct kvm_segment to_kvm_segment(const struct cpu_seg *seg)
{
    struct kvm_segment s;

    memset(&s, 0, sizeof(s));
    s.base = seg->base;
    s.selector = seg->selector;
    if (!(seg->flags & 0x8000)) {
        s.unusable = 1;
        return s;
    }
    s.limit = seg->limit;
    s.type = (seg->flags >> 8 & 15) | 1;
    s.s = seg->flags >> 12 & 1;
    s.dpl = 3;
    s.present = 1;
    s.avl = seg->flags >> 20 & 1;
    s.l = seg->flags >> 21 & 1;
    s.db = seg->flags >> 22 & 1;
    s.g = seg->flags >> 23 & 1;
    return s;
}

static struct kvm_segment ring0_segment(uint16_t selector, uint8_t type)
{
    struct kvm_segment s;

    memset(&s, 0, sizeof(s));
    s.limit = 0xffffffff;
    s.selector = selector;
    s.type = type;
    s.s = s.present = s.g = 1;
    s.l = type == 11;
    s.db = type != 11;
    return s;
}

/* The segment registers that guest code can change without help: null selectors, and those that Xen's table offers. */
static void read_segments(struct kvm_engine *e, struct cpu *cpu, const struct kvm_sregs *sregs)
{
    const struct kvm_segment *theirs[6] = {&sregs->es, NULL, NULL, &sregs->ds, &sregs->fs, &sregs->gs};
    int i;

    cpu->seg[SEG_FS].base = sregs->fs.base;
    cpu->seg[SEG_GS].base = sregs->gs.base;
    if (!e->machine->findings.real_selectors)
        return;
    for (i = 0; i < 6; i++) {
        if (theirs[i] == NULL || theirs[i]->selector == cpu->seg[i].selector)
            continue;
        cpu->seg[i].selector = theirs[i]->selector;
        cpu->seg[i].base = theirs[i]->base;
        cpu->seg[i].limit = theirs[i]->limit;
        cpu->seg[i].flags = theirs[i]->unusable ? 0 :
            (uint32_t)theirs[i]->type << 8 | (uint32_t)theirs[i]->s << 12 | (uint32_t)theirs[i]->dpl << 13 |
            0x8000u | (uint32_t)theirs[i]->avl << 20 | (uint32_t)theirs[i]->l << 21 |
            (uint32_t)theirs[i]->db << 22 | (uint32_t)theirs[i]->g << 23;
    }
}

/* Enter the guest at once: at CPL 3 with everything in place. */
static void load_guest(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu)
{
    struct kvm_regs *regs = &s->run->s.regs.regs;
    struct kvm_sregs *sregs = &s->run->s.regs.sregs;

    (void)e;
    from_gpr(regs, cpu->gpr);
    regs->rip = cpu->rip;
    regs->rflags = (cpu->rflags & RFLAGS_GUEST) | 0x202;
    *sregs = s->sregs;
    sregs->cr0 |= cpu->ts ? CR0_TS : 0;
    sregs->cr3 = cpu->user ? cpu->user_cr3 : cpu->kernel_cr3;
    sregs->cs = to_kvm_segment(&cpu->seg[SEG_CS]);
    sregs->ss = to_kvm_segment(&cpu->seg[SEG_SS]);
    sregs->ds = to_kvm_segment(&cpu->seg[SEG_DS]);
    sregs->es = to_kvm_segment(&cpu->seg[SEG_ES]);
    sregs->fs = to_kvm_segment(&cpu->seg[SEG_FS]);
    sregs->gs = to_kvm_segment(&cpu->seg[SEG_GS]);
    s->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    cpu->segs_dirty = 0;
}

/* Enter the stub that repairs page tables and then returns to the guest by the frame on its stack. */
static void load_repair(struct kvm_state *s)
{
    struct kvm_regs *regs = &s->run->s.regs.regs;
    struct kvm_sregs *sregs = &s->run->s.regs.sregs;
    uint64_t *frame = (uint64_t *)(s->page + STACK_TOP) - 5;

    frame[0] = regs->rip;
    frame[1] = sregs->cs.selector;
    frame[2] = regs->rflags;
    frame[3] = regs->rsp;
    frame[4] = sregs->ss.selector;
    regs->rip = trampoline_address(PAGE_STUBS) + STUB_REPAIR;
    regs->rflags = 2;
    regs->rsp = trampoline_address(PAGE_VCPUS + PAGES_PER_VCPU * s->index) + STACK_TOP - 40;
    sregs->cs = ring0_segment(SELECTOR_RING0_CODE, 11);
    sregs->ss = ring0_segment(SELECTOR_RING0_DATA, 3);
}

/* --- page tables --------------------------------------------------------------------------------------------- */

static void note_repair(struct kvm_engine *e, uint64_t linear)
{
    struct kvm_space *space;

    pthread_mutex_lock(&e->machine->lock);
    /* It may be any domain's table, and a frame that was one domain's can be another's now. */
    for (space = e->machine->spaces; space != NULL; space = space->next) {
        if (space->nr_repairs < MAX_REPAIRS)
            space->repairs[space->nr_repairs] = linear;
        space->nr_repairs++;
    }
    pthread_mutex_unlock(&e->machine->lock);
}

static void engine_store_pte(void *engine, uint64_t *pte, uint64_t value)
{
    struct kvm_engine *e = engine;
    uint64_t old = __atomic_exchange_n(pte, value, __ATOMIC_SEQ_CST);

    if (e->machine->findings.shadow_tables && old & 1 && old != value)
        note_repair(e, LINEAR_BASE + (uint64_t)((uint8_t *)pte - e->machine->memory));
}

static void engine_release_table(void *engine, uint64_t mfn)
{
    struct kvm_engine *e = engine;

    if (e->machine->findings.shadow_tables)
        note_repair(e, LINEAR_BASE + (mfn << 12) + 1);
}

static void engine_flush_tlb(void *engine, int scope)
{
    struct kvm_engine *e = engine;
    struct kvm_space *space;

    (void)scope;
    for (space = e->machine->spaces; space != NULL; space = space->next)
        space->flushes++;
}

static void engine_flush_page(void *engine, uint64_t address)
{
    (void)address;
    engine_flush_tlb(engine, FLUSH_ALL);
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

/* More than fits was noted: drop all shadow tables, by making the memory slot anew. */
static int drop_everything(struct kvm_state *s)
{
    struct kvm_machine *m = s->machine;
    struct kvm_userspace_memory_region region = {.slot = 0};

    m->memslot_resets++;
    if (ioctl(s->space->vm, KVM_SET_USER_MEMORY_REGION, &region) != 0)
        return -1;
    region.memory_size = m->memory_bytes;
    region.userspace_addr = (uintptr_t)m->memory;
    return ioctl(s->space->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Before guest code runs: everything noted goes into the vcpu's list, and the entry leads over the stub. */
static int prepare_repairs(struct kvm_engine *e, struct kvm_state *s)
{
    struct kvm_space *space = s->space;
    int flush = !e->machine->findings.shadow_tables && s->flushes_seen != space->flushes;
    uint32_t count;

    pthread_mutex_lock(&e->machine->lock);
    count = space->nr_repairs;
    if (count > MAX_REPAIRS)
        space->nr_repairs = 0;
    else
        memcpy(s->repairs->address, space->repairs, count * sizeof(uint64_t));
    s->flushes_next = space->flushes;
    pthread_mutex_unlock(&e->machine->lock);
    if (count > MAX_REPAIRS) {
        if (drop_everything(s) != 0)
            return -1;
        count = 0;
    }
    if (count == 0 && !flush)
        return 0;
    s->repairs->count = s->nr_repairs = count;
    s->repairs->flush = (uint32_t)flush;
    load_repair(s);
    return 1;
}

static void repairs_made(struct kvm_engine *e, struct kvm_state *s)
{
    struct kvm_space *space = s->space;

    /* Others may have noted more meanwhile. */
    pthread_mutex_lock(&e->machine->lock);
    if (space->nr_repairs <= MAX_REPAIRS) {
        space->nr_repairs -= s->nr_repairs;
        memmove(space->repairs, space->repairs + s->nr_repairs, space->nr_repairs * sizeof(uint64_t));
    }
    pthread_mutex_unlock(&e->machine->lock);
    e->repaired += s->nr_repairs;
    s->flushes_seen = s->flushes_next;
}

/* --- guest memory, for a look at an instruction ---------------------------------------------------------------- */

static int guest_byte(const struct kvm_machine *m, const struct cpu *cpu, uint64_t address, uint8_t *byte)
{
    uint64_t table = (cpu->user ? cpu->user_cr3 : cpu->kernel_cr3) & ADDRESS;
    int shift;

    for (shift = 39; shift >= 12; shift -= 9) {
        uint64_t entry;
        if (table + PAGE > m->memory_bytes)
            return 0;
        entry = __atomic_load_n((const uint64_t *)(m->memory + table) + (address >> shift & (ENTRIES - 1)),
                                __ATOMIC_RELAXED);
        if (!(entry & 1) || (shift > 12 && shift < 39 && entry & 0x80))
            return 0;
        table = entry & ADDRESS;
    }
    if (table + PAGE > m->memory_bytes)
        return 0;
    *byte = m->memory[table + (address & (PAGE - 1))];
    return 1;
}

static int is_software_interrupt(const struct kvm_machine *m, const struct cpu *cpu, uint8_t *vector)
{
    uint8_t opcode;

    return guest_byte(m, cpu, cpu->rip, &opcode) && opcode == 0xcd && guest_byte(m, cpu, cpu->rip + 1, vector);
}

/* --- exits --------------------------------------------------------------------------------------------------- */

static const uint32_t HAS_ERROR_CODE = 1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17;

/* An exception: what the processor pushed is on the stub's stack. */
static void take_exception(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, unsigned vector,
                           struct cpu_exit *exit)
{
    const struct kvm_regs *regs = &s->run->s.regs.regs;
    const struct kvm_sregs *sregs = &s->run->s.regs.sregs;
    const uint64_t *frame = (const uint64_t *)(s->page + STACK_TOP) - 5;
    uint8_t number;

    to_gpr(regs, cpu->gpr);
    cpu->rip = frame[0];
    cpu->rflags = (frame[2] & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    cpu->gpr[GPR_RSP] = frame[3];
    read_segments(e, cpu, sregs);
    *exit = (struct cpu_exit){EXIT_EXCEPTION, vector, 0, 0};
    if (HAS_ERROR_CODE >> vector & 1)
        exit->error_code = (uint32_t)frame[-1];
    if (vector == 14) {
        exit->address = sregs->cr2;
        /* The guest's tables were checked; where a host uses that bit, it means the host's own. */
        exit->error_code &= ~PF_RESERVED;
    } else if (vector == 1)
        exit->address = cpu->rflags & 0x100 ? 0x4000 : 0;
    else if (vector == 3 || vector == 4)
        exit->kind = EXIT_SOFTINT;
    else if ((vector == 6 || (vector == 13 && (exit->error_code & 7) == 2)) &&
             is_software_interrupt(e->machine, cpu, &number)) {
        exit->kind = EXIT_SOFTINT;
        exit->vector = number;
        exit->error_code = 0;
        cpu->rip += 2;
        cpu->rflags &= ~RFLAGS_RF; /* a fault sets it in the saved flags, an interrupt does not */
    }
    else if (vector == 13 && !(exit->error_code & 3))
        exit->error_code = 0; /* a segment load: the hypervisor has the guest's descriptors, and looks at it itself */
    if (frame[1] % 4 != 3)
        *exit = (struct cpu_exit){EXIT_ENGINE, vector, (uint32_t)frame[-1], frame[0]};
}

static void take_entry(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, int kind, struct cpu_exit *exit)
{
    const struct kvm_regs *regs = &s->run->s.regs.regs;

    to_gpr(regs, cpu->gpr);
    read_segments(e, cpu, &s->run->s.regs.sregs);
    if (kind == EXIT_SYSCALL) {
        cpu->rip = regs->rcx;
        cpu->rflags = (regs->r11 & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    } else {
        cpu->rip = 0;
        cpu->rflags = (regs->rflags & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    }
    *exit = (struct cpu_exit){kind, 0, 0, 0};
}

/* The guest stopped between two instructions of its own. */
static void take_plain(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu)
{
    const struct kvm_regs *regs = &s->run->s.regs.regs;

    to_gpr(regs, cpu->gpr);
    cpu->rip = regs->rip;
    cpu->rflags = (regs->rflags & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    read_segments(e, cpu, &s->run->s.regs.sregs);
}

/* KVM_EXIT_IO: which stub it was, if it was one. */
static void take_io(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit)
{
    const struct kvm_regs *regs = &s->run->s.regs.regs;
    uint64_t offset = regs->rip - trampoline_address(PAGE_STUBS);
    int ring3 = s->run->s.regs.sregs.ss.dpl == 3;

    if (offset < STUB_EXCEPTIONS + 32 * STUB_BYTES && !ring3)
        take_exception(e, s, cpu, (unsigned)(offset / STUB_BYTES), exit);
    else if (offset - STUB_SYSCALL < 2 * STUB_BYTES && (!ring3 || e->machine->findings.user_stubs))
        take_entry(e, s, cpu, EXIT_SYSCALL, exit);
    else if (offset - STUB_SYSENTER < STUB_BYTES && (!ring3 || e->machine->findings.user_stubs))
        take_entry(e, s, cpu, EXIT_SYSENTER, exit);
    else {
        /* Guest code found the port that is open for the stubs: to it, no port is. */
        take_plain(e, s, cpu);
        if (e->machine->findings.rip_after_out) {
            uint8_t byte = 0;
            cpu->rip -= guest_byte(e->machine, cpu, cpu->rip - 2, &byte) && byte == 0xe6 ? 2 : 1;
        }
        *exit = (struct cpu_exit){EXIT_EXCEPTION, 13, 0, 0};
    }
}

static int in_repair(const struct kvm_state *s)
{
    uint64_t offset = s->run->s.regs.regs.rip - trampoline_address(PAGE_STUBS);
    return s->run->s.regs.sregs.ss.dpl == 0 && offset >= STUB_REPAIR && offset < STUB_REPAIR_END;
}

/* Whether the guest's state is whole: no exception is on its way, and none has just reached its stub. */
static int state_is_whole(struct kvm_state *s)
{
    struct kvm_vcpu_events events;

    if (s->run->s.regs.sregs.ss.dpl != 3 || s->run->s.regs.sregs.cs.dpl != 3)
        return 0;
    if (ioctl(s->fd, KVM_GET_VCPU_EVENTS, &events) != 0)
        return 1;
    return !events.exception.injected && !events.exception.pending;
}

enum outcome { OUTCOME_EXIT, OUTCOME_NOTHING, OUTCOME_AGAIN };

/* KVM_RUN was interrupted. */
static enum outcome interrupted(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, int repairing)
{
    e->interrupted++;
    if (repairing && in_repair(s))
        return OUTCOME_NOTHING; /* what it did can be done again, and of the guest nothing has changed */
    if (!state_is_whole(s)) {
        s->run->immediate_exit = 0;
        return OUTCOME_AGAIN;
    }
    if (repairing)
        repairs_made(e, s);
    take_plain(e, s, cpu);
    return OUTCOME_NOTHING;
}

static enum outcome run_once(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, int repairing,
                             struct cpu_exit *exit)
{
    struct kvm_run *run = s->run;

    if (ioctl(s->fd, KVM_RUN, 0) != 0) {
        if (errno == EINTR || errno == EAGAIN)
            return interrupted(e, s, cpu, repairing);
        *exit = (struct cpu_exit){EXIT_ENGINE, (uint32_t)errno, 0, 0};
        return OUTCOME_EXIT;
    }
    if (run->exit_reason == KVM_EXIT_INTR)
        return interrupted(e, s, cpu, repairing);
    if (run->exit_reason == KVM_EXIT_IO && run->io.port == STUB_PORT && run->io.direction == KVM_EXIT_IO_OUT) {
        if (repairing)
            repairs_made(e, s);
        take_io(e, s, cpu, exit);
        return OUTCOME_EXIT;
    }
    take_plain(e, s, cpu);
    *exit = (struct cpu_exit){EXIT_ENGINE, run->exit_reason, 0, 0};
    if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
        exit->error_code = run->internal.suberror;
    return OUTCOME_EXIT;
}

/* Run guest code until something happens: its exit, or nothing but a kick. */
static enum outcome enter(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit)
{
    enum outcome outcome;
    int repairing, tries;

    load_guest(e, s, cpu);
    repairing = prepare_repairs(e, s);
    if (repairing < 0) {
        *exit = (struct cpu_exit){EXIT_ENGINE, ENOMEM, 0, 0};
        return OUTCOME_EXIT;
    }
    s->run->immediate_exit = 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (e->kicked)
        return OUTCOME_NOTHING; /* what was loaded is loaded again */
    e->entries++;
    for (tries = 0; tries < MAX_RETRIES; tries++) {
        outcome = run_once(e, s, cpu, repairing, exit);
        if (outcome != OUTCOME_AGAIN)
            return outcome;
    }
    *exit = (struct cpu_exit){EXIT_ENGINE, EINTR, 0, 0};
    return OUTCOME_EXIT;
}

static int engine_run(void *engine, struct cpu *cpu, cpu_handler handler, void *owner)
{
    struct kvm_engine *e = engine;
    struct kvm_state *s = cpu->engine_state;
    struct cpu_exit exit;
    int answer = CPU_RESUME;

    e->cur = cpu;
    e->running = s;
    e->thread = pthread_self();
    e->on_thread = 1;
    e->entered = s->run;
    while (answer == CPU_RESUME) {
        if (e->kicked) {
            e->kicked = 0;
            exit = (struct cpu_exit){EXIT_KICKED, 0, 0, 0};
        } else if (enter(e, s, cpu, &exit) != OUTCOME_EXIT) {
            continue;
        }
        answer = handler(owner, cpu, &exit);
        if (exit.kind == EXIT_ENGINE)
            break;
    }
    e->entered = NULL;
    e->running = NULL;
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

static void engine_get_fxsave(void *engine, struct cpu *cpu, uint8_t *image)
{
    struct kvm_state *s = cpu->engine_state;
    struct kvm_fpu fpu;
    int i;

    (void)engine;
    memset(image, 0, 512);
    if (ioctl(s->fd, KVM_GET_FPU, &fpu) != 0)
        return;
    memcpy(image, &fpu.fcw, 2);
    memcpy(image + 2, &fpu.fsw, 2);
    image[4] = fpu.ftwx;
    memcpy(image + 6, &fpu.last_opcode, 2);
    memcpy(image + 8, &fpu.last_ip, 8);
    memcpy(image + 16, &fpu.last_dp, 8);
    memcpy(image + 24, &fpu.mxcsr, 4);
    memset(image + 28, 0xff, 2);
    for (i = 0; i < 8; i++)
        memcpy(image + 32 + 16 * i, fpu.fpr[i], 16);
    for (i = 0; i < 16; i++)
        memcpy(image + 160 + 16 * i, fpu.xmm[i], 16);
}

static void engine_set_fxsave(void *engine, struct cpu *cpu, const uint8_t *image)
{
    struct kvm_state *s = cpu->engine_state;
    struct kvm_fpu fpu;
    int i;

    (void)engine;
    memset(&fpu, 0, sizeof(fpu));
    memcpy(&fpu.fcw, image, 2);
    memcpy(&fpu.fsw, image + 2, 2);
    fpu.ftwx = image[4];
    memcpy(&fpu.last_opcode, image + 6, 2);
    memcpy(&fpu.last_ip, image + 8, 8);
    memcpy(&fpu.last_dp, image + 16, 8);
    memcpy(&fpu.mxcsr, image + 24, 4);
    fpu.mxcsr &= 0xffbf;
    for (i = 0; i < 8; i++)
        memcpy(fpu.fpr[i], image + 32 + 16 * i, 16);
    for (i = 0; i < 16; i++)
        memcpy(fpu.xmm[i], image + 160 + 16 * i, 16);
    (void)ioctl(s->fd, KVM_SET_FPU, &fpu);
}

static void engine_reserved_entries(void *engine, uint64_t *entries)
{
    struct kvm_engine *e = engine;

    entries[TRAMPOLINE_SLOT - 256] = trampoline_l4_entry(e->machine->trampoline_base);
    if (e->machine->findings.shadow_tables)
        entries[LINEAR_SLOT - 256] = linear_l4_entry(e->machine->trampoline_base);
}

const struct cpu_ops kvm_ops = {
    .name = "kvm",
    .run = engine_run,
    .kick = engine_kick,
    .set_deadline = engine_set_deadline,
    .set_budget = engine_set_budget,
    .store_pte = engine_store_pte,
    .release_table = engine_release_table,
    .flush_tlb = engine_flush_tlb,
    .flush_page = engine_flush_page,
    .commit = engine_commit,
    .invalidate_code = engine_invalidate_code,
    .new_state = engine_new_state,
    .free_state = engine_free_state,
    .get_fxsave = engine_get_fxsave,
    .set_fxsave = engine_set_fxsave,
    .reserved_entries = engine_reserved_entries,
};

/* --- opening and closing ------------------------------------------------------------------------------------- */

struct kvm_engine *kvm_engine_open(struct kvm_machine *machine)
{
    struct kvm_engine *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return NULL;
    e->machine = machine;
    catch_kicks();
    return e;
}

void kvm_engine_close(struct kvm_engine *e)
{
    if (e == NULL)
        return;
    if (e->have_timer)
        timer_delete(e->timer);
    free(e);
}
