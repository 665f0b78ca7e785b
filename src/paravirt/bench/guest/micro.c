/*
 * Microbenchmarks of a Linux system, in the manner of lmbench: what a process pays for each of the things that a
 * hypervisor can make slow. Static, so that the same file runs in every guest and on the host.
 *
 *     micro [-t MILLISECONDS] [-d FOLDER] [-s SHELL] [NAME...]
 *
 * prints one line "bench: NAME VALUE UNIT" for each row, "bench: skip NAME REASON" where one is impossible, and
 * "bench: end". Each row chooses a number of rounds that lasts at least MILLISECONDS, runs it three times, and gives
 * the median. FOLDER is where a file of 8 MB can be made; SHELL is a program that takes -c. `micro --exit` does
 * nothing, which is what the rows that start a program start.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KIB 1024L
#define MIB (1024L * KIB)
#define FILE_SIZE (8 * MIB)
#define PAGE 4096L

struct row {
    const char *name;
    const char *unit; /* "us" per operation, "us/M" per million iterations, "MB/s" */
    void (*run)(long rounds);
    long per_round; /* operations, iterations or bytes in a round */
    void (*begin)(void);
    void (*end)(void);
};

static char path[256], self[256];
static const char *shell = "/bin/sh";
static volatile uint64_t sink; /* what a loop computed: keeps the loop */
static volatile sig_atomic_t deliveries;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "micro: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void need(int good, const char *what)
{
    if (!good)
        fail(what);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ---- system calls ---- */

static int fd;

static void null_call(long rounds)
{
    while (rounds--)
        getppid();
}

static void open_zero(void)
{
    need((fd = open("/dev/zero", O_RDONLY)) >= 0, "/dev/zero");
}

static void open_null(void)
{
    need((fd = open("/dev/null", O_WRONLY)) >= 0, "/dev/null");
}

static void close_fd(void)
{
    close(fd);
}

static void read_zero(long rounds)
{
    char byte;
    while (rounds--)
        need(read(fd, &byte, 1) == 1, "read");
}

static void write_null(long rounds)
{
    char byte = 0;
    while (rounds--)
        need(write(fd, &byte, 1) == 1, "write");
}

static void stat_file(long rounds)
{
    struct stat st;
    while (rounds--)
        need(stat(path, &st) == 0, "stat");
}

static void open_close(long rounds)
{
    while (rounds--) {
        int file = open(path, O_RDONLY);
        need(file >= 0, "open");
        close(file);
    }
}

/* ---- signals ---- */

static void on_signal(int number)
{
    (void)number;
    deliveries++;
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    need(sigaction(number, &action, NULL) == 0, "sigaction");
}

static void signal_install(long rounds)
{
    while (rounds--)
        handle(SIGUSR1, on_signal);
}

static void signal_begin(void)
{
    handle(SIGUSR1, on_signal);
}

static void signal_deliver(long rounds)
{
    pid_t me = getpid();
    while (rounds--)
        kill(me, SIGUSR1);
}

/* ---- processes ---- */

static void await(pid_t child)
{
    int status;
    need(child > 0 && waitpid(child, &status, 0) == child, "fork");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        errno = ENOEXEC;
        fail("a child");
    }
}

static void fork_exit(long rounds)
{
    while (rounds--) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        await(child);
    }
}

static void start_program(char *const arguments[])
{
    pid_t child = fork();
    if (child == 0) {
        execv(arguments[0], arguments);
        _exit(127);
    }
    await(child);
}

static void fork_exec(long rounds)
{
    char *arguments[] = {self, "--exit", NULL};
    while (rounds--)
        start_program(arguments);
}

static void shell_c(long rounds)
{
    char command[300];
    snprintf(command, sizeof(command), "%s --exit", self);
    char *arguments[] = {(char *)shell, "-c", command, NULL};
    while (rounds--)
        start_program(arguments);
}

/* ---- context switches: a token goes round a ring of processes, each of which reads through its own memory ---- */

#define RING_MAX 16
static pid_t ring_pids[RING_MAX];
static int ring_in, ring_out, ring_size;
static long ring_bytes;
static char *ring_memory;

static void pass_token(void)
{
    uint64_t sum = 0;
    char token;
    need(read(ring_in, &token, 1) == 1, "token");
    for (long i = 0; i < ring_bytes; i += (long)sizeof(long))
        sum += *(volatile uint64_t *)(ring_memory + i);
    sink = sum;
    need(write(ring_out, &token, 1) == 1, "token");
}

static void ring_begin(int size, long bytes)
{
    int pipes[RING_MAX][2];
    ring_size = size;
    ring_bytes = bytes;
    for (int i = 0; i < size; i++)
        need(pipe(pipes[i]) == 0, "pipe");
    for (int i = size - 1; i >= 0; i--) {
        pid_t child = i ? fork() : 0;
        need(child >= 0, "fork");
        if (child) {
            ring_pids[i] = child;
            continue;
        }
        ring_in = pipes[i][0];
        ring_out = pipes[(i + 1) % size][1];
        ring_memory = malloc((size_t)bytes + 1);
        need(ring_memory != NULL, "malloc");
        memset(ring_memory, 1, (size_t)bytes + 1);
        while (i)
            pass_token(); /* until it is killed */
    }
    for (int i = 0; i < size; i++) {
        if (pipes[i][0] != ring_in)
            close(pipes[i][0]);
        if (pipes[i][1] != ring_out)
            close(pipes[i][1]);
    }
}

static void ring_2_0(void)
{
    ring_begin(2, 0);
}

static void ring_16_64(void)
{
    ring_begin(16, 64 * KIB);
}

static void ring_run(long rounds)
{
    char token = 1;
    need(write(ring_out, &token, 1) == 1, "token");
    while (--rounds)
        pass_token();
    need(read(ring_in, &token, 1) == 1, "token");
}

static void ring_end(void)
{
    for (int i = 1; i < ring_size; i++) {
        kill(ring_pids[i], SIGKILL);
        waitpid(ring_pids[i], NULL, 0);
    }
    close(ring_in);
    close(ring_out);
    free(ring_memory);
}

/* ---- memory ---- */

static void open_file(void)
{
    need((fd = open(path, O_RDWR)) >= 0, path);
}

static void mmap_file(long rounds)
{
    while (rounds--) {
        char *at = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        need(at != MAP_FAILED, "mmap");
        for (long i = 0; i < FILE_SIZE; i += 4 * PAGE)
            sink += (uint64_t)*(volatile char *)(at + i);
        munmap(at, FILE_SIZE);
    }
}

static char *guarded;
static long faults_left;

/* Returning without a change repeats the store, and the fault; the last one lets it happen. */
static void on_fault(int number)
{
    (void)number;
    if (--faults_left <= 0 && mprotect(guarded, PAGE, PROT_READ | PROT_WRITE) != 0)
        _exit(1);
}

static void guard(void)
{
    guarded = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(guarded != MAP_FAILED, "mmap");
    *guarded = 1;
    handle(SIGSEGV, on_fault);
}

static void protection_fault(long rounds)
{
    faults_left = rounds;
    need(mprotect(guarded, PAGE, PROT_READ) == 0, "mprotect");
    *(volatile char *)guarded = 2;
}

static void unguard(void)
{
    handle(SIGSEGV, SIG_DFL);
    munmap(guarded, PAGE);
}

#define ANON_PAGES 512L

static void page_fault(long rounds)
{
    while (rounds--) {
        char *at = mmap(NULL, ANON_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        need(at != MAP_FAILED, "mmap");
        madvise(at, ANON_PAGES * PAGE, MADV_NOHUGEPAGE);
        for (long i = 0; i < ANON_PAGES; i++)
            *(volatile char *)(at + i * PAGE) = 1;
        munmap(at, ANON_PAGES * PAGE);
    }
}

static char *copy_from, *copy_to;

static void copy_begin(void)
{
    copy_from = malloc(4 * MIB);
    copy_to = malloc(4 * MIB);
    need(copy_from && copy_to, "malloc");
    memset(copy_from, 1, 4 * MIB);
    memset(copy_to, 2, 4 * MIB);
}

static void copy(long rounds)
{
    while (rounds--) {
        memcpy(copy_to, copy_from, 4 * MIB);
        __asm__ volatile("" : : "r"(copy_to), "r"(copy_from) : "memory"); /* each copy is needed */
    }
}

static void copy_end(void)
{
    free(copy_from);
    free(copy_to);
}

/* ---- plain computing, 10 000 iterations a round ---- */

#define LOOP 10000

static void integer_hash(long rounds)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (long i = 0; i < rounds * LOOP; i++) {
        hash = (hash ^ (uint64_t)i) * 0x100000001b3;
        hash ^= hash >> 29;
    }
    sink = hash;
}

static void branches(long rounds)
{
    uint64_t state = 88172645463325252, even = 0, high = 0;
    for (long i = 0; i < rounds * LOOP; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (state & 1)
            even += state;
        else if (state & 2)
            high ^= state;
        else
            high += even;
        __asm__ volatile("" : "+r"(even), "+r"(high)); /* no conditional moves in place of the branches */
    }
    sink = even + high;
}

static void fp_divide(long rounds)
{
    volatile double start = 1e9;
    double value = start;
    for (long i = 0; i < rounds * LOOP; i++)
        value = value / 1.0000001 + 0.5;
    sink = (uint64_t)value;
}

/* ---- pipe bandwidth ---- */

#define CHUNK (64 * KIB)
static pid_t writer;
static char chunk[CHUNK];

static void pipe_begin(void)
{
    int ends[2];
    need(pipe(ends) == 0, "pipe");
    writer = fork();
    need(writer >= 0, "fork");
    if (writer == 0) {
        close(ends[0]);
        while (write(ends[1], chunk, CHUNK) > 0) {
        }
        _exit(0);
    }
    close(ends[1]);
    fd = ends[0];
}

static void pipe_read(long rounds)
{
    for (long left = rounds * CHUNK; left > 0;) {
        ssize_t got = read(fd, chunk, left < CHUNK ? (size_t)left : CHUNK);
        need(got > 0, "pipe");
        left -= got;
    }
}

static void pipe_end(void)
{
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    close(fd);
}

/* ---- the table, and how a row is run ---- */

static const struct row rows[] = {
    {"null_call", "us", null_call, 1, NULL, NULL},
    {"read_zero", "us", read_zero, 1, open_zero, close_fd},
    {"write_null", "us", write_null, 1, open_null, close_fd},
    {"stat", "us", stat_file, 1, NULL, NULL},
    {"open_close", "us", open_close, 1, NULL, NULL},
    {"signal_install", "us", signal_install, 1, NULL, NULL},
    {"signal_deliver", "us", signal_deliver, 1, signal_begin, NULL},
    {"fork_exit", "us", fork_exit, 1, NULL, NULL},
    {"fork_exec", "us", fork_exec, 1, NULL, NULL},
    {"shell", "us", shell_c, 1, NULL, NULL},
    {"switch_2p_0k", "us", ring_run, 2, ring_2_0, ring_end},
    {"switch_16p_64k", "us", ring_run, 16, ring_16_64, ring_end},
    {"mmap_8m", "us", mmap_file, 1, open_file, close_fd},
    {"protection_fault", "us", protection_fault, 1, guard, unguard},
    {"page_fault", "us", page_fault, ANON_PAGES, NULL, NULL},
    {"integer_hash", "us/M", integer_hash, LOOP, NULL, NULL},
    {"branches", "us/M", branches, LOOP, NULL, NULL},
    {"fp_divide", "us/M", fp_divide, LOOP, NULL, NULL},
    {"memcpy_4m", "MB/s", copy, 4 * MIB, copy_begin, copy_end},
    {"pipe", "MB/s", pipe_read, CHUNK, pipe_begin, pipe_end},
};
#define ROWS ((int)(sizeof(rows) / sizeof(rows[0])))

static double timed(const struct row *row, long rounds)
{
    double start = now_us();
    row->run(rounds);
    double taken = now_us() - start;
    return taken > 0.01 ? taken : 0.01;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const struct row *row, double least_us)
{
    if (row->begin)
        row->begin();
    long rounds = 1;
    double taken = timed(row, rounds); /* caches and page tables are cold in this one */
    taken = timed(row, rounds);
    while (taken < least_us) {
        double factor = least_us / taken * 1.1;
        rounds = (long)((double)rounds * (factor > 10 ? 10 : factor)) + 1;
        taken = timed(row, rounds);
    }
    double samples[3] = {taken, timed(row, rounds), timed(row, rounds)};
    qsort(samples, 3, sizeof(double), ascending);
    if (row->end)
        row->end();
    double each = samples[1] / ((double)rounds * (double)row->per_round);
    double value = !strcmp(row->unit, "MB/s") ? 1 / each : !strcmp(row->unit, "us/M") ? each * 1e6 : each;
    printf("bench: %s %.4g %s\n", row->name, value, row->unit);
}

static void make_file(const char *folder)
{
    snprintf(path, sizeof(path), "%s/micro.%d", folder, (int)getpid());
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    need(file >= 0, path);
    for (long done = 0; done < FILE_SIZE; done += CHUNK)
        need(write(file, chunk, CHUNK) == CHUNK, path);
    close(file);
}

static int wanted(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return 1;
    return count == 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--exit"))
        return 0;
    const char *folder = "/tmp";
    double least_us = 100e3;
    int option;
    while ((option = getopt(argc, argv, "t:d:s:")) != -1) {
        if (option == 't')
            least_us = atof(optarg) * 1e3;
        else if (option == 'd')
            folder = optarg;
        else if (option == 's')
            shell = optarg;
        else
            return 2;
    }
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    need(length > 0, "/proc/self/exe");
    cpu_set_t one;
    CPU_ZERO(&one);
    int here = sched_getcpu();
    CPU_SET(here < 0 ? 0 : here, &one);
    sched_setaffinity(0, sizeof(one), &one); /* children too: a switch is between processes of one processor */
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_file(folder);
    int failed = 0;
    for (int i = 0; i < ROWS; i++) {
        if (!wanted(rows[i].name, argc - optind, argv + optind))
            continue;
        /* Each in a process of its own: one that fails takes nothing with it. */
        pid_t child = fork();
        if (child == 0) {
            measure(&rows[i], least_us);
            exit(0);
        }
        int status = -1;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            printf("bench: skip %s its process ended with status 0x%x\n", rows[i].name, (unsigned)status);
            failed = 1;
        }
    }
    unlink(path);
    printf("bench: end\n");
    return failed;
}
