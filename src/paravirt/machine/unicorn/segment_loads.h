/* Every load of a segment register raises #GP(0): see segment_loads.c.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_UNICORN_SEGMENT_LOADS_H
#define PARAVIRT_UNICORN_SEGMENT_LOADS_H

/* 0, or -1 if the library cannot be changed. */
int trap_segment_loads(void *library);

#endif
