import gzip
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.abi import elfnote
from paravirt.domain0.builder.image import KernelImage, feature_text, parse_kernel
from paravirt.domain0.builder.layout import compute_layout
from paravirt.domain0.builder.pagetables import build_page_tables
from paravirt.errors import UserError

from ._kernels import PACKERS, VIRT_BASE, Kernel, Load, Section, bzimage, kernel, note, xen_notes

GIB = 1 << 30
FRAMES = np.arange(4096, dtype=np.uint64)


def refused(data: bytes, sentence: str) -> None:
    """The kernel is refused with one sentence that contains ``sentence``."""
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        parse_kernel(data)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text


def test_a_plain_kernel() -> None:
    raw = Kernel(
        loads=[Load(0x1000, b"code" * 1024), Load(0x3000, b"data", memsz=0x5000)],
        notes=xen_notes(ENTRY=VIRT_BASE + 0x1010, HYPERCALL_PAGE=VIRT_BASE + 0x2000),
    ).build()
    image = parse_kernel(raw)
    assert [(s.vaddr, s.paddr, bytes(s.data), s.memsz) for s in image.segments] == [
        (VIRT_BASE + 0x1000, 0x1000, b"code" * 1024, 4096),
        (VIRT_BASE + 0x3000, 0x3000, b"data", 0x5000),
    ]
    assert (image.virt_start, image.virt_end) == (VIRT_BASE + 0x1000, VIRT_BASE + 0x8000)
    assert (image.entry, image.hypercall_page) == (VIRT_BASE + 0x1010, VIRT_BASE + 0x2000)
    assert (image.guest_os, image.loader, image.xen_version) == ("test", "generic", "xen-3.0")
    assert image.init_p2m is None and not image.mod_start_pfn and not image.suspend_cancel


@pytest.mark.parametrize("name", sorted(PACKERS))
def test_the_same_kernel_however_packed(name: str) -> None:
    plain = parse_kernel(kernel())
    for wrapped in (
        PACKERS[name](kernel()),
        bzimage(PACKERS[name](kernel())),
        gzip.compress(bzimage(PACKERS[name](kernel()))),
    ):
        image = parse_kernel(wrapped)
        assert [bytes(s.data) for s in image.segments] == [bytes(s.data) for s in plain.segments]
        assert (image.entry, image.notes) == (plain.entry, plain.notes)


def test_an_unpacked_payload() -> None:
    assert parse_kernel(bzimage(kernel())).entry == VIRT_BASE


def test_wrapping_without_end_is_refused() -> None:
    data = kernel()
    for _ in range(5):
        data = gzip.compress(data)
    refused(data, "neither an ELF file, nor a Linux bzImage")


def test_a_payload_of_something_else_is_refused() -> None:
    refused(bzimage(gzip.compress(b"just text")), "What is packed in the kernel file is neither an ELF file")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The kernel file is empty"),
        (b"#!/bin/sh\n", "neither an ELF file, nor a Linux bzImage"),
        (b"\x7fELF", "cut short"),
        (kernel()[:63], "the file ends within its header"),
        (kernel()[:100], "its program headers are missing"),
        (kernel()[:4000], "cut short"),
        (Kernel(machine=3, bits=1).build(), "a 32-bit x86 kernel"),
        (Kernel(machine=62, bits=1).build(), "a 32-bit ELF file for x86-64"),
        (Kernel(machine=183).build(), "another processor (64-bit ARM)"),
        (Kernel(machine=4711).build(), "another processor (ELF machine number 4711)"),
        (Kernel(bits=9).build(), "neither a 32-bit nor a 64-bit"),
        (Kernel().build(), "without Xen notes"),
        (Kernel(loads=[], notes=xen_notes()).build(), "nothing to load"),
        (Kernel(loads=[Load(0, b"")], notes=xen_notes()).build(), "nothing to load"),
    ],
)
def test_what_is_no_kernel_for_us_is_named(data: bytes, sentence: str) -> None:
    refused(data, sentence)


def test_a_big_endian_machine_is_named() -> None:
    raw = bytearray(Kernel().build())
    raw[5] = 2
    raw[18:20] = struct.pack(">H", 22)
    refused(bytes(raw), "another processor (S/390)")


LINUX_NOTES = (
    note(elfnote.XEN_ELFNOTE_GUEST_OS, b"linux\0")
    + note(elfnote.XEN_ELFNOTE_LOADER, b"generic\0")
    + note(elfnote.XEN_ELFNOTE_XEN_VERSION, b"xen-3.0\0")
)


def test_kernels_for_another_kind_of_guest_are_named() -> None:
    loads = [Load(0x1000000, b"code")]
    pvh = note(elfnote.XEN_ELFNOTE_PHYS32_ENTRY, struct.pack("<I", 0x1000000))
    refused(Kernel(loads, pvh, entry=0x1000000).build(), "only as a PVH or HVM guest")
    refused(Kernel(loads, LINUX_NOTES + pvh, entry=0x1000000).build(), "only as a PVH or HVM guest")
    refused(Kernel(loads, LINUX_NOTES, entry=0x1000000).build(), "without CONFIG_XEN_PV")
    both = Kernel(notes=xen_notes(PHYS32_ENTRY=0)).build()
    assert parse_kernel(both).notes.phys32_entry == 0


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({elfnote.XEN_ELFNOTE_LOADER: b"special\0"}, "asks for the loader 'special' and is 'test'"),
        ({elfnote.XEN_ELFNOTE_XEN_VERSION: b"xen-2.0\0"}, "for the Xen interface 'xen-2.0'"),
        ({elfnote.XEN_ELFNOTE_FEATURES: b"!dom0\0"}, "requires to be the control domain"),
        ({elfnote.XEN_ELFNOTE_FEATURES: b"!auto_translated_physmap\0"}, "auto_translated_physmap"),
        ({elfnote.XEN_ELFNOTE_FEATURES: b"!supervisor_mode_kernel\0"}, "supervisor_mode_kernel"),
        ({elfnote.XEN_ELFNOTE_FEATURES: b"!hvm_callback_vector\0"}, "hvm_callback_vector"),
        ({elfnote.XEN_ELFNOTE_BSD_SYMTAB: b"yes\0"}, "asks for its symbol table"),
    ],
)
def test_kernels_that_want_what_cannot_be_had_are_refused(changed: dict[int, bytes], sentence: str) -> None:
    raw = xen_notes() + b"".join(note(kind, desc) for kind, desc in changed.items())
    refused(Kernel(notes=raw).build(), sentence)


def test_linux_insists_on_writable_page_tables_and_boots_all_the_same() -> None:
    text = b"!writable_page_tables|pae_pgdir_above_4gb"
    image = parse_kernel(Kernel(notes=xen_notes() + note(elfnote.XEN_ELFNOTE_FEATURES, text)).build())
    assert feature_text(image.notes.features_required) == "writable_page_tables"
    assert feature_text(image.notes.features_supported) == "writable_page_tables|pae_pgdir_above_4gb"


def test_addresses_without_notes_for_them() -> None:
    """VIRT_BASE is 0 then, and the ELF entry counts; GRUB and Mini-OS are made so."""
    raw = (
        note(elfnote.XEN_ELFNOTE_GUEST_OS, b"Mini-OS\0")
        + note(elfnote.XEN_ELFNOTE_LOADER, b"generic\0")
        + note(elfnote.XEN_ELFNOTE_XEN_VERSION, b"xen-3.0\0")
    )
    image = parse_kernel(Kernel([Load(0x4000, bytes(64))], raw, entry=0x4010).build())
    assert (image.virt_base, image.virt_start, image.entry) == (0, 0x4000, 0x4010)


def test_paddr_offset_is_subtracted() -> None:
    loads = [Load(VIRT_BASE + 0x2000, b"code")]
    raw = xen_notes(PADDR_OFFSET=VIRT_BASE, ENTRY=VIRT_BASE + 0x2000)
    assert parse_kernel(Kernel(loads, raw).build()).virt_start == VIRT_BASE + 0x2000
    contradiction = note(elfnote.XEN_ELFNOTE_PADDR_OFFSET, 0) + LINUX_NOTES
    refused(Kernel(loads, note(elfnote.XEN_ELFNOTE_ENTRY, 0) + contradiction).build(), "VIRT_BASE is not")


def test_the_old_section_implies_virtual_addresses_in_the_file() -> None:
    text = f"GUEST_OS=linux,XEN_VER=xen-3.0,VIRT_BASE={VIRT_BASE:#x},HYPERCALL_PAGE=1,LOADER=generic\0"
    raw = Kernel(
        [Load(VIRT_BASE, bytes(0x3000))],
        sections=[Section(b"__xen_guest", 1, text.encode())],
        entry=VIRT_BASE,
    ).build()
    image = parse_kernel(raw)
    assert (image.paddr_offset, image.virt_start) == (VIRT_BASE, VIRT_BASE)
    assert image.hypercall_page == VIRT_BASE + 0x1000


def test_init_p2m_counts_only_below_the_kernel_and_on_a_page() -> None:
    assert parse_kernel(kernel(INIT_P2M=1 << 39)).init_p2m == 1 << 39
    assert parse_kernel(kernel(INIT_P2M=(1 << 39) + 8)).init_p2m is None
    assert parse_kernel(kernel(INIT_P2M=VIRT_BASE + GIB)).init_p2m is None


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"ENTRY": VIRT_BASE - 1}, "entry point is outside"),
        ({"ENTRY": VIRT_BASE + 0x2001}, "entry point is outside"),
        ({"HYPERCALL_PAGE": VIRT_BASE - 0x1000}, "hypercall page is outside"),
        ({"HYPERCALL_PAGE": VIRT_BASE + 0x2000}, "hypercall page is outside"),
        ({"PADDR_OFFSET": 0x1000}, "does not lie above its own VIRT_BASE"),
        ({"VIRT_BASE": (1 << 64) - 0x1000}, "does not lie above its own VIRT_BASE"),
        ({"VIRT_BASE": VIRT_BASE + 0x10, "ENTRY": VIRT_BASE + 0x10}, "page boundary"),
    ],
)
def test_addresses_that_contradict_each_other(changed: dict[str, int], sentence: str) -> None:
    refused(kernel(**changed), sentence)


@pytest.mark.parametrize(
    ("loads", "sentence"),
    [
        ([Load(0, b"a" * 64), Load(63, b"b")], "overlap in memory"),
        ([Load(0x1000, b"a"), Load(0, b"b", memsz=0x1001)], "overlap in memory"),
        ([Load((1 << 64) - 1, b"aa")], "impossible size"),
    ],
)
def test_segments_that_cannot_be(loads: list[Load], sentence: str) -> None:
    refused(Kernel(loads, xen_notes()).build(), sentence)


def test_a_segment_longer_in_the_file_than_in_memory() -> None:
    raw = bytearray(kernel())
    struct.pack_into("<Q", raw, 64 + 40, 1)
    refused(bytes(raw), "impossible size")


def test_segments_that_share_the_file_are_refused() -> None:
    """Many headers that all point at the whole file would make loading take for ever."""
    raw = bytearray(Kernel([Load(i << 12, b"x" * 2048) for i in range(2)], xen_notes()).build())
    struct.pack_into("<QQQQQ", raw, 64 + 8, 0, 0, 0, len(raw), len(raw))
    struct.pack_into("<QQQQQ", raw, 64 + 56 + 8, 0, 1 << 20, 1 << 20, len(raw), len(raw))
    refused(bytes(raw), "longer together than the file")


def check(image: KernelImage) -> None:
    """What every accepted kernel satisfies, so that the layout may rely on it."""
    assert 0 <= image.virt_base <= image.virt_start < image.virt_end <= 1 << 64
    ordered = sorted(image.segments, key=lambda s: s.vaddr)
    for below, above in pairwise(ordered):
        assert below.end <= above.vaddr
    for segment in image.segments:
        assert len(segment.data) <= segment.memsz
        assert image.virt_start <= segment.vaddr and segment.end <= image.virt_end


BASES: dict[str, Callable[[], bytes]] = {
    "elf": lambda: Kernel(
        notes=xen_notes(HYPERCALL_PAGE=VIRT_BASE + 0x1000),
        sections=[Section(b"__xen_guest", 1, b"VIRT_BASE=1\0"), Section(b".symtab", 2, bytes(48), link=3)],
    ).build(),
    "legacy": lambda: Kernel(
        sections=[Section(b"__xen_guest", 1, b"LOADER=generic,XEN_VER=xen-3.0\0")], entry=0
    ).build(),
    "bzimage": lambda: bzimage(PACKERS["zstd"](kernel())),
}


@settings(max_examples=600, deadline=None)
@given(
    base=st.sampled_from(sorted(BASES)),
    edits=st.lists(
        st.tuples(
            st.integers(0, 400) | st.integers(0, 20000),
            st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8), bytes(7) + b"\x80"]),
        ),
        max_size=4,
    ),
    cut=st.none() | st.integers(0, 20000),
)
def test_a_damaged_kernel_ends_in_a_user_error_or_a_sound_image(
    base: str, edits: list[tuple[int, bytes]], cut: int | None
) -> None:
    raw = bytearray(BASES[base]())
    for at, junk in edits:
        at %= len(raw)
        raw[at : at + len(junk)] = junk
    try:
        image = parse_kernel(bytes(raw[:cut]), limit=1 << 20)
    except UserError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
    else:
        check(image)
        with suppress(UserError):
            layout = compute_layout(image, 4096)
            assert layout.used_pages <= 4096
            assert sum(len(tables) for _, tables in build_page_tables(layout, FRAMES)) < 64


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x7fELF", b"\x7fELF\x02\x01\x01", b"\x1f\x8b", b"BZh9"]))
def test_any_bytes(junk: bytes, magic: bytes) -> None:
    with pytest.raises(UserError):
        parse_kernel(magic + junk, limit=1 << 20)
