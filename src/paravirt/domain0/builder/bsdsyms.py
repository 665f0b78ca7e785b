"""The symbol table that BSD kernels find behind themselves.

A kernel with the note BSD_SYMTAB=yes expects, at the first multiple of 8 behind its last segment, a 32-bit
length and then a small ELF file of its own: a header, three section headers (none, symbols, strings), and the
two tables. The layout is that of Xen's libelf (xen/common/libelf/libelf-loader.c of 4.17); NetBSD's in-kernel
debugger reads it.
"""

from __future__ import annotations

import struct
from typing import Final

from paravirt.domain0.builder.elf import EHDR, SHDR, SHT_STRTAB, SHT_SYMTAB, ElfFile, SectionHeader
from paravirt.errors import UserError

ALIGN: Final = 8
_LENGTH: Final = struct.Struct("<I")
_EV_CURRENT: Final = 1
_SECTIONS: Final = 3
_STRINGS_INDEX: Final = 2


def symbol_block(elf: ElfFile) -> bytes:
    """Make the block, to be placed at a multiple of 8; its length is one, too.

    Raises:
        UserError: the file has no symbol table although its notes promise one.
    """
    symbols, strings = _tables(elf)
    headers = EHDR.size + _SECTIONS * SHDR.size
    symbols_at = _round(_LENGTH.size + headers)
    strings_at = _round(symbols_at + symbols.size)
    # The ELF header is 4 bytes into the block, and file offsets count from it.
    moved = (
        symbols._replace(offset=symbols_at - _LENGTH.size, link=_STRINGS_INDEX),
        strings._replace(offset=strings_at - _LENGTH.size),
    )
    block = bytearray(_round(strings_at + strings.size))
    _LENGTH.pack_into(block, 0, strings_at + strings.size - _LENGTH.size)
    fields = list(EHDR.unpack(elf.header))
    fields[3] = _EV_CURRENT
    fields[5:7] = 0, EHDR.size  # no program headers; section headers follow at once
    fields[8:] = EHDR.size, 0, 0, SHDR.size, _SECTIONS, 0
    EHDR.pack_into(block, _LENGTH.size, *fields)
    for index, section in enumerate(moved, 1):
        SHDR.pack_into(block, _LENGTH.size + EHDR.size + index * SHDR.size, *section)
    block[symbols_at : symbols_at + symbols.size] = elf.contents(symbols)
    block[strings_at : strings_at + strings.size] = elf.contents(strings)
    return bytes(block)


def _tables(elf: ElfFile) -> tuple[SectionHeader, SectionHeader]:
    for section in elf.sections:
        if section.type == SHT_SYMTAB and section.link < len(elf.sections):
            strings = elf.sections[section.link]
            if strings.type == SHT_STRTAB:
                return section, strings
    raise UserError("The kernel asks for its symbol table (BSD_SYMTAB), but the file has none.")


def _round(size: int) -> int:
    return -(-size // ALIGN) * ALIGN
