/* Start, verdict, shutdown, and the few functions that a C compiler expects to find. */
#include "guest.h"

struct start_info *start_info;
struct shared_info *shared_info;
struct vcpu_info *vcpu0;
int failures;

static char shared_info_window[PAGE_SIZE] __attribute__((aligned(4096)));

void *memset(void *to, int value, u64 size)
{
    void *start = to;
    asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return start;
}

void *memcpy(void *to, const void *from, u64 size)
{
    void *start = to;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return start;
}

int memcmp(const void *a, const void *b, u64 size)
{
    const u8 *x = a, *y = b;
    for (u64 i = 0; i < size; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

u64 strlen(const char *text)
{
    u64 n = 0;
    while (text[n])
        n++;
    return n;
}

int starts_with(const char *text, const char *prefix)
{
    while (*prefix)
        if (*text++ != *prefix++)
            return 0;
    return 1;
}

const char *error_name(s64 result)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {
        {EPERM, "-EPERM"},   {ENOENT, "-ENOENT"}, {ESRCH, "-ESRCH"},   {ENXIO, "-ENXIO"},
        {E2BIG, "-E2BIG"},   {EBADF, "-EBADF"},   {EAGAIN, "-EAGAIN"}, {ENOMEM, "-ENOMEM"},
        {EACCES, "-EACCES"}, {EFAULT, "-EFAULT"}, {EBUSY, "-EBUSY"},   {EEXIST, "-EEXIST"},
        {ENODEV, "-ENODEV"}, {EINVAL, "-EINVAL"}, {ENOSPC, "-ENOSPC"}, {EDOM, "-EDOM"},
        {ERANGE, "-ERANGE"}, {ENOSYS, "-ENOSYS"}, {ETIME, "-ETIME"},   {EOVERFLOW, "-EOVERFLOW"},
        {EOPNOTSUPP, "-EOPNOTSUPP"},
    };
    static char text[4][24];
    static int turn;
    for (u64 i = 0; i < ARRAY_SIZE(names); i++)
        if (result == -names[i].number)
            return names[i].name;
    turn = (turn + 1) % 4;
    snprintf(text[turn], sizeof(text[turn]), "%ld", result);
    return text[turn];
}

void check_that(int good, const char *what, const char *file, int line)
{
    if (good)
        return;
    for (const char *p = file; *p; p++)
        if (*p == '/')
            file = p + 1;
    failures++;
    printf("FAILED: %s (%s:%d)\n", what, file, line);
}

void expect_result(const char *label, s64 result, s64 expected)
{
    printf("%s: %s", label, error_name(result));
    if (result != expected) {
        failures++;
        printf(" FAILED, expected %s", error_name(expected));
    }
    printf("\n");
}

int is_domU(void)
{
    return !(start_info->flags & SIF_INITDOMAIN);
}

void shutdown(u32 reason)
{
    xen_sched_op(SCHEDOP_shutdown, &reason);
    for (;;)
        asm volatile("ud2");
}

void finish(void)
{
    if (failures)
        printf("TEST %s: FAIL %d\n", guest_name, failures);
    else
        printf("TEST %s: PASS\n", guest_name);
    shutdown(SHUTDOWN_poweroff);
}

void guest_start(struct start_info *info)
{
    start_info = info;
    p2m = (u64 *)info->mfn_list;
    kernel_l4 = info->pt_base;
    xen_update_va_mapping((u64)shared_info_window, info->shared_info | PTE_P | PTE_RW, UVMF_INVLPG);
    shared_info = (struct shared_info *)shared_info_window;
    vcpu0 = &shared_info->vcpu_info[0];
    /* Every port starts masked (the console's answers would otherwise be upcalls in any test). */
    memset(shared_info->evtchn_mask, 0xff, sizeof(shared_info->evtchn_mask));
    vcpu0->evtchn_pending_sel = 0;
    vcpu0->evtchn_upcall_pending = 0;
    console_map();
    traps_init();
    guest_main();
    finish();
}
