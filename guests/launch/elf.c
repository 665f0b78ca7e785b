/* See elf.h. The image is our own build, so the checks only catch mistakes. */
#include "elf.h"

struct ehdr {
    u8 ident[16];
    u16 type, machine;
    u32 version;
    u64 entry, phoff, shoff;
    u32 flags;
    u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct phdr {
    u32 type, flags;
    u64 offset, vaddr, paddr, filesz, memsz, align;
};
struct note {
    u32 namesz, descsz, type;
};
#define PT_LOAD 1
#define PT_NOTE 4

static const struct phdr *segment(const char *elf, int i)
{
    const struct ehdr *e = (const void *)elf;
    return (const void *)(elf + e->phoff + (u64)i * e->phentsize);
}

static void read_notes(const char *at, u64 size, struct image *image)
{
    const char *end = at + size;
    while (at + sizeof(struct note) <= end) {
        const struct note *n = (const void *)at;
        const char *desc = at + sizeof(*n) + ((n->namesz + 3) & ~3U);
        u64 value = n->descsz == 8 ? *(const u64 *)desc : 0;
        switch (n->type) {
        case XEN_ELFNOTE_ENTRY:
            image->entry = value;
            break;
        case XEN_ELFNOTE_VIRT_BASE:
            image->virt_base = value;
            break;
        case XEN_ELFNOTE_HYPERCALL_PAGE:
            image->hypercall_page = value;
            break;
        case XEN_ELFNOTE_INIT_P2M:
            image->init_p2m = value;
            break;
        }
        at = desc + ((n->descsz + 3) & ~3U);
    }
}

const char *elf_read(const char *elf, u64 size, struct image *image)
{
    const struct ehdr *e = (const void *)elf;
    *image = (struct image){0, 0, NO_NOTE, NO_NOTE, 0};
    if (size < sizeof(*e) || memcmp(e->ident, "\177ELF\2\1", 6))
        return "the ramdisk is not a 64-bit ELF image";
    for (int i = 0; i < e->phnum; i++) {
        const struct phdr *p = segment(elf, i);
        if (p->offset + p->filesz > size)
            return "the ELF image is truncated";
        if (p->type == PT_NOTE)
            read_notes(elf + p->offset, p->filesz, image);
        if (p->type == PT_LOAD && p->vaddr + p->memsz > image->end)
            image->end = p->vaddr + p->memsz;
    }
    if (!image->virt_base || !image->entry)
        return "the ELF image has no Xen notes";
    return 0;
}

void elf_load(const char *elf, const struct image *image, void (*copy)(u64, const char *, u64))
{
    const struct ehdr *e = (const void *)elf;
    (void)image;
    for (int i = 0; i < e->phnum; i++) {
        const struct phdr *p = segment(elf, i);
        if (p->type == PT_LOAD)
            copy(p->paddr, elf + p->offset, p->filesz);
    }
}
