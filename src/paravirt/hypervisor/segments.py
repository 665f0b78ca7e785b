# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Segments: descriptors checked as in ring 3, where real Xen runs guest kernels and processes alike.

The engine's descriptor tables are out of reach (see machine/unicorn/shim.c), so every instruction that loads or asks
after a descriptor raises #GP(0) and is carried out here: segment loads, far transfers, native iret, LAR, LSL, VERR,
VERW.  Whether the guest is in its kernel is the vcpu's own bit and is changed by none of them.

A function that loads answers 0, or a fault: vector << 16 | error code; for a page fault, which only a descriptor in the
LDT can raise, with the selector in the error code's place.
"""

import cython
from cython.cimports.paravirt.abi.constants import FIRST_RESERVED_GDT_ENTRY
from cython.cimports.paravirt.hypervisor.guestmem import (
    copy_from_guest,
    copy_to_guest,
    fetch_code,
    frame_ptr,
    is_canonical,
)
from cython.cimports.paravirt.hypervisor.hypercalls.descriptor_tables import map_ldt_page
from cython.cimports.paravirt.hypervisor.ptwrite import set_register
from cython.cimports.paravirt.hypervisor.records import DomainPtr, HostPtr, VcpuPtr, i64, u16, u32, u64
from cython.cimports.paravirt.hypervisor.traps import inject_exception, inject_failsafe
from cython.cimports.paravirt.machine.cpu import (
    GPR_RSP,
    SEG_CS,
    SEG_DS,
    SEG_ES,
    SEG_FS,
    SEG_GS,
    SEG_SS,
    U64Ptr,
)
from cython.cimports.paravirt.machine.decode import ConstInsnPtr, Insn, decode, effective_address

# The hypervisor's own flat descriptors (public/arch-x86_64.h): selectors 0xe023, 0xe02b, 0xe033.
FLAT_CODE32 = cython.declare(u64, 0x00CFFB000000FFFF)
FLAT_DATA = cython.declare(u64, 0x00CFF3000000FFFF)
FLAT_CODE64 = cython.declare(u64, 0x00AFFB000000FFFF)

NP = cython.declare(i64, 11 << 16)
SS = cython.declare(i64, 12 << 16)
GP = cython.declare(i64, 13 << 16)
PF = cython.declare(i64, 14 << 16)

RFLAGS_ZF = cython.declare(u64, 0x40)
FLAT_KERNEL_CS = cython.declare(u16, 0xE033)
DESCRIPTOR_L = cython.declare(u32, 1 << 21)
DESCRIPTOR_B = cython.declare(u32, 1 << 22)

RFLAGS_NT = cython.declare(u64, 0x4000)
# What iret may change in ring 3: CF PF AF ZF SF TF DF OF NT AC ID; not IF, IOPL, VM, VIF, VIP; RF as given.
IRET_FLAGS = cython.declare(u64, 0x254DD5)


def read_descriptor(host: HostPtr, v: VcpuPtr, selector: u16, descriptor: U64Ptr) -> i64:
    """The descriptor that a selector names: 0, a general protection fault beyond the LDT's end, or a page fault."""
    entry: u32 = selector >> 3
    if selector & 4:
        if entry >= v.ldt_entries:
            return GP | (selector & 0xFFFC)
        if v.ldt_frames[entry >> 9] == 0 and not map_ldt_page(v, entry >> 9):
            return PF | selector
        descriptor[0] = cython.cast(U64Ptr, frame_ptr(host, v.ldt_frames[entry >> 9]))[entry & 511]
        return 0
    descriptor[0] = 0
    if entry >= FIRST_RESERVED_GDT_ENTRY:
        if selector & ~3 == 0xE020:
            descriptor[0] = FLAT_CODE32
        elif selector & ~3 == 0xE028:
            descriptor[0] = FLAT_DATA
        elif selector & ~3 == 0xE030:
            descriptor[0] = FLAT_CODE64
        return 0
    # Whole frames are in use, and zeros behind them.
    if v.gdt_frames[entry >> 9] != 0:
        descriptor[0] = cython.cast(U64Ptr, frame_ptr(host, v.gdt_frames[entry >> 9]))[entry & 511]
    return 0


def check_descriptor(d: DomainPtr, descriptor: U64Ptr) -> cython.bint:
    """Whether a guest may put a descriptor into a table; changes it where it may not stand as it is.

    What is not present is harmless.  Segments get the privilege level of ring 3, in which a guest's kernel runs.  Of
    system descriptors a call gate is kept, for the guest to see: with privilege level 0, so that its use raises #GP,
    and with the level that a segment would get in its selector's RPL.
    """
    high: u32 = cython.cast(u32, descriptor[0] >> 32)
    selector: u16 = cython.cast(u16, descriptor[0] >> 16)
    if not high & (1 << 15):
        return True
    if high & (1 << 12):
        descriptor[0] |= cython.cast(u64, 3) << 45
        return True
    if high & 0xF00 == 0:
        # The second half of a call gate, or nothing.
        return True
    if high & 0xF00 != 0xC00 or high & 0xFF:
        return False
    if selector >> 3 >= FIRST_RESERVED_GDT_ENTRY and selector != FLAT_KERNEL_CS and not selector & 4:
        return False
    descriptor[0] = (descriptor[0] & ~(cython.cast(u64, 3) << 45)) | cython.cast(u64, 3) << 16
    return True


def set_segment(v: VcpuPtr, seg: cython.int, selector: u16, descriptor: u64) -> cython.void:
    """Fill a segment register from its descriptor."""
    limit: u32 = cython.cast(u32, (descriptor & 0xFFFF) | ((descriptor >> 32) & 0xF0000))
    v.cpu.seg[seg].selector = selector
    v.cpu.seg[seg].flags = cython.cast(u32, (descriptor >> 32) & 0xF0FF00)
    v.cpu.seg[seg].base = ((descriptor >> 16) & 0xFFFFFF) | ((descriptor >> 56) << 24)
    v.cpu.seg[seg].limit = (limit << 12) | 0xFFF if (descriptor >> 55) & 1 else limit
    v.cpu.segs_dirty = 1


def set_null(v: VcpuPtr, seg: cython.int, selector: u16) -> cython.void:
    """Load a null selector."""
    v.cpu.seg[seg].selector = selector
    v.cpu.seg[seg].flags = 0
    v.cpu.seg[seg].base = 0
    v.cpu.seg[seg].limit = 0
    v.cpu.segs_dirty = 1


def check_code(host: HostPtr, v: VcpuPtr, selector: u16, descriptor: U64Ptr) -> i64:
    """Whether CS may be loaded with ``selector`` in ring 3, without leaving it."""
    error: i64 = selector & 0xFFFC
    high: u32
    rc: i64
    if error == 0:
        return GP
    rc = read_descriptor(host, v, selector, descriptor)
    if rc != 0:
        return rc
    high = cython.cast(u32, descriptor[0] >> 32)
    if high & 0x1800 != 0x1800 or selector & 3 != 3:
        return GP | error
    if not high & (1 << 10) and (high >> 13) & 3 != 3:
        return GP | error
    # Both bits together are reserved.
    if high & DESCRIPTOR_L and high & DESCRIPTOR_B:
        return GP | error
    if not high & (1 << 15):
        return NP | error
    return 0


def check_target(code: u64, rip: u64) -> cython.bint:
    """Whether ``rip`` can be gone to in a code segment: canonical in 64-bit code, else within the limit."""
    limit: u64 = (code & 0xFFFF) | ((code >> 32) & 0xF0000)
    if (code >> 53) & 1:
        return is_canonical(rip)
    if (code >> 55) & 1:
        limit = (limit << 12) | 0xFFF
    return rip <= limit


def check_stack(host: HostPtr, v: VcpuPtr, selector: u16, to_64_bit: cython.bint, descriptor: U64Ptr) -> i64:
    """Whether SS may be loaded with ``selector`` in ring 3."""
    error: i64 = selector & 0xFFFC
    high: u32
    rc: i64
    if error == 0:
        return GP
    rc = read_descriptor(host, v, selector, descriptor)
    if rc != 0:
        return rc
    high = cython.cast(u32, descriptor[0] >> 32)
    if high & 0x1A00 != 0x1200 or selector & 3 != 3 or (high >> 13) & 3 != 3:
        return GP | error
    if not high & (1 << 15):
        return SS | error
    return 0


def load_segment(host: HostPtr, v: VcpuPtr, seg: cython.int, selector: u16) -> i64:
    """Load any segment register but CS."""
    descriptor: u64 = 0
    high: u32
    error: i64 = selector & 0xFFFC
    rc: i64
    if seg == SEG_SS:
        rc = check_stack(host, v, selector, True, cython.address(descriptor))
        if rc == 0:
            set_segment(v, seg, selector, descriptor)
        return rc
    if error == 0:
        set_null(v, seg, selector)
        return 0
    rc = read_descriptor(host, v, selector, cython.address(descriptor))
    if rc != 0:
        return rc
    high = cython.cast(u32, descriptor >> 32)
    # Data, or readable code; ring 3 may use it unless it is conforming code.
    if not high & (1 << 12) or high & 0xA00 == 0x800:
        return GP | error
    if high & 0xC00 != 0xC00 and (high >> 13) & 3 != 3:
        return GP | error
    if not high & (1 << 15):
        return NP | error
    set_segment(v, seg, selector, descriptor)
    return 0


def load_code_and_stack(v: VcpuPtr, cs: u16, ss: u16) -> i64:
    """Load CS and SS together, as a return to ring 3 does.  On a fault the selectors are those asked for."""
    host: HostPtr = v.domain.host
    code: u64 = 0
    stack: u64 = 0
    rc: i64
    if cs == 0xE033 and ss == 0xE02B:
        set_segment(v, SEG_CS, cs, FLAT_CODE64)
        set_segment(v, SEG_SS, ss, FLAT_DATA)
        return 0
    rc = check_code(host, v, cs, cython.address(code))
    if rc == 0:
        rc = check_stack(host, v, ss, (code >> 53) & 1, cython.address(stack))
    if rc != 0:
        v.cpu.seg[SEG_CS].selector = cs
        v.cpu.seg[SEG_SS].selector = ss
        v.cpu.segs_dirty = 1
        return rc
    set_segment(v, SEG_CS, cs, code)
    set_segment(v, SEG_SS, ss, stack)
    return 0


def reload_segments(v: VcpuPtr) -> cython.void:
    """Load the data segments again, as when a processor takes a vcpu up: their descriptors may have changed since.

    Bases of FS and GS are kept apart from their selectors.  If a selector cannot be loaded any more it becomes null,
    and the guest's failsafe callback is entered, which finds all four as they were.
    """
    host: HostPtr = v.domain.host
    bad: u32 = 0
    base: u64
    seg: cython.int
    for seg in range(6):
        if seg != SEG_CS and seg != SEG_SS and v.cpu.seg[seg].selector & 0xFFFC:
            base = v.cpu.seg[seg].base
            if load_segment(host, v, seg, v.cpu.seg[seg].selector) != 0:
                bad |= 1 << seg
            elif seg >= SEG_FS:
                v.cpu.seg[seg].base = base
    if bad == 0:
        return
    inject_failsafe(v)
    for seg in range(6):
        if bad & (1 << seg):
            base = v.cpu.seg[seg].base
            set_null(v, seg, 0)
            v.cpu.seg[seg].base = base


# --- instructions -----------------------------------------------------------------------------------------------


def fault(v: VcpuPtr, result: i64) -> cython.bint:
    """Give the guest a load's fault, if there is one.  Always true: the instruction has been dealt with."""
    detail: u32 = cython.cast(u32, result & 0xFFFF)
    if result >> 16 == 14:
        inject_exception(v, 14, 0, v.ldt_base + (detail & 0xFFF8))
    elif result != 0:
        inject_exception(v, cython.cast(u32, result >> 16), detail, 0)
    return True


def read_operand(v: VcpuPtr, insn: ConstInsnPtr, size: u32, value: U64Ptr) -> cython.bint:
    """The register or memory operand: false, with #PF given to the guest, if memory cannot be read."""
    address: u64
    value[0] = 0
    if insn.mod == 3:
        value[0] = v.cpu.gpr[insn.rm]
        return True
    address = effective_address(cython.address(v.cpu), insn)
    if copy_from_guest(v, value, address, size) != 0:
        inject_exception(v, 14, 0, address)
        return False
    return True


def pop(v: VcpuPtr, size: u32, count: u32, values: U64Ptr) -> cython.bint:
    """Read ``count`` elements from the stack, without moving it: false, with #PF given to the guest, if it cannot."""
    i: u32
    for i in range(count):
        values[i] = 0
        if copy_from_guest(v, values + i, v.cpu.gpr[GPR_RSP] + i * size, size) != 0:
            inject_exception(v, 14, 0, v.cpu.gpr[GPR_RSP] + i * size)
            return False
    return True


def native_iret(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """iretq, iretd: ring 3 to ring 3.  In 64-bit mode five elements, else three."""
    values: u64[5]
    code: u64 = 0
    stack: u64 = 0
    long_mode: cython.bint = v.cpu.seg[SEG_CS].flags & (1 << 21) != 0
    count: u32 = 5 if long_mode else 3
    rc: i64
    if v.cpu.rflags & RFLAGS_NT:
        return fault(v, GP)
    if not pop(v, insn.size, count, values):
        return True
    rc = check_code(host, v, cython.cast(u16, values[1]), cython.address(code))
    if rc == 0 and long_mode:
        rc = check_stack(host, v, cython.cast(u16, values[4]), (code >> 53) & 1, cython.address(stack))
    if rc == 0 and not check_target(code, values[0]):
        rc = GP
    if rc != 0:
        return fault(v, rc)
    v.cpu.rip = values[0]
    v.cpu.rflags = (v.cpu.rflags & ~IRET_FLAGS) | (values[2] & IRET_FLAGS) | 0x202
    v.cpu.gpr[GPR_RSP] = values[3] if long_mode else v.cpu.gpr[GPR_RSP] + count * insn.size
    set_segment(v, SEG_CS, cython.cast(u16, values[1]), code)
    if long_mode:
        set_segment(v, SEG_SS, cython.cast(u16, values[4]), stack)
    return True


def far_return(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """lret, with or without a number of bytes to drop."""
    values: u64[2]
    code: u64 = 0
    rc: i64
    if not pop(v, insn.size, 2, values):
        return True
    rc = check_code(host, v, cython.cast(u16, values[1]), cython.address(code))
    if rc == 0 and not check_target(code, values[0]):
        rc = GP
    if rc != 0:
        return fault(v, rc)
    v.cpu.gpr[GPR_RSP] += 2 * insn.size
    if insn.opcode == 0xCA:
        v.cpu.gpr[GPR_RSP] += cython.cast(u64, insn.immediate) & 0xFFFF
    v.cpu.rip = values[0]
    set_segment(v, SEG_CS, cython.cast(u16, values[1]), code)
    return True


def far_transfer(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """ljmp and lcall through a pointer in memory."""
    memory: u8[10]
    target: u64 = 0
    selector: u16
    code: u64 = 0
    words: u64[2]
    address: u64 = effective_address(cython.address(v.cpu), insn)
    i: u32
    rc: i64
    if copy_from_guest(v, memory, address, insn.size + 2) != 0:
        inject_exception(v, 14, 0, address)
        return True
    for i in range(insn.size):
        target |= cython.cast(u64, memory[i]) << (8 * i)
    selector = cython.cast(u16, memory[insn.size] | cython.cast(u32, memory[insn.size + 1]) << 8)
    if selector & 0xFFFC:
        selector |= 3  # the level is not the selector's to say: it stays what it is
    rc = check_code(host, v, selector, cython.address(code))
    if rc == 0 and not check_target(code, target):
        rc = GP
    if rc != 0:
        return fault(v, rc)
    if insn.reg & 7 == 3:
        words[0] = v.cpu.rip + insn.length
        words[1] = v.cpu.seg[SEG_CS].selector
        address = v.cpu.gpr[GPR_RSP] - 2 * insn.size
        for i in range(2):
            if copy_to_guest(v, address + i * insn.size, cython.address(words[i]), insn.size) != 0:
                inject_exception(v, 14, 2, address + i * insn.size)
                return True
        v.cpu.gpr[GPR_RSP] = address
    v.cpu.rip = target
    set_segment(v, SEG_CS, selector, code)
    return True


def move_to_segment(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """mov to a segment register."""
    value: u64 = 0
    rc: i64
    if insn.reg & 7 == SEG_CS or insn.reg & 7 > SEG_GS:
        return False
    if not read_operand(v, insn, 2, cython.address(value)):
        return True
    rc = load_segment(host, v, insn.reg & 7, cython.cast(u16, value))
    if rc == 0:
        v.cpu.rip += insn.length
    return fault(v, rc)


def pop_segment(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr, seg: cython.int) -> cython.bint:
    """pop to a segment register."""
    value: u64 = 0
    size: u32 = insn.size
    rc: i64
    if v.cpu.seg[SEG_CS].flags & (1 << 21) and size == 4:
        size = 8
    if not pop(v, size, 1, cython.address(value)):
        return True
    rc = load_segment(host, v, seg, cython.cast(u16, value))
    if rc == 0:
        v.cpu.gpr[GPR_RSP] += size
        v.cpu.rip += insn.length
    return fault(v, rc)


def load_far_pointer(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr, seg: cython.int) -> cython.bint:
    """lss, lfs, lgs, les, lds."""
    offset: u64 = 0
    selector: u16 = 0
    address: u64 = effective_address(cython.address(v.cpu), insn)
    rc: i64
    if insn.mod == 3:
        return False
    if (
        copy_from_guest(v, cython.address(offset), address, insn.size) != 0
        or copy_from_guest(v, cython.address(selector), address + insn.size, 2) != 0
    ):
        inject_exception(v, 14, 0, address)
        return True
    rc = load_segment(host, v, seg, selector)
    if rc == 0:
        set_register(v, insn.reg, insn.size, offset)
        v.cpu.rip += insn.length
    return fault(v, rc)


def answer_query(v: VcpuPtr, insn: ConstInsnPtr, selector: u16, descriptor: u64) -> cython.bint:
    """Whether LAR, LSL, VERR or VERW of a descriptor succeeds in ring 3; the first two fill their register."""
    high: u32 = cython.cast(u32, descriptor >> 32)
    limit: u32 = cython.cast(u32, (descriptor & 0xFFFF) | (high & 0xF0000))
    kind: u32 = (high >> 8) & 0xF
    conforming: cython.bint = high & 0x1C00 == 0x1C00
    if not conforming and (high >> 13) & 3 != 3:
        return False
    if insn.opcode == 0:
        # VERR wants something readable, VERW writable data.
        if not high & 0x1000:
            return False
        if insn.reg & 7 == 4:
            return high & 0xA00 != 0x800
        return high & 0xA00 == 0x200
    if not high & 0x1000 and kind not in (2, 9, 11) and not (insn.opcode == 2 and kind == 12):
        return False
    if insn.opcode == 2:
        set_register(v, insn.reg, insn.size, high & 0xF0FF00)
    else:
        if high & (1 << 23):
            limit = (limit << 12) | 0xFFF
        set_register(v, insn.reg, insn.size, limit)
    return True


def query(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """LAR, LSL, VERR, VERW: they ask, and never fault over what they find."""
    value: u64 = 0
    descriptor: u64 = 0
    selector: u16
    rc: i64 = GP
    if not read_operand(v, insn, 2, cython.address(value)):
        return True
    selector = cython.cast(u16, value)
    if selector & 0xFFFC != 0:
        rc = read_descriptor(host, v, selector, cython.address(descriptor))
        if rc >> 16 == 14:
            return fault(v, rc)
    v.cpu.rflags &= ~RFLAGS_ZF
    if rc == 0 and descriptor != 0 and answer_query(v, insn, selector, descriptor):
        v.cpu.rflags |= RFLAGS_ZF
    v.cpu.rip += insn.length
    return True


def emulate_segment(host: HostPtr, v: VcpuPtr) -> cython.bint:
    """#GP(0): if the instruction loads or asks after a descriptor, carry it out.  False: it is another one."""
    code: cython.uchar[16]
    insn: Insn
    long_mode: cython.bint = v.cpu.seg[SEG_CS].flags & (1 << 21) != 0
    length: u64 = fetch_code(v, code, v.cpu.rip, 15)
    i: ConstInsnPtr = cython.address(insn)
    o: u32
    if decode(code, length, long_mode, cython.address(insn)) < 0:
        return False
    o = insn.opcode
    if insn.map == 0:
        if o == 0xCF:
            return native_iret(host, v, i)
        if o == 0xCA or o == 0xCB:
            return far_return(host, v, i)
        if o == 0x8E:
            return move_to_segment(host, v, i)
        if o == 0xFF and (insn.reg & 7 == 3 or insn.reg & 7 == 5) and insn.mod != 3:
            return far_transfer(host, v, i)
        if not long_mode and (o == 0x07 or o == 0x17 or o == 0x1F):
            return pop_segment(host, v, i, SEG_ES if o == 0x07 else (SEG_SS if o == 0x17 else SEG_DS))
        if not long_mode and (o == 0xC4 or o == 0xC5):
            return load_far_pointer(host, v, i, SEG_ES if o == 0xC4 else SEG_DS)
    elif insn.map == 1:
        if o == 0xA1 or o == 0xA9:
            return pop_segment(host, v, i, SEG_FS if o == 0xA1 else SEG_GS)
        if o == 0xB2 or o == 0xB4 or o == 0xB5:
            return load_far_pointer(host, v, i, SEG_SS if o == 0xB2 else (SEG_FS if o == 0xB4 else SEG_GS))
        if o == 0x02 or o == 0x03 or (o == 0x00 and (insn.reg & 7 == 4 or insn.reg & 7 == 5)):
            return query(host, v, i)
    return False
