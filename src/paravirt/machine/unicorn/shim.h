/* The native half of the Unicorn engine: see shim.c.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_UNICORN_SHIM_H
#define PARAVIRT_UNICORN_SHIM_H

#include "paravirt/machine/cpu.h"
#include <stddef.h>

struct unicorn_engine;

extern const struct cpu_ops unicorn_ops;

/* Open an engine over `size` bytes of machine memory at `memory`, with the shared library at `library`.
 * count_blocks: a deterministic engine.  On failure NULL, and a sentence in error[]. */
struct unicorn_engine *unicorn_engine_open(const char *library, void *memory, size_t size, int count_blocks,
                                           uint32_t code_buffer_bytes, char *error, size_t error_size);
void unicorn_engine_close(struct unicorn_engine *engine);

/* What an engine has translated so far, and what it had to forget. */
struct unicorn_counters {
    uint64_t blocks;         /* translated */
    uint64_t translating_ns; /* and the time that took */
    uint64_t whole_flushes;  /* all translated code forgotten: its buffer was full, or breakpoints changed */
    uint64_t kept_blocks;    /* translated since then, those that were dropped one by one included */
    uint64_t kept_bytes;     /* and their place in the buffer */
    uint64_t buffer_bytes;
    uint64_t tlb_flushes;    /* all translations of addresses forgotten, for the kernel, processes or both */
    uint64_t page_flushes;   /* those of one page */
};

/* From any thread. */
void unicorn_engine_counters(const struct unicorn_engine *engine, struct unicorn_counters *counters);

#endif
