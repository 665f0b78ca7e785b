# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""A small decoder of x86 instructions: prefixes, opcode, ModRM operand and immediate.

It covers the integer instructions of the one-byte and 0F maps, which is what a hypervisor must carry out for a
guest: privileged instructions, segment loads, and writes to page tables.  What it does not know (VEX, EVEX, 3DNow!,
far jumps with an immediate in 64-bit mode) it refuses.  (Intel SDM volume 2, chapter 2 and appendix A.)
"""

import cython
from cython.cimports.paravirt.machine.cpu import (
    SEG_CS,
    SEG_DS,
    SEG_ES,
    SEG_FS,
    SEG_GS,
    SEG_SS,
    ConstBytePtr,
    ConstCpuPtr,
    i64,
    u8,
    u32,
    u64,
)
from cython.cimports.paravirt.machine.decode import ConstInsnPtr, InsnPtr

NO_REGISTER = cython.declare(u8, 255)
BAD = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)


def parse_prefixes(
    code: ConstBytePtr, length: u64, long_mode: cython.bint, insn: InsnPtr, word: cython.p_bint
) -> u64:
    """Legacy prefixes and REX: the offset of the opcode.  ``word`` tells of an operand-size prefix."""
    at: u64 = 0
    b: u8
    word[0] = False
    insn.address_size = 8 if long_mode else 4
    insn.segment = NO_REGISTER
    insn.rex = 0
    insn.lock = 0
    insn.rep = 0
    while at < length:
        b = code[at]
        if b == 0x66:
            word[0] = True
        elif b == 0x67:
            insn.address_size = 4 if long_mode else 2
        elif b == 0xF0:
            insn.lock = 1
        elif b == 0xF2 or b == 0xF3:
            insn.rep = b
        elif b == 0x26:
            insn.segment = SEG_ES
        elif b == 0x2E:
            insn.segment = SEG_CS
        elif b == 0x36:
            insn.segment = SEG_SS
        elif b == 0x3E:
            insn.segment = SEG_DS
        elif b == 0x64:
            insn.segment = SEG_FS
        elif b == 0x65:
            insn.segment = SEG_GS
        else:
            break
        at += 1
    if long_mode and at < length and code[at] & 0xF0 == 0x40:
        insn.rex = code[at]
        at += 1
    return at


def is_byte_operation(map: u32, opcode: u32) -> cython.bint:
    """Whether the operand is a byte whatever the prefixes say."""
    if map == 0:
        if opcode < 0x40:
            return (opcode & 7) in (0, 2, 4)
        if opcode >= 0xB0 and opcode <= 0xB7:
            return True
        return opcode in (
            0x6C,
            0x6E,
            0x80,
            0x82,
            0x84,
            0x86,
            0x88,
            0x8A,
            0xA0,
            0xA2,
            0xA4,
            0xA6,
            0xA8,
            0xAA,
            0xAC,
            0xAE,
            0xC0,
            0xC6,
            0xD0,
            0xD2,
            0xE4,
            0xE6,
            0xEC,
            0xEE,
            0xF6,
            0xFE,
        )
    return map == 1 and (opcode in (0xB0, 0xC0) or (opcode >= 0x90 and opcode <= 0x9F))


def opcode_has_modrm(map: u32, opcode: u32, long_mode: cython.bint) -> cython.bint:
    """Whether a ModRM byte follows the opcode."""
    if map == 0:
        if opcode < 0x40:
            return (opcode & 7) < 4
        if opcode < 0x62:
            return False
        if opcode < 0x70:
            return opcode in (0x63, 0x69, 0x6B)
        if opcode < 0x80:
            return False
        if opcode < 0x90:
            return True
        return opcode in (
            0xC0,
            0xC1,
            0xC4,
            0xC5,
            0xC6,
            0xC7,
            0xD0,
            0xD1,
            0xD2,
            0xD3,
            0xF6,
            0xF7,
            0xFE,
            0xFF,
        ) or (opcode >= 0xD8 and opcode <= 0xDF)
    if map == 1:
        if opcode in (
            0x05,
            0x06,
            0x07,
            0x08,
            0x09,
            0x0B,
            0x30,
            0x31,
            0x32,
            0x33,
            0x34,
            0x35,
            0x37,
            0x77,
            0xA0,
            0xA1,
            0xA2,
            0xA8,
            0xA9,
            0xAA,
        ):
            return False
        return not (opcode >= 0x80 and opcode <= 0x8F) and not (opcode >= 0xC8 and opcode <= 0xCF)
    return True


def immediate_bytes(insn: ConstInsnPtr, long_mode: cython.bint) -> u32:
    """How many bytes of immediate (or address, or displacement of a jump) end the instruction."""
    o: u32 = insn.opcode
    wide: u32 = 2 if insn.size == 2 else 4
    if insn.map == 1:
        if o >= 0x80 and o <= 0x8F:
            return wide
        if o in (0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6):
            return 1
        return 0
    if insn.map != 0:
        return 1 if insn.map == 3 else 0
    if o < 0x40:
        return 1 if o & 7 == 4 else (wide if o & 7 == 5 else 0)
    if o >= 0x70 and o <= 0x7F:
        return 1
    if o >= 0xA0 and o <= 0xA3:
        return insn.address_size
    if o >= 0xB0 and o <= 0xB7:
        return 1
    if o >= 0xB8 and o <= 0xBF:
        return insn.size
    if o in (
        0x6A,
        0x6B,
        0x80,
        0x82,
        0x83,
        0xA8,
        0xC0,
        0xC1,
        0xC6,
        0xCD,
        0xD4,
        0xD5,
        0xE0,
        0xE1,
        0xE2,
        0xE3,
        0xE4,
        0xE5,
        0xE6,
        0xE7,
        0xEB,
    ):
        return 1
    if o in (0x68, 0x69, 0x81, 0xA9, 0xC7, 0xE8, 0xE9):
        return wide
    if o in (0xC2, 0xCA):
        return 2
    if o == 0xC8:
        return 3
    if o in (0x9A, 0xEA):
        return wide + 2
    if o == 0xF6 and insn.reg & 7 < 2:
        return 1
    if o == 0xF7 and insn.reg & 7 < 2:
        return wide
    return 0


def read_signed(code: ConstBytePtr, size: u32) -> i64:
    """A little-endian number of ``size`` bytes, sign-extended."""
    value: u64 = 0
    i: u32
    for i in range(size):
        value |= cython.cast(u64, code[i]) << (8 * i)
    if size == 1:
        return cython.cast(cython.schar, value)
    if size == 2:
        return cython.cast(cython.short, value)
    if size == 4:
        return cython.cast(cython.int, value)
    return cython.cast(i64, value)


def parse_memory(code: ConstBytePtr, length: u64, at: u64, long_mode: cython.bint, insn: InsnPtr) -> u64:
    """The memory operand behind a ModRM byte whose mod is not 3: the offset after it, or BAD."""
    sib: u8
    size: u32 = 0
    if insn.address_size == 2:
        return BAD
    insn.base = insn.rm
    if insn.rm & 7 == 4:
        if at >= length:
            return BAD
        sib = code[at]
        at += 1
        insn.scale = sib >> 6
        insn.index = ((sib >> 3) & 7) | ((insn.rex & 2) << 2)
        if insn.index == 4:
            insn.index = NO_REGISTER
        insn.base = (sib & 7) | ((insn.rex & 1) << 3)
        if sib & 7 == 5 and insn.mod == 0:
            insn.base = NO_REGISTER
            size = 4
    elif insn.rm & 7 == 5 and insn.mod == 0:
        insn.base = NO_REGISTER
        insn.rip_relative = long_mode
        size = 4
    if insn.mod == 1:
        size = 1
    elif insn.mod == 2:
        size = 4
    if at + size > length:
        return BAD
    insn.displacement = read_signed(code + at, size) if size else 0
    return at + size


def decode(code: ConstBytePtr, length: u64, long_mode: cython.bint, insn: InsnPtr) -> i64:
    """Decode the instruction in the first bytes of ``code``: its length, or -1 if it is not known or cut short."""
    word: cython.bint = False
    at: u64 = parse_prefixes(code, length, long_mode, insn, cython.address(word))
    modrm: u8
    size: u32
    insn.map = 0
    insn.has_modrm = 0
    insn.mod = 0
    insn.reg = 0
    insn.rm = 0
    insn.base = NO_REGISTER
    insn.index = NO_REGISTER
    insn.scale = 0
    insn.rip_relative = 0
    insn.displacement = 0
    insn.immediate = 0
    if at < length and code[at] == 0x0F:
        at += 1
        insn.map = 1
        if at < length and (code[at] == 0x38 or code[at] == 0x3A):
            insn.map = 2 if code[at] == 0x38 else 3
            at += 1
    if at >= length or length > 15:
        return -1
    insn.opcode = code[at]
    at += 1
    insn.size = 8 if insn.rex & 8 else (2 if word else 4)
    if is_byte_operation(insn.map, insn.opcode):
        insn.size = 1
    if long_mode and insn.map == 0 and insn.opcode in (0x62, 0x9A, 0xC4, 0xC5, 0xEA):
        return -1
    if opcode_has_modrm(insn.map, insn.opcode, long_mode):
        if at >= length:
            return -1
        modrm = code[at]
        at += 1
        insn.has_modrm = 1
        insn.mod = modrm >> 6
        insn.reg = ((modrm >> 3) & 7) | ((insn.rex & 4) << 1)
        insn.rm = (modrm & 7) | ((insn.rex & 1) << 3)
        if insn.mod != 3:
            at = parse_memory(code, length, at, long_mode, insn)
            if at == BAD:
                return -1
    size = immediate_bytes(insn, long_mode)
    if at + size > length:
        return -1
    if size:
        insn.immediate = read_signed(code + at, size if size in (1, 2, 4, 8) else 2)
    insn.length = cython.cast(u32, at + size)
    return insn.length


def effective_address(cpu: ConstCpuPtr, insn: ConstInsnPtr) -> u64:
    """The linear address of the memory operand; the instruction must not have been stepped over yet."""
    address: u64 = cython.cast(u64, insn.displacement)
    segment: u8 = insn.segment
    if insn.rip_relative:
        address += cpu.rip + insn.length
    if insn.base != NO_REGISTER:
        address += cpu.gpr[insn.base]
    if insn.index != NO_REGISTER:
        address += cpu.gpr[insn.index] << insn.scale
    if insn.address_size == 4:
        address = cython.cast(u32, address)
    if cpu.seg[SEG_CS].flags & (1 << 21):
        if segment == SEG_FS or segment == SEG_GS:
            address += cpu.seg[segment].base
    else:
        if segment == NO_REGISTER:
            segment = SEG_SS if insn.base == 4 or insn.base == 5 else SEG_DS
        address = cython.cast(u32, address + cpu.seg[segment].base)
    return address
