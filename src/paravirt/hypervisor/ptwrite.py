# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Memory writes carried out for the guest: what a store or read-modify-write makes of an operand.

mmu.py asks for the new value (``plan_write``), validates it as a page-table entry, stores it, and then has the
instruction finished (``finish_write``): registers, flags, instruction pointer, as the processor would leave them.
The operand lies within one aligned group of eight bytes; what spans two is refused, and the guest gets its fault.
"""

import cython
from cython.cimports.paravirt.hypervisor.guestmem import copy_from_guest
from cython.cimports.paravirt.hypervisor.ptwrite import ConstWritePlanPtr, WritePlanPtr
from cython.cimports.paravirt.hypervisor.records import VcpuPtr, i64, u32, u64
from cython.cimports.paravirt.machine.cpu import (
    GPR_RAX,
    GPR_RBX,
    GPR_RCX,
    GPR_RDI,
    GPR_RDX,
    GPR_RSI,
    GPR_RSP,
    SEG_FS,
    SEG_GS,
    U64Ptr,
)
from cython.cimports.paravirt.machine.decode import ConstInsnPtr, effective_address

CF = cython.declare(u64, 0x1)
PF = cython.declare(u64, 0x4)
AF = cython.declare(u64, 0x10)
ZF = cython.declare(u64, 0x40)
SF = cython.declare(u64, 0x80)
DF = cython.declare(u64, 0x400)
OF = cython.declare(u64, 0x800)
ARITHMETIC = cython.declare(u64, 0x8D5)


def size_mask(size: u32) -> u64:
    """All ones in ``size`` bytes."""
    return ~cython.cast(u64, 0) if size == 8 else (cython.cast(u64, 1) << (size * 8)) - 1


def get_register(v: VcpuPtr, insn: ConstInsnPtr, number: u32) -> u64:
    """A register operand; without REX, byte registers 4 to 7 are AH, CH, DH, BH."""
    if insn.size == 1 and not insn.rex and number >= 4 and number < 8:
        return (v.cpu.gpr[number - 4] >> 8) & 0xFF
    return v.cpu.gpr[number] & size_mask(insn.size)


def set_register(v: VcpuPtr, number: u32, size: u32, value: u64) -> cython.void:
    """Write a register as an operation of ``size`` bytes does: four bytes clear the upper half."""
    if size >= 4:
        v.cpu.gpr[number] = value & size_mask(size)
    else:
        v.cpu.gpr[number] = (v.cpu.gpr[number] & ~size_mask(size)) | (value & size_mask(size))


def set_operand(v: VcpuPtr, insn: ConstInsnPtr, value: u64) -> cython.void:
    """Write the register operand, AH to BH included."""
    if insn.size == 1 and not insn.rex and insn.reg >= 4 and insn.reg < 8:
        v.cpu.gpr[insn.reg - 4] = (v.cpu.gpr[insn.reg - 4] & ~cython.cast(u64, 0xFF00)) | (value & 0xFF) << 8
    else:
        set_register(v, insn.reg, insn.size, value)


def flags_logic(v: VcpuPtr, result: u64, size: u32) -> cython.void:
    """Flags of and, or, xor; also the sign, zero and parity of the others."""
    parity: u64 = result & 0xFF
    flags: u64 = v.cpu.rflags & ~ARITHMETIC
    result &= size_mask(size)
    parity ^= parity >> 4
    parity ^= parity >> 2
    parity ^= parity >> 1
    if not parity & 1:
        flags |= PF
    if result == 0:
        flags |= ZF
    if (result >> (size * 8 - 1)) & 1:
        flags |= SF
    v.cpu.rflags = flags


def flags_add(v: VcpuPtr, a: u64, b: u64, result: u64, size: u32) -> cython.void:
    """Flags of an addition (with the carry already in ``result``)."""
    top: u32 = size * 8 - 1
    flags_logic(v, result, size)
    if (((a & b) | ((a | b) & ~result)) >> top) & 1:
        v.cpu.rflags |= CF
    if ((~(a ^ b) & (a ^ result)) >> top) & 1:
        v.cpu.rflags |= OF
    v.cpu.rflags |= (a ^ b ^ result) & AF


def flags_sub(v: VcpuPtr, a: u64, b: u64, result: u64, size: u32) -> cython.void:
    """Flags of a subtraction or comparison (with the borrow already in ``result``)."""
    top: u32 = size * 8 - 1
    flags_logic(v, result, size)
    if (((~a & b) | ((~a | b) & result)) >> top) & 1:
        v.cpu.rflags |= CF
    if (((a ^ b) & (a ^ result)) >> top) & 1:
        v.cpu.rflags |= OF
    v.cpu.rflags |= (a ^ b ^ result) & AF


def is_push(insn: ConstInsnPtr) -> cython.bint:
    """Whether the instruction pushes a register or a constant (64-bit mode: always eight bytes)."""
    return insn.map == 0 and ((insn.opcode >= 0x50 and insn.opcode <= 0x57) or insn.opcode in (0x68, 0x6A))


def is_bit_string(insn: ConstInsnPtr) -> cython.bint:
    """Whether it is bts, btr or btc with a register, which counts bits from the operand's address on."""
    return insn.map == 1 and (insn.opcode == 0xAB or insn.opcode == 0xB3 or insn.opcode == 0xBB)


def is_flat(insn: ConstInsnPtr) -> cython.bint:
    """Whether a string instruction (`compute` knows them) is one of 64-bit code, in no segments but the flat ones."""
    return insn.address_size == 8 and insn.segment != SEG_FS and insn.segment != SEG_GS


def operand_address(v: VcpuPtr, insn: ConstInsnPtr) -> u64:
    """Where the instruction writes; a bit string may lie far from its operand's address."""
    bit: i64
    if is_push(insn):
        return v.cpu.gpr[GPR_RSP] - 8
    if insn.map == 0 and 0xA4 <= insn.opcode <= 0xAB:
        return v.cpu.gpr[GPR_RDI]
    if is_bit_string(insn):
        bit = cython.cast(i64, v.cpu.gpr[insn.reg])
        if insn.size == 4:
            bit = cython.cast(cython.int, bit)
        elif insn.size == 2:
            bit = cython.cast(cython.short, bit)
        return effective_address(cython.address(v.cpu), insn) + cython.cast(
            u64, (bit >> (6 if insn.size == 8 else (5 if insn.size == 4 else 4))) * insn.size
        )
    return effective_address(cython.address(v.cpu), insn)


def alu(operation: u32, v: VcpuPtr, plan: WritePlanPtr) -> cython.bint:
    """add, or, adc, sbb, and, sub, xor by number; cmp (7) writes nothing and is not ours."""
    carry: u64 = v.cpu.rflags & CF
    if operation == 0:
        plan.result = plan.old + plan.source
    elif operation == 1:
        plan.result = plan.old | plan.source
    elif operation == 2:
        plan.result = plan.old + plan.source + carry
    elif operation == 3:
        plan.result = plan.old - plan.source - carry
    elif operation == 4:
        plan.result = plan.old & plan.source
    elif operation == 5:
        plan.result = plan.old - plan.source
    elif operation == 6:
        plan.result = plan.old ^ plan.source
    else:
        return False
    return True


def compute_one_byte(v: VcpuPtr, insn: ConstInsnPtr, plan: WritePlanPtr) -> cython.bint:
    """`compute` for opcodes of one byte."""
    o: u32 = insn.opcode
    reg: u32 = insn.reg & 7
    if o < 0x40 and o & 7 < 2:  # add to xor, with a register
        plan.source = get_register(v, insn, insn.reg)
        return alu(o >> 3, v, plan)
    if o == 0x80 or o == 0x81 or o == 0x83:  # the same, with a constant
        plan.source = cython.cast(u64, insn.immediate) & plan.mask
        return alu(reg, v, plan)
    if 0x86 <= o <= 0x89:  # xchg, mov
        plan.result = get_register(v, insn, insn.reg)
        return True
    if (o == 0xC6 or o == 0xC7) and reg == 0:  # mov of a constant
        plan.result = cython.cast(u64, insn.immediate)
        return True
    if o == 0xAA or o == 0xAB:  # stos
        plan.result = v.cpu.gpr[GPR_RAX]
        return not insn.rep or v.cpu.gpr[GPR_RCX] != 0
    if o == 0xA4 or o == 0xA5:  # movs
        if insn.rep and v.cpu.gpr[GPR_RCX] == 0:
            return False
        plan.result = 0
        return copy_from_guest(v, cython.address(plan.result), v.cpu.gpr[GPR_RSI], plan.size) == 0
    if (o == 0xFE or o == 0xFF) and reg < 2:  # inc, dec
        plan.result = plan.old + 1 if reg == 0 else plan.old - 1
        return True
    if (o == 0xF6 or o == 0xF7) and (reg == 2 or reg == 3):  # not, neg
        plan.result = ~plan.old if reg == 2 else 0 - plan.old
        return True
    return False


def compute_two_byte(v: VcpuPtr, insn: ConstInsnPtr, plan: WritePlanPtr) -> cython.bint:
    """`compute` for opcodes of two bytes, of which the first is 0x0F."""
    o: u32 = insn.opcode
    reg: u32 = insn.reg & 7
    if o == 0xB0 or o == 0xB1:  # cmpxchg
        plan.source = get_register(v, insn, insn.reg)
        plan.result = plan.source if v.cpu.gpr[GPR_RAX] & plan.mask == plan.old else plan.old
        return True
    if o == 0xC0 or o == 0xC1:  # xadd
        plan.source = get_register(v, insn, insn.reg)
        plan.result = plan.old + plan.source
        return True
    if o == 0xC3:  # movnti
        plan.result = v.cpu.gpr[insn.reg]
        return True
    if o == 0xC7 and reg == 1 and insn.size == 4:  # cmpxchg8b
        plan.source = (v.cpu.gpr[GPR_RDX] << 32) | cython.cast(u32, v.cpu.gpr[GPR_RAX])
        plan.result = plan.old
        if plan.source == plan.old:
            plan.result = (v.cpu.gpr[GPR_RCX] << 32) | cython.cast(u32, v.cpu.gpr[GPR_RBX])
        return True
    return compute_bit(v, insn, plan)


def compute_bit(v: VcpuPtr, insn: ConstInsnPtr, plan: WritePlanPtr) -> cython.bint:
    """bts, btr and btc, whose bit is ``plan.source``; false: another instruction."""
    bit: u64
    change: u32
    if is_bit_string(insn):
        plan.source = v.cpu.gpr[insn.reg] & (plan.size * 8 - 1)
        change = (insn.opcode >> 3) & 7
    elif insn.opcode == 0xBA and insn.reg & 7 > 4:
        plan.source = cython.cast(u64, insn.immediate) & (plan.size * 8 - 1)
        change = insn.reg & 7
    else:
        return False
    bit = cython.cast(u64, 1) << plan.source
    if change == 5:
        plan.result = plan.old | bit
    elif change == 6:
        plan.result = plan.old & ~bit
    else:
        plan.result = plan.old ^ bit
    return True


def compute(v: VcpuPtr, insn: ConstInsnPtr, plan: WritePlanPtr) -> cython.bint:
    """The operand's new value: false if this is no instruction that we carry out."""
    if is_push(insn):
        if insn.opcode >= 0x68:
            plan.result = cython.cast(u64, insn.immediate)
        else:
            plan.result = v.cpu.gpr[(insn.opcode & 7) | ((insn.rex & 1) << 3)]
        return True
    if insn.map == 0:
        return compute_one_byte(v, insn, plan)
    return insn.map == 1 and compute_two_byte(v, insn, plan)


def plan_write(
    v: VcpuPtr, insn: ConstInsnPtr, fault_address: u64, old: u64, new: U64Ptr, plan: WritePlanPtr
) -> i64:
    """What the instruction makes of the aligned eight bytes around ``fault_address``, now ``old``: 0, or -1."""
    address: u64
    if insn.has_modrm:
        if insn.mod == 3:
            return -1
    elif is_push(insn):
        if insn.size == 2:
            return -1
    elif not is_flat(insn):
        return -1
    plan.size = 8 if is_push(insn) or (insn.map == 1 and insn.opcode == 0xC7) else insn.size
    address = operand_address(v, insn)
    if address >> 3 != fault_address >> 3 or (address & 7) + plan.size > 8:
        return -1
    plan.shift = (address & 7) * 8
    plan.mask = size_mask(plan.size)
    plan.old = (old >> plan.shift) & plan.mask
    if not compute(v, insn, plan):
        return -1
    plan.result &= plan.mask
    new[0] = (old & ~(plan.mask << plan.shift)) | (plan.result << plan.shift)
    return 0


def flags_alu(operation: u32, v: VcpuPtr, plan: ConstWritePlanPtr) -> cython.void:
    """Flags of what `alu` computed."""
    if operation == 0 or operation == 2:
        flags_add(v, plan.old, plan.source, plan.result, plan.size)
    elif operation == 3 or operation == 5:
        flags_sub(v, plan.old, plan.source, plan.result, plan.size)
    else:
        flags_logic(v, plan.result, plan.size)


def next_element(v: VcpuPtr, insn: ConstInsnPtr, size: u32) -> cython.bint:
    """movs and stos have done one element: whether it was the last."""
    step: u64 = 0 - cython.cast(u64, size) if v.cpu.rflags & DF else size
    v.cpu.gpr[GPR_RDI] += step
    if insn.opcode < 0xAA:
        v.cpu.gpr[GPR_RSI] += step
    if not insn.rep:
        return True
    v.cpu.gpr[GPR_RCX] -= 1
    return v.cpu.gpr[GPR_RCX] == 0


def finish_one_byte(v: VcpuPtr, insn: ConstInsnPtr, plan: ConstWritePlanPtr) -> cython.bint:
    """`finish_write` for opcodes of one byte; false: the instruction goes on with its next element."""
    o: u32 = insn.opcode
    reg: u32 = insn.reg & 7
    carry: u64 = v.cpu.rflags & CF
    if o < 0x40:
        flags_alu(o >> 3, v, plan)
    elif o <= 0x83:
        flags_alu(reg, v, plan)
    elif o == 0x86 or o == 0x87:  # xchg
        set_operand(v, insn, plan.old)
    elif 0xA4 <= o <= 0xAB:
        return next_element(v, insn, plan.size)
    elif o == 0xFE or o == 0xFF:  # inc, dec: all flags but carry
        if reg == 0:
            flags_add(v, plan.old, 1, plan.result, plan.size)
        else:
            flags_sub(v, plan.old, 1, plan.result, plan.size)
        v.cpu.rflags = (v.cpu.rflags & ~CF) | carry
    elif (o == 0xF6 or o == 0xF7) and reg == 3:  # neg; not changes no flags
        flags_sub(v, 0, plan.old, plan.result, plan.size)
    return True


def finish_two_byte(v: VcpuPtr, insn: ConstInsnPtr, plan: ConstWritePlanPtr) -> cython.void:
    """`finish_write` for opcodes of two bytes."""
    o: u32 = insn.opcode
    compared: u64 = v.cpu.gpr[GPR_RAX] & plan.mask
    if o == 0xB0 or o == 0xB1:  # cmpxchg
        flags_sub(v, compared, plan.old, (compared - plan.old) & plan.mask, plan.size)
        if not v.cpu.rflags & ZF:
            set_register(v, GPR_RAX, plan.size, plan.old)
    elif o == 0xC0 or o == 0xC1:  # xadd
        flags_add(v, plan.old, plan.source, plan.result, plan.size)
        set_operand(v, insn, plan.old)
    elif o == 0xC7:  # cmpxchg8b
        v.cpu.rflags &= ~ZF
        if plan.source == plan.old:
            v.cpu.rflags |= ZF
        else:
            v.cpu.gpr[GPR_RAX] = cython.cast(u32, plan.old)
            v.cpu.gpr[GPR_RDX] = plan.old >> 32
    elif o != 0xC3:  # bts, btr, btc; movnti changes no flags
        v.cpu.rflags = (v.cpu.rflags & ~CF) | ((plan.old >> plan.source) & 1)


def finish_write(v: VcpuPtr, insn: ConstInsnPtr, plan: ConstWritePlanPtr) -> cython.void:
    """The store is done: registers, flags and instruction pointer."""
    if is_push(insn):
        v.cpu.gpr[GPR_RSP] -= 8
    elif insn.map == 1:
        finish_two_byte(v, insn, plan)
    elif not finish_one_byte(v, insn, plan):
        return
    v.cpu.rip += insn.length
