/* Processes that make, change, copy and end address spaces, and look at what is in them: whatever the kernel changes in
 * page tables while nobody sees it, no word may be another process's, an old one, or gone.
 *
 * `spaces ROUNDS` prints "spaces: rounds=N checks=N wrong=N", and fails when something was wrong.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define PAGES 48
#define SLACK 256 /* pages, by which the kernel's counts are late */
#define DEEP 3
#define EXECUTED "again" /* the first argument of a program that was executed by itself */
#define TICK_US 2000

static volatile unsigned long checks, wrong;
static volatile sig_atomic_t ticks, told;
static uint64_t *guarded; /* a page that may only be read, until the handler changes that */
static uint64_t initialised[4 * WORDS] = {[0] = 0x1234, [WORDS] = 0x5678, [4 * WORDS - 1] = 0x9abc};
static uint64_t zeroed[4 * WORDS];

static void expect(int good, const char *what)
{
    checks++;
    if (!good && wrong++ == 0) {
        write(STDERR_FILENO, what, strlen(what));
        write(STDERR_FILENO, "\n", 1);
    }
}

static uint64_t word(uint64_t seed, uint64_t page)
{
    uint64_t x = (seed << 20 | page) * 0x9e3779b97f4a7c15ull;
    return x ^ x >> 31;
}

static uint64_t *map(size_t pages, int flags)
{
    uint64_t *area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
    if (area == MAP_FAILED)
        abort();
    return area;
}

static void fill(uint64_t *area, size_t pages, uint64_t seed)
{
    for (size_t i = 0; i < pages; i++)
        area[i * WORDS] = area[i * WORDS + WORDS - 1] = word(seed, i);
}

static int holds(const uint64_t *area, size_t first, size_t end, uint64_t seed)
{
    for (size_t i = first; i < end; i++)
        if (area[i * WORDS] != word(seed, i) || area[i * WORDS + WORDS - 1] != word(seed, i))
            return 0;
    return 1;
}

static int empty(const uint64_t *area, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++)
        if (area[i * WORDS] != 0 || area[i * WORDS + WORDS - 1] != 0)
            return 0;
    return 1;
}

static void ended_well(pid_t child, const char *what)
{
    int status;
    expect(waitpid(child, &status, 0) == child && status == 0, what);
}

/* ---- signals ---- */

/* The next tick is one period from here on: on a slow host one handler after the other would leave no time. */
static void tick_later(void)
{
    struct itimerval once = {{0, 0}, {0, TICK_US}};
    setitimer(ITIMER_REAL, &once, NULL);
}

/* In the middle of anything: a page comes, is used, and goes. */
static void on_tick(int number)
{
    uint64_t *area = map(2, MAP_PRIVATE);
    (void)number;
    ticks++;
    expect(empty(area, 0, 2), "a new page in a handler is not empty");
    fill(area, 2, (uint64_t)ticks);
    expect(holds(area, 0, 2, (uint64_t)ticks), "a page in a handler changed");
    munmap(area, 2 * PAGE);
    tick_later();
}

static void on_told(int number)
{
    (void)number;
    told++;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_addr != guarded)
        _exit(3);
    mprotect(guarded, PAGE, PROT_READ | PROT_WRITE);
    told++;
}

static void catch_signals(void)
{
    static char stack[1 << 16];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction tick = {.sa_handler = on_tick, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct sigaction tell = {.sa_handler = on_told, .sa_flags = SA_RESTART};

    sigaltstack(&alternate, NULL);
    sigaction(SIGSEGV, &fault, NULL);
    sigaction(SIGALRM, &tick, NULL);
    sigaction(SIGUSR1, &tell, NULL);
    tick_later();
}

/* ---- what one process does with its memory ---- */

static void changes_rights(uint64_t seed)
{
    sig_atomic_t before = told;
    guarded = map(1, MAP_PRIVATE);
    *guarded = seed;
    mprotect(guarded, PAGE, PROT_READ);
    *(volatile uint64_t *)guarded = ~seed; /* the handler lets it through */
    expect(told == before + 1, "a write to a page that may be read only was no fault");
    expect(*guarded == ~seed, "what was written after a fault is not there");
    munmap(guarded, PAGE);
}

/* Entries move from table to table with the pages that they name. */
static void moves(uint64_t seed)
{
    uint64_t *area = map(PAGES, MAP_PRIVATE), *away;
    fill(area, PAGES, seed);
    away = mremap(area, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE);
    if (away == MAP_FAILED)
        abort();
    expect(holds(away, 0, PAGES, seed), "what was moved changed");
    expect(empty(away, PAGES, 2 * PAGES), "what was added is not empty");
    madvise(away, PAGES / 2 * PAGE, MADV_DONTNEED);
    expect(empty(away, 0, PAGES / 2), "what was given up is still there");
    expect(holds(away, PAGES / 2, PAGES, seed), "what was beside it is gone");
    munmap(away + PAGES / 2 * WORDS, PAGES / 4 * PAGE);
    expect(holds(away, PAGES / 2 + PAGES / 4, PAGES, seed), "what is behind a hole changed");
    munmap(away, 2 * PAGES * PAGE);
}

static long resident(void)
{
    long size, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    expect(file != NULL && fscanf(file, "%ld %ld", &size, &pages) == 2, "nobody says how much is in memory");
    if (file != NULL)
        fclose(file);
    return pages;
}

/* The kernel itself goes through the tables, makes what is missing, and looks for it there. */
static void populates(uint64_t seed)
{
    long before = resident();
    uint64_t *area = map(PAGES, MAP_PRIVATE | MAP_POPULATE), *locked = map(PAGES, MAP_PRIVATE);
    expect(mlock(locked, PAGES * PAGE) == 0, "memory cannot be locked");
    expect(resident() - before < 2 * PAGES + SLACK, "more is in memory than there is");
    expect(empty(area, 0, PAGES) && empty(locked, 0, PAGES), "what was made at once is not empty");
    fill(area, PAGES, seed);
    fill(locked, PAGES, seed + 1);
    expect(holds(area, 0, PAGES, seed) && holds(locked, 0, PAGES, seed + 1), "what was made at once changed");
    munmap(area, PAGES * PAGE);
    munmap(locked, PAGES * PAGE);
}

/* ---- and with that of others ---- */

/* Each child makes another: all see what was there when they were made, and what they write nobody else sees. */
static void family(uint64_t seed, int depth)
{
    uint64_t *area = map(PAGES, MAP_PRIVATE), *common = map(PAGES, MAP_SHARED);
    fill(area, PAGES, seed);
    pid_t child = fork();
    if (child == 0) {
        wrong = 0;
        expect(holds(area, 0, PAGES, seed), "a child sees something else than its parent did");
        fill(area, PAGES, seed + 1);
        fill(common, PAGES, seed + 2);
        if (depth > 0)
            family(seed + 100, depth - 1);
        changes_rights(seed);
        expect(holds(area, 0, PAGES, seed + 1), "a child's memory changed");
        _exit(wrong != 0);
    }
    fill(area, PAGES / 2, seed + 3); /* while the child looks */
    ended_well(child, "a child failed");
    expect(holds(area, 0, PAGES / 2, seed + 3), "a parent does not see what it wrote");
    expect(holds(area, PAGES / 2, PAGES, seed), "a child's writes are the parent's");
    expect(holds(common, 0, PAGES, seed + 2), "what a child shared is not there");
    munmap(area, PAGES * PAGE);
    munmap(common, PAGES * PAGE);
}

/* The kernel reaches into a process that is not running. */
static void reaches_over(uint64_t seed)
{
    uint64_t *area = map(PAGES, MAP_PRIVATE), *copy = map(PAGES, MAP_PRIVATE);
    struct iovec here = {copy, PAGES * PAGE}, there = {area, PAGES * PAGE};
    sigset_t usr, before;
    sigemptyset(&usr);
    sigaddset(&usr, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr, &before);
    fill(area, PAGES, seed);
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        int number;
        wrong = 0;
        fill(area, PAGES, seed + 1);
        kill(parent, SIGUSR1);
        sigwait(&usr, &number);
        expect(holds(area, 0, PAGES, seed + 2), "what was written from outside is not there");
        _exit(wrong != 0);
    }
    int number;
    sigwait(&usr, &number);
    expect(process_vm_readv(child, &here, 1, &there, 1, 0) == PAGES * PAGE, "a child's memory cannot be read");
    expect(holds(copy, 0, PAGES, seed + 1), "a child's memory is read otherwise");
    fill(copy, PAGES, seed + 2);
    expect(process_vm_writev(child, &here, 1, &there, 1, 0) == PAGES * PAGE, "a child's memory cannot be written");
    kill(child, SIGUSR1);
    ended_well(child, "a child that was written to failed");
    expect(holds(area, 0, PAGES, seed), "the parent's memory is what was written to its child");
    sigprocmask(SIG_SETMASK, &before, NULL);
    munmap(area, PAGES * PAGE);
    munmap(copy, PAGES * PAGE);
}

static void executes(void)
{
    pid_t child = fork();
    if (child == 0) {
        memset(initialised, 0xff, sizeof(initialised));
        memset(zeroed, 0xff, sizeof(zeroed));
        execl("/proc/self/exe", "spaces", EXECUTED, NULL);
        _exit(4);
    }
    ended_well(child, "a program that was executed failed");
}

static int was_executed(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < 4 * WORDS; i++) {
        sum += initialised[i];
        expect(zeroed[i] == 0, "a new program's memory is not empty");
    }
    expect(sum == 0x1234 + 0x5678 + 0x9abc, "a new program has not what it was made with");
    moves(sum);
    return wrong != 0;
}

/* Pages are put elsewhere while they are in use; not every kernel can. */
static void compact(void)
{
    FILE *file = fopen("/proc/sys/vm/compact_memory", "w");
    if (file != NULL) {
        fputs("1", file);
        fclose(file);
    }
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], EXECUTED) == 0)
        return was_executed();
    if (count != 2)
        return 2;
    uint64_t *kept = map(4 * PAGES, MAP_PRIVATE), round, rounds = strtoull(arguments[1], NULL, 10);
    fill(kept, 4 * PAGES, 77);
    catch_signals();
    for (round = 0; round < rounds; round++) {
        moves(round * 1000);
        populates(round * 1000 + 900);
        family(round * 1000 + 200, DEEP);
        reaches_over(round * 1000 + 700);
        executes();
        if (round % 4 == 0)
            compact();
        expect(holds(kept, 0, 4 * PAGES, 77), "what nobody touched changed");
    }
    expect(ticks > 0, "no tick came");
    printf("spaces: rounds=%lu checks=%lu wrong=%lu\n", (unsigned long)round, checks, wrong);
    return wrong != 0;
}
