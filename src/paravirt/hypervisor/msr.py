# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Model-specific registers of a guest: what it may read and write; all else is #GP, as under Xen 4.17.

A guest without a handler for #GP reads zero from any register: Linux reads some before it has its trap table.
"""

import cython
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.paravirt.abi.constants import HYPERVISOR_iret
from cython.cimports.paravirt.hypervisor.frames import drop_code, get_page_and_type, put_page_and_type
from cython.cimports.paravirt.hypervisor.guestmem import frame_ptr, is_canonical
from cython.cimports.paravirt.hypervisor.machinecheck import (
    is_machine_check_msr,
    read_machine_check,
    write_machine_check,
)
from cython.cimports.paravirt.hypervisor.records import FRAME_WRITABLE, HostPtr, VcpuPtr, u8, u32, u64
from cython.cimports.paravirt.hypervisor.timekeeping import guest_tsc
from cython.cimports.paravirt.machine.cpu import SEG_FS, SEG_GS, BytePtr, U64Ptr

TSC = cython.declare(u32, 0x10)
APIC_BASE = cython.declare(u32, 0x1B)
UCODE_REV = cython.declare(u32, 0x8B)
PLATFORM_INFO = cython.declare(u32, 0xCE)
MISC_ENABLE = cython.declare(u32, 0x1A0)
PAT = cython.declare(u32, 0x277)
XEN_HYPERCALL = cython.declare(u32, 0x40000000)
EFER = cython.declare(u32, 0xC0000080)
FS_BASE = cython.declare(u32, 0xC0000100)
GS_BASE = cython.declare(u32, 0xC0000101)
KERNEL_GS_BASE = cython.declare(u32, 0xC0000102)
TSC_AUX = cython.declare(u32, 0xC0000103)

EFER_VALUE = cython.declare(u64, 0xD01)  # SCE, LME, LMA, NXE
APIC_BASE_VALUE = cython.declare(u64, 0xFEE00900)  # enabled, bootstrap processor
PAT_VALUE = cython.declare(u64, 0x050100070406)  # Xen's own
MISC_ENABLE_VALUE = cython.declare(u64, 0x1801)  # fast strings; no branch trace, no PEBS


def read_msr(host: HostPtr, v: VcpuPtr, number: u32, value: U64Ptr) -> cython.bint:
    """rdmsr: false where it faults."""
    if number == FS_BASE:
        value[0] = v.cpu.seg[SEG_FS].base
    elif number == GS_BASE:
        value[0] = v.cpu.seg[SEG_GS].base
    elif number == KERNEL_GS_BASE:
        value[0] = v.gs_base_kernel
    elif number == EFER:
        value[0] = EFER_VALUE
    elif number == TSC:
        value[0] = guest_tsc(host)
    elif number == TSC_AUX:
        value[0] = v.cpu.tsc_aux
    elif number == PAT:
        value[0] = PAT_VALUE
    elif number == APIC_BASE:
        value[0] = APIC_BASE_VALUE
    elif number == MISC_ENABLE:
        value[0] = MISC_ENABLE_VALUE
    elif is_machine_check_msr(number):
        value[0] = read_machine_check(v, number)
    elif number == UCODE_REV or number == PLATFORM_INFO or number == XEN_HYPERCALL:
        value[0] = 0
    else:
        value[0] = 0
        return v.traps[13].address == 0
    return True


def fill_hypercall_page(page: BytePtr) -> cython.void:
    """Write the stubs that a guest may call in place of ``syscall``: one for each number, 32 bytes each.

    They keep rcx and r11, which ``syscall`` destroys.  The stub of iret never returns: it leaves on the stack, in the
    order of iret's frame, what it was called with.
    """
    number: u32
    stub: BytePtr
    i: u32
    memset(page, 0xCC, 4096)
    for number in range(64):
        stub = page + 32 * number
        memcpy(stub, cython.cast(cython.p_const_char, b"\x51\x41\x53"), 3)  # push rcx; push r11
        i = 3
        if number == HYPERVISOR_iret:
            stub[3] = 0x50  # push rax
            i = 4
        stub[i] = 0xB8  # mov eax, number
        stub[i + 1] = cython.cast(u8, number)
        memset(stub + i + 2, 0, 3)
        memcpy(stub + i + 5, cython.cast(cython.p_const_char, b"\x0f\x05"), 2)  # syscall
        if number != HYPERVISOR_iret:
            memcpy(stub + i + 7, cython.cast(cython.p_const_char, b"\x41\x5b\x59\xc3"), 4)  # pop r11; pop rcx; ret


def write_hypercall_page(host: HostPtr, v: VcpuPtr, value: u64) -> cython.bint:
    """Fill one of the guest's frames with the stubs: false if it is a page table, say, or not the guest's."""
    mfn: u64 = value >> 12
    if value & 0xFFF or get_page_and_type(host, mfn, v.domain.domid, FRAME_WRITABLE) != 0:
        return False
    fill_hypercall_page(frame_ptr(host, mfn))
    drop_code(host, mfn << 12, (mfn + 1) << 12)
    put_page_and_type(host, mfn)
    return True


def write_msr(host: HostPtr, v: VcpuPtr, number: u32, value: u64) -> cython.bint:
    """wrmsr: false where it faults."""
    if number == FS_BASE or number == GS_BASE or number == KERNEL_GS_BASE:
        if not is_canonical(value):
            return False
        if number == FS_BASE:
            v.cpu.seg[SEG_FS].base = value
        elif number == GS_BASE:
            v.cpu.seg[SEG_GS].base = value
        else:
            v.gs_base_kernel = value
        v.cpu.segs_dirty = 1
        return True
    if number == EFER:
        return value == EFER_VALUE
    if number == XEN_HYPERCALL:
        return write_hypercall_page(host, v, value)
    if is_machine_check_msr(number):
        return write_machine_check(v, number, value)
    if number == TSC_AUX:
        if value >> 32:
            return False
        v.cpu.tsc_aux = cython.cast(u32, value)
        return True
    # An Intel processor's way to ask for the microcode's revision is to write zero first.
    return number == UCODE_REV and value == 0
