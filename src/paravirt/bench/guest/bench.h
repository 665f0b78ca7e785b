/*
 * The guest's half of the benchmarks: a static Linux program that measures operations of the kernel it runs on.
 *
 * It knows nothing of Xen, so that the same file runs in every contender and on the host itself. It prints
 *     PVBENCH ROW name value unit      one for each row
 *     PVBENCH SKIP name reason         for a row that cannot be had here
 *     PVBENCH DONE                     at the end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PVBENCH_H
#define PVBENCH_H

#define _GNU_SOURCE
#include <stddef.h>

#define PAGE 4096UL
#define KIB 1024UL
#define MIB (1024UL * 1024UL)

/*
 * One row. `run` does the operation `count` times and returns the seconds that they took; `prepare` makes what it
 * needs and answers 0, or an error number. `clean_up` may run after a `prepare` that failed half-way.
 * A row with `bytes` is a bandwidth: so many bytes for each operation; the others are times of `per` operations.
 */
struct row {
    const char *name;
    double (*run)(long count);
    int (*prepare)(void);
    void (*clean_up)(void);
    double per;
    double bytes;
};

/* Set once from the command line. */
struct settings {
    const char *self;    /* this program's file: what is executed */
    const char *shell;   /* the shell's file */
    const char *scratch; /* a folder to make files in */
    const char *disk;    /* a block device to measure, and nothing else; NULL: none */
    const char *server;  /* the address of a server to measure the way to, and nothing else; NULL: none */
    int port;            /* the server's */
    const char *label;   /* stands before the names of rows */
};
extern struct settings settings;

double seconds(void); /* of a clock that only goes forward */
int fail(void);       /* errno, and never 0 */

extern const struct row system_rows[], process_rows[], memory_rows[], compute_rows[], disk_rows[], network_rows[];

int serve(const char *host, int port); /* what network_rows talk to */

#endif
