import struct
from io import BytesIO

import pytest
from elftools.elf.elffile import ELFFile as Reader
from elftools.elf.sections import SymbolTableSection

from paravirt.abi import elfnote
from paravirt.domain0.builder.elf import ElfFile
from paravirt.domain0.builder.image import parse_kernel
from paravirt.domain0.builder.symbols import SymbolTable

from ._kernels import VIRT_BASE, Kernel, Load, Section, note, xen_notes

NAMES = b"\0start\0main\0table\0file.c\0nowhere\0alias\0"


def symbol(name: bytes, value: int, kind: int = 2, section: int = 1) -> bytes:
    at = NAMES.index(b"\0" + name + b"\0") + 1 if name else 0
    return struct.pack("<IBBHQQ", at, kind, 0, section, value, 16)


SYMBOLS = b"".join(
    (
        symbol(b"", 0, 0, 0),
        symbol(b"main", VIRT_BASE + 0x200),
        symbol(b"start", VIRT_BASE + 0x100),
        symbol(b"alias", VIRT_BASE + 0x100, kind=0),
        symbol(b"table", VIRT_BASE + 0x1000, kind=1),
        symbol(b"file.c", VIRT_BASE + 0x210, kind=4),
        symbol(b"nowhere", VIRT_BASE + 0x220, section=0),
        symbol(b"", VIRT_BASE + 0x230, kind=3),
    )
)


def kernel(extra: bytes = b"", link: int = 2, symbols: bytes = SYMBOLS) -> bytes:
    sections = [Section(b".symtab", 2, symbols, link=link), Section(b".strtab", 3, NAMES)]
    return Kernel([Load(0, b"k" * 0x1234)], xen_notes() + extra, sections).build()


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (VIRT_BASE, None),
        (VIRT_BASE + 0x100, ("start", 0)),
        (VIRT_BASE + 0x1FF, ("start", 0xFF)),
        (VIRT_BASE + 0x240, ("main", 0x40)),
        (VIRT_BASE + 0x1233, ("table", 0x233)),
        (VIRT_BASE + 0x1234, None),
        (VIRT_BASE - 1, None),
        ((1 << 64) - 1, None),
    ],
)
def test_an_address_is_named(address: int, found: tuple[str, int] | None) -> None:
    assert parse_kernel(kernel()).symbol(address) == found


def test_a_name_has_an_address() -> None:
    table = parse_kernel(kernel()).symbols
    assert len(table) == 4
    assert table.address("main") == VIRT_BASE + 0x200
    assert table.address("mai") is None and table.address("nowhere") is None


def test_a_kernel_boots_without_a_sound_symbol_table() -> None:
    for raw in (
        Kernel(notes=xen_notes()).build(),
        kernel(link=1),
        kernel(link=77),
        kernel(symbols=b""),
        kernel(symbols=symbol(b"", 5)[:20]),
    ):
        assert len(parse_kernel(raw).symbols) == 0
    outside = bytearray(kernel())
    (shoff,) = struct.unpack_from("<Q", outside, 0x28)
    struct.pack_into("<Q", outside, shoff + 64 + 24, 1 << 60)
    assert len(parse_kernel(bytes(outside)).symbols) == 0


def test_a_name_outside_the_string_table_is_empty() -> None:
    raw = struct.pack("<IBBHQQ", 5000, 2, 0, 1, VIRT_BASE, 16)
    assert parse_kernel(kernel(symbols=raw)).symbol(VIRT_BASE + 1) == ("", 1)


def test_a_bsd_kernel_finds_its_symbols_behind_itself() -> None:
    """The block is a length and an ELF file, which another ELF reader must understand."""
    image = parse_kernel(kernel(note(elfnote.XEN_ELFNOTE_BSD_SYMTAB, b"yes\0")))
    block = image.segments[-1]
    assert block.vaddr == VIRT_BASE + 0x1238 and image.virt_end == block.end
    assert len(block.data) == block.memsz and block.memsz % 8 == 0
    (length,) = struct.unpack_from("<I", block.data)
    assert 0 <= block.memsz - 4 - length < 8
    inner = bytes(block.data[4 : 4 + length])
    sections = list(Reader(BytesIO(inner)).iter_sections())
    assert len(sections) == 3
    table = sections[1]
    assert isinstance(table, SymbolTableSection)
    assert [s.name for s in table.iter_symbols()][1:5] == ["main", "start", "alias", "table"]
    assert sections[2].data() == NAMES
    assert (table["sh_offset"] + 4) % 8 == 0 and (sections[2]["sh_offset"] + 4) % 8 == 0
    assert SymbolTable.of(ElfFile(inner)).lookup(VIRT_BASE + 0x201) == ("main", 1)
