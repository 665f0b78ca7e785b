"""Writes carried out for a guest leave what the processor leaves: each is also executed by the Unicorn engine."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from . import native

unicorn: Any = importlib.import_module("unicorn")  # it is not typed
x86: Any = importlib.import_module("unicorn.x86_const")

RECORDS = native.load_records(
    "paravirt/machine/cpu.pxd",
    "paravirt/hypervisor/records.pxd",
    "paravirt/machine/decode.pxd",
    "paravirt/hypervisor/ptwrite.pxd",
)
decode = native.functions("decode", "paravirt.machine")
ptwrite = native.functions("ptwrite")

CODE, DATA, STACK = 0x10000, 0x20000, 0x21000
CF, PF, AF, ZF, SF, DF, OF = 1, 4, 0x10, 0x40, 0x80, 0x400, 0x800
ARITHMETIC = CF | PF | AF | ZF | SF | OF
REGISTERS = [
    getattr(x86, f"UC_X86_REG_{name}")
    for name in ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{n}" for n in range(8, 16)))
]
RAX, RCX, RDX, RBX, RSP, RSI, RDI = 0, 1, 2, 3, 4, 6, 7


class State(NamedTuple):
    """What an instruction may change: registers, rip, flags, the eight bytes at DATA, those below STACK."""

    registers: tuple[int, ...]
    rip: int
    flags: int
    memory: bytes
    pushed: bytes


class Case(NamedTuple):
    """An instruction, where its operand lies within the eight bytes, and the flags that it leaves undefined."""

    code: bytes
    offset: int
    undefined: int = 0
    target: int = DATA


machine = native.Machine(frames=64)
guest = native.Guest(machine)
engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
engine.mem_map(0, 64 * 4096)


def on_engine(case: Case, before: State) -> State:
    engine.mem_write(CODE, case.code)
    engine.ctl_remove_cache(CODE, CODE + 16)
    engine.mem_write(DATA, before.memory)
    engine.mem_write(STACK - 8, before.pushed)
    for number, value in zip(REGISTERS, before.registers, strict=True):
        engine.reg_write(number, value)
    engine.reg_write(x86.UC_X86_REG_EFLAGS, before.flags | 2)
    engine.emu_start(CODE, 0xFFFFFFFF, count=1)
    return State(
        tuple(engine.reg_read(number) for number in REGISTERS),
        engine.reg_read(x86.UC_X86_REG_RIP),
        engine.reg_read(x86.UC_X86_REG_EFLAGS) & ARITHMETIC,
        bytes(engine.mem_read(DATA, 8)),
        bytes(engine.mem_read(STACK - 8, 8)),
    )


def planned(case: Case, before: State) -> tuple[int, State]:
    """The hypervisor's answer, and the state that it leaves."""
    insn, plan = RECORDS["Insn"](), RECORDS["WritePlan"]()
    new = ctypes.c_uint64()
    vcpu: Any = guest.vcpu[0].rec
    code = (ctypes.c_uint8 * 15).from_buffer_copy(case.code.ljust(15, b"\x90"))
    vcpu.cpu.seg[1].flags = 0xA0FB00
    vcpu.cpu.gpr[:] = before.registers
    vcpu.cpu.rip = CODE
    vcpu.cpu.rflags = before.flags | 2
    machine.write(DATA, before.memory)
    assert decode.decode(native.address(code), 15, 1, native.address(insn)) == len(case.code)
    at = case.target
    old = int.from_bytes(before.memory if at == DATA else before.pushed, "little")
    answer = ptwrite.plan_write(
        guest.vcpu[0].at, native.address(insn), at + case.offset, old, native.address(new), native.address(plan)
    )
    if answer == 0:
        ptwrite.finish_write(guest.vcpu[0].at, native.address(insn), native.address(plan))
    word = new.value.to_bytes(8, "little")
    return answer, State(
        tuple(vcpu.cpu.gpr),
        vcpu.cpu.rip,
        vcpu.cpu.rflags & ARITHMETIC,
        word if at == DATA else before.memory,
        word if at != DATA else before.pushed,
    )


def check(case: Case, before: State) -> None:
    answer, ours = planned(case, before)
    assert answer == 0, case.code.hex()
    theirs = on_engine(case, before)
    if b"\x0f\xb1" in case.code and theirs.flags & ZF:
        # The engine clears the upper half of rax though it writes nothing there; a processor does not.
        theirs = theirs._replace(registers=before.registers)
    kept = ~case.undefined
    assert ours._replace(flags=ours.flags & kept) == theirs._replace(flags=theirs.flags & kept), case.code.hex()


# --- instructions -----------------------------------------------------------------------------------------------

word = st.one_of(
    st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 1 << 31, 1 << 63, (1 << 64) - 1])
)
LOGIC = (1, 4, 6)
KINDS = (
    *("alu", "alu_constant", "xchg", "mov", "mov_constant", "inc_dec", "not_neg"),
    *("cmpxchg", "xadd", "movnti", "cmpxchg8b", "bits"),
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """An instruction with a memory operand at [rdi + displacement]."""
    kind = draw(st.sampled_from(KINDS))
    byte = draw(st.booleans()) and kind not in ("movnti", "cmpxchg8b", "bits")
    size = 1 if byte else draw(st.sampled_from([4, 8] if kind == "movnti" else [2, 4, 8]))
    if kind == "cmpxchg8b":
        size = 4
    reg = draw(st.integers(0, 15))
    width = 8 if kind == "cmpxchg8b" else size
    offset = draw(st.integers(0, (8 - width) // width)) * width
    wide = 0 if byte else 1
    number = draw(st.integers(0, 6))
    constant, undefined, escape = b"", 0, b""
    if kind == "alu":
        opcode, undefined = number * 8 + wide, AF if number in LOGIC else 0
    elif kind == "alu_constant":
        short = draw(st.booleans())
        opcode, reg = 0x80 if byte else (0x83 if short else 0x81), number
        undefined = AF if number in LOGIC else 0
        constant = draw(st.binary(min_size=4, max_size=4))[: 1 if byte or short else min(size, 4)]
    elif kind == "xchg":
        opcode = 0x86 + wide
    elif kind == "mov":
        opcode = 0x88 + wide
    elif kind == "mov_constant":
        opcode, reg, constant = 0xC6 + wide, 0, draw(st.binary(min_size=4, max_size=4))[: min(size, 4)]
    elif kind == "inc_dec":
        opcode, reg = 0xFE + wide, number & 1
    elif kind == "not_neg":
        opcode, reg = 0xF6 + wide, 2 + (number & 1)
    else:
        escape = b"\x0f"
        if kind == "cmpxchg":
            opcode = 0xB0 + wide
        elif kind == "xadd":
            opcode = 0xC0 + wide
        elif kind == "movnti":
            opcode = 0xC3
        elif kind == "cmpxchg8b":
            opcode, reg = 0xC7, 1
        else:
            opcode, reg, undefined = 0xBA, draw(st.integers(5, 7)), OF | SF | AF | PF
            constant = draw(st.binary(min_size=1, max_size=1))
    rex = (8 if size == 8 else 0) | (4 if reg > 7 else 0)
    prefix = (b"\x66" if size == 2 else b"") + (bytes([0x40 | rex]) if rex or draw(st.booleans()) else b"")
    code = prefix + escape + bytes([opcode, 0x47 | (reg & 7) << 3, offset]) + constant
    return Case(code, offset, undefined)


@st.composite
def states(draw: st.DrawFn) -> State:
    registers = draw(st.lists(word, min_size=16, max_size=16))
    memory = draw(st.binary(min_size=8, max_size=8))
    if draw(st.booleans()):  # so that comparisons succeed too
        registers[RAX] = int.from_bytes(memory, "little")
        registers[RDX] = registers[RAX] >> 32
    registers[RDI], registers[RSP] = DATA, STACK
    flags = draw(st.integers(0, ARITHMETIC)) & ARITHMETIC
    return State(tuple(registers), CODE, flags, memory, draw(st.binary(min_size=8, max_size=8)))


@settings(max_examples=1500, deadline=None)
@given(cases(), states())
def test_an_instruction_leaves_what_the_engine_leaves(case: Case, before: State) -> None:
    check(case, before)


@given(st.integers(-64, 63), st.sampled_from([0xAB, 0xB3, 0xBB]), st.sampled_from([2, 4, 8]), states())
def test_a_bit_string_reaches_beyond_its_operand(bit: int, opcode: int, size: int, before: State) -> None:
    registers = list(before.registers)
    registers[RCX] = bit & ((1 << 64) - 1)
    registers[RDI] = DATA - (bit // (8 * size)) * size
    prefix = b"\x66" if size == 2 else (b"\x48" if size == 8 else b"")
    case = Case(prefix + bytes([0x0F, opcode, 0x0F]), 0, OF | SF | AF | PF)
    check(case, before._replace(registers=tuple(registers)))


@given(st.integers(0, 15), states())
@example(RSP, State((0,) * 4 + (STACK,) + (0,) * 11, CODE, 0, bytes(8), bytes(8)))
def test_push(register: int, before: State) -> None:
    code = (b"\x41" if register > 7 else b"") + bytes([0x50 | register & 7])
    check(Case(code, 0, 0, STACK - 8), before)


@given(st.binary(min_size=4, max_size=4), st.booleans(), states())
def test_push_of_a_constant(constant: bytes, short: bool, before: State) -> None:
    code = b"\x6a" + constant[:1] if short else b"\x68" + constant
    check(Case(code, 0, 0, STACK - 8), before)


@given(st.sampled_from([1, 2, 4, 8]), st.booleans(), st.booleans(), states())
def test_stos_and_movs(size: int, copies: bool, down: bool, before: State) -> None:
    registers = list(before.registers)
    registers[RSI] = DATA + 0x100
    opcode = (0xA4 if copies else 0xAA) + (size > 1)
    prefix = b"\x66" if size == 2 else (b"\x48" if size == 8 else b"")
    source = registers[RBX].to_bytes(8, "little")
    machine.write(DATA + 0x100, source)
    engine.mem_write(DATA + 0x100, source)
    case = Case(prefix + bytes([opcode]), 0)
    check(case, before._replace(registers=tuple(registers), flags=before.flags | (DF if down else 0)))


@given(st.integers(1, 5), states())
def test_rep_stos_goes_on_until_the_last_element(count: int, before: State) -> None:
    registers = list(before.registers)
    registers[RCX] = count
    case = Case(b"\xf3\x48\xab", 0)
    answer, after = planned(case, before._replace(registers=tuple(registers)))
    assert answer == 0
    assert after.registers[RCX] == count - 1
    assert after.registers[RDI] == DATA + 8
    assert after.rip == (CODE if count > 1 else CODE + 3)


PLAIN = State((0,) * 4 + (STACK, 0, DATA + 0x100, DATA) + (0,) * 8, CODE, 0, bytes(8), bytes(8))


@pytest.mark.parametrize(
    ("code", "offset", "why"),
    [
        ("48894704", 4, "spans two words"),
        ("3907", 0, "compares"),
        ("8b07", 0, "reads"),
        ("89c0", 0, "registers only"),
        ("0fa307", 0, "bt"),
        ("0f1107", 0, "vectors"),
        ("8c07", 0, "a segment register"),
        ("66abab", 8, "another place than the fault's"),
        ("6650", 0, "a push of two bytes"),
        ("67ab", 0, "a string at a 32-bit address"),
        ("64a5", 0, "a string from another segment"),
        ("65a5", 0, "a string from yet another segment"),
        ("660fc70f", 0, "cmpxchg8b of a size that there is not"),
        ("480fc70f", 0, "cmpxchg16b"),
        ("f3ab", 0, "rep with nothing to do"),
        ("f3a5", 0, "rep with nothing to copy"),
        ("0f38ab07", 0, "opcode AB of a third map"),
    ],
)
def test_what_is_not_carried_out(code: str, offset: int, why: str) -> None:
    raw = bytes.fromhex(code)
    size = 2 if why.startswith("another") else len(raw)
    target = STACK - 8 if raw[-1] == 0x50 else DATA
    answer, after = planned(Case(raw[:size], offset, 0, target), PLAIN)
    assert answer == -1, why
    assert after.registers == PLAIN.registers
    assert after.rip == CODE


def test_a_string_from_where_no_memory_is_writes_nothing() -> None:
    registers = list(PLAIN.registers)
    for source, answer in ((64 * 4096 - 4, 0), (64 * 4096, -1), (64 * 4096 - 2, -1)):
        registers[RSI] = source
        assert planned(Case(b"\xa5", 0), PLAIN._replace(registers=tuple(registers)))[0] == answer


def test_what_cannot_be_read_is_not_copied() -> None:
    nowhere = PLAIN._replace(registers=(*PLAIN.registers[:RSI], 1 << 30, *PLAIN.registers[RDI:]))
    answer, after = planned(Case(b"\xa5", 0), nowhere)
    assert (answer, after) == (-1, nowhere._replace(memory=after.memory))


def test_a_register_is_no_memory_wherever_the_fault_was() -> None:
    for code in ("89c0", "48ffc0", "0fabc8"):
        answer, after = planned(Case(bytes.fromhex(code), 0, 0, 0), PLAIN)
        assert (answer, after.registers, after.rip) == (-1, PLAIN.registers, CODE)


@pytest.mark.parametrize("code", ["0f5107", "0f6807", "0f6a07"])
def test_opcodes_of_pushes_in_another_map_push_nothing(code: str) -> None:
    answer, after = planned(Case(bytes.fromhex(code), 0, 0, STACK - 8), PLAIN)
    assert (answer, after.registers, after.rip) == (-1, PLAIN.registers, CODE)
