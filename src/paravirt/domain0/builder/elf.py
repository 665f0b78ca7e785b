"""ELF files as a loader sees them: program headers, sections, notes, symbols.

Only what a 64-bit little-endian x86 kernel needs, after the System V ABI (gABI, chapters 4 and 5). Every
number in the file is taken as hostile: the one exception that comes out is
:class:`~paravirt.errors.UserError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from paravirt.errors import UserError

MAGIC: Final = b"\x7fELF"

EM_386: Final = 3
EM_X86_64: Final = 62
PT_LOAD: Final = 1
PT_NOTE: Final = 4
SHT_SYMTAB: Final = 2
SHT_STRTAB: Final = 3
SHT_NOTE: Final = 7
SHT_NOBITS: Final = 8

_ELFCLASS32: Final = 1
_ELFCLASS64: Final = 2
_ELFDATA2LSB: Final = 1
EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")
SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_NHDR: Final = struct.Struct("<III")
_MACHINE_AT: Final = 18

#: More notes than any kernel has (Linux's vmlinux: 20); a file with more is taken for garbage.
_MAX_NOTES: Final = 4096

_MACHINES: Final = {
    2: "SPARC",
    EM_386: "32-bit x86",
    8: "MIPS",
    20: "PowerPC",
    21: "64-bit PowerPC",
    22: "S/390",
    40: "32-bit ARM",
    50: "Itanium",
    EM_X86_64: "x86-64",
    183: "64-bit ARM",
    243: "RISC-V",
    258: "LoongArch",
}


class ProgramHeader(NamedTuple):
    """One segment (gABI chapter 5); sizes in bytes, ``offset`` in the file."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class SectionHeader(NamedTuple):
    """One section (gABI chapter 4); ``name`` is an offset into the section name table."""

    name: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int


@dataclass(frozen=True)
class Note:
    """One entry of a note segment or section."""

    name: bytes
    type: int
    desc: bytes


def is_elf(data: bytes | memoryview) -> bool:
    """Whether ``data`` begins with ELF's magic number, of whatever class and machine."""
    return bytes(data[:4]) == MAGIC


class ElfFile:
    """A parsed 64-bit x86 ELF file.

    Attributes:
        data: the whole file.
        entry: the entry address of the ELF header.
        segments: every program header, in file order.
        sections: every section header, in file order.

    Raises:
        UserError: on construction, when this is no 64-bit little-endian x86 ELF file or its tables lie
        outside
            the file.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)
        _check_ident(self.data)
        fields = EHDR.unpack_from(self.data)
        self.header = bytes(self.data[: EHDR.size])
        self.entry: int = fields[4]
        phoff, shoff = fields[5], fields[6]
        phentsize, phnum, shentsize, shnum = fields[9:13]
        self._shstrndx: int = fields[13]
        self.segments = tuple(
            ProgramHeader(*row) for row in self._table("program", _PHDR, phoff, phentsize, phnum)
        )
        self.sections = tuple(
            SectionHeader(*row) for row in self._table("section", SHDR, shoff, shentsize, shnum)
        )

    def _table(
        self, kind: str, entry: struct.Struct, offset: int, size: int, count: int
    ) -> Iterator[tuple[int, ...]]:
        if not count:
            return iter(())
        if size < entry.size:
            raise UserError(f"The kernel is a damaged ELF file: its {kind} headers are {size} bytes each.")
        if offset + size * count > len(self.data):
            raise UserError(f"The kernel is an ELF file that is cut short: its {kind} headers are missing.")
        return (entry.unpack_from(self.data, offset + size * i) for i in range(count))

    def slice(self, offset: int, size: int, what: str) -> memoryview:
        """The ``size`` bytes of the file at ``offset``; UserError when the file ends before."""
        if offset + size > len(self.data):
            raise UserError(
                f"The kernel is an ELF file that is cut short: its {what} ends at byte {offset + size}, "
                f"but the file has {len(self.data)}."
            )
        return self.data[offset : offset + size]

    def contents(self, section: SectionHeader) -> memoryview:
        """The bytes of a section; none for one that occupies no space in the file."""
        if section.type == SHT_NOBITS:
            return self.data[:0]
        return self.slice(section.offset, section.size, "section")

    @cached_property
    def _names(self) -> memoryview:
        if not 0 < self._shstrndx < len(self.sections):
            return self.data[:0]
        return self.contents(self.sections[self._shstrndx])

    def section_named(self, name: bytes) -> SectionHeader | None:
        """The first section of that name."""
        wanted = name + b"\0"
        for section in self.sections:
            if bytes(self._names[section.name : section.name + len(wanted)]) == wanted:
                return section
        return None

    def segment_notes(self) -> Iterator[Note]:
        """Every note of the note segments.

        A segment at file offset 0 is skipped, as in Xen: some linkers leave the offset unset.
        """
        areas = (
            self.slice(segment.offset, segment.filesz, "note segment")
            for segment in self.segments
            if segment.type == PT_NOTE and segment.offset
        )
        return self._notes(areas)

    def section_notes(self) -> Iterator[Note]:
        """Every note of the note sections."""
        return self._notes(self.contents(section) for section in self.sections if section.type == SHT_NOTE)

    @staticmethod
    def _notes(areas: Iterable[memoryview]) -> Iterator[Note]:
        budget = _MAX_NOTES
        for area in areas:
            at = 0
            while at + _NHDR.size <= len(area):
                if budget == 0:
                    raise UserError("The kernel is a damaged ELF file: it has too many notes.")
                budget -= 1
                namesz, descsz, kind = _NHDR.unpack_from(area, at)
                name_at = at + _NHDR.size
                desc_at = name_at + _align4(namesz)
                if desc_at + descsz > len(area):
                    raise UserError("The kernel is a damaged ELF file: a note is longer than its segment.")
                name = bytes(area[name_at : name_at + namesz])
                yield Note(name.split(b"\0")[0], kind, bytes(area[desc_at : desc_at + descsz]))
                at = desc_at + _align4(descsz)


def _align4(size: int) -> int:
    return (size + 3) & ~3


def _check_ident(data: memoryview) -> None:
    """Refuse what is not a 64-bit little-endian x86 ELF file, saying what it is."""
    if not is_elf(data):
        raise UserError("The kernel is not an ELF file.")
    if len(data) < _MACHINE_AT + 2:
        raise UserError("The kernel is an ELF file that is cut short: the file ends within its header.")
    bits, order = data[4], data[5]
    if bits not in (_ELFCLASS32, _ELFCLASS64):
        raise UserError("The kernel is a damaged ELF file: it is neither a 32-bit nor a 64-bit one.")
    machine_bytes = data[_MACHINE_AT : _MACHINE_AT + 2]
    machine = int.from_bytes(machine_bytes, "little" if order == _ELFDATA2LSB else "big")
    if machine == EM_386:
        raise UserError("The kernel is a 32-bit x86 kernel; paravirt runs only 64-bit kernels so far.")
    if machine != EM_X86_64 or order != _ELFDATA2LSB:
        kind = _MACHINES.get(machine, f"ELF machine number {machine}")
        raise UserError(f"The kernel is built for another processor ({kind}); paravirt runs x86-64 kernels.")
    if bits == _ELFCLASS32:
        raise UserError("The kernel is a 32-bit ELF file for x86-64; paravirt needs a 64-bit ELF file.")
    if len(data) < EHDR.size:
        raise UserError("The kernel is an ELF file that is cut short: the file ends within its header.")
