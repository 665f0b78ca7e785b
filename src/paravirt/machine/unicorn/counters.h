/* What engines translate, counted: see counters.c.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_UNICORN_COUNTERS_H
#define PARAVIRT_UNICORN_COUNTERS_H

void count_translations(void *library);

#endif
