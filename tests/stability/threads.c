/* Threads that change one address space under each other, on several CPUs, and processes that fork from it: what one
 * has changed, no other may go on seeing by an old translation.  Writes "SWAPS FAULTS CHURNS FORKS WRONG" into a file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define CHURNED 48
#define FORKED 64

static atomic_ulong swaps, faults, churns, forks, wrong;
static volatile uint64_t *shared;      /* the page under the two threads of `swapping` */
static atomic_int turn;                /* whose turn it is: 0 changes, 1 looks */
static uint64_t wanted;
static int may_write = 1;
static __thread sigjmp_buf back;

static void on_fault(int number)
{
    (void)number;
    siglongjmp(back, 1);
}

static int writes(volatile uint64_t *word, uint64_t value)
{
    if (sigsetjmp(back, 1))
        return 0;
    *word = value;
    return 1;
}

static void wait_for_turn(int mine)
{
    while (atomic_load(&turn) != mine)
        if (sysconf(_SC_NPROCESSORS_ONLN) == 1)
            usleep(1);
}

/* Puts another page at the address, or takes the right to write away: the other thread sees it at once. */
static void *changing(void *unused)
{
    (void)unused;
    for (uint64_t value = 1;; value++) {
        wait_for_turn(0);
        void *made = mmap((void *)shared, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (made != (void *)shared)
            abort();
        *shared = wanted = value;
        may_write = value % 2;
        if (!may_write && mprotect((void *)shared, PAGE, PROT_READ) != 0)
            abort();
        swaps++;
        atomic_store(&turn, 1);
    }
    return NULL;
}

static void *looking(void *unused)
{
    (void)unused;
    for (;;) {
        wait_for_turn(1);
        wrong += *shared != wanted;
        if (writes(shared, ~wanted) != may_write)
            wrong++;
        faults += !may_write;
        atomic_store(&turn, 0);
    }
    return NULL;
}

static void *churning(void *number)
{
    uint64_t seed = (uintptr_t)number * 1000003;

    for (;;) {
        size_t pages = 1 + seed % CHURNED;
        volatile uint64_t *area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED)
            abort();
        for (size_t i = 0; i < pages; i++) {
            wrong += area[i * PAGE / 8] != 0;
            area[i * PAGE / 8] = seed + i;
        }
        madvise((void *)area, pages / 2 * PAGE, MADV_DONTNEED);
        for (size_t i = 0; i < pages; i++)
            wrong += area[i * PAGE / 8] != (i < pages / 2 ? 0 : seed + i);
        munmap((void *)area, pages * PAGE);
        churns++;
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        seed ^= seed >> 33;
    }
    return NULL;
}

/* A child sees memory as it was when it was made, however the parent goes on writing. */
static void *forking(void *unused)
{
    uint64_t *area = mmap(NULL, FORKED * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)unused;
    for (uint64_t value = 1;; value++) {
        int status;
        for (int i = 0; i < FORKED; i++)
            area[i * PAGE / 8] = value;
        pid_t child = fork();
        if (child == 0) {
            int bad = 0;
            for (int i = 0; i < FORKED; i++) {
                bad |= area[i * PAGE / 8] != value;
                area[i * PAGE / 8] = 0;
            }
            _exit(bad);
        }
        for (int i = FORKED; i-- > 0;)
            area[i * PAGE / 8] = value + 1;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
            wrong++;
        for (int i = 0; i < FORKED; i++)
            wrong += area[i * PAGE / 8] != value + 1;
        forks++;
    }
    return NULL;
}

int main(int count, char **words)
{
    void *(*const work[])(void *) = {changing, looking, churning, churning, forking};
    struct sigaction action = {.sa_handler = on_fault};
    pthread_t thread;

    if (count != 2)
        return 2;
    sigaction(SIGSEGV, &action, NULL);
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < sizeof(work) / sizeof(work[0]); i++)
        if (pthread_create(&thread, NULL, work[i], (void *)(i + 1)) != 0)
            return 1;
    for (;;) {
        FILE *file = fopen(words[1], "w");
        if (file == NULL)
            return 1;
        fprintf(file, "%lu %lu %lu %lu %lu\n", swaps, faults, churns, forks, wrong);
        fclose(file);
        sleep(1);
    }
}
