"""Instructions that fault and are, or are not, carried out for the guest: ports, registers, segments, and code that
cannot be read whole; and copies from and to what is not the guest's."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from . import native
from .native import NEVER

emulate, segments = native.functions("emulate"), native.functions("segments")
guestmem, msr = native.functions("guestmem"), native.functions("msr")

FRAMES = 64
END = FRAMES << 12  # of what is mapped
FIRST_FRAME = 0x3000
HANDLER = 0x5000
RAX, RDX, RBX, RSP, RSI, RDI = 0, 2, 3, 4, 6, 7
CS, SS, DS = 1, 2, 3
GP, PF = 13, 14
HYPERVISORS = 0xFFFF_8000_0000_0000
TSC_AUX = 0xC000_0103
NOP = b"\x90"

# Descriptors: 4 GiB at 0, by their type and privilege level.
PRESENT, SEGMENT = 1 << 47, 1 << 44


def descriptor(kind: int, *, level: int = 3, flags: int = PRESENT | SEGMENT) -> int:
    return 0x00CF_0000_0000_FFFF | flags | kind << 40 | level << 45


CODE32 = descriptor(0xB)
DATA = descriptor(3)


class World:
    """A vcpu of a domain, in 64-bit code, with a stack and handlers for what may come."""

    def __init__(self) -> None:
        self.machine = native.Machine(frames=FRAMES)
        self.guest = native.Guest(self.machine)
        self.vcpu: Any = self.guest.vcpu[0].rec
        self.cpu = self.vcpu.cpu
        self.who = self.machine.at, self.guest.vcpu[0].at
        self.code, self.stack, self.gdt = (self.guest.page() for _ in range(3))
        self.cpu.seg[CS].flags = 0xA0FB00
        self.cpu.gpr[RSP] = self.stack + 0x800
        self.vcpu.gdt_frames[0] = self.gdt >> 12
        for vector in (6, GP, PF):
            self.vcpu.traps[vector].address = HANDLER + vector

    def run(self, code: str, function: Any = None, *, at: int | None = None) -> bool:
        """Whether the instruction was dealt with; if not, nothing is changed."""
        raw = bytes.fromhex(code)
        self.cpu.rip = self.code if at is None else at
        if at is None:
            raw = raw.ljust(16, NOP)
        self.machine.write(self.cpu.rip, raw)
        before = bytes(self.cpu)
        done = bool((function or segments.emulate_segment)(*self.who))
        assert done or bytes(self.cpu) == before
        return done

    def selector(self, value: int) -> int:
        """Put a descriptor into the GDT: a selector of it."""
        self.machine.words(self.gdt >> 12)[2] = value
        return 2 << 3 | 3

    @property
    def fault(self) -> tuple[int, int, int] | None:
        """The vector, error code and address of a page fault, of the handler that was entered."""
        vector = self.cpu.rip - HANDLER
        if vector not in (6, GP, PF):
            return None
        error = int.from_bytes(self.machine.read(self.cpu.gpr[RSP] + 16, 8), "little")
        return vector, error, int.from_bytes(bytes(self.guest.vcpu[0].info)[16:24], "little")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.machine.close()


# --- ports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1])
def test_ports_are_for_those_of_their_level(world: World, level: int) -> None:
    world.vcpu.iopl = level
    for code in ("ec", "ee", "6c", "6e", "e480"):
        world.cpu.gpr[RDI] = world.cpu.gpr[RSI] = world.stack
        assert world.run(code, emulate.emulate_privileged) == (level > 0)


@pytest.mark.parametrize(("port", "size", "may"), [(7, 1, True), (8, 1, False), (7, 2, False), (4, 4, True)])
def test_a_bitmap_ends(world: World, port: int, size: int, may: bool) -> None:
    world.vcpu.iobmp, world.vcpu.iobmp_limit = world.stack, 8
    assert emulate.port_allowed(world.guest.vcpu[0].at, port, size) == may


@pytest.mark.parametrize(
    ("at", "faults_at"),
    [(END, END), (END - 2, END), (END - 4, None), (0x7FFF_FFFF_F000, 0x7FFF_FFFF_F000)],
)
def test_a_string_element_out_of_reach_is_a_page_fault(world: World, at: int, faults_at: int | None) -> None:
    world.vcpu.iopl = 1
    for code, error in (("6d", 2), ("6f", 0)):
        world.cpu.gpr[RDI] = world.cpu.gpr[RSI] = at
        assert world.run(code, emulate.emulate_privileged)
        assert world.fault == (None if faults_at is None else (PF, error, faults_at))
        assert world.cpu.gpr[RDI if error else RSI] == at + (4 if faults_at is None else 0)


@pytest.mark.parametrize("at", [HYPERVISORS, 1 << 62, 1 << 47])
def test_a_string_element_where_no_memory_is(world: World, at: int) -> None:
    world.vcpu.iopl = 1
    world.cpu.gpr[RDI] = world.cpu.gpr[RSI] = at
    assert not world.run("6d", emulate.emulate_privileged)
    assert not world.run("6f", emulate.emulate_privileged)


def test_a_string_element_of_another_segment(world: World) -> None:
    world.vcpu.iopl = 1
    world.cpu.seg[4].base = END
    world.cpu.gpr[RDI] = world.cpu.gpr[RSI] = world.stack
    assert world.run("646d", emulate.emulate_privileged)
    assert world.fault is None, "what ins writes is never in another segment"
    assert world.run("646f", emulate.emulate_privileged)
    assert world.fault == (PF, 0, END + world.stack)


# --- privileged instructions ----------------------------------------------------------------------------------------


def test_debug_registers_that_there_are_not(world: World) -> None:
    assert world.run("0f21f8", emulate.emulate_privileged)
    assert not world.run("440f21c0", emulate.emulate_privileged)
    assert not world.run("440f23c0", emulate.emulate_privileged)


@pytest.mark.parametrize("code", ["0f3808c0", "0f3a08c000", "0f3809c0", "0f0a"])
def test_opcodes_of_other_maps_are_others(world: World, code: str) -> None:
    assert world.run("0f08", emulate.emulate_privileged)
    assert not world.run(code, emulate.emulate_privileged)


def test_tsc_aux_has_32_bits(world: World) -> None:
    assert msr.write_msr(*world.who, TSC_AUX, (1 << 32) - 1)
    assert not msr.write_msr(*world.who, TSC_AUX, 1 << 32)
    assert world.cpu.tsc_aux == (1 << 32) - 1


# --- instructions that end where nothing is mapped ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "function"),
    [("e4", emulate.emulate_privileged), ("ca08", segments.emulate_segment), ("0fb2", segments.emulate_segment)],
)
def test_half_an_instruction_is_none(world: World, code: str, function: Any) -> None:
    world.vcpu.iopl = 1
    assert not world.run(code, function, at=END - len(code) // 2)


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        ("", True),
        ("0f0b", True),
        ("90909090", True),
        ("9090909090", False),
        ("0f0b78656e", True),
        ("0f0b78656e0f", True),
    ],
)
def test_what_could_be_the_prefix_cut_short_is_a_page_fault(world: World, code: str, *, faults: bool) -> None:
    assert world.run(code, emulate.emulate_forced_ud, at=END - len(code) // 2) == faults
    assert world.fault == ((PF, 0, END) if faults else None)


def test_no_instruction_is_none(world: World) -> None:
    world.cpu.rip = END
    assert not emulate.emulate_privileged(*world.who)
    assert not segments.emulate_segment(*world.who)


# --- segments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "answer"),
    [(0, GP << 16), (0x1007, GP << 16 | 0x1004), (0xF, PF << 16 | 0xF), (0x13, GP << 16 | 0x10)],
    ids=["null", "beyond the LDT", "an LDT that is not mapped", "nothing"],
)
def test_a_descriptor_that_cannot_be_read(world: World, selector: int, answer: int) -> None:
    world.vcpu.ldt_base, world.vcpu.ldt_entries = END, 512
    found = ctypes.c_uint64()
    assert segments.check_code(*world.who, selector, native.address(found)) == answer
    assert segments.check_stack(*world.who, selector, 1, native.address(found)) == answer


@pytest.mark.parametrize(("code", "address"), [("8e1b", END), ("0f0023", END), ("0f02c3", None), ("0f0203", END)])
def test_an_operand_that_cannot_be_read(world: World, code: str, address: int | None) -> None:
    world.cpu.gpr[RBX] = END
    assert world.run(code)
    assert world.fault == (None if address is None else (PF, 0, address))


@pytest.mark.parametrize("code", ["48cf", "48cb", "0fa1"])
def test_a_stack_that_cannot_be_read(world: World, code: str) -> None:
    world.cpu.user = 1
    world.vcpu.user_table = world.vcpu.kernel_table
    world.vcpu.kernel_sp = world.stack + 0x800
    world.cpu.gpr[RSP] = END
    assert world.run(code)
    assert world.fault == (PF, 4, END)


@pytest.mark.parametrize("code", ["8ec8", "8ef0", "8ef8"], ids=["cs", "register 6", "register 7"])
def test_registers_that_mov_does_not_load(world: World, code: str) -> None:
    assert world.run("8ed8")
    world.cpu.gpr[RAX] = world.selector(CODE32)
    assert not world.run(code)


@pytest.mark.parametrize("code", ["0fb2c0", "0fb4c0", "0fb5c0"])
def test_a_far_pointer_is_in_memory(world: World, code: str) -> None:
    assert not world.run(code)


LAR, LSL, VERR, VERW = "0f02c3", "0f03c3", "0f00e3", "0f00eb"
AVAILABLE_GATE, BUSY_TSS, LDT, TASK_GATE, TSS_16 = 12, 11, 2, 5, 1


@pytest.mark.parametrize(
    ("value", "succeed"),
    [
        (DATA, {LAR, LSL, VERR, VERW}),
        (descriptor(1), {LAR, LSL, VERR}),
        (CODE32, {LAR, LSL, VERR}),
        (descriptor(9), {LAR, LSL}),
        (descriptor(3, level=0), set()),
        (descriptor(3, level=2), set()),
        (descriptor(0xF, level=0), {LAR, LSL, VERR}),
        (descriptor(LDT, flags=0), {LAR, LSL}),
        (descriptor(BUSY_TSS, flags=0), {LAR, LSL}),
        (descriptor(BUSY_TSS, flags=0, level=0), set()),
        (descriptor(AVAILABLE_GATE, flags=0), {LAR}),
        (descriptor(AVAILABLE_GATE, flags=0, level=0), set()),
        (descriptor(TASK_GATE, flags=0), set()),
        (descriptor(TSS_16, flags=0), set()),
        (0, set()),
    ],
)
def test_what_may_be_asked_of_a_descriptor(world: World, value: int, succeed: set[str]) -> None:
    for code in (LAR, LSL, VERR, VERW):
        world.cpu.gpr[RBX], world.cpu.gpr[RAX] = world.selector(value), 0x1234
        world.cpu.rflags = 2
        assert world.run(code)
        assert bool(world.cpu.rflags & 0x40) == (code in succeed), code
        assert world.cpu.gpr[RAX] == 0x1234 or (code in succeed and code in (LAR, LSL))


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "size", "may"),
    [
        (0, 8, True),
        ((1 << 47) - 8, 8, True),
        ((1 << 47) - 8, 9, False),
        (HYPERVISORS, 8, False),
        (HYPERVISORS + (16 << 39) - 1, 1, False),
        (HYPERVISORS + (16 << 39), 8, True),
        (NEVER - 8, 8, True),
        (NEVER - 7, 16, False),
        (8, NEVER, False),
    ],
)
def test_where_guests_have_memory(at: int, size: int, may: bool) -> None:
    assert bool(guestmem.in_guest_range(at, size)) == may


def test_what_is_mapped_in_the_hypervisors_range_is_not_the_guests(world: World) -> None:
    table = world.machine.words(world.guest.table)
    data = (ctypes.c_uint8 * 8)(*range(8))
    who, here = world.guest.vcpu[0].at, native.address(data)
    for slot, base, answer in ((272, HYPERVISORS + (16 << 39), 0), (256, HYPERVISORS, -14)):
        table[slot] = table[0]
        world.machine.write(world.stack, bytes(8))
        assert guestmem.copy_to_guest(who, base + world.stack, here, 8) == answer
        assert world.machine.read(world.stack, 8) == (bytes(8) if answer else bytes(range(8)))
        assert guestmem.copy_from_guest(who, here, base + world.stack, 8) == answer
