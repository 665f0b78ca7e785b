"""Small made-up kernels: ELF files with Xen notes, and bzImages around them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import lz4.block
import zstandard

from paravirt.abi import elfnote

VIRT_BASE = 0xFFFFFFFF80000000
EHDR_SIZE, PHDR_SIZE, SHDR_SIZE = 64, 56, 64


@dataclass
class Load:
    """One PT_LOAD segment."""

    paddr: int
    data: bytes
    memsz: int = 0
    flags: int = 7
    type: int = 1


@dataclass
class Section:
    """One section; ``link`` is an index among all sections, the first of which is the null section."""

    name: bytes
    type: int
    data: bytes
    link: int = 0


@dataclass
class Kernel:
    """What goes into an ELF file: ``notes`` become a PT_NOTE segment, sections come last."""

    loads: Sequence[Load] = field(default_factory=lambda: [Load(0, bytes(range(256)) * 32)])
    notes: bytes = b""
    sections: Sequence[Section] = ()
    entry: int = VIRT_BASE
    machine: int = 62
    bits: int = 2

    def build(self) -> bytes:
        """Lay the file out: header, program headers, contents, section names, section headers."""
        headers = len(self.loads) + bool(self.notes)
        body = bytearray(EHDR_SIZE + PHDR_SIZE * headers)
        at = EHDR_SIZE
        for load in self.loads:
            memsz = max(load.memsz, len(load.data))
            row = (load.type, load.flags, len(body), load.paddr, load.paddr, len(load.data), memsz, 4096)
            struct.pack_into("<IIQQQQQQ", body, at, *row)
            body += load.data
            at += PHDR_SIZE
        if self.notes:
            size = len(self.notes)
            struct.pack_into("<IIQQQQQQ", body, at, 4, 4, len(body), 0, 0, size, size, 4)
            body += self.notes
        shoff, shnum = self._sections(body)
        ident = b"\x7fELF" + bytes((self.bits, 1, 1)) + bytes(9)
        sizes = (EHDR_SIZE, PHDR_SIZE, headers, SHDR_SIZE, shnum, max(shnum - 1, 0))
        fields = (ident, 2, self.machine, 1, self.entry, EHDR_SIZE, shoff, 0, *sizes)
        struct.pack_into("<16sHHIQQQIHHHHHH", body, 0, *fields)
        return bytes(body)

    def _sections(self, body: bytearray) -> tuple[int, int]:
        if not self.sections:
            return 0, 0
        names = bytearray(b"\0")
        rows = [struct.pack("<IIQQQQIIQQ", *[0] * 10)]
        for section in [*self.sections, Section(b".shstrtab", 3, b"")]:
            name_at = len(names)
            names += section.name + b"\0"
            data = bytes(names) if section.name == b".shstrtab" else section.data
            fields = (name_at, section.type, 0, 0, len(body), len(data), section.link, 0, 1, 24)
            rows.append(struct.pack("<IIQQQQIIQQ", *fields))
            body += data
        shoff = len(body)
        body += b"".join(rows)
        return shoff, len(rows)


def note(kind: int, value: int | bytes, name: bytes = b"Xen\0") -> bytes:
    """One ELF note; numbers are 8 bytes."""
    desc = struct.pack("<Q", value) if isinstance(value, int) else value
    pad = -len(desc) % 4, -len(name) % 4
    return struct.pack("<III", len(name), len(desc), kind) + name + bytes(pad[1]) + desc + bytes(pad[0])


def xen_notes(**numbers: int) -> bytes:
    """The notes that every kernel needs, and those numbers that are named (``VIRT_BASE=...``)."""
    numbers = {"ENTRY": VIRT_BASE, "VIRT_BASE": VIRT_BASE} | numbers
    texts = {"GUEST_OS": b"test\0", "LOADER": b"generic\0", "XEN_VERSION": b"xen-3.0\0"}
    return b"".join(note(getattr(elfnote, f"XEN_ELFNOTE_{key}"), value) for key, value in (texts | numbers).items())


def kernel(**numbers: int) -> bytes:
    """A complete small kernel."""
    return Kernel(notes=xen_notes(**numbers)).build()


def bzimage(payload: bytes, *, version: int = 0x020C, setup_sects: int = 2, offset: int = 64) -> bytes:
    """A bzImage as Linux's build makes it, as far as a loader looks."""
    head = bytearray((setup_sects + 1 if setup_sects else 5) * 512)
    head[0x1F1] = setup_sects
    struct.pack_into("<H", head, 0x1FE, 0xAA55)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, offset, len(payload))
    return bytes(head) + bytes(offset) + payload + b"rest of the file"


def lz4_legacy(data: bytes) -> bytes:
    """``lz4 -l``."""
    blocks = [lz4.block.compress(data[at : at + (8 << 20)], store_size=False) for at in range(0, len(data), 8 << 20)]
    return struct.pack("<I", 0x184C2102) + b"".join(struct.pack("<I", len(b)) + b for b in blocks)


def with_size(packed: bytes, data: bytes) -> bytes:
    """Append the unpacked length, as Linux's build does."""
    return packed + struct.pack("<I", len(data))


#: How Linux's build packs its payload, by format.
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": lambda data: with_size(bz2.compress(data), data),
    "xz": lambda data: with_size(
        lzma.compress(
            data,
            lzma.FORMAT_XZ,
            lzma.CHECK_CRC32,
            filters=[{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "dict_size": 32 << 20}],
        ),
        data,
    ),
    "lzma": lambda data: with_size(lzma.compress(data, lzma.FORMAT_ALONE), data),
    "lz4": lambda data: with_size(lz4_legacy(data), data),
    "zstd": lambda data: with_size(zstandard.ZstdCompressor(level=3).compress(data), data),
}
