/* Stopping guest code: kicks, deadlines, and seeing that nobody is in it.
 *
 * A kick sets immediate_exit and signals the thread.  KVM_RUN can then return with an exception on its way: to change
 * registers at that point would lose or double it.  It is run on until the stub has it (run.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "run.h"

#include <sched.h>
#include <string.h>

#define WAITS_BEFORE_AGAIN 1000
#define AGAIN_NS 10000000ull

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
        e->deadline.at = 0;
        e->kicked = 1;
        if (e->entered != NULL)
            e->entered->immediate_exit = 1;
    }
}

void kvm_catch_kicks(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_kick;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(kick_signal(), &action, NULL);
}

/* End KVM_RUN.  Who wants that has said why before: e->kicked or e->held.  Not all have the machine lock, so the vcpu
 * could be gone by the time that they write to its record. */
static void interrupt(struct kvm_engine *e)
{
    pthread_mutex_lock(&e->leaving);
    if (e->entered != NULL) {
        e->entered->immediate_exit = 1;
        if (!pthread_equal(e->thread, pthread_self()))
            pthread_kill(e->thread, kick_signal());
    }
    pthread_mutex_unlock(&e->leaving);
}

void kvm_begin_vcpu(struct kvm_engine *e, struct kvm_state *s)
{
    e->thread = pthread_self();
    e->on_thread = 1;
    pthread_mutex_lock(&e->leaving);
    e->entered = s->run;
    pthread_mutex_unlock(&e->leaving);
}

void kvm_end_vcpu(struct kvm_engine *e)
{
    pthread_mutex_lock(&e->leaving);
    e->entered = NULL;
    pthread_mutex_unlock(&e->leaving);
}

void kvm_kick(void *engine)
{
    struct kvm_engine *e = engine;

    e->kicked = 1;
    interrupt(e);
}

void kvm_set_deadline(void *engine, uint64_t deadline)
{
    struct kvm_engine *e = engine;

    set_deadline(&e->deadline, deadline, kick_signal(), e);
}

void kvm_interrupt_again(struct kvm_engine *e)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    kvm_set_deadline(e, (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec + AGAIN_NS);
}

int kvm_enter_guest_code(struct kvm_engine *e)
{
    __atomic_store_n(&e->in_guest, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&e->held, __ATOMIC_SEQ_CST) == 0)
        return 1;
    kvm_leave_guest_code(e);
    sched_yield();
    return 0;
}

void kvm_leave_guest_code(struct kvm_engine *e)
{
    __atomic_store_n(&e->in_guest, 0, __ATOMIC_SEQ_CST);
}

void kvm_hold(void *engine)
{
    struct kvm_engine *e = engine;
    unsigned waits;

    __atomic_fetch_add(&e->held, 1, __ATOMIC_SEQ_CST);
    if (e->on_thread && pthread_equal(e->thread, pthread_self()))
        return;
    for (waits = 0; __atomic_load_n(&e->in_guest, __ATOMIC_SEQ_CST); waits++) {
        /* Once is enough, but for one that meets an exception on its way (run.c, interrupted). */
        if (waits % WAITS_BEFORE_AGAIN == 0)
            interrupt(e);
        sched_yield();
    }
}

void kvm_unhold(void *engine)
{
    struct kvm_engine *e = engine;

    __atomic_fetch_sub(&e->held, 1, __ATOMIC_SEQ_CST);
}
