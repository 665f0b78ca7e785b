/* What the files of the native half of the Unicorn engine share: see shim.c.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_UNICORN_PRIVATE_H
#define PARAVIRT_UNICORN_PRIVATE_H

#include "shim.h"

#include <pthread.h>
#include <time.h>

#include "layout.h"
#include "paravirt/machine/deadline.h"

#pragma GCC visibility push(hidden)

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
    size_t (*nb_tbs)(void *tcg_context);
    size_t (*code_size)(void *tcg_context);
    size_t (*code_capacity)(void *tcg_context);

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
    struct unicorn_counters counted; /* what nobody else counts */

    struct deadline deadline;

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
extern __thread struct unicorn_engine *here;

static inline uint16_t scope_map(int scope)
{
    return (uint16_t)((scope & FLUSH_KERNEL ? MMU_SUPERVISOR : 0) | (scope & FLUSH_USER ? MMU_USER : 0));
}

/* On the engine's own thread: forget translations of addresses. */
static inline void flush_tlb(struct unicorn_engine *e, uint16_t map)
{
    e->counted.tlb_flushes++;
    e->tlb_flush_by_mmuidx(e->cs, map);
}

/* Have the library leave its loop before the next block. */
static inline void request_exit(struct unicorn_engine *e)
{
    FIELD(e->cs, CPU_EXIT_REQUEST, volatile uint8_t) = 1;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    FIELD(e->cs, CPU_TCG_EXIT_REQ, volatile uint32_t) = 1;
    ((volatile uint16_t *)e->icount_decr)[1] = 0xffff;
}

/* shim.c */
typedef int hook_adder(void *uc, size_t *handle, int type, void *callback, void *data, uint64_t begin, uint64_t end,
                       ...);
int add_hooks(struct unicorn_engine *e, hook_adder *uc_hook_add);

/* requests.c: operations of the protocol */
void engine_kick(void *engine);
void engine_set_deadline(void *engine, uint64_t deadline);
void engine_set_budget(void *engine, uint64_t blocks);
void engine_hold(void *engine);
void engine_unhold(void *engine);
void engine_flush_tlb(void *engine, int scope);
void engine_flush_page(void *engine, uint64_t address);
void engine_invalidate_code(void *engine, uint64_t start, uint64_t end);
void engine_release_table(void *engine, uint64_t mfn);
void engine_commit(void *engine);

/* fxsave.c */
void refresh_controls(struct unicorn_engine *e);
void engine_get_fxsave(void *engine, struct cpu *cpu, uint8_t *image);
void engine_set_fxsave(void *engine, struct cpu *cpu, const uint8_t *image);

#pragma GCC visibility pop

#endif
