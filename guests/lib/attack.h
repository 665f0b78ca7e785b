/*
 * For kernels that attack one rule of isolation after another. Every attack has a twin: the same request with
 * one thing changed, which makes it legal, so that a hypervisor that refuses everything fails too.
 */
#ifndef ATTACK_H
#define ATTACK_H

#include "guest.h"

void rule(const char *text);                                 /* numbers the rule; says what a correct hypervisor does */
void attack(const char *what, s64 result, s64 expected);     /* must be refused, with this error */
void twin(const char *what, s64 result);                     /* must give 0 */
void twin_is(const char *what, s64 result, s64 expected);    /* must give this */
void attack_status(const char *what, s64 status, s64 expected); /* of a grant operation: a number, no error name */
void twin_status(const char *what, s64 status);                 /* must be 0 */
void attack_faults(const char *what, int vector, u64 error); /* what TRY just caught must be this */
void twin_runs(const char *what);                            /* TRY just caught nothing */
void stays(const char *what, int true_of_it);                /* something that no attack may have changed */

s64 pin(int level, const void *table); /* level 1..4 */
s64 unpin(const void *table);

#endif
