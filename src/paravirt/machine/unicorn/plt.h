/* Where a shared library calls its own exported functions: see plt.c.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_UNICORN_PLT_H
#define PARAVIRT_UNICORN_PLT_H

/* The slot of the procedure linkage table through which the library (a handle of dlopen's) calls `name`, or NULL. */
void **plt_slot(void *library, const char *name);

#endif
