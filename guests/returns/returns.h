/* What the parts of this kernel share. */
#ifndef RETURNS_H
#define RETURNS_H

#include "guest.h"

#define SAVED ((volatile u64 *)USER_DATA) /* where processes leave words for the kernel */
#define GENERAL 15                        /* registers, at the head of a frame */

u64 random_word(void);
void by_hand(u32 event); /* make an event pending without a hypercall, as kernels do that unmask one */
u32 bind_ipi(void);
/* Run a process until a trap that has no handler, and then forget the handlers. */
void process(const char *code, const char *end, struct regs *r);
#define PROCESS(name, r) process(name, name##_end, r)

void registers(int times); /* registers.c */
void events(int times);    /* events.c */
void otherwise(void);      /* otherwise.c */
void ticks(void);          /* ticks.c */

#endif
