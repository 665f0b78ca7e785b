/* Rules, attacks and twins: numbered lines, and failures counted. */
#include "attack.h"

static int rules;

void rule(const char *text)
{
    printf("rule %d: %s\n", ++rules, text);
}

static void verdict(const char *kind, const char *what, s64 result, s64 expected)
{
    printf("  %s: %s: %s", kind, what, error_name(result));
    if (result != expected) {
        failures++;
        printf(" FAILED, expected %s", error_name(expected));
    }
    printf("\n");
}

void attack(const char *what, s64 result, s64 expected)
{
    verdict("attack", what, result, expected);
}

void twin(const char *what, s64 result)
{
    verdict("twin", what, result, 0);
}

void twin_is(const char *what, s64 result, s64 expected)
{
    verdict("twin", what, result, expected);
}

static void status_verdict(const char *kind, const char *what, s64 status, s64 expected)
{
    printf("  %s: %s: status %ld", kind, what, status);
    if (status != expected) {
        failures++;
        printf(" FAILED, expected %ld", expected);
    }
    printf("\n");
}

void attack_status(const char *what, s64 status, s64 expected)
{
    status_verdict("attack", what, status, expected);
}

void twin_status(const char *what, s64 status)
{
    status_verdict("twin", what, status, 0);
}

void attack_faults(const char *what, int vector, u64 error)
{
    printf("  attack: %s: %s(%lx)", what, vector_name(fault.vector), fault.vector < 0 ? 0 : fault.error);
    if (fault.vector != vector || fault.error != error) {
        failures++;
        printf(" FAILED, expected %s(%lx)", vector_name(vector), error);
    }
    printf("\n");
}

void twin_runs(const char *what)
{
    printf("  twin: %s: %s", what, vector_name(fault.vector));
    if (fault.vector >= 0) {
        failures++;
        printf("(%lx) FAILED", fault.error);
    }
    printf("\n");
}

void stays(const char *what, int true_of_it)
{
    printf("  stays: %s: %s\n", what, true_of_it ? "yes" : "FAILED, no");
    failures += !true_of_it;
}

s64 pin(int level, const void *table)
{
    return mmuext(MMUEXT_PIN_L1_TABLE + (u32)level - 1, mfn_of(table), 0);
}

s64 unpin(const void *table)
{
    return mmuext(MMUEXT_UNPIN_TABLE, mfn_of(table), 0);
}
