"""The report on a domain that crashed."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from paravirt import Machine, ShutdownReason
from paravirt.abi.errno import EBUSY, EINVAL, ENOSYS
from paravirt.domain0.builder import parse_kernel
from paravirt.domain0.crash import crash_report
from paravirt.hypervisor.hypercalls.direct import hypercall

from ..oracle import kernels
from ..patience import PATIENCE


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("hostile", tmp_path_factory.mktemp("kernels"))


def report_of(kernel: Path) -> list[str]:
    with Machine(memory=32) as machine:
        domain = machine.create(kernel, cmdline="crash", memory=16)
        assert domain.wait(PATIENCE) is ShutdownReason.CRASH
        assert domain.crash_report is not None
        return domain.crash_report.splitlines()


def test_the_stack_is_shown_in_lines_with_addresses_and_symbols(hostile: Path) -> None:
    lines = report_of(hostile)
    assert max(map(len, lines)) <= 120
    top = next(int(match[1], 16) for line in lines if (match := re.search(r"rsp \w{4}:(\w{16})", line)))
    start, end = lines.index("  stack:") + 1, lines.index("  symbols on it:")
    words = []
    for number, line in enumerate(lines[start:end]):
        found = re.fullmatch(r"    (\w{16}):((?: \w{16}){1,4})", line)
        assert found, line
        assert int(found[1], 16) == top + 32 * number
        words += [int(word, 16) for word in found[2].split()]
    image = parse_kernel(hostile.read_bytes())
    known = [(word, image.symbol(word)) for word in words]
    expected = [f"    {word:016x} ({symbol[0]}+{symbol[1]:#x})" for word, symbol in known if symbol]
    assert lines[end + 1 : end + 1 + len(expected)] == expected
    assert any("(start_guest" in line or "(guest_main" in line or "(start" in line for line in expected)


def test_the_frames_behind_the_registers_are_named(hostile: Path) -> None:
    lines = report_of(hostile)
    text = "\n".join(lines)
    frame = r"frame 0x[0-9a-f]+: domain 1's, %s, \d+ uses, \d+ references, allocated\|"
    assert re.search(r"  page table: " + frame % "L4 table", text)
    for name in ("rip", "rsp"):
        assert re.search(rf"  {name}: mapped by L1 entry \w{{16}} \(frame .*\)\n    to {frame % 'writable'}", text)
    # Nothing faulted, and nothing is mapped at 0.
    assert re.search(r"  cr2: not mapped by L\d entry 0{16} \(frame 0x0, no bits\)\n    in frame", text)


# --- what was refused last ------------------------------------------------------------------------------------------

SCRATCH = 0x800  # bytes below the first stack pointer: where arguments are
DOMID_SELF = 0x7FF0
FRAME = r"frame 0x[0-9a-f]+: domain 1's, {}, \d+ uses, \d+ references, [a-z|]*allocated[a-z|]*"


class Refused:
    """A paused domain, whose kernel asks for things by way of Python."""

    def __init__(self, machine: Machine, kernel: Path) -> None:
        self.domain = machine.create(kernel, memory=16, paused=True)
        self.view = machine.host.domains[self.domain.domid]
        self.vcpu = self.view.vcpus[0]
        self.l4 = self.vcpu.registers["cr3"] >> 12

    def arguments(self, data: bytes) -> int:
        address = self.vcpu.registers["rsp"] - SCRATCH
        self.vcpu.copy_to_guest(address, data)
        return address

    def call(self, number: int, *arguments: int) -> int:
        return int(hypercall(self.vcpu, number, arguments)[0])

    def update(self, mfn: int, index: int, value: int) -> int:
        return self.call(1, self.arguments(struct.pack("<QQ", mfn << 12 | index << 3, value)), 1, 0, DOMID_SELF)

    def extended(self, command: int, mfn: int) -> int:
        return self.call(26, self.arguments(struct.pack("<QQQ", command, mfn, 0)), 1, 0, DOMID_SELF)

    def below(self, table: int) -> int:
        """The frame of the table under the last entry of a table that is in use."""
        entries = struct.unpack("<512Q", self.view.host.memory.read(table << 12, 4096))
        return next(int(entry) >> 12 & 0xFFFFFF for entry in reversed(entries) if entry & 1)

    def report(self) -> str:
        """The part of the report on a crash that is about it."""
        text = crash_report(self.view, self.domain.image, "")
        assert max(map(len, text.splitlines())) <= 120
        return text[text.index("  last refused") : text.index("  stack:")]


@pytest.fixture
def refused(hostile: Path) -> Iterator[Refused]:
    with Machine(memory=32) as machine:
        yield Refused(machine, hostile)


def test_an_entry_that_was_refused_is_decoded_with_its_table_and_its_frame(refused: Refused) -> None:
    l1 = refused.below(refused.below(refused.below(refused.l4)))
    assert refused.update(l1, 3, l1 << 12 | 3) == -EBUSY
    found = re.fullmatch(
        r"  last refused, \d+\.\d{3} ms before: mmu_update MMU_NORMAL_PT_UPDATE, error -EBUSY\n"
        r"    at [0-9a-f]{16} \(\w+\+0x[0-9a-f]+\)\n"
        r"    arguments 0x[0-9a-f]+ 0x1 0x0 0x7ff0\n"
        rf"    L1 entry 3: {l1 << 12 | 3:016x} \(frame {l1:#x}, P RW\)\n"
        rf"      in ({FRAME.format('L1 table')})\n"
        rf"      of ({FRAME.format('L1 table')})\n",
        refused.report(),
    )
    assert found
    assert found[1] == found[2]
    assert f"frame {l1:#x}:" in found[1]


def test_the_entry_deep_in_a_table_for_which_this_is_refused(refused: Refused) -> None:
    """An L2 table is to be pinned: what is wrong is an entry of an L1 table under it."""
    upper, lower = (int(mfn) for mfn in refused.view.p2m[-2:])
    assert refused.update(lower, 7, 0x123 << 12 | 0x81) == 0  # not tables yet: no entries yet
    assert refused.update(upper, 2, lower << 12 | 0x67) == 0
    for mfn in (upper, lower):
        assert refused.view.host.frame_info(mfn)[3] == 1, "nothing maps the last pages"
    assert refused.extended(1, upper) == -EINVAL
    report = refused.report()
    assert "mmuext_op MMUEXT_PIN_L2_TABLE, error -EINVAL\n" in report
    assert re.search(r"    L1 entry 7: 0000000000123081 \(frame 0x123, P PS/PAT\)\n", report)
    assert f"in frame {lower:#x}: domain 1's, L1 table, 1 uses, " in report
    assert "of frame 0x123: " in report


def test_a_frame_that_was_refused(refused: Refused) -> None:
    assert refused.extended(4, int(refused.view.p2m[-1])) == -EINVAL
    assert "mmuext_op MMUEXT_UNPIN_TABLE, error -EINVAL\n" in refused.report()
    assert re.search(rf"\n      {FRAME.format('no type')}\n", refused.report())
    assert refused.extended(0, 0xFFFF_FFFF) == -EINVAL
    assert refused.report().endswith("\n      frame 0xffffffff: there is none of this number\n")


def test_a_descriptor_that_was_refused(refused: Refused) -> None:
    mfn, gate = int(refused.view.p2m[-1]), 0x0000_8E00_0000_0000
    assert refused.call(10, mfn << 12 | 0x18, gate) == -EINVAL
    assert "update_descriptor, error -EINVAL\n" in refused.report()
    assert re.search(rf"    descriptor 3: {gate:016x}\n      in {FRAME.format('no type')}\n$", refused.report())
    assert refused.call(2, refused.arguments(struct.pack("<Q", refused.l4)), 8) == -EINVAL
    assert re.search(rf"set_gdt, error -EINVAL\n(.*\n)*      {FRAME.format('L4 table')}\n$", refused.report())


def test_requests_that_get_a_status_or_are_not_counted(refused: Refused) -> None:
    address = refused.arguments(struct.pack("<QIIHhIQ", 0, 2, 9, 7, 0, 0, 0))
    assert refused.call(20, 0, address, 1) == 0
    assert "grant_table_op GNTTABOP_map_grant_ref, status GNTST_bad_domain\n" in refused.report()
    address = refused.arguments(struct.pack("<QQIIHxxxxxxQ", 0, 1, 0, 0, DOMID_SELF, 1))
    refused.arguments(struct.pack("<QQIIHxxxxxxQ", address + 32, 1, 0, 0, DOMID_SELF, 1))
    assert refused.call(12, 1, address) == 0
    assert "memory_op XENMEM_decrease_reservation, after 0 of its list\n" in refused.report()
    assert "      frame 0x1: the hypervisor's, " in refused.report()


def test_what_succeeds_is_not_remembered(refused: Refused) -> None:
    assert refused.vcpu.refusal is None
    assert refused.call(17, 0, 0) > 0
    assert refused.vcpu.refusal is None
    assert refused.call(17, 99, 0) == -ENOSYS
    last = refused.vcpu.refusal
    assert refused.call(17, 0, 0) > 0
    again = refused.vcpu.refusal
    assert last is not None
    assert again is not None
    assert again.age > last.age
    assert replace(again, age=0) == replace(last, age=0)


def test_a_write_to_a_page_table_that_was_refused(hostile: Path) -> None:
    with Machine(memory=32) as machine:
        domain = machine.create(hostile, cmdline="write", memory=16)
        assert domain.wait(PATIENCE) is ShutdownReason.CRASH
        report = domain.crash_report
    assert report is not None
    assert "an exception for which the guest has no handler (0xe)" in report
    assert re.search(
        r"  last refused, \d+\.\d{3} ms before: write to a page table, error -EBUSY\n"
        r"    at [0-9a-f]{16} \(write_own_table\+0x[0-9a-f]+\)\n"
        rf"    L1 entry \d+: \w+ \(frame .*, P RW\)\n      in {FRAME.format('L1 table')}\n"
        rf"      of {FRAME.format('L1 table')}\n",
        report,
    )
