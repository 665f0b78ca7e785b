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

#endif
