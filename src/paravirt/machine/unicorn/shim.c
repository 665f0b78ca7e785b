/* The native half of the Unicorn engine: running guests.  This folder is the one place that knows its private layout.
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
#include "private.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "inline_exit.h"

#define RFLAGS_TF 0x100

__thread struct unicorn_engine *here;

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
    __atomic_store_n(&e->flush_wanted, 0, __ATOMIC_SEQ_CST); /* whoever wanted less than this has it */
    flush_tlb(e, ALL_MMU);
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
        flush_tlb(e, scope_map(scope));
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

int add_hooks(struct unicorn_engine *e, hook_adder *uc_hook_add)
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
        if (uc_hook_add(e->uc, &handle, hooks[i].type, hooks[i].callback, e, 1, 0, hooks[i].instruction))
            return -1;
    return 0;
}

/* --- the protocol -------------------------------------------------------------------------------------------- */

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
            exit = (struct cpu_exit){.kind = EXIT_ENGINE, .vector = (uint32_t)FIELD(e->uc, UC_INVALID_ERROR, int32_t),
                                     .why = "the Unicorn engine cannot go on with this guest"};
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

static int engine_store_pte(void *engine, uint64_t *pte, uint64_t old, uint64_t value)
{
    (void)engine;
    return __atomic_compare_exchange_n(pte, &old, value, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
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
