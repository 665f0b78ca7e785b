/* Stands before the C library's calls to /dev/kvm, by LD_PRELOAD: a host that refuses, and a list of memory slots.
 *
 * kvm_fault() says what goes wrong from now on:
 *   open ERRNO       /dev/kvm cannot be opened
 *   api VERSION      the interface has another version
 *   lacks NUMBER     this capability is missing
 *   vm ERRNO, vcpu ERRNO   no more of them are made
 *   run REASON       KVM_RUN ends with this exit reason at once
 *   endless 0        KVM_RUN runs until it is interrupted
 *   stuck 0          so does it, and leaves the vcpu in ring 0; timers expire soon
 *   interrupted 0    the next virtual machine is not made, as a signal came
 * Memory slots are written to the file that KVM_SLOTS names, one a line: address in the machine, bytes, host address.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define MAX_FILES 4096

static char fault[16];
static int fault_value;
static struct kvm_run *runs[MAX_FILES];

void kvm_fault(const char *what, int value)
{
    fault_value = value;
    snprintf(fault, sizeof(fault), "%s", what);
}

static int faulty(const char *what)
{
    return strcmp(fault, what) == 0;
}

static void note_slot(const struct kvm_userspace_memory_region *region)
{
    const char *name = getenv("KVM_SLOTS");
    FILE *file = name != NULL ? fopen(name, "a") : NULL;

    if (file == NULL)
        return;
    fprintf(file, "%llu %llu %llu\n", region->guest_phys_addr, region->memory_size, region->userspace_addr);
    fclose(file);
}

int open(const char *path, int flags, ...)
{
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    va_list arguments;
    int mode;

    va_start(arguments, flags);
    mode = va_arg(arguments, int);
    va_end(arguments);
    if (faulty("open") && strcmp(path, "/dev/kvm") == 0) {
        errno = fault_value;
        return -1;
    }
    return real(path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
    void *made = real(address, bytes, protection, flags, fd, offset);

    if (fd >= 0 && fd < MAX_FILES && made != MAP_FAILED)
        runs[fd] = made;
    return made;
}

void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

int timer_settime(timer_t timer, int flags, const struct itimerspec *when, struct itimerspec *before)
{
    int (*real)(timer_t, int, const struct itimerspec *, struct itimerspec *) = dlsym(RTLD_NEXT, "timer_settime");
    const struct itimerspec soon = {{0, 0}, {0, 300000}}; /* but so late that the guest is entered */

    return faulty("stuck") ? real(timer, 0, &soon, before) : real(timer, flags, when, before);
}

static int refused(unsigned long request, const char *what, unsigned long wanted)
{
    return request == wanted && faulty(what);
}

int ioctl(int fd, unsigned long request, ...)
{
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    va_list arguments;
    unsigned long argument;

    va_start(arguments, request);
    argument = va_arg(arguments, unsigned long);
    va_end(arguments);
    if (refused(request, "api", KVM_GET_API_VERSION))
        return fault_value;
    if (refused(request, "lacks", KVM_CHECK_EXTENSION) && argument == (unsigned long)fault_value)
        return 0;
    if (refused(request, "vm", KVM_CREATE_VM) || refused(request, "vcpu", KVM_CREATE_VCPU)) {
        errno = fault_value;
        return -1;
    }
    if (refused(request, "run", KVM_RUN) && fd < MAX_FILES && runs[fd] != NULL) {
        runs[fd]->exit_reason = (unsigned)fault_value;
        return 0;
    }
    if (refused(request, "interrupted", KVM_CREATE_VM)) {
        kvm_fault("", 0);
        errno = EINTR;
        return -1;
    }
    if ((refused(request, "endless", KVM_RUN) || refused(request, "stuck", KVM_RUN)) && fd < MAX_FILES) {
        const struct timespec pause = {0, 100000};
        while (!runs[fd]->immediate_exit)
            nanosleep(&pause, NULL);
        if (faulty("stuck"))
            runs[fd]->s.regs.sregs.ss.dpl = 0;
        errno = EINTR;
        return -1;
    }
    if (request == KVM_SET_USER_MEMORY_REGION)
        note_slot((const struct kvm_userspace_memory_region *)argument);
    return real(fd, request, argument);
}
