"""What the hypervisor does in place of an instruction, and when it leaves the guest its fault: the prefix that asks for
emulation, and loads from a hidden or absent part of the machine-to-phys table."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from . import native

DOMID = 3
SLOT = 256  # of an L4, in which the machine-to-phys table is
M2P = 0xFFFF_8000_0000_0000
LOAD = bytes.fromhex("488b03")  # mov (%rbx), %rax
FORCED = b"\x0f\x0bxen\x0f\xa2"  # ud2; .ascii "xen"; cpuid


class Reader:
    """A vcpu about to carry out an instruction."""

    def __init__(self) -> None:
        self.machine = native.Machine()
        self.guest = native.Guest(self.machine, DOMID)
        self.vcpu: Any = self.guest.vcpu[0].rec
        self.numbers = (ctypes.c_uint64 * 64)(*range(1000, 1064))
        self.machine.host.m2p = native.address(self.numbers)
        self.machine.host.m2p_index = 0
        self.machine.words(self.guest.table)[SLOT] = 1
        self.vcpu.cpu.kernel_cr3 = self.guest.table << 12
        self.vcpu.cpu.seg[1].flags = 0xA0FB00
        self.code = self.guest.page()

    def at(self, code: bytes) -> None:
        self.machine.write(self.code, code.ljust(16, b"\x90"))
        self.vcpu.cpu.rip = self.code

    def forced(self, code: bytes) -> bool:
        self.at(code)
        return bool(native.functions("emulate").emulate_forced_ud(self.machine.at, self.guest.vcpu[0].at))

    def load(self, address: int, code: bytes = LOAD, error: int = 0) -> int | None:
        """What is in rax after a load that faulted; None: the guest gets its fault."""
        self.at(code)
        self.vcpu.cpu.gpr[0] = 0
        m2p, who = native.functions("m2pread"), (self.machine.at, self.guest.vcpu[0].at)
        if not m2p.in_machine_to_phys(*who, address) or not m2p.read_machine_to_phys(*who, error, address):
            assert (self.vcpu.cpu.rip, self.vcpu.cpu.gpr[0]) == (self.code, 0)
            return None
        assert self.vcpu.cpu.rip == self.code + len(code)
        return int(self.vcpu.cpu.gpr[0])


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.machine.close()


def test_the_prefix_asks_for_emulation(reader: Reader) -> None:
    assert reader.forced(FORCED)
    assert reader.vcpu.cpu.rip == reader.code + 7


@pytest.mark.parametrize("byte", range(7))
def test_nothing_but_the_whole_prefix_does(reader: Reader, byte: int) -> None:
    assert not reader.forced(FORCED[:byte] + bytes([FORCED[byte] ^ 1]) + FORCED[byte + 1 :])
    assert reader.vcpu.cpu.rip == reader.code


def test_a_load_is_of_the_table(reader: Reader) -> None:
    assert reader.load(M2P) == 1000
    assert reader.load(M2P + 63 * 8) == 1063
    assert reader.load(M2P + 5 * 8, bytes.fromhex("8b03")) == 1005


@pytest.mark.parametrize("error", [2, 0x10])
def test_stores_and_fetches_are_the_guests_fault(reader: Reader, error: int) -> None:
    assert reader.load(M2P, error=error) is None


def test_there_is_nothing_before_the_table_and_behind_it(reader: Reader) -> None:
    assert reader.load(M2P - 8) is None
    assert reader.load(M2P + 63 * 8 + 1) is None
    assert reader.load(M2P + 64 * 8) is None


def test_a_page_table_that_hides_the_table_hides_it(reader: Reader) -> None:
    reader.machine.words(reader.guest.table)[SLOT] = 0
    assert reader.load(M2P) is None


@pytest.mark.parametrize(
    "code",
    ["f0488b03", "668b03", "480fb603", "0fa1", "488903", "0f0b"],
    ids=["lock", "sixteen bits", "another map", "pop of fs", "a store", "no load"],
)
def test_other_instructions_are_the_guests_fault(reader: Reader, code: str) -> None:
    assert reader.load(M2P, bytes.fromhex(code)) is None


def test_an_instruction_that_is_not_there_is_not_carried_out(reader: Reader) -> None:
    reader.code = 1 << 30
    reader.vcpu.cpu.rip = reader.code
    read = native.functions("m2pread").read_machine_to_phys
    assert not read(reader.machine.at, reader.guest.vcpu[0].at, 0, M2P)


def test_half_a_load_is_none(reader: Reader) -> None:
    for code in (LOAD[:2], b"\x48\xa1\0\0"):
        end = reader.machine.host.nr_frames << 12
        reader.machine.write(end - len(code), code)
        reader.vcpu.cpu.rip = end - len(code)
        reader.vcpu.cpu.gpr[0] = 0
        assert not native.functions("m2pread").read_machine_to_phys(reader.machine.at, reader.guest.vcpu[0].at, 0, M2P)
        assert (reader.vcpu.cpu.rip, reader.vcpu.cpu.gpr[0]) == (end - len(code), 0)
