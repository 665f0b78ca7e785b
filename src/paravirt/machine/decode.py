# cython: language_level=3, cdivision=True
import cython
from cython.cimports.paravirt.machine.decode import InsnPtr
from cython.cimports.paravirt.machine.cpu import u64, i64, u32, u8
def decode(code: cython.p_const_uchar, length: u64, long_mode: cython.bint, insn: InsnPtr) -> i64:
    i: u32 = 0
    b: u8 = 0
    op16: cython.bint = False
    imm: u32 = 0
    modrm: cython.bint = True
    insn.rex = 0
    insn.lock = 0
    insn.rep = 0
    insn.map = 0
    insn.seg = 255
    while i < length:
        b = code[i]
        if b == 0x66:
            op16 = True
        elif b == 0xF0:
            insn.lock = 1
        elif b == 0xF2 or b == 0xF3:
            insn.rep = b
        elif b == 0x2E or b == 0x36 or b == 0x3E or b == 0x26 or b == 0x64 or b == 0x65 or b == 0x67:
            insn.seg = b
        else:
            break
        i += 1
    if i < length and long_mode and (b & 0xF0) == 0x40:
        insn.rex = b
        i += 1
    if i >= length:
        return -1
    b = code[i]
    i += 1
    if b == 0x0F:
        insn.map = 1
        b = code[i]
        i += 1
    insn.opcode = b
    insn.size = 8 if insn.rex & 8 else (2 if op16 else 4)
    if insn.map == 0:
        if b < 0x40:
            if (b & 7) == 0 or (b & 7) == 2:
                insn.size = 1
            if (b & 7) > 3:
                modrm = False
        elif b == 0x80 or b == 0xC6:
            imm = 1
            insn.size = 1
        elif b == 0x81 or b == 0xC7:
            imm = 4 if insn.size > 2 else 2
        elif b == 0x83:
            imm = 1
        elif b == 0x86 or b == 0x88 or b == 0x8A or b == 0xFE or b == 0xF6:
            insn.size = 1
        elif b == 0x87 or b == 0x89 or b == 0x8B or b == 0x8E or b == 0x8C or b == 0xFF or b == 0xF7:
            pass
        elif b == 0xE4 or b == 0xE5 or b == 0xE6 or b == 0xE7:
            modrm = False
            imm = 1
        else:
            modrm = False
        if (b == 0xF6 or b == 0xF7) and ((code[i] >> 3) & 7) < 2:
            imm = 1 if b == 0xF6 else (4 if insn.size > 2 else 2)
    else:
        if b == 0xBA:
            imm = 1
        elif b == 0xB0 or b == 0xC0:
            insn.size = 1
        elif b == 0x20 or b == 0x22 or b == 0x21 or b == 0x23 or b == 0xAB or b == 0xB3 or b == 0xBB or b == 0xB1 or b == 0xC1 or b == 0x01 or b == 0x00:
            pass
        elif b == 0xC3 or b == 0xC7:
            pass
        else:
            modrm = False
    insn.has_modrm = modrm
    if modrm:
        b = code[i]
        i += 1
        insn.mod = b >> 6
        insn.reg = ((b >> 3) & 7) | ((insn.rex & 4) << 1)
        insn.rm = b & 7
        if insn.mod != 3:
            if insn.rm == 4:
                if (code[i] & 7) == 5 and insn.mod == 0:
                    i += 4
                i += 1
            elif insn.rm == 5 and insn.mod == 0:
                i += 4
            if insn.mod == 1:
                i += 1
            elif insn.mod == 2:
                i += 4
        insn.rm |= (insn.rex & 1) << 3
    insn.imm = 0
    if imm == 1:
        insn.imm = cython.cast(cython.schar, code[i])
    elif imm == 2:
        insn.imm = cython.cast(cython.short, code[i] | code[i + 1] << 8)
    elif imm == 4:
        insn.imm = cython.cast(cython.int, cython.cast(u32, code[i]) | cython.cast(u32, code[i + 1]) << 8 | cython.cast(u32, code[i + 2]) << 16 | cython.cast(u32, code[i + 3]) << 24)
    i += imm
    if i > length:
        return -1
    insn.length = i
    return i
