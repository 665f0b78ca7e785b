/*
 * A disk, past the page cache, one access at a time: one after the other, and at random places.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "bench.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define REGION (32 * MIB)

static int disk = -1;
static char *buffer;

static int open_disk(void)
{
    disk = open(settings.disk, O_RDWR | O_DIRECT);
    if (disk < 0 || posix_memalign((void **)&buffer, PAGE, 64 * KIB))
        return fail();
    for (size_t i = 0; i < 64 * KIB; i++)
        buffer[i] = (char)(i * 7);
    return 0;
}

static void close_disk(void)
{
    if (disk >= 0)
        close(disk);
    free(buffer);
    buffer = NULL;
    disk = -1;
}

static double transfer(long count, size_t size, int write, int at_random)
{
    static uint64_t state = 88172645463325252UL;
    uint64_t place = 0;
    double begin = seconds();

    while (count--) {
        off_t offset;
        if (at_random) {
            state ^= state << 13;
            state ^= state >> 7;
            place = state ^= state << 17;
        }
        offset = (off_t)(place++ % (REGION / size) * size);
        if ((write ? pwrite(disk, buffer, size, offset) : pread(disk, buffer, size, offset)) != (ssize_t)size)
            abort();
    }
    return seconds() - begin;
}

#define WAY(name, size, write, at_random) \
    static double name(long count) \
    { \
        return transfer(count, size, write, at_random); \
    }
WAY(write_64k, 64 * KIB, 1, 0)
WAY(write_4k, 4 * KIB, 1, 0)
WAY(random_write_4k, 4 * KIB, 1, 1)
WAY(read_64k, 64 * KIB, 0, 0)
WAY(read_4k, 4 * KIB, 0, 0)
WAY(random_read_64k, 64 * KIB, 0, 1)
WAY(random_read_4k, 4 * KIB, 0, 1)

const struct row disk_rows[] = {
    {"disk_write_64k", write_64k, open_disk, close_disk, 1, 64 * KIB},
    {"disk_write_4k", write_4k, open_disk, close_disk, 1, 4 * KIB},
    {"disk_random_write_4k", random_write_4k, open_disk, close_disk, 1, 4 * KIB},
    {"disk_read_64k", read_64k, open_disk, close_disk, 1, 64 * KIB},
    {"disk_read_4k", read_4k, open_disk, close_disk, 1, 4 * KIB},
    {"disk_random_read_64k", random_read_64k, open_disk, close_disk, 1, 64 * KIB},
    {"disk_random_read_4k", random_read_4k, open_disk, close_disk, 1, 4 * KIB},
    {NULL, NULL, NULL, NULL, 0, 0},
};
