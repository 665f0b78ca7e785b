# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""A small decoder of x86 instructions: prefixes, opcode, ModRM operand and immediate.

It knows the length and the operands of every instruction of the legacy maps (one-byte, 0F, 0F 38, 0F 3A), in 64-bit
and 32-bit code, which is more than a hypervisor must carry out for a guest: privileged instructions, segment loads,
and writes to page tables.  VEX, EVEX, XOP and 3DNow! instructions are refused, as is what no processor has.
(Intel SDM volume 2, chapter 2 and appendix A.)
"""

import cython
from cython.cimports.paravirt.machine.cpu import (
    GPR_RBP,
    GPR_RBX,
    GPR_RDI,
    GPR_RSI,
    GPR_RSP,
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
LONGEST = cython.declare(u64, 15)

# What follows an opcode, sixteen opcodes a line:  .  nothing   m  ModRM   -  no such instruction
#   b  imm8   w  imm16   z  imm16 or imm32   v  imm of the operand's size   B, Z  ModRM and b, z
#   a  an address   f  a far pointer   e  imm16 and imm8   g, G  ModRM, and for TEST also b, z
ONE_BYTE = cython.declare(
    cython.p_const_char,
    b"mmmmbz..mmmmbz.-"
    b"mmmmbz..mmmmbz.."
    b"mmmmbz-.mmmmbz-."
    b"mmmmbz-.mmmmbz-."
    b"................"
    b"................"
    b"..mm----zZbB...."
    b"bbbbbbbbbbbbbbbb"
    b"BZBBmmmmmmmmmmmm"
    b"..........f....."
    b"aaaa....bz......"
    b"bbbbbbbbvvvvvvvv"
    b"BBw.mmBZe.w..b.."
    b"mmmmbb-.mmmmmmmm"
    b"bbbbbbbbzzfb...."
    b"-.--..gG......mm",
)
TWO_BYTE = cython.declare(
    cython.p_const_char,
    b"mmmm-.....-.-m--"
    b"mmmmmmmmmmmmmmmm"
    b"mmmm----mmmmmmmm"
    b"......-.--------"
    b"mmmmmmmmmmmmmmmm"
    b"mmmmmmmmmmmmmmmm"
    b"mmmmmmmmmmmmmmmm"
    b"BBBBmmm.mm--mmmm"
    b"zzzzzzzzzzzzzzzz"
    b"mmmmmmmmmmmmmmmm"
    b"...mBm--...mBmmm"
    b"mmmmmmmmmmBmmmmm"
    b"mmBmBBBm........"
    b"mmmmmmmmmmmmmmmm"
    b"mmmmmmmmmmmmmmmm"
    b"mmmmmmmmmmmmmmmm",
)


def parse_prefixes(code: ConstBytePtr, length: u64, long_mode: cython.bint, insn: InsnPtr, word: cython.p_bint) -> u64:
    """Legacy prefixes and REX: the offset of the opcode.  ``word`` tells of an operand-size prefix.

    Of several prefixes of a kind the last counts, and REX only where it is the very last.
    """
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
        if long_mode and b & 0xF0 == 0x40:
            insn.rex = b
            at += 1
            continue
        if b == 0x66:
            word[0] = True
        elif b == 0x67:
            insn.address_size = 4 if long_mode else 2
        elif b == 0xF0:
            insn.lock = 1
        elif b == 0xF2 or b == 0xF3:
            insn.rep = b
        elif b == 0x64:
            insn.segment = SEG_FS
        elif b == 0x65:
            insn.segment = SEG_GS
        elif b == 0x26:
            insn.segment = SEG_ES
        elif b == 0x2E:
            insn.segment = SEG_CS
        elif b == 0x36:
            insn.segment = SEG_SS
        elif b == 0x3E:
            insn.segment = SEG_DS
        else:
            break
        insn.rex = 0
        at += 1
    return at


def is_byte_operation(map: u32, opcode: u32) -> cython.bint:
    """Whether the operand is a byte whatever the prefixes say."""
    if map == 0:
        if opcode < 0x40:
            return opcode & 7 in (0, 2, 4)
        if opcode >= 0xB0 and opcode <= 0xB7:
            return True
        # fmt: off
        return opcode in (
            0x6C, 0x6E, 0x80, 0x82, 0x84, 0x86, 0x88, 0x8A, 0xA0, 0xA2, 0xA4, 0xA6, 0xA8, 0xAA, 0xAC, 0xAE,
            0xC0, 0xC6, 0xD0, 0xD2, 0xE4, 0xE6, 0xEC, 0xEE, 0xF6, 0xFE,
        )
        # fmt: on
    return map == 1 and (opcode == 0xB0 or opcode == 0xC0 or (opcode >= 0x90 and opcode <= 0x9F))


def absent_from_long_mode(opcode: u32) -> cython.bint:
    """One-byte opcodes that 64-bit code has not (of C4, C5 and 62 it makes VEX and EVEX)."""
    # fmt: off
    return opcode in (
        0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61, 0x62, 0x82, 0x9A, 0xC4, 0xC5,
        0xCE, 0xD4, 0xD5, 0xEA,
    )
    # fmt: on


def operand_form(insn: ConstInsnPtr, long_mode: cython.bint, word: cython.bint) -> cython.char:
    """What follows the opcode, in the letters of the opcode maps."""
    o: u32 = insn.opcode
    if insn.map == 2:
        return b"m"
    if insn.map == 3:
        return b"B"
    if insn.map == 1:
        if (o == 0x78 and (word or insn.rep == 0xF2)) or (o == 0xB8 and insn.rep != 0xF3):
            return b"-"  # SSE4A's forms, and Itanium's jump
        return TWO_BYTE[o]
    if long_mode and absent_from_long_mode(o):
        return b"-"
    if not long_mode:
        if o == 0x0E or o == 0x27 or o == 0x2F or o == 0x37 or o == 0x3F:
            return b"."
        if o == 0x62:
            return b"m"
    return ONE_BYTE[o]


def immediate_bytes(insn: ConstInsnPtr, form: cython.char) -> u32:
    """How many bytes of immediate (or address, or displacement of a jump) end the instruction."""
    wide: u32 = 2 if insn.size == 2 else 4
    if form == b"b" or form == b"B":
        return 1
    if form == b"z" or form == b"Z":
        return wide
    if form == b"v":
        return insn.size
    if form == b"w":
        return 2
    if form == b"a":
        return insn.address_size
    if form == b"f":
        return wide + 2
    if form == b"e":
        return 3
    if insn.reg & 7 < 2:
        if form == b"g":
            return 1
        if form == b"G":
            return wide
    return 0


def read_number(code: ConstBytePtr, size: u32) -> u64:
    """A little-endian number of up to eight bytes."""
    value: u64 = 0
    i: u32
    for i in range(size):
        value |= cython.cast(u64, code[i]) << (8 * i)
    return value


def sign_extend(value: u64, size: u32) -> i64:
    """A number of ``size`` bytes (1, 2, 4 or 8) with its sign."""
    if size == 1:
        return cython.cast(cython.schar, value)
    if size == 2:
        return cython.cast(cython.short, value)
    if size == 4:
        return cython.cast(cython.int, value)
    return cython.cast(i64, value)


def memory_16(insn: InsnPtr) -> u32:
    """Base and index of a 16-bit address: the size of its displacement."""
    rm: u8 = insn.rm & 7
    if insn.mod == 0 and rm == 6:
        return 2
    insn.base = GPR_RBX if rm == 0 or rm == 1 or rm == 7 else (GPR_RBP if rm == 2 or rm == 3 or rm == 6 else rm + 2)
    if rm < 4:
        insn.index = GPR_RDI if rm & 1 else GPR_RSI
    return insn.mod


def parse_memory(code: ConstBytePtr, length: u64, at: u64, long_mode: cython.bint, insn: InsnPtr) -> u64:
    """The memory operand behind a ModRM byte whose mod is not 3: the offset after it, or BAD."""
    sib: u8
    size: u32 = 0 if insn.mod == 0 else (1 if insn.mod == 1 else 4)
    if insn.address_size == 2:
        size = memory_16(insn)
    elif insn.rm & 7 == 4:
        if at >= length:
            return BAD
        sib = code[at]
        at += 1
        insn.scale = sib >> 6
        insn.index = ((sib >> 3) & 7) | ((insn.rex & 2) << 2)
        if insn.index == 4:
            insn.index = NO_REGISTER
            insn.scale = 0
        insn.base = (sib & 7) | ((insn.rex & 1) << 3)
        if sib & 7 == 5 and insn.mod == 0:
            insn.base = NO_REGISTER
            size = 4
    elif insn.rm & 7 == 5 and insn.mod == 0:
        insn.rip_relative = long_mode
        size = 4
    else:
        insn.base = insn.rm
    if at + size > length:
        return BAD
    insn.displacement = sign_extend(read_number(code + at, size), size) if size else 0
    return at + size


def parse_modrm(code: ConstBytePtr, length: u64, at: u64, long_mode: cython.bint, insn: InsnPtr) -> u64:
    """The ModRM byte and its memory operand: the offset after them, or BAD."""
    if at >= length:
        return BAD
    insn.has_modrm = 1
    insn.mod = code[at] >> 6
    insn.reg = ((code[at] >> 3) & 7) | ((insn.rex & 4) << 1)
    insn.rm = (code[at] & 7) | ((insn.rex & 1) << 3)
    if insn.map == 1 and insn.opcode >= 0x20 and insn.opcode <= 0x23:
        insn.mod = 3  # control and debug registers go to registers only
    if insn.map == 0 and insn.opcode == 0x8F and insn.reg & 7 != 0:
        return BAD  # XOP
    if insn.map == 0 and insn.mod == 3 and insn.opcode in (0xC4, 0xC5, 0x62):
        return BAD  # VEX and EVEX
    if insn.mod == 3:
        return at + 1
    return parse_memory(code, length, at + 1, long_mode, insn)


def decode(code: ConstBytePtr, length: u64, long_mode: cython.bint, insn: InsnPtr) -> i64:
    """Decode the instruction in the first bytes of ``code``: its length, or -1 if it is not known or cut short.

    Immediates and displacements are sign-extended, addresses and 16-bit constants are not.  Of a far pointer the
    immediate holds the selector above the offset; of ENTER, the level above the size.
    """
    word: cython.bint = False
    at: u64
    size: u32
    form: cython.char
    if length > LONGEST:
        length = LONGEST
    at = parse_prefixes(code, length, long_mode, insn, cython.address(word))
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
    if at >= length:
        return -1
    insn.opcode = code[at]
    at += 1
    insn.size = 8 if insn.rex & 8 else (2 if word else 4)
    if is_byte_operation(insn.map, insn.opcode):
        insn.size = 1
    form = operand_form(insn, long_mode, word)
    if form == b"-":
        return -1
    if form in b"mBZgG":
        at = parse_modrm(code, length, at, long_mode, insn)
        if at == BAD:
            return -1
    size = immediate_bytes(insn, form)
    if at + size > length:
        return -1
    if size:
        insn.immediate = cython.cast(i64, read_number(code + at, size))
        if form not in b"aw" and size in (1, 2, 4):
            insn.immediate = sign_extend(insn.immediate, size)
    insn.length = cython.cast(u32, at + size)
    return insn.length


def default_segment(insn: ConstInsnPtr) -> u8:
    """The segment of a memory operand without an override: SS for what is based on the stack or frame pointer."""
    return SEG_SS if insn.base == GPR_RSP or insn.base == GPR_RBP else SEG_DS


def effective_address(cpu: ConstCpuPtr, insn: ConstInsnPtr) -> u64:
    """The linear address of the memory operand; the instruction must not have been stepped over yet."""
    address: u64 = cython.cast(u64, insn.displacement)
    if insn.rip_relative:
        address += cpu.rip + insn.length
    if insn.base != NO_REGISTER:
        address += cpu.gpr[insn.base]
    if insn.index != NO_REGISTER:
        address += cpu.gpr[insn.index] << insn.scale
    return linear_address(cpu, insn, default_segment(insn), address)


def linear_address(cpu: ConstCpuPtr, insn: ConstInsnPtr, segment: u8, offset: u64) -> u64:
    """An offset in ``segment``, or in the one that the instruction names instead, as a linear address.

    In 64-bit code only FS and GS have a base.
    """
    if insn.segment != NO_REGISTER:
        segment = insn.segment
    if insn.address_size == 4:
        offset = cython.cast(u32, offset)
    elif insn.address_size == 2:
        offset &= 0xFFFF
    if not cpu.seg[SEG_CS].flags & (1 << 21):
        return cython.cast(u32, offset + cpu.seg[segment].base)
    if segment == SEG_FS or segment == SEG_GS:
        return offset + cpu.seg[segment].base
    return offset
