#include "inline_exit.h"

void inline_exit_checks(void *library)
{
    (void)library;
}
