/* Cheaper stop checks in translated code: see inline_exit.c.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_UNICORN_INLINE_EXIT_H
#define PARAVIRT_UNICORN_INLINE_EXIT_H

void inline_exit_checks(void *library);

#endif
