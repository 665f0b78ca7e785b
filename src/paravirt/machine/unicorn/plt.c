/* A library calls its own exported functions through its procedure linkage table, whose slots are writable: pointed
 * elsewhere, they let us have a say in what the library does, or count it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "plt.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stddef.h>
#include <string.h>

void **plt_slot(void *library, const char *name)
{
    struct link_map *map = NULL;
    const ElfW(Dyn) *entry;
    const ElfW(Sym) *symbols = NULL;
    const ElfW(Rela) *relocations = NULL;
    const char *strings = NULL;
    size_t count = 0, i;

    if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0)
        return NULL;
    for (entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_SYMTAB)
            symbols = (const void *)entry->d_un.d_ptr;
        else if (entry->d_tag == DT_STRTAB)
            strings = (const void *)entry->d_un.d_ptr;
        else if (entry->d_tag == DT_JMPREL)
            relocations = (const void *)entry->d_un.d_ptr;
        else if (entry->d_tag == DT_PLTRELSZ)
            count = entry->d_un.d_val / sizeof(*relocations);
    }
    if (symbols == NULL || strings == NULL || relocations == NULL)
        return NULL;
    for (i = 0; i < count; i++)
        if (ELF64_R_TYPE(relocations[i].r_info) == R_X86_64_JUMP_SLOT &&
            strcmp(strings + symbols[ELF64_R_SYM(relocations[i].r_info)].st_name, name) == 0)
            return (void **)(map->l_addr + relocations[i].r_offset);
    return NULL;
}
