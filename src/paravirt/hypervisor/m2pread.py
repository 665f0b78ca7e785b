# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Reads of the machine-to-phys table at its usual address, on an engine whose guests cannot have it there.

Such a guest is told another address when it asks (XENMEM_machphys_mapping), but many never ask.  A load from the
usual address into a register, or a comparison with it, is carried out for these; anything else is a page
fault as of a page that is there.
"""

import cython
from cython.cimports.paravirt.hypervisor.guestmem import fetch_code
from cython.cimports.paravirt.hypervisor.ptwrite import flags_sub, get_register, set_register, size_mask
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, u32, u64
from cython.cimports.paravirt.machine.cpu import GPR_RAX, ConstBytePtr, U64Ptr
from cython.cimports.paravirt.machine.decode import Insn, decode

TABLE = cython.declare(u64, cython.cast(u64, 0xFFFF800000000000))
ADDRESS = cython.declare(u64, 0x000FFFFFFFFFF000)
WRITE_OR_FETCH = cython.declare(u32, 0x12)


def compare(v: VcpuPtr, first: u64, second: u64, size: u32) -> cython.void:
    """The flags of ``cmp``."""
    flags_sub(v, first, second, (first - second) & size_mask(size), size)


def in_machine_to_phys(host: HostPtr, v: VcpuPtr, address: u64) -> cython.bint:
    """Whether an entry of the table would be at ``address``."""
    table: u64 = (v.cpu.user_cr3 if v.cpu.user else v.cpu.kernel_cr3) & ADDRESS
    # Not before it (which is far behind it, in 64 bits) nor past its end; and not hidden from these page tables, as a
    # guest may wish.
    return (
        address - TABLE <= host.nr_frames * 8 - 8
        and cython.cast(U64Ptr, host.memory + table)[256 + host.m2p_index] & 1
    )


def read_machine_to_phys(host: HostPtr, v: VcpuPtr, error: u32, address: u64) -> cython.bint:
    """Carry out the load that faulted at ``address``, in the table; false when it is no load."""
    code: cython.uchar[16]
    insn: Insn
    value: u64 = 0
    i: u32
    length: u64
    if error & WRITE_OR_FETCH:
        return False
    length = fetch_code(v, code, v.cpu.rip, 15)
    if decode(code, length, v.cpu.seg[1].flags & (1 << 21) != 0, cython.address(insn)) < 0:
        return False
    if insn.map != 0 or insn.lock or insn.size < 4:
        return False
    for i in range(insn.size):
        value |= cython.cast(u64, cython.cast(ConstBytePtr, host.m2p)[address - TABLE + i]) << (8 * i)
    if insn.opcode == 0x8B:
        set_register(v, insn.reg, insn.size, value)
    elif insn.opcode == 0xA1:
        set_register(v, GPR_RAX, insn.size, value)
    elif insn.opcode == 0x39:
        compare(v, value, get_register(v, cython.address(insn), insn.reg), insn.size)
    elif insn.opcode == 0x3B:
        compare(v, get_register(v, cython.address(insn), insn.reg), value, insn.size)
    elif (insn.opcode == 0x81 or insn.opcode == 0x83) and insn.reg & 7 == 7:
        compare(v, value, cython.cast(u64, insn.immediate) & size_mask(insn.size), insn.size)
    else:
        return False
    v.cpu.rip += insn.length
    return True
