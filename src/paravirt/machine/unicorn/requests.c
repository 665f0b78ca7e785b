/* What is asked of a Unicorn engine: stops, deadlines, and what other threads want done.
 *
 * An engine's library may be called on the engine's own thread only. What others ask for is noted, and done there before
 * guest code runs again: flushes and holds are waited for, code that was written over is dropped at the next entry.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "private.h"

#include <sched.h>
#include <signal.h>
#include <string.h>

/* --- stopping ------------------------------------------------------------------------------------------------ */

void engine_kick(void *engine)
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
    e->deadline.at = 0;
    engine_kick(e);
}

static void catch_deadlines(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_deadline;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(deadline_signal(), &action, NULL);
}

void engine_set_deadline(void *engine, uint64_t deadline)
{
    struct unicorn_engine *e = engine;

    if (e->count_blocks)
        return;
    if (deadline != 0 && !e->deadline.have_timer)
        catch_deadlines();
    set_deadline(&e->deadline, deadline, deadline_signal(), e);
}

void engine_set_budget(void *engine, uint64_t blocks)
{
    ((struct unicorn_engine *)engine)->budget = blocks;
}

/* --- translations -------------------------------------------------------------------------------------------- */

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

void engine_commit(void *engine)
{
    struct unicorn_engine *e = engine;
    if (e->end_stale != 0)
        drop_stale_code(e);
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

void engine_hold(void *engine)
{
    struct unicorn_engine *e = engine;

    __atomic_fetch_add(&e->held, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&e->in_guest, __ATOMIC_SEQ_CST)) {
        request_exit(e);
        sched_yield();
    }
}

void engine_unhold(void *engine)
{
    struct unicorn_engine *e = engine;

    __atomic_fetch_sub(&e->held, 1, __ATOMIC_SEQ_CST);
}

void engine_flush_tlb(void *engine, int scope)
{
    struct unicorn_engine *e = engine;

    if (here == e)
        flush_tlb(e, scope_map(scope));
    else
        flush_from_outside(e, scope);
}

void engine_flush_page(void *engine, uint64_t address)
{
    struct unicorn_engine *e = engine;

    if (here != e) {
        flush_from_outside(e, FLUSH_ALL);
        return;
    }
    e->counted.page_flushes++;
    e->tlb_flush_page(e->cs, address);
}

/* A call for frames without translated code only looks at their descriptors in the library. */
void engine_invalidate_code(void *engine, uint64_t start, uint64_t end)
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

void engine_release_table(void *engine, uint64_t mfn)
{
    engine_invalidate_code(engine, mfn << 12, (mfn + 1) << 12);
}
