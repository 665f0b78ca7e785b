/*
 * System calls and signals.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "bench.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int zero = -1;
static volatile sig_atomic_t handled;

static double null_call(long count)
{
    double begin = seconds();
    while (count--)
        syscall(SYS_getppid);
    return seconds() - begin;
}

static int open_zero(void)
{
    zero = open("/dev/zero", O_RDONLY);
    return zero < 0 ? fail() : 0;
}

static void close_zero(void)
{
    if (zero >= 0)
        close(zero);
    zero = -1;
}

static double read_zero(long count)
{
    char byte;
    double begin = seconds();
    while (count--)
        if (read(zero, &byte, 1) != 1)
            break;
    return seconds() - begin;
}

static double stat_file(long count)
{
    struct stat found;
    double begin = seconds();
    while (count--)
        if (stat(settings.self, &found))
            break;
    return seconds() - begin;
}

static double open_close(long count)
{
    double begin = seconds();
    while (count--)
        close(open(settings.self, O_RDONLY));
    return seconds() - begin;
}

static void on_signal(int number)
{
    (void)number;
    handled++;
}

static int install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    return sigaction(SIGUSR1, &action, NULL) ? fail() : 0;
}

static double signal_install(long count)
{
    double begin = seconds();
    while (count--)
        install();
    return seconds() - begin;
}

static double signal_handler(long count)
{
    pid_t self = getpid();
    double begin = seconds();
    while (count--)
        kill(self, SIGUSR1);
    return seconds() - begin;
}

const struct row system_rows[] = {
    {"null_call", null_call, NULL, NULL, 1, 0},
    {"read_zero", read_zero, open_zero, close_zero, 1, 0},
    {"stat", stat_file, NULL, NULL, 1, 0},
    {"open_close", open_close, NULL, NULL, 1, 0},
    {"signal_install", signal_install, NULL, NULL, 1, 0},
    {"signal_handler", signal_handler, install, NULL, 1, 0},
    {NULL, NULL, NULL, NULL, 0, 0},
};
