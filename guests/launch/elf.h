/* Reading a PV kernel's ELF image: where it goes, and its Xen notes. */
#ifndef LAUNCH_ELF_H
#define LAUNCH_ELF_H

#include "guest.h"

#define NO_NOTE (~0UL)

struct image {
    u64 virt_base, entry, hypercall_page, init_p2m;
    u64 end; /* virtual address behind the last byte */
};

/* Fill in image; null, or what is wrong. */
const char *elf_read(const char *elf, u64 size, struct image *image);
/* Copy every segment: copy(guest physical address, from, bytes). The memory is zeroed already. */
void elf_load(const char *elf, const struct image *image, void (*copy)(u64, const char *, u64));

#endif
