/*
 * Code that never enters the kernel. Each step needs the one before, so that compilers and processors cannot
 * do several at once; a row is the time of a million steps.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "bench.h"

#include <stdint.h>

#define STEPS 100000L
#define MILLION 1000000.0

static volatile uint64_t integer_sink;
static volatile double float_sink;

/* A loop that lies in two pages is several times slower under an emulator that joins translated code within a page:
 * which one does depends on what stands before it in the program. */
#define IN_ONE_PAGE __attribute__((aligned(512)))

static IN_ONE_PAGE double int_hash(long count)
{
    uint64_t hash = 0x9e3779b97f4a7c15;
    double begin = seconds();
    while (count--) {
        long i;
        for (i = 0; i < STEPS; i++) {
            hash ^= (uint64_t)i;
            hash *= 0xff51afd7ed558ccd;
            hash ^= hash >> 29;
        }
        integer_sink = hash;
    }
    return seconds() - begin;
}

static IN_ONE_PAGE double branchy(long count)
{
    uint32_t state = 1;
    uint64_t total = 0;
    double begin = seconds();
    while (count--) {
        long i;
        for (i = 0; i < STEPS; i++) {
            state = state * 1664525u + 1013904223u;
            if (state & 0x80000000u)
                total += state >> 7;
            else if (state & 0x40000000u)
                total ^= state;
            else
                total -= 3;
            __asm__ volatile("" : "+r"(total)); /* or it becomes conditional moves */
        }
        integer_sink = total;
    }
    return seconds() - begin;
}

static IN_ONE_PAGE double fp_divide(long count)
{
    double value = 1.5;
    double begin = seconds();
    while (count--) {
        long i;
        for (i = 0; i < STEPS; i++)
            value = 1.0 + 3.0 / value;
        float_sink = value;
    }
    return seconds() - begin;
}

const struct row compute_rows[] = {
    {"int_hash", int_hash, NULL, NULL, MILLION / STEPS, 0},
    {"branchy", branchy, NULL, NULL, MILLION / STEPS, 0},
    {"fp_divide", fp_divide, NULL, NULL, MILLION / STEPS, 0},
    {NULL, NULL, NULL, NULL, 0, 0},
};
