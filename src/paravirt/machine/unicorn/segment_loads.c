/* Every load of a segment register raises #GP(0).
 *
 * Descriptor tables at a non-canonical address make all loads fault that read a descriptor.  A null selector reads
 * none: outside ring 3 the library would accept it even for SS, and would take the privilege level from the
 * descriptor that is not there.  A guest kernel, which runs at CPL 1, would find itself at CPL 0.  Therefore the
 * library's helper for segment loads begins with a jump to our own, which only raises the fault.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "segment_loads.h"

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void (*raise_exception)(void *env, int vector, int error, uintptr_t return_address);

/* Called by translated code in place of helper_load_seg.  The return address leads the library to the guest's rip. */
static void load_segment(void *env, int segment, int selector)
{
    (void)segment;
    (void)selector;
    raise_exception(env, 13, 0, (uintptr_t)__builtin_return_address(0));
}

int trap_segment_loads(void *library)
{
    static const uint8_t jump[6] = {0xff, 0x25, 0, 0, 0, 0}; /* jmp *0(%rip), and then the address */
    static void *done;
    uint8_t *helper = dlsym(library, "helper_load_seg_x86_64"), *page;
    uintptr_t target = (uintptr_t)load_segment;
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE), length;

    if (done == library)
        return 0;
    raise_exception = (void (*)(void *, int, int, uintptr_t))dlsym(library, "raise_exception_err_ra_x86_64");
    if (helper == NULL || raise_exception == NULL)
        return -1;
    page = helper - (uintptr_t)helper % page_size;
    length = (size_t)(helper - page) + sizeof(jump) + sizeof(target);
    if (mprotect(page, length, PROT_READ | PROT_WRITE) != 0)
        return -1;
    memcpy(helper, jump, sizeof(jump));
    memcpy(helper + sizeof(jump), &target, sizeof(target));
    if (mprotect(page, length, PROT_READ | PROT_EXEC) != 0)
        return -1;
    done = library;
    return 0;
}
