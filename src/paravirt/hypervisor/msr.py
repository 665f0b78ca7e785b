# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Model-specific registers of a guest: what it may read and write; all else is #GP, as under Xen 4.17."""

import cython
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, i64, u32, u64
from cython.cimports.paravirt.hypervisor.timekeeping import guest_tsc
from cython.cimports.paravirt.machine.cpu import SEG_FS, SEG_GS, U64Ptr

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


def canonical(address: u64) -> cython.bint:
    """Whether bits 63..47 are equal."""
    return cython.cast(u64, cython.cast(i64, address << 16) >> 16) == address


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
    elif number == UCODE_REV or number == PLATFORM_INFO or number == XEN_HYPERCALL:
        value[0] = 0
    else:
        return False
    return True


def write_msr(host: HostPtr, v: VcpuPtr, number: u32, value: u64) -> cython.bint:
    """wrmsr: false where it faults."""
    if number == FS_BASE or number == GS_BASE or number == KERNEL_GS_BASE:
        if not canonical(value):
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
    if number == TSC_AUX:
        if value >> 32:
            return False
        v.cpu.tsc_aux = cython.cast(u32, value)
        return True
    # An Intel processor's way to ask for the microcode's revision is to write zero first.
    return number == UCODE_REV and value == 0
