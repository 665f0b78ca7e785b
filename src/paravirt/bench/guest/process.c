/*
 * Processes: made, replaced, switched between, and connected by pipes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_RING 16
#define CHUNK (64 * KIB)

static pid_t children[MAX_RING];
static int nr_children;
static int ring[MAX_RING][2]; /* process i reads ring[i] and writes ring[i + 1] */
static int nr_ring;
static size_t work_bytes;
static unsigned long *work;
static char chunk[CHUNK];

/* --- fork, exec, sh -------------------------------------------------------------------------------------------- */

static void wait_for(pid_t child)
{
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
}

static double fork_exit(long count)
{
    double begin = seconds();
    while (count--) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        wait_for(child);
    }
    return seconds() - begin;
}

static double fork_exec(long count)
{
    double begin = seconds();
    while (count--) {
        pid_t child = fork();
        if (child == 0) {
            execl(settings.self, "pvbench", "--exit", (char *)NULL);
            _exit(127);
        }
        wait_for(child);
    }
    return seconds() - begin;
}

static double fork_shell(long count)
{
    static char command[4200];
    double begin;

    snprintf(command, sizeof(command), "'%s' --exit", settings.self);
    begin = seconds();
    while (count--) {
        pid_t child = fork();
        if (child == 0) {
            execl(settings.shell, "sh", "-c", command, (char *)NULL);
            _exit(127);
        }
        wait_for(child);
    }
    return seconds() - begin;
}

static int look_for_self(void)
{
    return access(settings.self, X_OK) ? fail() : 0;
}

static int look_for_shell(void)
{
    return access(settings.shell, X_OK) ? fail() : look_for_self();
}

/* --- context switches: a token goes round a ring of pipes ------------------------------------------------------- */

static void touch_work(void)
{
    volatile unsigned long sum = 0;
    size_t i;
    for (i = 0; i < work_bytes / sizeof(*work); i++)
        sum += work[i];
}

static void pass(int from, int to)
{
    char token;
    if (read(from, &token, 1) != 1)
        _exit(0);
    touch_work();
    if (write(to, &token, 1) != 1)
        _exit(0);
}

static void end_ring(void)
{
    int i;
    for (i = 0; i < nr_children; i++) {
        kill(children[i], SIGKILL);
        wait_for(children[i]);
    }
    for (i = 0; i < nr_ring; i++) {
        close(ring[i][0]);
        close(ring[i][1]);
    }
    nr_children = nr_ring = 0;
    free(work);
    work = NULL;
}

static int make_ring(int processes, size_t bytes)
{
    int i;

    work_bytes = bytes;
    work = malloc(bytes + 1);
    if (!work)
        return fail();
    memset(work, 1, bytes);
    while (nr_ring < processes) {
        if (pipe(ring[nr_ring]))
            return fail();
        nr_ring++;
    }
    for (i = 1; i < processes; i++) {
        pid_t child = fork();
        if (child < 0)
            return fail();
        if (child == 0) {
            if (bytes)
                memset(work, i, bytes); /* a copy of its own */
            for (;;)
                pass(ring[i][0], ring[(i + 1) % processes][1]);
        }
        children[nr_children++] = child;
    }
    return 0;
}

static int ring_of_2(void)
{
    return make_ring(2, 0);
}

static int ring_of_16(void)
{
    return make_ring(16, 64 * KIB);
}

/* `count` rounds; a round is as many switches as there are processes. */
static double rounds(long count)
{
    char token = 't';
    double begin = seconds();
    while (count--) {
        touch_work();
        if (write(ring[1][1], &token, 1) != 1 || read(ring[0][0], &token, 1) != 1)
            break;
    }
    return seconds() - begin;
}

/* --- a pipe's bandwidth ----------------------------------------------------------------------------------------- */

static int start_writer(void)
{
    pid_t child;

    if (pipe(ring[0]))
        return fail();
    nr_ring = 1;
    child = fork();
    if (child < 0)
        return fail();
    if (child == 0)
        while (write(ring[0][1], chunk, sizeof(chunk)) > 0)
            ;
    if (child == 0)
        _exit(0);
    children[nr_children++] = child;
    return 0;
}

static double drain(long count)
{
    double begin = seconds();
    while (count--) {
        size_t left = MIB;
        while (left) {
            ssize_t got = read(ring[0][0], chunk, left < sizeof(chunk) ? left : sizeof(chunk));
            if (got <= 0)
                return seconds() - begin;
            left -= (size_t)got;
        }
    }
    return seconds() - begin;
}

const struct row process_rows[] = {
    {"fork_exit", fork_exit, NULL, NULL, 1, 0},
    {"fork_exec", fork_exec, look_for_self, NULL, 1, 0},
    {"fork_sh", fork_shell, look_for_shell, NULL, 1, 0},
    {"switch_2p_0k", rounds, ring_of_2, end_ring, 1.0 / 2, 0},
    {"switch_16p_64k", rounds, ring_of_16, end_ring, 1.0 / 16, 0},
    {"pipe_bandwidth", drain, start_writer, end_ring, 1, (double)MIB},
    {NULL, NULL, NULL, NULL, 0, 0},
};
