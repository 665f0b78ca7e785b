/* What an engine translates, and how long that takes.
 *
 * The library does not say.  It calls the function that translates a block, and the one that forgets all blocks,
 * through its procedure linkage table (plt.c): two slots of it are pointed here.  A translation that is given up, since
 * its code cannot be read or the buffer is full, does not come back here and is not counted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "counters.h"

#include <dlfcn.h>

#include "plt.h"
#include "private.h"

static struct {
    void *library;
    void *(*gen_code)(void *cs, uint64_t pc, uint64_t cs_base, uint32_t flags, int cflags);
    void (*flush)(void *cs);
} tb;

static uint64_t clock_ns(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000ull + (uint64_t)at.tv_nsec;
}

static void *counted_gen_code(void *cs, uint64_t pc, uint64_t cs_base, uint32_t flags, int cflags)
{
    uint64_t begin = clock_ns();
    void *block = tb.gen_code(cs, pc, cs_base, flags, cflags);

    if (here != NULL) {
        here->counted.blocks++;
        here->counted.translating_ns += clock_ns() - begin;
    }
    return block;
}

static void counted_flush(void *cs)
{
    tb.flush(cs);
    if (here != NULL)
        here->counted.whole_flushes++;
}

void count_translations(void *library)
{
    void **gen_code_slot = plt_slot(library, "tb_gen_code_x86_64"), **flush_slot = plt_slot(library, "tb_flush_x86_64");

    if (tb.library == library)
        return;
    tb.gen_code = (void *(*)(void *, uint64_t, uint64_t, uint32_t, int))dlsym(library, "tb_gen_code_x86_64");
    tb.flush = (void (*)(void *))dlsym(library, "tb_flush_x86_64");
    if (gen_code_slot == NULL || flush_slot == NULL || tb.gen_code == NULL || tb.flush == NULL)
        return;
    *gen_code_slot = (void *)counted_gen_code;
    *flush_slot = (void *)counted_flush;
    tb.library = library;
}

void unicorn_engine_counters(const struct unicorn_engine *e, struct unicorn_counters *counters)
{
    void *context = FIELD(e->uc, UC_TCG_CTX, void *);

    *counters = e->counted;
    counters->kept_blocks = e->nb_tbs(context);
    counters->kept_bytes = e->code_size(context);
    counters->buffer_bytes = e->code_capacity(context);
}
