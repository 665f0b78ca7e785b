# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Privileged instructions that a guest executes as if it had the machine to itself.

Where Xen carries one out for a paravirtual guest, so do we, with the same effect; all others are the guest's #GP.
In force: I/O ports by the guest's I/O privilege level and bitmap (no port leads anywhere), cli and sti without
effect where that level allows them, control, debug and model-specific registers, cpuid.
"""

import cython
from cython.cimports.paravirt.hypervisor.cpuid_table import cpuid
from cython.cimports.paravirt.hypervisor.debugreg import get_debug_register, set_debug_register
from cython.cimports.paravirt.hypervisor.guestmem import (
    copy_from_guest,
    copy_to_guest,
    fetch_code,
    in_guest_range,
    translate,
)
from cython.cimports.paravirt.hypervisor.mmu import set_kernel_table
from cython.cimports.paravirt.hypervisor.msr import read_msr, write_msr
from cython.cimports.paravirt.hypervisor.ptwrite import set_register, size_mask
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, i64, u8, u32, u64
from cython.cimports.paravirt.hypervisor.timekeeping import guest_tsc
from cython.cimports.paravirt.hypervisor.traps import inject_exception
from cython.cimports.paravirt.machine.cpu import (
    GPR_RAX,
    GPR_RBX,
    GPR_RCX,
    GPR_RDI,
    GPR_RDX,
    GPR_RSI,
    SEG_CS,
    SEG_DS,
    SEG_ES,
    U64Ptr,
)
from cython.cimports.paravirt.machine.decode import ConstInsnPtr, Insn, decode, linear_address

CR0_PV = cython.declare(u64, 0x80050033)
CR0_TS = cython.declare(u64, 8)
# What a guest may set in CR4 of what we offer it: TSD and DE; and what the machine has on: PAE, OSFXSR, OSXMMEXCPT.
CR4_FIXED = cython.declare(u64, 0x620)
CR4_GUEST = cython.declare(u64, 0x00C)
CR4_OSXSAVE = cython.declare(u64, 0x40000)
XCR0_X87 = cython.declare(u64, 1)
XCR0_SSE = cython.declare(u64, 2)
XCR0_AVX = cython.declare(u64, 4)
XCR0_AVX512 = cython.declare(u64, 0xE0)
RFLAGS_DF = cython.declare(u64, 0x400)
ARCHITECTURAL_IOPL = cython.declare(u64, 16)


def port_allowed(v: VcpuPtr, port: u32, size: u32) -> cython.bint:
    """Whether the guest may touch ``size`` ports from ``port`` on, by privilege level or by bitmap.

    Of the bitmap two bytes are read, whether the second one matters or not: both have to be there, as on Xen.
    """
    needed: u8 = 3 if v.cpu.user else (0 if v.domain.arch_vm_assist & ARCHITECTURAL_IOPL else 1)
    bits: u16
    user: u8 = v.cpu.user
    mask: u32 = (1 << size) - 1
    rc: i64
    if v.iopl >= needed:
        return True
    if port + size > v.iobmp_limit:
        return False
    v.cpu.user = 0
    rc = copy_from_guest(v, cython.address(bits), v.iobmp + (port >> 3), 2)
    v.cpu.user = user
    return rc == 0 and (cython.cast(u32, bits) >> (port & 7)) & mask == 0


def read_port(host: HostPtr, v: VcpuPtr, port: u32, size: u32) -> u32:
    """What a port reads: nothing answers (all ones), except the timer's data port, which reads zero.

    Linux calibrates its clock by that port before it finds the paravirtual one; where it reads all ones that
    takes a hundred thousand reads, and where it reads zero a handful.
    """
    if port == 0x42 and size == 1:
        return 0
    return cython.cast(u32, size_mask(size))


def port_instruction(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """in and out."""
    o: u32 = insn.opcode
    size: u32 = 4 if insn.size == 8 else insn.size
    port: u32 = (
        cython.cast(u32, insn.immediate) & 0xFF if o < 0xE8 else cython.cast(u32, v.cpu.gpr[GPR_RDX]) & 0xFFFF
    )
    if not port_allowed(v, port, size):
        return False
    if not o & 2:
        set_register(v, GPR_RAX, size, read_port(host, v, port, size))
    v.cpu.rip += insn.length
    return True


def refuse_string(v: VcpuPtr, address: u64, is_write: cython.bint) -> cython.bint:
    """An element of ins or outs cannot be written or read: a page fault at its first byte that is out of reach.

    False, for #GP, where no memory of guests can be.  Behaviour: Xen 4.17, pv/emul-priv-op.c.
    """
    if not in_guest_range(address, 1):
        return False
    if translate(v, address, is_write) != cython.NULL:
        address = (address | 0xFFF) + 1
    inject_exception(v, 14, 2 if is_write else 0, address)
    return True


def string_port_instruction(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """ins and outs, one element at a time: with rep the instruction is met again for the next."""
    operand: Insn = insn[0]
    size: u32 = 4 if insn.size == 8 else insn.size
    port: u32 = cython.cast(u32, v.cpu.gpr[GPR_RDX]) & 0xFFFF
    step: u64 = 0 - cython.cast(u64, size) if v.cpu.rflags & RFLAGS_DF else size
    value: u64
    address: u64
    if not port_allowed(v, port, size):
        return False
    if insn.rep and v.cpu.gpr[GPR_RCX] == 0:
        v.cpu.rip += insn.length
        return True
    if insn.opcode < 0x6E:
        operand.segment = SEG_ES  # whatever a prefix says
        address = linear_address(cython.address(v.cpu), cython.address(operand), SEG_ES, v.cpu.gpr[GPR_RDI])
        value = read_port(host, v, port, size)
        if copy_to_guest(v, address, cython.address(value), size) != 0:
            return refuse_string(v, address, True)
        v.cpu.gpr[GPR_RDI] += step
    else:
        address = linear_address(cython.address(v.cpu), insn, SEG_DS, v.cpu.gpr[GPR_RSI])
        if copy_from_guest(v, cython.address(value), address, size) != 0:
            return refuse_string(v, address, False)
        v.cpu.gpr[GPR_RSI] += step
    if insn.rep:
        v.cpu.gpr[GPR_RCX] -= 1
    if not insn.rep or v.cpu.gpr[GPR_RCX] == 0:
        v.cpu.rip += insn.length
    return True


def cr0_of(v: VcpuPtr) -> u64:
    """CR0 as the guest sees it: only TS is its own."""
    return CR0_PV | (CR0_TS if v.guest_ts else 0)


def read_control(v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """mov from a control register."""
    value: u64
    if insn.reg == 0:
        value = cr0_of(v)
    elif insn.reg == 2:
        value = cython.cast(U64Ptr, v.info + 16)[0]
    elif insn.reg == 3:
        value = v.kernel_table << 12
    elif insn.reg == 4:
        value = v.cr4
    else:
        return False
    v.cpu.gpr[insn.rm] = value
    v.cpu.rip += insn.length
    return True


def cr4_of_guests(host: HostPtr) -> u64:
    """The bits of CR4 that a guest may change."""
    return CR4_GUEST | (CR4_OSXSAVE if host.xcr0_states else 0)


def write_control(v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """mov to a control register: CR0 in its TS bit alone, CR3 as MMUEXT_NEW_BASEPTR, CR4 in what is the guest's."""
    value: u64 = v.cpu.gpr[insn.rm]
    if insn.reg == 0:
        if (value ^ CR0_PV) & ~CR0_TS:
            return False
        v.guest_ts = value & CR0_TS != 0
        v.cpu.ts = v.guest_ts
    elif insn.reg == 2:
        cython.cast(U64Ptr, v.info + 16)[0] = value
    elif insn.reg == 3:
        if set_kernel_table(v, value >> 12) != 0:
            return False
    elif insn.reg == 4:
        v.cr4 = CR4_FIXED | (value & cr4_of_guests(v.domain.host))
    else:
        return False
    v.cpu.rip += insn.length
    return True


def move_debug(v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """mov to and from a debug register."""
    value: u64 = 0
    if insn.opcode == 0x21:
        if get_debug_register(v, insn.reg, cython.address(value)) != 0:
            return False
        v.cpu.gpr[insn.rm] = value
    elif set_debug_register(v, insn.reg, v.cpu.gpr[insn.rm]) != 0:
        return False
    v.cpu.rip += insn.length
    return True


def answer_cpuid(host: HostPtr, v: VcpuPtr) -> cython.void:
    """cpuid: the policy's answer for eax and ecx."""
    regs: u32[4]
    cpuid(host, v, cython.cast(u32, v.cpu.gpr[GPR_RAX]), cython.cast(u32, v.cpu.gpr[GPR_RCX]), regs)
    v.cpu.gpr[GPR_RAX] = regs[0]
    v.cpu.gpr[GPR_RBX] = regs[1]
    v.cpu.gpr[GPR_RCX] = regs[2]
    v.cpu.gpr[GPR_RDX] = regs[3]


def emulate_forced_ud(host: HostPtr, v: VcpuPtr) -> cython.bint:
    """#UD: the prefix that asks for emulation, ``ud2; .ascii "xen"``, before a cpuid.  False: the guest's own.

    Code that ends within the prefix's length, or within the cpuid's, is a page fault where it ends, as on Xen.
    """
    code: u8[7]
    length: u64 = fetch_code(v, code, v.cpu.rip, 7)
    has_prefix: cython.bint = (
        length >= 5
        and code[0] == 0x0F
        and code[1] == 0x0B
        and code[2] == 0x78
        and code[3] == 0x65
        and code[4] == 0x6E
    )
    if length < 5 or (has_prefix and length < 7):
        inject_exception(v, 14, 0, v.cpu.rip + length)
        return True
    if not has_prefix or code[5] != 0x0F or code[6] != 0xA2:
        return False
    answer_cpuid(host, v)
    v.cpu.rip += 7
    return True


def set_xcr0(v: VcpuPtr) -> cython.bint:
    """xsetbv: the processor's rules for what XCR0 may hold. What is switched off here the host still has on."""
    value: u64 = cython.cast(u32, v.cpu.gpr[GPR_RAX]) | (v.cpu.gpr[GPR_RDX] << 32)
    wide: u64 = value & XCR0_AVX512
    if cython.cast(u32, v.cpu.gpr[GPR_RCX]) != 0 or value & ~v.domain.host.xcr0_states or not value & XCR0_X87:
        return False
    if value & XCR0_AVX and not value & XCR0_SSE:
        return False
    if wide and (wide != XCR0_AVX512 or not value & XCR0_AVX):
        return False
    v.xcr0 = value
    return True


def is_xsetbv(insn: ConstInsnPtr) -> cython.bint:
    """Whether it is xsetbv: 0F 01 D1."""
    return insn.opcode == 0x01 and insn.mod == 3 and insn.reg & 7 == 2 and insn.rm & 7 == 1


def undefined(v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """Instructions that a processor finds undefined before it asks who executes them, unlike the Unicorn engine.

    Control registers that do not exist, and xsetbv while CR4.OSXSAVE is clear.
    """
    if insn.opcode == 0x20 or insn.opcode == 0x22:
        return insn.reg == 1 or (insn.reg >= 5 and insn.reg != 8)
    return is_xsetbv(insn) and not v.cr4 & CR4_OSXSAVE


def emulate_ring_0(host: HostPtr, v: VcpuPtr, insn: ConstInsnPtr) -> cython.bint:
    """An instruction of the two-byte map that only ring 0 may execute; false: its #GP is the guest's."""
    o: u32 = insn.opcode
    value: u64
    if o == 0x20:
        return read_control(v, insn)
    if o == 0x22:
        return write_control(v, insn)
    if o == 0x21 or o == 0x23:
        return move_debug(v, insn)
    if o == 0x01:
        if not is_xsetbv(insn) or not set_xcr0(v):
            return False
    elif o == 0x06:  # clts
        v.guest_ts = 0
        v.cpu.ts = 0
    elif o == 0x08 or o == 0x09:  # invd, wbinvd
        pass  # caches need no flush
    elif o == 0x32:  # rdmsr
        if not read_msr(host, v, cython.cast(u32, v.cpu.gpr[GPR_RCX]), cython.address(value)):
            return False
        v.cpu.gpr[GPR_RAX] = cython.cast(u32, value)
        v.cpu.gpr[GPR_RDX] = value >> 32
    elif o == 0x30:  # wrmsr
        value = cython.cast(u32, v.cpu.gpr[GPR_RAX]) | (v.cpu.gpr[GPR_RDX] << 32)
        if not write_msr(host, v, cython.cast(u32, v.cpu.gpr[GPR_RCX]), value):
            return False
    elif o == 0x31:  # rdtsc
        value = guest_tsc(host)
        v.cpu.gpr[GPR_RAX] = cython.cast(u32, value)
        v.cpu.gpr[GPR_RDX] = value >> 32
    else:
        return False
    v.cpu.rip += insn.length
    return True


def emulate_privileged(host: HostPtr, v: VcpuPtr) -> cython.bint:
    """#GP(0): carry the instruction out.  False: it is the guest's own fault."""
    code: cython.uchar[16]
    insn: Insn
    i: ConstInsnPtr = cython.address(insn)
    length: u64 = fetch_code(v, code, v.cpu.rip, 15)
    o: u32
    if decode(code, length, v.cpu.seg[SEG_CS].flags & (1 << 21) != 0, cython.address(insn)) < 0:
        return False
    o = insn.opcode
    if insn.map == 0:
        if 0x6C <= o <= 0x6F:
            return string_port_instruction(host, v, i)
        if 0xE4 <= o <= 0xE7 or 0xEC <= o <= 0xEF:
            return port_instruction(host, v, i)
        if (o == 0xFA or o == 0xFB) and v.iopl >= (3 if v.cpu.user else 1):  # cli, sti
            # Whether events come is the mask's affair, not the flag's.
            v.cpu.rip += insn.length
            return True
        return False
    if insn.map != 1:
        return False
    if undefined(v, i):
        inject_exception(v, 6, 0, 0)
        return True
    return not v.cpu.user and emulate_ring_0(host, v, i)
