import ctypes
import gzip
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from paravirt.abi.xen import SIF_MOD_START_PFN, StartInfo
from paravirt.domain0.builder import BuiltDomain, build_domain, parse_kernel
from paravirt.domain0.builder.pagetables import build_page_tables
from paravirt.errors import HypervisorBug, UserError

from ._kernels import VIRT_BASE, Kernel, Load, kernel, xen_notes

PAGE = 4096
NR_PAGES = 2048
RAMDISK = random.Random(3).randbytes(10_000)


class Domain:
    """A new domain of 8 MiB that remembers what was done to it, in order."""

    domid = 7
    shared_info_mfn = 0x1234567

    def __init__(self, nr_pages: int = NR_PAGES) -> None:
        frames = np.random.default_rng(0).permutation(3 * nr_pages)[:nr_pages]
        self._p2m = frames.astype(np.uint64) + np.uint64(1 << 20)
        self.memory = bytearray(nr_pages * PAGE)
        self.done: list[str] = []
        self.hypercall_page = -1
        self.pinned = -1
        self.context: dict[str, int] = {}

    @property
    def p2m(self) -> NDArray[np.uint64]:
        return self._p2m

    def write(self, pfn: int, offset: int, data: bytes | memoryview) -> None:
        at = pfn * PAGE + offset
        assert at >= 0 and at + len(data) <= len(self.memory)
        self.memory[at : at + len(data)] = data
        self.done.append("write")

    def set_hypercall_page(self, pfn: int) -> None:
        self.hypercall_page = pfn
        self.done.append("hypercall page")

    def pin_l4(self, pfn: int) -> None:
        self.pinned = pfn
        self.done.append("pin")

    def set_context(self, *, rip: int, rsp: int, rsi: int, cr3_pfn: int) -> None:
        self.context = {"rip": rip, "rsp": rsp, "rsi": rsi, "cr3_pfn": cr3_pfn}
        self.done.append("context")

    def read(self, pfn: int, size: int) -> bytes:
        return bytes(self.memory[pfn * PAGE : pfn * PAGE + size])


def build(
    domain: Domain, kernel: bytes, ramdisk: bytes | None = None, cmdline: str = "", nr_pages: int = NR_PAGES
) -> BuiltDomain:
    return build_domain(domain, kernel, ramdisk, cmdline, console_port=2, store_port=1, nr_pages=nr_pages)


def start_info(domain: Domain, built: BuiltDomain) -> StartInfo:
    raw = domain.read(built.layout.start_info_pfn, ctypes.sizeof(StartInfo))
    return StartInfo.from_buffer_copy(raw)


def test_a_domain_with_everything_in_the_initial_mapping() -> None:
    domain = Domain()
    loads = [Load(0x1000, b"code" * 2000), Load(0x5000, b"data", memsz=0x3000)]
    raw = Kernel(loads, xen_notes(ENTRY=VIRT_BASE + 0x1004, HYPERCALL_PAGE=VIRT_BASE + 0x2000)).build()
    built = build(domain, raw, RAMDISK, "console=hvc0 quiet")
    layout = built.layout

    assert domain.read(1, 8000) == b"code" * 2000
    assert domain.read(5, 0x3000) == b"data" + bytes(0x2FFC)
    assert layout.ramdisk is not None
    assert domain.read(layout.ramdisk.pfn, 3 * PAGE) == RAMDISK + bytes(3 * PAGE - len(RAMDISK))
    assert domain.read(layout.p2m.pfn, NR_PAGES * 8) == domain.p2m.tobytes()
    for pfn, tables in build_page_tables(layout, domain.p2m):
        assert domain.read(pfn, tables.nbytes) == tables.tobytes()
    for blank in (layout.store_pfn, layout.console_pfn, layout.boot_stack_pfn):
        assert domain.read(blank, PAGE) == bytes(PAGE)

    info = start_info(domain, built)
    assert info.magic == b"xen-3.0-x86_64"
    assert info.nr_pages == NR_PAGES
    assert info.shared_info == 0x1234567000
    assert info.flags == 0
    assert (info.store_mfn, info.store_evtchn) == (domain.p2m[layout.store_pfn], 1)
    assert (info.console.domU.mfn, info.console.domU.evtchn) == (domain.p2m[layout.console_pfn], 2)
    assert info.pt_base == VIRT_BASE + layout.page_tables.pfn * PAGE
    assert info.nr_pt_frames == layout.page_tables.pages
    assert info.mfn_list == VIRT_BASE + layout.p2m.pfn * PAGE
    assert info.mod_start == VIRT_BASE + layout.ramdisk.pfn * PAGE
    assert info.mod_len == 3 * PAGE
    assert info.cmd_line == b"console=hvc0 quiet"
    assert (info.first_p2m_pfn, info.nr_p2m_frames) == (0, 0)

    assert domain.hypercall_page == 2
    assert domain.pinned == layout.page_tables.pfn
    assert domain.context == {
        "rip": VIRT_BASE + 0x1004,
        "rsp": VIRT_BASE + (layout.boot_stack_pfn + 1) * PAGE,
        "rsi": VIRT_BASE + layout.start_info_pfn * PAGE,
        "cr3_pfn": layout.page_tables.pfn,
    }
    assert domain.done[-3:] == ["hypercall page", "pin", "context"]
    assert set(domain.done[:-3]) == {"write"}
    assert (built.console_mfn, built.store_mfn) == (info.console.domU.mfn, info.store_mfn)
    assert (built.console_pfn, built.store_pfn) == (layout.console_pfn, layout.store_pfn)


def test_a_domain_as_linux_wants_it() -> None:
    domain = Domain()
    built = build(domain, kernel(INIT_P2M=1 << 39, MOD_START_PFN=1), RAMDISK)
    layout, info = built.layout, start_info(domain, built)
    assert layout.ramdisk is not None and layout.p2m_frames is not None
    assert domain.read(layout.ramdisk.pfn, len(RAMDISK)) == RAMDISK
    assert domain.read(layout.p2m.pfn, NR_PAGES * 8) == domain.p2m.tobytes()
    assert info.flags == SIF_MOD_START_PFN
    assert (info.mod_start, info.mod_len) == (layout.ramdisk.pfn, 3 * PAGE)
    assert info.mfn_list == 1 << 39
    assert (info.first_p2m_pfn, info.nr_p2m_frames) == (layout.p2m.pfn, layout.p2m.pages + 3)
    for pfn, tables in build_page_tables(layout, domain.p2m):
        assert domain.read(pfn, tables.nbytes) == tables.tobytes()
    assert domain.hypercall_page == -1 and "hypercall page" not in domain.done


def test_a_compressed_ramdisk_stays_compressed() -> None:
    domain = Domain()
    packed = gzip.compress(RAMDISK)
    built = build(domain, kernel(), packed)
    assert built.layout.ramdisk is not None
    assert domain.read(built.layout.ramdisk.pfn, len(packed)) == packed


def test_no_ramdisk_and_a_parsed_kernel() -> None:
    domain = Domain()
    image = parse_kernel(kernel(MOD_START_PFN=1))
    built = build_domain(domain, image, None, "", console_port=2, store_port=1, nr_pages=NR_PAGES)
    info = start_info(domain, built)
    assert (info.flags, info.mod_start, info.mod_len) == (0, 0, 0)
    assert built.image is image


def test_the_command_line_may_have_1023_bytes() -> None:
    domain = Domain()
    built = build(domain, kernel(), cmdline="x" * 1023)
    assert start_info(domain, built).cmd_line == b"x" * 1023
    for line, sentence in (("x" * 1024, "has 1024 bytes"), ("é" * 512, "has 1024 bytes"), ("a\0b", "NUL")):
        untouched = Domain()
        with pytest.raises(UserError, match=sentence):
            build(untouched, kernel(), cmdline=line)
        assert untouched.done == []


@given(st.text(max_size=300).filter(lambda text: "\0" not in text))
def test_any_command_line_arrives_or_is_refused(line: str) -> None:
    domain = Domain()
    try:
        built = build(domain, kernel(), cmdline=line)
    except UserError:
        assert domain.done == []
    else:
        assert start_info(domain, built).cmd_line == line.encode()


def test_what_cannot_be_built_leaves_the_domain_alone() -> None:
    for raw, ramdisk, nr_pages, sentence in (
        (b"", None, NR_PAGES, "The kernel file is empty"),
        (kernel(), b"", NR_PAGES, "The ramdisk file is empty"),
        (kernel(), None, 256, "needs at least 4 MiB"),
        (kernel(), bytes(9 << 20), NR_PAGES, "with its ramdisk needs at least 12 MiB"),
        (kernel(), None, 0, "without memory"),
    ):
        domain = Domain()
        with pytest.raises(UserError, match=sentence):
            build(domain, raw, ramdisk, nr_pages=nr_pages)
        assert domain.done == []


def test_a_domain_with_too_few_frames_is_our_own_mistake() -> None:
    with pytest.raises(HypervisorBug, match="domain 7 has 2048 frames, but 4096"):
        build(Domain(), kernel(), nr_pages=4096)
