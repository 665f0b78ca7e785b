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
RAX, RCX, RDX, RBX, RSP, RSI, RDI = 0, 1, 2, 3, 4, 6, 7
CS, SS, DS = 1, 2, 3
UD, NP, STACK_FAULT, GP, PF = 6, 11, 12, 13, 14
HYPERVISORS = 0xFFFF_8000_0000_0000
FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX = 0xC000_0100, 0xC000_0101, 0xC000_0102, 0xC000_0103
UCODE_REV, XEN_HYPERCALL = 0x8B, 0x4000_0000
P5_MC_ADDR, P5_MC_TYPE, MC0_STATUS, EFER = 0, 1, 0x401, 0xC000_0080
CR0, OSXSAVE = 0x8005_0033, 1 << 18
SEGDESC, WRITABLE = 5, 7
NOP = b"\x90"

# Descriptors: 4 GiB at 0, by their type and privilege level.
PRESENT, SEGMENT = 1 << 47, 1 << 44


def descriptor(kind: int, *, level: int = 3, flags: int = PRESENT | SEGMENT) -> int:
    return 0x00CF_0000_0000_FFFF | flags | kind << 40 | level << 45


CODE32 = descriptor(0xB)
LAR, LSL, VERR, VERW = "0f02c3", "0f03c3", "0f00e3", "0f00eb"
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
        for vector in (UD, NP, STACK_FAULT, GP, PF):
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

    def leave_kernel(self) -> None:
        """Run a process of the guest's, by the same page tables."""
        self.cpu.user = 1
        self.vcpu.user_table = self.vcpu.kernel_table
        self.vcpu.kernel_sp = self.stack + 0x800

    @property
    def entries(self) -> Any:
        """The L1 table that maps all memory."""
        table = self.guest.table
        for _ in range(3):
            table = self.machine.words(table)[0] >> 12
        return self.machine.words(table)

    def selector(self, value: int) -> int:
        """Put a descriptor into the GDT: a selector of it."""
        self.machine.words(self.gdt >> 12)[2] = value
        return 2 << 3 | 3

    @property
    def fault(self) -> tuple[int, int, int] | None:
        """The vector, error code and address of a page fault, of the handler that was entered."""
        vector = self.cpu.rip - HANDLER
        if vector not in (UD, NP, STACK_FAULT, GP, PF):
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


@pytest.mark.parametrize("number", [1, 5, 6, 7])
def test_control_registers_that_there_are_not_are_undefined(world: World, number: int) -> None:
    for opcode in (0x20, 0x22):
        assert world.run(bytes([0x0F, opcode, 0xC0 | number << 3]).hex(), emulate.emulate_privileged)
        assert world.cpu.rip == HANDLER + UD


@pytest.mark.parametrize("user", [0, 1])
def test_xsetbv_is_undefined_and_its_neighbours_are_not(world: World, user: int) -> None:
    if user:
        world.leave_kernel()
    for code in ("0f0111", "0f01d0", "0f01f1", "0f01e1", "0f00d1"):
        assert not world.run(code, emulate.emulate_privileged), code
    assert world.run("0f01d1", emulate.emulate_privileged)
    assert world.cpu.rip == HANDLER + UD


REFUSED_XCR0 = [(1, 7), (0, 6), (0, 5), (0, 0x27), (0, 0xE3), (0, 0x107), (0, 1 << 32 | 7)]


@pytest.mark.parametrize(("number", "value"), [(0, 1), (0, 3), (0, 7), (0, 0xE7), *REFUSED_XCR0])
def test_what_xcr0_may_hold(world: World, number: int, value: int) -> None:
    may = (number, value) not in REFUSED_XCR0
    world.machine.host.xcr0_states = 0xE7
    world.vcpu.cr4, world.vcpu.xcr0 = OSXSAVE, 1
    world.cpu.gpr[RCX], world.cpu.gpr[RAX], world.cpu.gpr[RDX] = number, value & 0xFFFF_FFFF, value >> 32
    assert world.run("0f01d1", emulate.emulate_privileged) == may
    assert world.vcpu.xcr0 == (value if may else 1)
    assert not world.run("0f01f1", emulate.emulate_privileged), "lmsw"


def test_what_a_control_register_takes(world: World) -> None:
    world.cpu.gpr[RAX] = CR0
    assert world.run("0f22c0", emulate.emulate_privileged)
    world.cpu.gpr[RAX] = CR0 | 8
    assert world.run("0f22c0", emulate.emulate_privileged)
    assert (world.vcpu.guest_ts, world.cpu.ts) == (1, 1)
    world.cpu.gpr[RAX] = CR0 ^ 1 << 16
    assert not world.run("0f22c0", emulate.emulate_privileged)
    world.cpu.gpr[RAX] = END
    assert not world.run("0f22d8", emulate.emulate_privileged), "a table beyond memory"


@pytest.mark.parametrize("code", ["0f06", "0f08", "0f20c0", "0f22c0", "0f21c0", "0f31", "0f32"])
def test_processes_execute_nothing_of_the_kernels(world: World, code: str) -> None:
    world.cpu.gpr[RAX], world.cpu.gpr[RCX] = CR0, TSC_AUX
    assert world.run(code, emulate.emulate_privileged)
    world.cpu.gpr[RAX], world.cpu.gpr[RCX] = CR0, TSC_AUX
    world.leave_kernel()
    assert not world.run(code, emulate.emulate_privileged)


def test_msrs_that_there_are_not(world: World) -> None:
    for code in ("0f32", "0f30"):
        world.cpu.gpr[RCX] = 0x4711_0000
        assert not world.run(code, emulate.emulate_privileged)


def test_what_msrs_take(world: World) -> None:
    for number in (FS_BASE, GS_BASE, KERNEL_GS_BASE):
        assert msr.write_msr(*world.who, number, 0x1000)
        assert not msr.write_msr(*world.who, number, 1 << 47)
    assert (world.cpu.seg[4].base, world.cpu.seg[5].base, world.vcpu.gs_base_kernel) == (0x1000,) * 3
    assert msr.write_msr(*world.who, UCODE_REV, 0)
    assert not msr.write_msr(*world.who, UCODE_REV, 1)
    assert not msr.write_msr(*world.who, 0x4711_0000, 0)


def test_what_msrs_of_processors_take(world: World) -> None:
    found = ctypes.c_uint64()
    assert msr.read_msr(*world.who, EFER, native.address(found))
    assert msr.write_msr(*world.who, EFER, found.value)
    assert not msr.write_msr(*world.who, EFER, found.value ^ 1)
    for number in (P5_MC_ADDR, P5_MC_TYPE):
        assert not msr.write_msr(*world.who, number, 0)
    assert msr.write_msr(*world.who, MC0_STATUS, 0)
    assert not msr.write_msr(*world.who, MC0_STATUS, 1)


def test_reads_of_msrs_that_there_are_not_fault_once_there_is_a_handler(world: World) -> None:
    found = ctypes.c_uint64(1)
    assert not msr.read_msr(*world.who, 0x4711_0000, native.address(found))
    world.vcpu.traps[GP].address = 0
    assert msr.read_msr(*world.who, 0x4711_0000, native.address(found))
    assert found.value == 0


def test_stubs_of_hypercalls_go_to_whole_frames_of_the_guests(world: World) -> None:
    mfn = world.stack >> 12
    frame = world.machine.frames[mfn]
    frame.type, frame.type_refs, frame.refs, frame.flags = WRITABLE, 1, 2, 1 | 4
    assert not msr.write_msr(*world.who, XEN_HYPERCALL, world.stack + 8)
    frame.owner += 1
    assert not msr.write_msr(*world.who, XEN_HYPERCALL, world.stack)
    assert world.machine.read(world.stack, 4096) == bytes(4096)
    frame.owner -= 1
    assert msr.write_msr(*world.who, XEN_HYPERCALL, world.stack)
    assert world.machine.read(world.stack, 3) == b"\x51\x41\x53"
    assert (frame.type_refs, frame.refs) == (1, 2)


def test_a_bitmap_that_is_not_there_or_has_the_bit_allows_nothing(world: World) -> None:
    may, at = emulate.port_allowed, world.guest.vcpu[0].at
    world.vcpu.iobmp, world.vcpu.iobmp_limit = world.stack, 1 << 16
    assert may(at, 9, 1)
    world.machine.write(world.stack, b"\xff\xfd\xff")
    assert may(at, 9, 1)
    assert not may(at, 8, 1)
    assert not may(at, 9, 2)
    world.vcpu.iobmp = END - 1
    world.machine.write(END - 1, b"\0")
    assert not may(at, 0, 1)


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
    assert segments.load_segment(*world.who, DS, selector) == (answer if selector else 0)


def test_the_ldt_ends_where_its_entries_do(world: World) -> None:
    world.vcpu.ldt_base, world.vcpu.ldt_entries = world.gdt, 3
    world.machine.frames[world.gdt >> 12].flags |= 4
    world.machine.frames[world.gdt >> 12].type, world.machine.frames[world.gdt >> 12].type_refs = SEGDESC, 1
    for entry in (2, 3):
        world.machine.words(world.gdt >> 12)[entry] = CODE32
    found = ctypes.c_uint64()
    assert segments.read_descriptor(*world.who, 2 << 3 | 7, native.address(found)) == 0
    assert found.value == CODE32
    assert segments.read_descriptor(*world.who, 3 << 3 | 7, native.address(found)) == GP << 16 | 3 << 3 | 4


LONG, BIG = 1 << 53, 1 << 54
CODE64 = descriptor(0xB) & ~BIG | LONG


@pytest.mark.parametrize(
    ("value", "level", "code", "stack", "data"),
    [
        (CODE32, 3, 0, GP, 0),
        (CODE64, 3, 0, GP, 0),
        (CODE64 | BIG, 3, GP, GP, 0),
        (CODE32, 2, GP, GP, 0),
        (descriptor(0xB, level=2), 3, GP, GP, GP),
        (descriptor(0xF, level=2), 3, 0, GP, 0),
        (descriptor(9), 3, 0, GP, GP),
        (descriptor(0xB, flags=SEGMENT), 3, NP, GP, NP),
        (DATA, 3, GP, 0, 0),
        (DATA, 2, GP, GP, 0),
        (descriptor(1), 3, GP, GP, 0),
        (descriptor(3, level=2), 3, GP, GP, GP),
        (descriptor(3, flags=SEGMENT), 3, GP, STACK_FAULT, NP),
        (descriptor(3, flags=PRESENT), 3, GP, GP, GP),
        (descriptor(0xB, flags=PRESENT), 3, GP, GP, GP),
    ],
)
def test_what_each_register_takes(world: World, value: int, level: int, code: int, stack: int, data: int) -> None:
    selector = world.selector(value) & ~3 | level
    found = ctypes.c_uint64()

    def answer(vector: int) -> int:
        return vector << 16 | 0x10 if vector else 0

    assert segments.check_code(*world.who, selector, native.address(found)) == answer(code)
    assert segments.check_stack(*world.who, selector, 1, native.address(found)) == answer(stack)
    for register, wanted in ((SS, stack), (DS, data)):
        world.cpu.seg[register].selector = 0
        assert segments.load_segment(*world.who, register, selector) == answer(wanted)
        assert world.cpu.seg[register].selector == (0 if wanted else selector)


def test_a_null_selector_is_for_data(world: World) -> None:
    found = ctypes.c_uint64()
    world.machine.words(world.gdt >> 12)[0] = DATA
    for level in range(4):
        assert segments.check_stack(*world.who, level, 1, native.address(found)) == GP << 16
        assert segments.load_segment(*world.who, SS, level) == GP << 16
        assert segments.load_segment(*world.who, DS, level) == 0
    world.machine.words(world.gdt >> 12)[0] = CODE32
    assert segments.check_code(*world.who, 3, native.address(found)) == GP << 16


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (descriptor(0, flags=0), True),
        (descriptor(5, flags=0), True),
        (descriptor(5, flags=PRESENT), False),
        (descriptor(0, flags=PRESENT), True),
        (GATE := descriptor(0xC, flags=PRESENT) & ~0xFFFF_FFFF | 0x33 << 16, True),
        (GATE | 1 << 32, False),
        (GATE & ~0xFFFF_0000 | 0xE033 << 16, True),
        (GATE & ~0xFFFF_0000 | 0xE02B << 16, False),
        (GATE & ~0xFFFF_0000 | 0xE037 << 16, True),
    ],
)
def test_descriptors_that_tables_hold(world: World, value: int, *, kept: bool) -> None:
    found = ctypes.c_uint64(value)
    assert bool(segments.check_descriptor(world.guest.at, native.address(found))) == kept


@pytest.mark.parametrize("code", ["48cf", "48cb", "48ff2b", "48ff1b"], ids=["iret", "lret", "ljmp", "lcall"])
def test_a_far_transfer_that_is_refused_changes_nothing(world: World, code: str) -> None:
    for target, value, fault in (
        (0x1000, CODE64, None),
        (1 << 47, CODE64, (GP, 0)),
        (0x1000, CODE64 | BIG, (GP, 0x10)),
        (0x1_0000_0000, CODE32, (GP, 0)),
        (0x1000, DATA, (GP, 0x10)),
    ):
        selector = world.selector(value)
        memory = target.to_bytes(8, "little") + selector.to_bytes(8, "little") + (2).to_bytes(8, "little")
        at = world.stack + 0x400
        world.machine.write(at, memory + (0x7000).to_bytes(8, "little") + (0xE02B).to_bytes(8, "little"))
        world.cpu.gpr[RSP] = world.cpu.gpr[RBX] = at
        world.cpu.seg[CS].selector, world.cpu.seg[CS].flags = 0xE033, 0xA0FB00
        assert world.run(code)
        if fault is None:
            assert (world.cpu.rip, world.cpu.seg[CS].selector) == (target, selector)
        else:
            assert world.fault is not None
            assert world.fault[:2] == fault


def test_a_native_iret_of_a_nested_task(world: World) -> None:
    words = (0x1000, world.selector(CODE64), 2, world.stack, 0xE02B)
    world.machine.write(world.stack, b"".join(word.to_bytes(8, "little") for word in words))
    for flags, rip in ((0, 0x1000), (1 << 14, HANDLER + GP)):
        world.cpu.gpr[RSP], world.cpu.rflags = world.stack, flags
        world.cpu.seg[CS].flags = 0xA0FB00
        assert world.run("48cf")
        assert world.cpu.rip == rip


def test_pointers_and_stacks_of_far_transfers_that_are_not_there(world: World) -> None:
    for code in ("48ff2b", "48ff1b", "480fb203"):
        for at in (END, END - 4, END - 8):
            world.cpu.gpr[RBX] = at
            assert world.run(code)
            assert world.fault == (PF, 0, at)
    gone = world.guest.page()
    world.entries[gone >> 12] = 0
    world.cpu.gpr[RBX] = gone + 0xFF8
    assert world.run("480fb203")
    assert world.fault == (PF, 0, gone + 0xFF8)
    world.machine.write(world.stack, (0x1000).to_bytes(8, "little") + world.selector(CODE64).to_bytes(2, "little"))
    world.cpu.gpr[RBX], world.cpu.gpr[RSP] = world.stack, END + 0x1000
    world.leave_kernel()
    assert world.run("48ff1b")
    assert world.fault == (PF, 6, END + 0x1000 - 16)


def test_a_query_of_an_ldt_that_is_not_there(world: World) -> None:
    world.vcpu.ldt_base, world.vcpu.ldt_entries = END, 512
    world.cpu.gpr[RBX] = 0xF
    for code in (LAR, LSL, VERR, VERW):
        assert world.run(code)
        assert world.fault == (PF, 0, END + 8)


@pytest.mark.parametrize(("code", "address"), [("8e1b", END), ("0f0023", END), ("0f02c3", None), ("0f0203", END)])
def test_an_operand_that_cannot_be_read(world: World, code: str, address: int | None) -> None:
    world.cpu.gpr[RBX] = END
    assert world.run(code)
    assert world.fault == (None if address is None else (PF, 0, address))


@pytest.mark.parametrize("code", ["48cf", "48cb", "0fa1"])
def test_a_stack_that_cannot_be_read(world: World, code: str) -> None:
    world.leave_kernel()
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


def test_tables_with_holes_and_large_pages_map_nothing(world: World) -> None:
    memory, who = world.machine, world.guest.vcpu[0].at
    data = (ctypes.c_uint8 * 8)()
    l3 = memory.words(world.guest.table)[0] >> 12
    l2 = memory.words(l3)[0] >> 12
    l1 = memory.words(l2)[0] >> 12
    for table, index in ((world.guest.table, 0), (l3, 0), (l2, 0), (l1, world.stack >> 12)):
        entry = memory.words(table)[index]
        for bad in (entry & ~1, entry | 1 << 40, entry | 0x80 if table in (l3, l2) else 0):
            memory.words(table)[index] = bad
            assert guestmem.copy_from_guest(who, native.address(data), world.stack, 8) == -14
            assert guestmem.copy_to_guest(who, world.stack, native.address(data), 8) == -14
        memory.words(table)[index] = entry & ~2
        assert guestmem.copy_from_guest(who, native.address(data), world.stack, 8) == 0
        assert guestmem.copy_to_guest(who, world.stack, native.address(data), 8) == -14
        memory.words(table)[index] = entry
        assert guestmem.copy_to_guest(who, world.stack, native.address(data), 8) == 0
