/*
 * Mappings, faults and copying.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "bench.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_BYTES (8 * MIB)
#define FILE_STRIDE (64 * KIB)
#define FAULT_PAGES 256
#define COPY_BYTES (4 * MIB)

static int file = -1;
static char *guarded;
static sigjmp_buf after_faults;
static volatile long faults_left;
static char *source, *target;

static int make_file(void)
{
    static char name[4200];
    static char block[64 * KIB];
    size_t done;

    snprintf(name, sizeof(name), "%s/pvbench.XXXXXX", settings.scratch);
    file = mkstemp(name);
    if (file < 0)
        return fail();
    unlink(name);
    memset(block, 7, sizeof(block));
    for (done = 0; done < FILE_BYTES; done += sizeof(block))
        if (write(file, block, sizeof(block)) != (ssize_t)sizeof(block))
            return fail();
    return 0;
}

static void close_file(void)
{
    if (file >= 0)
        close(file);
    file = -1;
}

/* Map it, read a byte of every 64 KiB, and unmap it. */
static double mmap_file(long count)
{
    volatile char sum = 0;
    double begin = seconds();
    while (count--) {
        char *at = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, file, 0);
        size_t offset;
        if (at == MAP_FAILED)
            break;
        for (offset = 0; offset < FILE_BYTES; offset += FILE_STRIDE)
            sum = (char)(sum + at[offset]);
        munmap(at, FILE_BYTES);
    }
    return seconds() - begin;
}

/* A store into a read-only page: fault, handler, return, again. */
static void on_fault(int number)
{
    (void)number;
    if (--faults_left <= 0)
        siglongjmp(after_faults, 1);
}

static int make_guarded(void)
{
    struct sigaction action;

    guarded = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (guarded == MAP_FAILED)
        return fail();
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_fault;
    return sigaction(SIGSEGV, &action, NULL) ? fail() : 0;
}

static void free_guarded(void)
{
    signal(SIGSEGV, SIG_DFL);
    munmap(guarded, PAGE);
}

static double protection_fault(long count)
{
    double begin = seconds();
    faults_left = count;
    if (!sigsetjmp(after_faults, 1))
        *(volatile char *)guarded = 1;
    return seconds() - begin;
}

/* The first store into each page of fresh memory; mapping and unmapping it is not counted. */
static double page_fault(long count)
{
    double total = 0;
    while (count--) {
        char *at = mmap(NULL, FAULT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        size_t page;
        double begin;
        if (at == MAP_FAILED)
            break;
        madvise(at, FAULT_PAGES * PAGE, MADV_NOHUGEPAGE);
        begin = seconds();
        for (page = 0; page < FAULT_PAGES; page++)
            ((volatile char *)at)[page * PAGE] = 1;
        total += seconds() - begin;
        munmap(at, FAULT_PAGES * PAGE);
    }
    return total;
}

static int make_buffers(void)
{
    source = malloc(COPY_BYTES);
    target = malloc(COPY_BYTES);
    if (!source || !target)
        return fail();
    memset(source, 1, COPY_BYTES);
    memset(target, 2, COPY_BYTES);
    return 0;
}

static void free_buffers(void)
{
    free(source);
    free(target);
    source = target = NULL;
}

static double copy(long count)
{
    double begin = seconds();
    while (count--) {
        memcpy(target, source, COPY_BYTES);
        __asm__ volatile("" : : "r"(target) : "memory");
    }
    return seconds() - begin;
}

const struct row memory_rows[] = {
    {"mmap_8m", mmap_file, make_file, close_file, 1, 0},
    {"protection_fault", protection_fault, make_guarded, free_guarded, 1, 0},
    {"page_fault", page_fault, NULL, NULL, 1.0 / FAULT_PAGES, 0},
    {"memcpy_4m", copy, make_buffers, free_buffers, 1, (double)COPY_BYTES},
    {NULL, NULL, NULL, NULL, 0, 0},
};
