/* The native half of the Unicorn engine, and the one place that knows its private layout.
 *
 * Unicorn's public interface stops the emulator at each exception and costs microseconds; this shim calls the
 * library's inner loop (cpu_exec) itself, takes exceptions in its hooks, and moves state between the library's
 * CPU record and ours.  The offsets below are those of version 2.1.4's x86-64 Linux build, read off its source
 * distribution's headers; engine.py proves them with a self-test before it trusts them.
 *
 * Privilege.  The guest's kernel runs at CPL 1 and its processes at CPL 3.  The library keeps a translation
 * cache for each side (index 2: supervisor, index 1: user), so that going from one page table to the other needs
 * no flush.  Selectors look as on Xen (0xe033, RPL 3) since nothing in the guest's reach loads a descriptor
 * natively: the descriptor-table bases are non-canonical, so every far transfer, iretq, LAR, LSL, VERR and VERW
 * raises #GP(0) before it has changed anything, and so does every load of a segment register (segment_loads.c); the
 * hypervisor carries them out against the guest's true tables.  A native change of ring can therefore not happen.
 *
 * Stops.  no_exit_request is set before anything is translated: the library then looks for a stop only where a
 * translation block begins, where the state is exact.  Stops are requested as QEMU does it, by exit_request and
 * the sign of icount_decr; cpu_exec looks at exit_request before each block, so a request is never lost.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "inline_exit.h"
#include "layout.h"
#include "segment_loads.h"

#define RFLAGS_TF 0x100
#define FPU_BYTES (ENV_FPU_END - ENV_FPU_BEGIN)

#define FIELD(base, offset, type) (*(type *)((char *)(base) + (offset)))

struct fpu_state {
    uint8_t image[FPU_BYTES];
    uint8_t controls_stale; /* written from outside: the derived rounding modes must be recomputed */
};

struct unicorn_engine {
    void *library;
    void *uc;
    char *cs;  /* the library's CPUState */
    char *env; /* its CPUX86State */
    volatile uint32_t *icount_decr;

    /* the library's functions */
    int (*uc_close)(void *);
    int (*uc_reg_write)(void *, int, const void *);
    int (*cpu_exec)(void *uc, void *cs);
    void (*tlb_flush_by_mmuidx)(void *cs, uint16_t idxmap);
    void (*tlb_flush_page)(void *cs, uint64_t address);
    void (*tb_invalidate_phys_range)(void *uc, uint64_t start, uint64_t end);
    const uint8_t *(*tlb_vaddr_to_host)(void *env, uint64_t address, int access, int mmu_index);
    uint32_t (*cc_compute_all)(void *env, int op);
    void (*raise_exception_err)(void *env, int vector, int error_code);
    void (*update_dr7)(void *env, uint32_t value);

    struct cpu *cur;    /* whose run() this is */
    struct cpu *loaded; /* whose floating-point state is in the library */
    cpu_handler handler;
    void *owner;
    int leave;
    int early_step; /* a single-step trap is about to come, one instruction too early */
    volatile int kicked;
    uint32_t base_hflags;

    uint64_t armed[5];   /* the breakpoints that the library knows: dr0 to dr3, and of dr7 what concerns them */
    int breakpoints_stale;

    int count_blocks;
    uint64_t budget;

    timer_t timer;
    int have_timer;
    volatile uint64_t deadline; /* as programmed; 0: not */

    /* What other threads ask for.  The engine's own thread does it before it executes guest code again. */
    volatile int in_guest;     /* guest code may be running */
    int held;                  /* how many callers want it to stay out of guest code */
    volatile int flush_wanted; /* scopes */
    pthread_mutex_t stale_lock; /* leaf lock: nothing is taken under it */
    uint64_t *stale;            /* a bit for each frame whose translated code is to be dropped */
    uint64_t first_stale, end_stale; /* the words of it that may have one */
    uint64_t nr_frames;
    struct fpu_state fresh;
};

/* The engine whose run() this thread is in: of that one the library's functions can be called at once. */
static __thread struct unicorn_engine *here;

/* --- stopping ------------------------------------------------------------------------------------------------ */

static uint16_t scope_map(int scope)
{
    return (uint16_t)((scope & FLUSH_KERNEL ? MMU_SUPERVISOR : 0) | (scope & FLUSH_USER ? MMU_USER : 0));
}

static void request_exit(struct unicorn_engine *e)
{
    FIELD(e->cs, CPU_EXIT_REQUEST, volatile uint8_t) = 1;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    FIELD(e->cs, CPU_TCG_EXIT_REQ, volatile uint32_t) = 1;
    ((volatile uint16_t *)e->icount_decr)[1] = 0xffff;
}

static void engine_kick(void *engine)
{
    struct unicorn_engine *e = engine;
    e->kicked = 1;
    request_exit(e);
}

static int deadline_signal(void)
{
    return SIGRTMIN + 7;
}

static void on_deadline(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_code != SI_TIMER)
        return;
    struct unicorn_engine *e = info->si_value.sival_ptr;
    if (e == NULL)
        return;
    e->deadline = 0;
    engine_kick(e);
}

static void engine_set_deadline(void *engine, uint64_t deadline)
{
    struct unicorn_engine *e = engine;
    struct itimerspec when = {{0, 0}, {0, 0}};

    /* A later deadline need not be programmed now: the early kick is cheap, and the loop asks again. */
    if (e->count_blocks || deadline == 0 || (e->deadline != 0 && e->deadline <= deadline))
        return;
    if (!e->have_timer) {
        struct sigevent event;
        struct sigaction action;
        memset(&event, 0, sizeof(event));
        memset(&action, 0, sizeof(action));
        action.sa_sigaction = on_deadline;
        action.sa_flags = SA_SIGINFO | SA_RESTART;
        sigemptyset(&action.sa_mask);
        sigaction(deadline_signal(), &action, NULL);
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = deadline_signal();
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
    ((struct unicorn_engine *)engine)->budget = blocks;
}

/* --- moving state -------------------------------------------------------------------------------------------- */

static void save_state(struct unicorn_engine *e, struct cpu *cpu)
{
    static const int loose[4] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    const char *env = e->env;
    uint32_t flags;
    int i;

    memcpy(cpu->gpr, env + ENV_REGS, sizeof(cpu->gpr));
    cpu->rip = FIELD(env, ENV_EIP, uint64_t);
    flags = FIELD(env, ENV_EFLAGS, uint32_t);
    flags |= e->cc_compute_all(e->env, (int)FIELD(env, ENV_CC_OP, uint32_t));
    flags |= FIELD(env, ENV_DF, uint32_t) & 0x400;
    cpu->rflags = flags | 2;
    /* Null selectors load natively, without a look at a table. */
    for (i = 0; i < 4; i++) {
        const char *seg = env + ENV_SEGS + loose[i] * SEG_BYTES;
        cpu->seg[loose[i]].selector = (uint16_t)FIELD(seg, SEG_SELECTOR, uint32_t);
        cpu->seg[loose[i]].base = FIELD(seg, SEG_BASE, uint64_t);
        cpu->seg[loose[i]].flags = FIELD(seg, SEG_FLAGS, uint32_t);
    }
}

static void load_segments(struct unicorn_engine *e, struct cpu *cpu)
{
    char *env = e->env;
    int i;

    for (i = 0; i < 6; i++) {
        char *seg = env + ENV_SEGS + i * SEG_BYTES;
        FIELD(seg, SEG_SELECTOR, uint32_t) = cpu->seg[i].selector;
        FIELD(seg, SEG_BASE, uint64_t) = cpu->seg[i].base;
        FIELD(seg, SEG_LIMIT, uint32_t) = cpu->seg[i].limit;
        FIELD(seg, SEG_FLAGS, uint32_t) = cpu->seg[i].flags;
    }
    cpu->segs_dirty = 0;
}

/* hflags are the part of the CPU's state under which blocks are translated. */
static uint32_t mode_flags(struct unicorn_engine *e, const struct cpu *cpu)
{
    uint32_t flags = e->base_hflags | (cpu->user ? 3 : 1);

    if (cpu->ts)
        flags |= HF_TS;
    if (cpu->seg[SEG_CS].flags & DESC_L)
        return flags | HF_CS32 | HF_SS32 | HF_CS64;
    if (cpu->seg[SEG_CS].flags & DESC_B)
        flags |= HF_CS32;
    if (cpu->seg[SEG_SS].flags & DESC_B)
        flags |= HF_SS32;
    if (!(flags & HF_CS32) || cpu->seg[SEG_DS].base || cpu->seg[SEG_ES].base || cpu->seg[SEG_SS].base)
        flags |= HF_ADDSEG;
    return flags;
}

/* Of dr7 what makes the library's breakpoints: those of execution that are enabled.  Its watchpoints do nothing. */
static uint64_t execution_breakpoints(const struct cpu *cpu)
{
    uint64_t dr7 = cpu->dr[7], chosen = 0;
    int i;

    for (i = 0; i < 4; i++)
        if ((dr7 >> 2 * i & 3) && !(dr7 >> (16 + 4 * i) & 3))
            chosen |= dr7 & (3ull << 2 * i);
    return chosen;
}

/* Tell the library of the breakpoints.  It forgets all translated code for that, so it must not be running any. */
static void arm_breakpoints(struct unicorn_engine *e, struct cpu *cpu)
{
    e->update_dr7(e->env, 0x400);
    memcpy(e->env + ENV_DR, cpu->dr, 4 * sizeof(uint64_t));
    memcpy(e->armed, cpu->dr, 4 * sizeof(uint64_t));
    e->armed[4] = execution_breakpoints(cpu);
    e->update_dr7(e->env, (uint32_t)e->armed[4] | 0x400);
    e->breakpoints_stale = 0;
}

static int breakpoints_changed(const struct unicorn_engine *e, const struct cpu *cpu)
{
    uint64_t wanted = cpu->dr[7] & 0xff ? execution_breakpoints(cpu) : 0;
    return wanted != e->armed[4] || (wanted && memcmp(e->armed, cpu->dr, 4 * sizeof(uint64_t)) != 0);
}

static void load_state(struct unicorn_engine *e, struct cpu *cpu)
{
    char *env = e->env;
    uint32_t flags = (uint32_t)cpu->rflags;

    memcpy(env + ENV_REGS, cpu->gpr, sizeof(cpu->gpr));
    FIELD(env, ENV_EIP, uint64_t) = cpu->rip;
    FIELD(env, ENV_CC_SRC, uint64_t) = flags & CC_MASK;
    FIELD(env, ENV_CC_OP, uint32_t) = CC_OP_EFLAGS;
    FIELD(env, ENV_DF, int32_t) = flags & 0x400 ? -1 : 1;
    FIELD(env, ENV_EFLAGS, uint32_t) = (flags & ~(CC_MASK | 0x400u)) | 2;
    FIELD(env, ENV_CR + 3 * 8, uint64_t) = cpu->user ? cpu->user_cr3 : cpu->kernel_cr3;
    if (cpu->segs_dirty)
        load_segments(e, cpu);
    FIELD(env, ENV_HFLAGS, uint32_t) = mode_flags(e, cpu);
    FIELD(env, ENV_TSC_AUX, uint64_t) = cpu->tsc_aux;
    if (((cpu->dr[7] & 0xff) | e->armed[4]) && breakpoints_changed(e, cpu)) {
        e->breakpoints_stale = 1;
        request_exit(e);
    }
}

static void refresh_controls(struct unicorn_engine *e)
{
    uint32_t mxcsr = FIELD(e->env, ENV_MXCSR, uint32_t);
    uint16_t fpcw = FIELD(e->env, ENV_FPUC, uint16_t);

    e->uc_reg_write(e->uc, UC_X86_REG_MXCSR, &mxcsr);
    e->uc_reg_write(e->uc, UC_X86_REG_FPCW, &fpcw);
}

static void engine_unload(void *engine)
{
    struct unicorn_engine *e = engine;

    if (e->loaded != NULL)
        memcpy(((struct fpu_state *)e->loaded->engine_state)->image, e->env + ENV_FPU_BEGIN, FPU_BYTES);
    e->loaded = NULL;
}

static void switch_to(struct unicorn_engine *e, struct cpu *cpu)
{
    struct fpu_state *state = cpu->engine_state;

    engine_unload(e);
    memcpy(e->env + ENV_FPU_BEGIN, state->image, FPU_BYTES);
    if (state->controls_stale) {
        refresh_controls(e);
        state->controls_stale = 0;
    }
    e->loaded = cpu;
    cpu->segs_dirty = 1;
    e->tlb_flush_by_mmuidx(e->cs, ALL_MMU);
}

/* --- in and out of guest code -------------------------------------------------------------------------------- */

/* From here on the guest may run: whoever wants a flush now, or the engine out of guest code, waits until this thread
 * has done it.  Answers whether somebody did. */
static int enter_guest(struct unicorn_engine *e)
{
    int scope, waited = 0;

    __atomic_store_n(&e->in_guest, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&e->held, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&e->in_guest, 0, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&e->held, __ATOMIC_SEQ_CST))
            sched_yield();
        __atomic_store_n(&e->in_guest, 1, __ATOMIC_SEQ_CST);
        waited = 1;
    }
    while ((scope = __atomic_load_n(&e->flush_wanted, __ATOMIC_SEQ_CST)) != 0) {
        e->tlb_flush_by_mmuidx(e->cs, scope_map(scope));
        __atomic_fetch_and(&e->flush_wanted, ~scope, __ATOMIC_SEQ_CST);
        waited = 1;
    }
    return waited;
}

static void leave_guest(struct unicorn_engine *e)
{
    __atomic_store_n(&e->in_guest, 0, __ATOMIC_RELEASE);
}

/* --- exits --------------------------------------------------------------------------------------------------- */

static int deliver(struct unicorn_engine *e, struct cpu_exit *exit)
{
    int answer;

    leave_guest(e);
    answer = e->handler(e->owner, e->cur, exit);
    if (answer == CPU_LEAVE) {
        e->leave = 1;
        request_exit(e);
    } else {
        enter_guest(e);
    }
    return answer;
}

static void hook_exception(void *uc, uint32_t vector, void *data)
{
    struct unicorn_engine *e = data;
    struct cpu_exit exit;
    (void)uc;

    /* The library never resets this, and would make a double fault of the second page fault. */
    FIELD(e->env, ENV_OLD_EXCEPTION, int32_t) = -1;
    if (e->early_step && vector == 1 && !FIELD(e->env, ENV_EXCEPTION_IS_INT, int32_t)) {
        e->early_step = 0;
        FIELD(e->env, ENV_DR + 6 * 8, uint64_t) = 0xffff0ff0;
        return;
    }
    e->early_step = 0;
    save_state(e, e->cur);
    exit.kind = FIELD(e->env, ENV_EXCEPTION_IS_INT, int32_t) ? EXIT_SOFTINT : EXIT_EXCEPTION;
    exit.vector = vector;
    exit.error_code = FIELD(e->env, ENV_ERROR_CODE, uint32_t);
    exit.address = vector == 14 ? FIELD(e->env, ENV_CR + 2 * 8, uint64_t)
                   : vector == 1 ? FIELD(e->env, ENV_DR + 6 * 8, uint64_t) : 0;
    if (vector == 1)
        FIELD(e->env, ENV_DR + 6 * 8, uint64_t) = 0xffff0ff0;
    deliver(e, &exit);
    load_state(e, e->cur);
}

static const uint8_t *code_at(struct unicorn_engine *e, uint64_t address)
{
    int side = (FIELD(e->env, ENV_HFLAGS, uint32_t) & 3) == 3 ? MMU_USER_INDEX : MMU_SUPERVISOR_INDEX;
    return e->tlb_vaddr_to_host(e->env, address, INSTRUCTION_FETCH, side);
}

/* The library does not know int1, which raises #DB behind it. */
static int is_icebp(struct unicorn_engine *e)
{
    const uint8_t *byte = code_at(e, e->cur->rip);
    return byte != NULL && *byte == 0xf1;
}

static uint8_t hook_invalid(void *uc, void *data)
{
    struct unicorn_engine *e = data;
    struct cpu_exit exit = {EXIT_EXCEPTION, 6, 0, 0};
    (void)uc;

    FIELD(e->env, ENV_OLD_EXCEPTION, int32_t) = -1;
    save_state(e, e->cur);
    if (is_icebp(e)) {
        exit.vector = 1;
        e->cur->rip++;
    }
    deliver(e, &exit);
    load_state(e, e->cur);
    return 1;
}

/* Bytes of the syscall or sysenter at rip: two, unless somebody put prefixes before it. */
static uint64_t entry_length(struct unicorn_engine *e)
{
    uint64_t rip = FIELD(e->env, ENV_EIP, uint64_t), length;
    const uint8_t *byte;

    for (length = 0; length < 13; length++) {
        byte = code_at(e, rip + length);
        if (byte == NULL || *byte == 0x0f)
            break;
    }
    return length + 2;
}

static void enter_by_instruction(struct unicorn_engine *e, int kind)
{
    struct cpu_exit exit = {kind, 0, 0, 0};

    uint64_t length = entry_length(e);
    const struct cpu *stepped;

    save_state(e, e->cur);
    stepped = e->cur->rflags & RFLAGS_TF ? e->cur : NULL;
    e->cur->rip += length;
    deliver(e, &exit);
    load_state(e, e->cur);
    /* Behind this instruction the library looks at the trap flag as it is now. If the hypervisor has set it meanwhile,
     * or let another vcpu in that has it, the trap must wait for the first instruction there. */
    e->early_step = (e->cur->rflags & RFLAGS_TF) && stepped != e->cur;
    FIELD(e->env, ENV_EIP, uint64_t) -= length; /* the library adds it when the hook returns */
}

static void hook_syscall(void *uc, void *data)
{
    (void)uc;
    enter_by_instruction(data, EXIT_SYSCALL);
}

static void hook_sysenter(void *uc, void *data)
{
    (void)uc;
    enter_by_instruction(data, EXIT_SYSENTER);
}

/* Instructions that the library would carry out itself, whatever the privilege, become the #GP of real hardware.
 * The jump out of the helper is the library's own way to raise an exception; its state is in order by now. */
static uint32_t hook_in(void *uc, uint32_t port, int size, void *data)
{
    struct unicorn_engine *e = data;
    (void)uc;
    (void)port;
    (void)size;
    e->raise_exception_err(e->env, 13, 0);
    return 0;
}

static void hook_out(void *uc, uint32_t port, int size, uint32_t value, void *data)
{
    struct unicorn_engine *e = data;
    (void)uc;
    (void)port;
    (void)size;
    (void)value;
    e->raise_exception_err(e->env, 13, 0);
}

/* cpuid and rdtsc stay inside their block: only general registers may change. */
static int fill_registers(struct unicorn_engine *e, int kind, uint32_t vector)
{
    struct cpu_exit exit = {kind, vector, 0, 0};

    save_state(e, e->cur);
    deliver(e, &exit);
    memcpy(e->env + ENV_REGS, e->cur->gpr, sizeof(e->cur->gpr));
    return 1;
}

static int hook_cpuid(void *uc, void *data)
{
    (void)uc;
    return fill_registers(data, EXIT_CPUID, 0);
}

static int hook_rdtsc(void *uc, void *data)
{
    (void)uc;
    return fill_registers(data, EXIT_RDTSC, 0);
}

static int hook_rdtscp(void *uc, void *data)
{
    (void)uc;
    return fill_registers(data, EXIT_RDTSC, 1);
}

static void hook_block(void *uc, uint64_t address, uint32_t size, void *data)
{
    struct unicorn_engine *e = data;
    (void)uc;
    (void)address;
    (void)size;
    if (++e->cur->blocks >= e->budget)
        request_exit(e);
}

/* --- the protocol -------------------------------------------------------------------------------------------- */

static void drop_stale_code(struct unicorn_engine *e)
{
    uint64_t word, frame;

    pthread_mutex_lock(&e->stale_lock);
    for (word = e->first_stale; word < e->end_stale; word++) {
        if (e->stale[word] == ~0ull) {
            e->stale[word] = 0;
            e->tb_invalidate_phys_range(e->uc, word << 18, (word + 1) << 18);
        }
        while (e->stale[word] != 0) {
            frame = word * 64 + (uint64_t)__builtin_ctzll(e->stale[word]);
            e->stale[word] &= e->stale[word] - 1;
            e->tb_invalidate_phys_range(e->uc, frame << 12, (frame + 1) << 12);
        }
    }
    e->first_stale = e->nr_frames;
    e->end_stale = 0;
    pthread_mutex_unlock(&e->stale_lock);
}

static void engine_commit(void *engine)
{
    struct unicorn_engine *e = engine;
    if (e->end_stale != 0)
        drop_stale_code(e);
}

/* Before cpu_exec: the library takes the condition and direction flags from eflags as it enters its loop. */
static void load_state_for_entry(struct unicorn_engine *e, struct cpu *cpu)
{
    load_state(e, cpu);
    FIELD(e->env, ENV_EFLAGS, uint32_t) = (uint32_t)cpu->rflags | 2;
}

static int engine_run(void *engine, struct cpu *cpu, cpu_handler handler, void *owner)
{
    struct unicorn_engine *e = engine;
    struct cpu_exit exit;
    int error = 0, goes_on;

    e->cur = cpu;
    e->handler = handler;
    e->owner = owner;
    e->leave = 0;
    e->early_step = 0;
    here = e;
    if (e->loaded != cpu)
        switch_to(e, cpu);
    engine_commit(e);
    if (breakpoints_changed(e, cpu))
        arm_breakpoints(e, cpu);
    load_state_for_entry(e, cpu);
    enter_guest(e);
    FIELD(e->uc, UC_NESTED_LEVEL, int32_t) = 1;
    FIELD(e->uc, UC_STOP_REQUEST, uint8_t) = 0;
    FIELD(e->uc, UC_QUIT_REQUEST, uint8_t) = 0;
    FIELD(e->uc, UC_INVALID_ERROR, int32_t) = 0;
    FIELD(e->cs, CPU_HALTED, uint32_t) = 0;
    while (!e->leave) {
        FIELD(e->cs, CPU_EXCEPTION_INDEX, int32_t) = -1;
        inline_exit_enter();
        e->cpu_exec(e->uc, e->cs);
        inline_exit_leave();
        if (FIELD(e->uc, UC_INVALID_ERROR, int32_t) != 0) {
            save_state(e, cpu);
            exit = (struct cpu_exit){EXIT_ENGINE, (uint32_t)FIELD(e->uc, UC_INVALID_ERROR, int32_t), 0, 0};
            error = (int)exit.vector;
            FIELD(e->uc, UC_INVALID_ERROR, int32_t) = 0;
            leave_guest(e);
            handler(owner, cpu, &exit);
            break;
        }
        if (e->leave)
            break;
        goes_on = enter_guest(e); /* that somebody waits for it may be all that this stop was for */
        save_state(e, cpu);
        if (e->breakpoints_stale) {
            arm_breakpoints(e, cpu);
            goes_on = 1;
        }
        if (goes_on && !e->kicked && cpu->blocks < e->budget) {
            load_state_for_entry(e, cpu);
            continue;
        }
        /* The library leaves its loop for a pause instruction too. */
        exit = (struct cpu_exit){e->kicked ? EXIT_KICKED : EXIT_PAUSE, 0, 0, 0};
        if (e->count_blocks && cpu->blocks >= e->budget)
            exit.kind = EXIT_BUDGET;
        e->kicked = 0;
        if (deliver(e, &exit) == CPU_RESUME) {
            engine_commit(e);
            load_state_for_entry(e, cpu);
        }
    }
    /* The handler that answered CPU_LEAVE had the last word on cpu's state. */
    leave_guest(e);
    here = NULL;
    return error;
}

static void engine_store_pte(void *engine, uint64_t *pte, uint64_t value)
{
    (void)engine;
    __atomic_store_n(pte, value, __ATOMIC_RELEASE);
}

/* Another thread's flush is complete when this returns: done, or certain to be done before guest code runs. */
static void flush_from_outside(struct unicorn_engine *e, int scope)
{
    __atomic_fetch_or(&e->flush_wanted, scope, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&e->in_guest, __ATOMIC_SEQ_CST) && __atomic_load_n(&e->flush_wanted, __ATOMIC_SEQ_CST)) {
        request_exit(e);
        sched_yield();
    }
}

static void engine_hold(void *engine)
{
    struct unicorn_engine *e = engine;

    __atomic_fetch_add(&e->held, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&e->in_guest, __ATOMIC_SEQ_CST)) {
        request_exit(e);
        sched_yield();
    }
}

static void engine_unhold(void *engine)
{
    struct unicorn_engine *e = engine;

    __atomic_fetch_sub(&e->held, 1, __ATOMIC_SEQ_CST);
}

static void engine_flush_tlb(void *engine, int scope)
{
    struct unicorn_engine *e = engine;

    if (here == e)
        e->tlb_flush_by_mmuidx(e->cs, scope_map(scope));
    else
        flush_from_outside(e, scope);
}

static void engine_flush_page(void *engine, uint64_t address)
{
    struct unicorn_engine *e = engine;

    if (here == e)
        e->tlb_flush_page(e->cs, address);
    else
        flush_from_outside(e, FLUSH_ALL);
}

/* A call for frames without translated code only looks at their descriptors in the library. */
static void engine_invalidate_code(void *engine, uint64_t start, uint64_t end)
{
    struct unicorn_engine *e = engine;
    uint64_t frame = start >> 12, last = (end + 0xfff) >> 12;

    if (here == e) {
        e->tb_invalidate_phys_range(e->uc, start, end);
        return;
    }
    if (last > e->nr_frames)
        last = e->nr_frames;
    pthread_mutex_lock(&e->stale_lock);
    if (frame / 64 < e->first_stale)
        e->first_stale = frame / 64;
    if ((last + 63) / 64 > e->end_stale)
        e->end_stale = (last + 63) / 64;
    for (; frame < last; frame++)
        e->stale[frame / 64] |= 1ull << frame % 64;
    pthread_mutex_unlock(&e->stale_lock);
}

static void engine_release_table(void *engine, uint64_t mfn)
{
    engine_invalidate_code(engine, mfn << 12, (mfn + 1) << 12);
}

static void *engine_new_state(void *engine, const struct cpu *cpu)
{
    struct unicorn_engine *e = engine;
    struct fpu_state *state = malloc(sizeof(*state));
    if (state != NULL)
        *state = e->fresh;
    return state;
}

static void engine_free_state(void *engine, void *state)
{
    struct unicorn_engine *e = engine;
    if (e->loaded != NULL && e->loaded->engine_state == state)
        e->loaded = NULL;
    free(state);
}

/* --- floating point as an FXSAVE image ----------------------------------------------------------------------- */

static uint8_t *fpu_image(struct unicorn_engine *e, struct cpu *cpu)
{
    struct fpu_state *state = cpu->engine_state;
    return e->loaded == cpu ? (uint8_t *)e->env + ENV_FPU_BEGIN : state->image;
}

#define FPU_AT(offset) ((offset) - ENV_FPU_BEGIN)

static void engine_get_fxsave(void *engine, struct cpu *cpu, uint8_t *image)
{
    const uint8_t *fpu = fpu_image(engine, cpu);
    uint32_t top = FIELD(fpu, FPU_AT(ENV_FPSTT), uint32_t) & 7;
    uint8_t tags = 0;
    int i;

    memset(image, 0, 512);
    FIELD(image, 0, uint16_t) = FIELD(fpu, FPU_AT(ENV_FPUC), uint16_t);
    FIELD(image, 2, uint16_t) = (uint16_t)((FIELD(fpu, FPU_AT(ENV_FPUS), uint16_t) & ~0x3800) | top << 11);
    for (i = 0; i < 8; i++)
        if (!fpu[FPU_AT(ENV_FPTAGS) + i])
            tags |= (uint8_t)(1 << i);
    image[4] = tags;
    FIELD(image, 8, uint64_t) = FIELD(fpu, FPU_AT(ENV_FPIP), uint64_t);
    FIELD(image, 16, uint64_t) = FIELD(fpu, FPU_AT(ENV_FPDP), uint64_t);
    FIELD(image, 24, uint32_t) = FIELD(fpu, FPU_AT(ENV_MXCSR), uint32_t);
    FIELD(image, 28, uint32_t) = 0xffff;
    for (i = 0; i < 8; i++) /* the image is in stack order, the library's array in register order */
        memcpy(image + 32 + 16 * i, fpu + FPU_AT(ENV_FPREGS) + 16 * ((top + (unsigned)i) & 7), 10);
    for (i = 0; i < 16; i++)
        memcpy(image + 160 + 16 * i, fpu + FPU_AT(ENV_XMM) + ZMM_BYTES * i, 16);
}

static void engine_set_fxsave(void *engine, struct cpu *cpu, const uint8_t *image)
{
    struct unicorn_engine *e = engine;
    uint8_t *fpu = fpu_image(e, cpu);
    uint32_t top = FIELD(image, 2, uint16_t) >> 11 & 7;
    int i;

    FIELD(fpu, FPU_AT(ENV_FPUC), uint16_t) = FIELD(image, 0, uint16_t);
    FIELD(fpu, FPU_AT(ENV_FPUS), uint16_t) = (uint16_t)(FIELD(image, 2, uint16_t) & ~0x3800);
    FIELD(fpu, FPU_AT(ENV_FPSTT), uint32_t) = top;
    for (i = 0; i < 8; i++)
        fpu[FPU_AT(ENV_FPTAGS) + i] = !(image[4] >> i & 1);
    FIELD(fpu, FPU_AT(ENV_FPIP), uint64_t) = FIELD(image, 8, uint64_t);
    FIELD(fpu, FPU_AT(ENV_FPDP), uint64_t) = FIELD(image, 16, uint64_t);
    FIELD(fpu, FPU_AT(ENV_MXCSR), uint32_t) = FIELD(image, 24, uint32_t) & 0xffbf;
    for (i = 0; i < 8; i++)
        memcpy(fpu + FPU_AT(ENV_FPREGS) + 16 * ((top + (unsigned)i) & 7), image + 32 + 16 * i, 10);
    for (i = 0; i < 16; i++)
        memcpy(fpu + FPU_AT(ENV_XMM) + ZMM_BYTES * i, image + 160 + 16 * i, 16);
    if (e->loaded == cpu)
        refresh_controls(e);
    else
        ((struct fpu_state *)cpu->engine_state)->controls_stale = 1;
}

const struct cpu_ops unicorn_ops = {
    .name = "unicorn",
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
    .unload = engine_unload,
    .hold = engine_hold,
    .unhold = engine_unhold,
};

/* --- opening and closing ------------------------------------------------------------------------------------- */

struct open_calls {
    unsigned (*uc_version)(unsigned *, unsigned *);
    int (*uc_open)(int, int, void **);
    int (*uc_ctl)(void *, uint32_t, ...);
    int (*uc_mem_map_ptr)(void *, uint64_t, size_t, uint32_t, void *);
    int (*uc_hook_add)(void *, size_t *, int, void *, void *, uint64_t, uint64_t, ...);
    void (*update_cr0)(void *, uint32_t);
    void (*update_cr4)(void *, uint32_t);
    int (*uc_emu_stop)(void *);
};

static void *symbol(struct unicorn_engine *e, const char *name, const char **missing)
{
    void *address = dlsym(e->library, name);
    if (address == NULL && *missing == NULL)
        *missing = name;
    return address;
}

static const char *resolve(struct unicorn_engine *e, struct open_calls *calls)
{
    const char *missing = NULL;
    calls->uc_version = symbol(e, "uc_version", &missing);
    calls->uc_open = symbol(e, "uc_open", &missing);
    calls->uc_ctl = symbol(e, "uc_ctl", &missing);
    calls->uc_mem_map_ptr = symbol(e, "uc_mem_map_ptr", &missing);
    calls->uc_hook_add = symbol(e, "uc_hook_add", &missing);
    calls->update_cr0 = symbol(e, "cpu_x86_update_cr0_x86_64", &missing);
    calls->update_cr4 = symbol(e, "cpu_x86_update_cr4_x86_64", &missing);
    e->uc_close = symbol(e, "uc_close", &missing);
    e->uc_reg_write = symbol(e, "uc_reg_write", &missing);
    e->cpu_exec = symbol(e, "cpu_exec_x86_64", &missing);
    e->tlb_flush_by_mmuidx = symbol(e, "tlb_flush_by_mmuidx_x86_64", &missing);
    e->tlb_flush_page = symbol(e, "tlb_flush_page_x86_64", &missing);
    e->tb_invalidate_phys_range = symbol(e, "tb_invalidate_phys_range_x86_64", &missing);
    e->tlb_vaddr_to_host = symbol(e, "tlb_vaddr_to_host_x86_64", &missing);
    e->cc_compute_all = symbol(e, "cpu_cc_compute_all_x86_64", &missing);
    e->raise_exception_err = symbol(e, "raise_exception_err_x86_64", &missing);
    e->update_dr7 = symbol(e, "cpu_x86_update_dr7_x86_64", &missing);
    return missing;
}

static int add_hooks(struct unicorn_engine *e, const struct open_calls *calls)
{
    const struct { int type, instruction; void *callback; } hooks[] = {
        {UC_HOOK_INTR, 0, hook_exception},
        {UC_HOOK_INSN_INVALID, 0, hook_invalid},
        {UC_HOOK_INSN, UC_X86_INS_SYSCALL, hook_syscall},
        {UC_HOOK_INSN, UC_X86_INS_SYSENTER, hook_sysenter},
        {UC_HOOK_INSN, UC_X86_INS_IN, hook_in},
        {UC_HOOK_INSN, UC_X86_INS_OUT, hook_out},
        {UC_HOOK_INSN, UC_X86_INS_CPUID, hook_cpuid},
        {UC_HOOK_INSN, UC_X86_INS_RDTSC, hook_rdtsc},
        {UC_HOOK_INSN, UC_X86_INS_RDTSCP, hook_rdtscp},
        {UC_HOOK_BLOCK, 0, hook_block},
    };
    /* The last three are for a virtual clock only. */
    unsigned count = e->count_blocks ? 10 : 7, i;
    size_t handle;

    for (i = 0; i < count; i++)
        if (calls->uc_hook_add(e->uc, &handle, hooks[i].type, hooks[i].callback, e, 1, 0, hooks[i].instruction))
            return -1;
    return 0;
}

/* Long mode with paging; the descriptor tables out of anybody's reach. */
static void set_up_cpu(struct unicorn_engine *e, const struct open_calls *calls)
{
    uint32_t mxcsr = 0x1f80;
    uint16_t fpcw = 0x37f, tags = 0xffff;

    calls->update_cr4(e->env, CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT);
    FIELD(e->env, ENV_EFER, uint64_t) |= EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    calls->update_cr0(e->env, CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG);
    FIELD(e->env, ENV_GDT + SEG_BASE, uint64_t) = NON_CANONICAL;
    FIELD(e->env, ENV_GDT + SEG_LIMIT, uint32_t) = 0xffff;
    FIELD(e->env, ENV_LDT + SEG_BASE, uint64_t) = NON_CANONICAL;
    FIELD(e->env, ENV_LDT + SEG_LIMIT, uint32_t) = 0xffff;
    e->base_hflags = (FIELD(e->env, ENV_HFLAGS, uint32_t) | HF_PE | HF_LMA | HF_OSFXSR | HF_MP)
                     & ~(3u | HF_TS | HF_CS32 | HF_SS32 | HF_CS64 | HF_ADDSEG);
    e->uc_reg_write(e->uc, UC_X86_REG_MXCSR, &mxcsr);
    e->uc_reg_write(e->uc, UC_X86_REG_FPCW, &fpcw);
    e->uc_reg_write(e->uc, UC_X86_REG_FPTAG, &tags);
    memcpy(e->fresh.image, e->env + ENV_FPU_BEGIN, FPU_BYTES);
    e->fresh.controls_stale = 1;
}

static int open_library(struct unicorn_engine *e, struct open_calls *calls, const char *library, char *error,
                        size_t error_size)
{
    const char *missing;
    unsigned major = 0, minor = 0;
    unsigned version;

    e->library = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    if (e->library == NULL) {
        snprintf(error, error_size, "libunicorn cannot be loaded: %s", dlerror());
        return -1;
    }
    missing = resolve(e, calls);
    if (missing != NULL) {
        snprintf(error, error_size, "libunicorn lacks the function %s that this version needs", missing);
        return -1;
    }
    version = calls->uc_version(&major, &minor);
    if (version != UC_VERSION) {
        snprintf(error, error_size, "libunicorn is version %u.%u.%u, but only 2.1.4 is known", major, minor,
                 version >> 8 & 0xff);
        return -1;
    }
    return 0;
}

struct unicorn_engine *unicorn_engine_open(const char *library, void *memory, size_t size, int count_blocks,
                                           uint32_t code_buffer_bytes, char *error, size_t error_size)
{
    struct unicorn_engine *e = calloc(1, sizeof(*e));
    struct open_calls calls;
    int failed;

    if (e == NULL)
        return NULL;
    e->count_blocks = count_blocks;
    e->budget = ~0ull;
    e->nr_frames = size >> 12;
    e->first_stale = e->nr_frames;
    pthread_mutex_init(&e->stale_lock, NULL);
    e->stale = calloc((e->nr_frames + 63) / 64, sizeof(*e->stale));
    if (e->stale == NULL) {
        snprintf(error, error_size, "there is no memory for an engine over %zu MiB", size >> 20);
        unicorn_engine_close(e);
        return NULL;
    }
    if (open_library(e, &calls, library, error, error_size) != 0) {
        unicorn_engine_close(e);
        return NULL;
    }
    failed = calls.uc_open(UC_ARCH_X86, UC_MODE_64, &e->uc);
    if (!failed)
        failed = calls.uc_ctl(e->uc, UC_CTL_SET_CODE_BUFFER, code_buffer_bytes) ||
                 calls.uc_ctl(e->uc, UC_CTL_ENABLE_EXITS, 1) ||
                 calls.uc_mem_map_ptr(e->uc, 0, size, 7, memory);
    if (failed || FIELD(e->uc, UC_CPU, void *) == NULL) {
        snprintf(error, error_size, "libunicorn could not open an engine over %zu MiB", size >> 20);
        unicorn_engine_close(e);
        return NULL;
    }
    FIELD(e->uc, UC_NO_EXIT_REQUEST, uint8_t) = 1;
    e->cs = FIELD(e->uc, UC_CPU, char *);
    e->env = FIELD(e->cs, CPU_ENV_PTR, char *);
    e->icount_decr = FIELD(e->cs, CPU_ICOUNT_DECR_PTR, uint32_t *);
    if (e->env != e->cs + X86CPU_ENV || (char *)e->icount_decr != e->cs + X86CPU_ICOUNT_DECR) {
        snprintf(error, error_size, "libunicorn's private layout is not that of version 2.1.4");
        unicorn_engine_close(e);
        return NULL;
    }
    if (add_hooks(e, &calls) != 0) {
        snprintf(error, error_size, "libunicorn refused a hook");
        unicorn_engine_close(e);
        return NULL;
    }
    if (trap_segment_loads(e->library) != 0) {
        snprintf(error, error_size, "libunicorn's segment loads cannot be intercepted: %s", strerror(errno));
        unicorn_engine_close(e);
        return NULL;
    }
    set_up_cpu(e, &calls);
    inline_exit_checks(e->library);
    return e;
}

void unicorn_engine_close(struct unicorn_engine *e)
{
    if (e == NULL)
        return;
    if (e->have_timer)
        timer_delete(e->timer);
    if (e->uc != NULL)
        e->uc_close(e->uc);
    /* The library stays loaded: other engines use it, and inline_exit.c has changed it. */
    pthread_mutex_destroy(&e->stale_lock);
    free(e->stale);
    free(e);
}
