import struct
from contextlib import suppress
from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.abi import elfnote, features
from paravirt.domain0.builder.elf import SHT_NOTE, ElfFile
from paravirt.domain0.builder.notes import XenNotes, parse_legacy, read
from paravirt.errors import UserError

from ._kernels import Kernel, Section, note, xen_notes

N = elfnote


def notes_of(raw: bytes = b"", *sections: Section) -> XenNotes | None:
    return read(ElfFile(Kernel(notes=raw, sections=sections).build()))


def test_every_note_lands_in_its_field() -> None:
    found = notes_of(
        note(N.XEN_ELFNOTE_ENTRY, 0x1000)
        + note(N.XEN_ELFNOTE_HYPERCALL_PAGE, 0x2000)
        + note(N.XEN_ELFNOTE_VIRT_BASE, 0x3000)
        + note(N.XEN_ELFNOTE_PADDR_OFFSET, struct.pack("<I", 0x4000))
        + note(N.XEN_ELFNOTE_XEN_VERSION, b"xen-3.0\0")
        + note(N.XEN_ELFNOTE_GUEST_OS, b"minix\0")
        + note(N.XEN_ELFNOTE_GUEST_VERSION, b"7\0")
        + note(N.XEN_ELFNOTE_LOADER, b"generic\0")
        + note(N.XEN_ELFNOTE_PAE_MODE, b"yes\0")
        + note(N.XEN_ELFNOTE_FEATURES, b"!writable_page_tables|pae_pgdir_above_4gb|not_known")
        + note(N.XEN_ELFNOTE_BSD_SYMTAB, b"yes\0")
        + note(N.XEN_ELFNOTE_HV_START_LOW, 0x5000)
        + note(N.XEN_ELFNOTE_L1_MFN_VALID, struct.pack("<QQ", 1, 1))
        + note(N.XEN_ELFNOTE_SUSPEND_CANCEL, struct.pack("<I", 1))
        + note(N.XEN_ELFNOTE_INIT_P2M, 0x6000)
        + note(N.XEN_ELFNOTE_MOD_START_PFN, b"\1")
        + note(N.XEN_ELFNOTE_SUPPORTED_FEATURES, struct.pack("<I", 1 << features.XENFEAT_dom0))
        + note(N.XEN_ELFNOTE_PHYS32_ENTRY, struct.pack("<I", 0x7000))
        + note(0x1234, b"nobody knows this one")
        + note(N.XEN_ELFNOTE_ENTRY, 0xBAD, name=b"GNU\0")
    )
    assert found == XenNotes(
        legacy=False,
        entry=0x1000,
        hypercall_page=0x2000,
        virt_base=0x3000,
        paddr_offset=0x4000,
        init_p2m=0x6000,
        mod_start_pfn=True,
        phys32_entry=0x7000,
        hv_start_low=0x5000,
        l1_mfn_valid=True,
        loader="generic",
        guest_os="minix",
        guest_version="7",
        xen_version="xen-3.0",
        pae_mode="yes",
        bsd_symtab=True,
        suspend_cancel=True,
        features_supported=1 << features.XENFEAT_writable_page_tables
        | 1 << features.XENFEAT_pae_pgdir_above_4gb
        | 1 << features.XENFEAT_dom0,
        features_required=1 << features.XENFEAT_writable_page_tables,
    )


def test_note_sections_count_only_without_note_segments() -> None:
    section = Section(b".note.Xen", SHT_NOTE, note(N.XEN_ELFNOTE_ENTRY, 0x2222))
    in_section = notes_of(b"", section)
    assert in_section is not None and in_section.entry == 0x2222
    both = notes_of(note(N.XEN_ELFNOTE_VIRT_BASE, 0x1111), section)
    assert both is not None and (both.entry, both.virt_base) == (None, 0x1111)
    damaged = notes_of(xen_notes(), Section(b".note", SHT_NOTE, section.data[:-1]))
    assert damaged is not None and damaged.guest_os == "test"
    foreign = notes_of(note(1, b"build", name=b"GNU\0"), section)
    assert foreign is not None and foreign.entry == 0x2222


def test_without_any_statement_there_are_no_notes() -> None:
    assert notes_of() is None
    assert notes_of(note(1, b"build", name=b"GNU\0"), Section(b".text", 1, b"code")) is None


def test_the_old_section_counts_only_without_notes() -> None:
    old = Section(b"__xen_guest", 1, b"LOADER=generic,VIRT_BASE=0xffffffff80000000,GUEST_OS=linux\0")
    found = notes_of(b"", old)
    assert found is not None and found.legacy and found.virt_base == 0xFFFFFFFF80000000
    newer = notes_of(xen_notes(), old)
    assert newer is not None and not newer.legacy and newer.guest_os == "test"


def test_the_old_section_of_linux_2_6() -> None:
    text = (
        b"GUEST_OS=linux,GUEST_VER=2.6,XEN_VER=xen-3.0,VIRT_BASE=0xffffffff80000000,"
        b"HYPERCALL_PAGE=0x102,ELF_PADDR_OFFSET=0xffffffff80000000,VIRT_ENTRY=0xffffffff80100000,"
        b"FEATURES=writable_page_tables|!pae_pgdir_above_4gb,PAE=yes[extended-cr3],BSD_SYMTAB,LOADER=generic\0,X=Y"
    )
    assert parse_legacy(text) == XenNotes(
        legacy=True,
        entry=0xFFFFFFFF80100000,
        hypercall_page=0xFFFFFFFF80102000,
        virt_base=0xFFFFFFFF80000000,
        paddr_offset=0xFFFFFFFF80000000,
        loader="generic",
        guest_os="linux",
        guest_version="2.6",
        xen_version="xen-3.0",
        pae_mode="yes[extended-cr3]",
        bsd_symtab=True,
        features_supported=1 << features.XENFEAT_writable_page_tables | 1 << features.XENFEAT_pae_pgdir_above_4gb,
        features_required=1 << features.XENFEAT_pae_pgdir_above_4gb,
    )


@pytest.mark.parametrize(("text", "number"), [(b"4096", 4096), (b"0x1000", 4096), (b"010000", 4096), (b"0", 0)])
def test_numbers_of_the_old_section_are_cs(text: bytes, number: int) -> None:
    assert parse_legacy(b"VIRT_BASE=" + text).virt_base == number


@pytest.mark.parametrize("text", [b"", b"0x", b"-1", b"1e3", b"09", b"0x10000000000000000"])
def test_what_is_no_number_is_refused(text: bytes) -> None:
    with pytest.raises(UserError, match="VIRT_BASE in its __xen_guest section"):
        parse_legacy(b"VIRT_BASE=" + text)


def test_a_feature_nobody_knows_may_be_offered_but_not_required() -> None:
    assert notes_of(note(N.XEN_ELFNOTE_FEATURES, b"time_travel\0")) == XenNotes()
    with pytest.raises(UserError, match="requires the Xen feature 'time_travel'"):
        notes_of(note(N.XEN_ELFNOTE_FEATURES, b"pae_pgdir_above_4gb|!time_travel\0"))


@pytest.mark.parametrize("size", [0, 3, 5, 16])
def test_a_number_of_an_odd_size_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"Xen note 1 is {size} bytes long"):
        notes_of(note(N.XEN_ELFNOTE_ENTRY, bytes(size)))


def test_a_note_longer_than_its_segment_is_refused() -> None:
    with pytest.raises(UserError, match="longer than its segment"):
        notes_of(note(N.XEN_ELFNOTE_ENTRY, 1)[:-4])


def test_too_many_notes_are_refused() -> None:
    assert notes_of(note(1, b"", name=b"") * 4096) is None
    with pytest.raises(UserError, match="too many notes"):
        notes_of(note(1, b"", name=b"") * 4097)


@given(st.binary(max_size=400))
def test_any_bytes_as_notes(raw: bytes) -> None:
    with suppress(UserError):
        notes_of(raw, Section(b".note", SHT_NOTE, raw))


@given(st.text(alphabet="VIRT_BASEHPCL=,|!x0129", max_size=80) | st.binary(max_size=200).map(repr))
def test_any_text_as_old_section(text: str) -> None:
    try:
        values = asdict(parse_legacy(text.encode("latin-1", "replace")))
    except UserError:
        return
    assert set(values) == {field.name for field in fields(XenNotes)} and values["legacy"]
