/* Cheaper stop checks in translated code: see inline_exit.c.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_UNICORN_INLINE_EXIT_H
#define PARAVIRT_UNICORN_INLINE_EXIT_H

void inline_exit_checks(void *library);

/* Around each run of the library's inner loop by one of our engines: only what this thread translates then is
 * changed, so that a program may use the library for itself too. */
void inline_exit_enter(void);
void inline_exit_leave(void);

#endif
