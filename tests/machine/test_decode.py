"""Decoding of instructions, against Capstone: lengths, operands, immediates."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import capstone
import pytest
from capstone import x86
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ..hypervisor import native

decode = native.functions("decode", "paravirt.machine")
Insn = native.load_records("paravirt/machine/decode.pxd")["Insn"]
NONE = 255
ORDER = {
    1: ("al", "cl", "dl", "bl"),
    2: ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di"),
    4: ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"),
    8: ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
}
NUMBER = {name: i for names in ORDER.values() for i, name in enumerate(names)}
NUMBER |= {f"r{i}{suffix}": i for i in range(8, 16) for suffix in ("", "d", "w", "b")}
SEGMENT = {"es": 0, "cs": 1, "ss": 2, "ds": 3, "fs": 4, "gs": 5}

disassemblers: dict[bool, Any] = {
    True: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    False: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32),
}
for disassembler in disassemblers.values():
    disassembler.detail = True


def decoded(code: bytes, *, long_mode: bool = True) -> Any:
    """The record that our decoder fills, or None."""
    insn = Insn()
    length = decode.decode(code + bytes(16), len(code), long_mode, native.address(insn))
    assert length == (insn.length if length > 0 else -1)
    assert length <= len(code)
    return insn if length > 0 else None


def capstones(code: bytes, *, long_mode: bool = True) -> Any:
    """Capstone's first instruction, or None."""
    return next(disassemblers[long_mode].disasm(code, 0x1000, 1), None)


def number(insn: Any, register: int) -> int:
    """The number of one of Capstone's general registers; none, or a zero register, is NONE."""
    name = insn.reg_name(register) if register else ""
    return NUMBER.get(name, NONE)


@dataclass(frozen=True)
class Place:
    """A memory operand."""

    base: int
    index: int
    scale: int
    displacement: int
    relative: bool

    @classmethod
    def ours(cls, insn: Any) -> Place:
        return cls(insn.base, insn.index, 1 << insn.scale, insn.displacement, bool(insn.rip_relative))

    @classmethod
    def theirs(cls, insn: Any, operand: Any) -> Place:
        mem = operand.mem
        index = number(insn, mem.index)
        relative = insn.reg_name(mem.base) in ("rip", "eip") if mem.base else False
        base = NONE if relative else number(insn, mem.base)
        return cls(base, index, mem.scale if index != NONE else 1, mem.disp, relative)


# What has memory operands without a ModRM byte.
STRINGS = {0x6C, 0x6D, 0x6E, 0x6F, *range(0xA4, 0xA8), *range(0xAA, 0xB0), 0xD7}
OFFSETS = {0xA0, 0xA1, 0xA2, 0xA3}


def prefixes_of(code: bytes, *, long_mode: bool) -> bytes:
    legacy = b"\x66\x67\xf0\xf2\xf3\x26\x2e\x36\x3e\x64\x65"
    end = 0
    while end < len(code) and (code[end] in legacy or (long_mode and code[end] & 0xF0 == 0x40)):
        end += 1
    return code[:end]


def one_meaning(code: bytes, *, long_mode: bool) -> bool:
    """Whether processors and disassemblers agree on the prefixes: none twice or of two of a kind, REX last."""
    prefixes = prefixes_of(code, long_mode=long_mode)
    segments = sum(prefixes.count(bytes([b])) for b in b"\x26\x2e\x36\x3e\x64\x65")
    rex = [i for i, b in enumerate(prefixes) if long_mode and b & 0xF0 == 0x40]
    return (
        segments <= 1
        and prefixes.count(b"\xf2") + prefixes.count(b"\xf3") <= 1
        and all(prefixes.count(bytes([b])) <= 1 for b in b"\x66\x67\xf0")
        and (not rex or rex == [len(prefixes) - 1])
    )


def left_out(code: bytes, *, long_mode: bool) -> bool:
    """What the decoder refuses on purpose (VEX, EVEX, XOP, 3DNow!, SSE4A), and UD0, UD1 (Capstone is short)."""
    rest = code[len(prefixes_of(code, long_mode=long_mode)) :]
    return (
        rest[0] in (0x62, 0xC4, 0xC5, 0x8F, 0xD6)
        or rest[:2] in (b"\x0f\x0e", b"\x0f\x0f", b"\x0f\x78", b"\x0f\x79")
        or rest[:2] in (b"\x0f\xb9", b"\x0f\xff")
        # Later than the table: CET, UINTR and the like, of which only lengths would matter.
        or rest[:2] in (b"\x0f\x0a", b"\x0f\x04", b"\x0f\x36", b"\x0f\x37", b"\x0f\xa6", b"\x0f\xa7")
    )


def is_near_branch(code: bytes, *, long_mode: bool) -> bool:
    rest = code[len(prefixes_of(code, long_mode=long_mode)) :]
    return rest[0] in (0xC2, 0xE8, 0xE9) or (rest[0] == 0x0F and len(rest) > 1 and 0x80 <= rest[1] <= 0x8F)


def check(code: bytes, *, long_mode: bool) -> None:
    """Compare both decoders on the instruction at the start of ``code``."""
    prefixes = prefixes_of(code, long_mode=long_mode)
    theirs = capstones(code, long_mode=long_mode)
    ours = decoded(code, long_mode=long_mode)
    if theirs is None or not one_meaning(code, long_mode=long_mode):
        return
    if left_out(code, long_mode=long_mode):
        return
    if is_near_branch(code, long_mode=long_mode) and set(b"\x66\x67") & set(prefixes):
        return  # vendors differ over the first, and Capstone is wrong about the second
    text = f"{code.hex()} {theirs.mnemonic} {theirs.op_str}"
    assert ours is not None, text
    assert ours.length == theirs.size, text
    opcode = ours.opcode if ours.map == 0 else None
    for operand in theirs.operands:
        if operand.type != x86.X86_OP_MEM or opcode in STRINGS:
            continue
        if opcode in OFFSETS:
            mask = (1 << (8 * ours.address_size)) - 1
            assert ours.immediate & mask == operand.mem.disp & mask, text
        elif ours.has_modrm:
            assert ours.mod != 3, text
            assert Place.ours(ours) == Place.theirs(theirs, operand), text
            if operand.mem.segment:
                assert ours.segment == SEGMENT[theirs.reg_name(operand.mem.segment)], text
    constants = [o for o in theirs.operands if o.type == x86.X86_OP_IMM]
    branch = theirs.group(capstone.CS_GRP_BRANCH_RELATIVE) and opcode not in (0xC2, 0xCA)
    if len(constants) == 1 and not branch and opcode not in (0xC8, 0xCC, 0xD0, 0xD1):
        size = 2 if opcode in (0xC2, 0xCA) else max(constants[0].size, 1)
        mask = (1 << (8 * size)) - 1
        assert ours.immediate & mask == constants[0].imm & mask, text
    if branch and constants:
        wide = 0xFFFFFFFFFFFFFFFF if long_mode else 0xFFFFFFFF
        assert (0x1000 + ours.length + ours.immediate) & wide == constants[0].imm & wide, text


prefix = st.lists(st.sampled_from(b"\x66\x67\xf0\xf2\xf3\x2e\x64\x65"), max_size=3).map(bytes)
rex = st.one_of(st.just(b""), st.integers(0x40, 0x4F).map(lambda b: bytes([b])))
opcode_map = st.sampled_from([b"", b"", b"\x0f", b"\x0f", b"\x0f\x38", b"\x0f\x3a"])
tail = st.binary(min_size=16, max_size=16)


@settings(max_examples=3000)
@given(prefix, rex, opcode_map, tail)
@example(b"", b"\x48", b"", b"\xb8" + bytes(range(15)))
@example(b"", b"", b"", b"\xa0" + bytes(range(15)))
def test_64_bit_code_decodes_as_capstone_decodes_it(prefix: bytes, rex: bytes, opcode_map: bytes, tail: bytes) -> None:
    check((prefix + rex + opcode_map + tail)[:15], long_mode=True)


@settings(max_examples=2000)
@given(prefix, opcode_map, tail)
def test_32_bit_code_decodes_as_capstone_decodes_it(prefix: bytes, opcode_map: bytes, tail: bytes) -> None:
    check((prefix + opcode_map + tail)[:15], long_mode=False)


@pytest.mark.parametrize("long_mode", [True, False])
@pytest.mark.parametrize("start", [b"", b"\x66", b"\x0f", b"\x66\x0f", b"\xf3\x0f", b"\x67", b"\xf2\x0f\x38"])
@pytest.mark.parametrize("modrm", [0x00, 0x04, 0x05, 0x4C, 0x94, 0xC8, 0xF9])
def test_every_opcode(start: bytes, modrm: int, *, long_mode: bool) -> None:
    for opcode in range(256):
        check((start + bytes([opcode, modrm]) + bytes(range(0x81, 0x8E)))[:15], long_mode=long_mode)


@given(prefix, rex, opcode_map, tail, st.booleans())
def test_a_cut_instruction_is_refused(
    prefix: bytes, rex: bytes, opcode_map: bytes, tail: bytes, long_mode: bool
) -> None:
    code = prefix + rex + opcode_map + tail
    whole = decoded(code[:15], long_mode=long_mode)
    if whole is not None:
        for length in range(whole.length):
            assert decoded(code[:length], long_mode=long_mode) is None
        same = decoded(code[: whole.length], long_mode=long_mode)
        assert bytes(same) == bytes(whole)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("c5f877", "VEX"),
        ("62f17c4858c0", "EVEX"),
        ("8fe97880c0", "XOP"),
        ("0f0fc09e", "3DNow!"),
        ("06", "push es"),
        ("ea0000000033e0", "far jump with a constant"),
        ("ce", "into"),
        ("0f04", "no instruction"),
        ("66" * 15 + "90", "longer than fifteen bytes"),
        ("", "nothing"),
        ("48", "a prefix alone"),
    ],
)
def test_what_64_bit_code_does_not_have(code: str, why: str) -> None:
    assert decoded(bytes.fromhex(code)) is None, why


@pytest.mark.parametrize(
    ("code", "size"),
    [
        ("0f20c0", 3),
        ("0f2018", 3),
        ("0f2284", 3),
        ("0f2304", 3),
    ],
)
def test_control_registers_have_no_memory_form(code: str, size: int) -> None:
    insn = decoded(bytes.fromhex(code))
    assert (insn.length, insn.mod) == (size, 3)


def test_only_the_last_rex_counts() -> None:
    assert decoded(bytes.fromhex("48668b03")).size == 2
    assert decoded(bytes.fromhex("66488b03")).size == 8
    assert decoded(bytes.fromhex("41488b03")).rex == 0x48


# --- addresses --------------------------------------------------------------------------------------------------

Cpu = native.RECORDS["Cpu"]
MASK = {2: 0xFFFF, 4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}
LONG_CODE, CODE_32 = 0xA0FB00, 0xC0FB00


def random_cpu(seed: int, *, long_mode: bool) -> Any:
    cpu = Cpu()
    for i in range(16):
        seed = (seed * 6364136223846793005 + 1442695040888963407) & MASK[8]
        cpu.gpr[i] = seed
    cpu.rip = seed >> 3
    for i in range(6):
        cpu.seg[i].base = (seed >> (5 * i)) & 0xFFFFF000
    cpu.seg[1].flags = LONG_CODE if long_mode else CODE_32
    return cpu


@settings(max_examples=1000)
@given(prefix, rex, st.binary(min_size=6, max_size=6), st.integers(0, 1 << 64), st.booleans())
def test_effective_address(prefix: bytes, rex: bytes, tail: bytes, seed: int, long_mode: bool) -> None:
    # mov eax, [...]: every form of memory operand
    insn = decoded(prefix + (rex if long_mode else b"") + b"\x8b" + tail, long_mode=long_mode)
    if insn is None or insn.mod == 3:
        return
    cpu = random_cpu(seed, long_mode=long_mode)
    offset = insn.displacement
    if insn.rip_relative:
        offset += cpu.rip + insn.length
    if insn.base != NONE:
        offset += cpu.gpr[insn.base]
    if insn.index != NONE:
        offset += cpu.gpr[insn.index] << insn.scale
    offset &= MASK[insn.address_size]
    segment = insn.segment if insn.segment != NONE else (2 if insn.base in (4, 5) else 3)
    if long_mode:
        expected = offset + (cpu.seg[segment].base if segment in (4, 5) else 0)
    else:
        expected = (offset + cpu.seg[segment].base) & MASK[4]
    assert decode.effective_address(ctypes.addressof(cpu), native.address(insn)) == expected & MASK[8]
