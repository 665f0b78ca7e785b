/* Computes, with floating point and without, while a timer interrupts it a thousand times a second and it sends itself
 * signals: what it computes must come out the same every time.  Writes "ROUNDS TICKS SIGNALS WRONG" into a file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t ticks, signals;

static double of_a_handler(int number)
{
    volatile double x = number; /* the handler's own use of the registers */
    return x / 3.0;
}

static void on_tick(int number)
{
    if (of_a_handler(number) > 0)
        ticks++;
}

static void on_signal(int number)
{
    if (of_a_handler(number) > 0)
        signals++;
}

static uint64_t compute(void)
{
    double x = 1.0, y = 0.5;
    uint64_t hash = 88172645463325252ull, bits;

    for (int i = 0; i < 200000; i++) {
        x = x * 1.0000001 + y / (i + 3);
        y = y * 0.9999999 + 1.0 / x;
        hash ^= hash << 13, hash ^= hash >> 7, hash ^= hash << 17;
    }
    memcpy(&bits, &x, sizeof(bits));
    hash ^= bits;
    memcpy(&bits, &y, sizeof(bits));
    return hash ^ (bits << 1);
}

int main(int count, char **words)
{
    struct itimerval every = {{0, 1000}, {0, 1000}};
    unsigned long rounds = 0, wrong = 0;
    uint64_t first;

    if (count != 2)
        return 2;
    signal(SIGALRM, on_tick);
    signal(SIGUSR1, on_signal);
    first = compute();
    setitimer(ITIMER_REAL, &every, NULL);
    for (;;) {
        sig_atomic_t before = signals;
        wrong += compute() != first;
        kill(getpid(), SIGUSR1);
        wrong += signals != before + 1;
        rounds++;
        FILE *file = fopen(words[1], "w");
        if (file == NULL)
            return 1;
        fprintf(file, "%lu %d %d %lu\n", rounds, (int)ticks, (int)signals, wrong);
        fclose(file);
    }
}
