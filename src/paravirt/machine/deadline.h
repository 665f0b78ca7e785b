/* An engine's deadline: a timer of its thread that signals it when guest code has run long enough.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_MACHINE_DEADLINE_H
#define PARAVIRT_MACHINE_DEADLINE_H

#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct deadline {
    timer_t timer;
    int have_timer;
    volatile uint64_t at; /* as programmed, in ns of CLOCK_MONOTONIC; 0: none, which whoever catches the signal sets */
};

/* Signal the calling thread at a time, in ns of CLOCK_MONOTONIC; 0: there is no deadline.  The signal's value is
 * `owner`.  One that is programmed and comes sooner stays: the early signal is cheap, and who gets it asks again. */
static inline void set_deadline(struct deadline *deadline, uint64_t at, int signal_number, void *owner)
{
    struct itimerspec when = {{0, 0}, {0, 0}};

    if (at == 0 || (deadline->at != 0 && deadline->at <= at))
        return;
    if (!deadline->have_timer) {
        struct sigevent event;
        memset(&event, 0, sizeof(event));
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = signal_number;
        event.sigev_value.sival_ptr = owner;
        event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
        if (timer_create(CLOCK_MONOTONIC, &event, &deadline->timer) != 0)
            return;
        deadline->have_timer = 1;
    }
    when.it_value.tv_sec = (time_t)(at / 1000000000ull);
    when.it_value.tv_nsec = (long)(at % 1000000000ull);
    deadline->at = at;
    timer_settime(deadline->timer, TIMER_ABSTIME, &when, NULL);
}

static inline void delete_deadline(struct deadline *deadline)
{
    if (deadline->have_timer)
        timer_delete(deadline->timer);
    deadline->have_timer = 0;
}

#endif
