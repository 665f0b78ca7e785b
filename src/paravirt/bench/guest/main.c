/*
 * How often to repeat: so many operations that one try lasts TRY_SECONDS, as many tries as fit into the row's time,
 * and the best of them counts, since everything that disturbs a measurement makes it longer. With --throughout nothing is
 * left out: how fast the row was on the whole, whatever else there was to do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "bench.h"
#include "network.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_TRIES 15
#define MIN_TRIES 3
#define MAX_COUNT (1L << 24)

struct settings settings = {.self = "/proc/self/exe", .scratch = "/tmp", .label = ""};
static double row_seconds = 0.2;
static int throughout;
static const char *only; /* names between commas; NULL: all */

double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int fail(void)
{
    return errno ? errno : EIO;
}

/* The seconds of one operation on the whole, in tries of so many. */
static double sustained(const struct row *row, long count)
{
    double begin = seconds(), took;
    long done = 0;

    do {
        row->run(count);
        done += count;
        took = seconds() - begin;
    } while (took < row_seconds);
    return took / (double)done;
}

/* The seconds of one operation. */
static double measure(const struct row *row)
{
    const double try_seconds = row_seconds / 20;
    double begin = seconds(), best, took;
    long count = 1;
    int tries;

    took = row->run(count); /* what happens only the first time */
    took = row->run(count);
    while (took < try_seconds && count < MAX_COUNT) {
        double factor = took > 0 ? 1.2 * try_seconds / took : 16;
        count = (long)((double)count * (factor > 16 ? 16 : factor)) + 1;
        took = row->run(count);
    }
    if (throughout)
        return sustained(row, count);
    best = took;
    for (tries = 1; tries < MAX_TRIES; tries++) {
        if (tries >= MIN_TRIES && seconds() - begin > row_seconds)
            break;
        took = row->run(count);
        if (took < best)
            best = took;
    }
    return best / (double)count;
}

static void do_row(const struct row *row)
{
    int error = row->prepare ? row->prepare() : 0;
    double each;

    if (error) {
        printf("PVBENCH SKIP %s%s %s\n", settings.label, row->name, strerror(error));
    } else {
        each = measure(row);
        if (row->bytes > 0)
            printf("PVBENCH ROW %s%s %.3f MB/s\n", settings.label, row->name, row->bytes / each / 1e6);
        else
            printf("PVBENCH ROW %s%s %.4f us\n", settings.label, row->name, each * row->per * 1e6);
    }
    if (row->clean_up)
        row->clean_up();
    fflush(stdout);
}

static int wanted(const char *name)
{
    size_t length = strlen(name);
    const char *at = only;

    if (!only)
        return 1;
    while ((at = strstr(at, name))) {
        if ((at == only || at[-1] == ',') && (at[length] == ',' || at[length] == 0))
            return 1;
        at += length;
    }
    return 0;
}

static long long ns_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* For each line that is sent: what the clocks say. Until there are no more lines. */
static int tell_time(void)
{
    char line[64];

    puts("PVBENCH CLOCKS");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        printf("PVBENCH CLOCK %lld %lld ;\n", ns_of(CLOCK_REALTIME), ns_of(CLOCK_MONOTONIC_RAW));
        fflush(stdout);
    }
    return 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: pvbench [--shell FILE] [--scratch FOLDER] [--only NAME,...] [--row-ms N] [--throughout] [--list] [--clocks] "
                    "[--disk FILE] [--server ADDRESS --port N] [--label TEXT] | --serve ADDRESS PORT | --flood ADDRESS\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct row *const groups[] = {system_rows, process_rows, memory_rows, compute_rows, NULL};
    static const struct row *const disk_group[] = {disk_rows, NULL};
    static const struct row *const network_group[] = {network_rows, NULL};
    const struct row *const *group;
    static char self[PATH_MAX];
    int i, list = 0;

    if (argc == 2 && !strcmp(argv[1], "--exit"))
        _exit(0); /* what the exec rows execute */
    if (argc == 2 && !strcmp(argv[1], "--clocks"))
        return tell_time();
    if (argc == 4 && !strcmp(argv[1], "--serve"))
        return serve(argv[2], atoi(argv[3]));
    if (argc == 3 && !strcmp(argv[1], "--flood"))
        return flood(argv[2]);
    for (i = 1; i < argc; i++) {
        const char *option = argv[i];
        if (!strcmp(option, "--list")) {
            list = 1;
            continue;
        }
        if (!strcmp(option, "--throughout")) {
            throughout = 1;
            continue;
        }
        if (++i == argc)
            return usage();
        if (!strcmp(option, "--shell"))
            settings.shell = argv[i];
        else if (!strcmp(option, "--scratch"))
            settings.scratch = argv[i];
        else if (!strcmp(option, "--disk"))
            settings.disk = argv[i];
        else if (!strcmp(option, "--server"))
            settings.server = argv[i];
        else if (!strcmp(option, "--port"))
            settings.port = atoi(argv[i]);
        else if (!strcmp(option, "--label"))
            settings.label = argv[i];
        else if (!strcmp(option, "--only"))
            only = argv[i];
        else if (!strcmp(option, "--row-ms"))
            row_seconds = atof(argv[i]) / 1000;
        else
            return usage();
    }
    if (readlink("/proc/self/exe", self, sizeof(self) - 1) > 0)
        settings.self = self;
    else
        settings.self = argv[0]; /* without /proc: it was given by its path */
    if (!settings.shell)
        settings.shell = access("/bin/busybox", X_OK) == 0 ? "/bin/busybox" : "/bin/sh";
    signal(SIGPIPE, SIG_IGN);
    for (group = settings.server ? network_group : settings.disk ? disk_group : groups; *group; group++) {
        const struct row *row;
        for (row = *group; row->name; row++) {
            if (!wanted(row->name))
                continue;
            if (list)
                puts(row->name);
            else
                do_row(row);
        }
    }
    if (!list)
        puts("PVBENCH DONE");
    return 0;
}
