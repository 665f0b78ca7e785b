# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""A guest's debug registers: kept, checked and given back (public/xen.h, set_debugreg).

On the Unicorn engine data breakpoints do not fire; those of execution, and single-stepping, do.
"""

import cython
from cython.cimports.paravirt.abi.constants import EINVAL, ENODEV, EPERM
from cython.cimports.paravirt.hypervisor.guestmem import in_guest_range
from cython.cimports.paravirt.hypervisor.records import VcpuPtr, i64, u32, u64
from cython.cimports.paravirt.machine.cpu import U64Ptr

DR6_ONES = cython.declare(u64, 0xFFFF0FF0)
DR6_ZEROES = cython.declare(u64, 0x1000)
DR7_ONES = cython.declare(u64, 0x400)
DR7_ZEROES = cython.declare(u64, 0xD800)
DR7_GD = cython.declare(u64, 0x2000)


def set_debug_register(v: VcpuPtr, number: u32, value: u64) -> i64:
    """0; -EPERM (an address or a kind of breakpoint that a guest may not have), -EINVAL, -ENODEV."""
    i: u32
    control: u64
    if number < 4:
        if not in_guest_range(value, 1):
            return -EPERM
        v.cpu.dr[number] = value
        return 0
    if number == 4 or number == 6:
        if value >> 32:
            return -EINVAL
        v.cpu.dr[6] = (value & ~DR6_ZEROES) | DR6_ONES
        return 0
    if number != 5 and number != 7:
        return -ENODEV
    if value >> 32:
        return -EINVAL
    if value & DR7_GD:
        return -EPERM
    value = (value & ~DR7_ZEROES) | DR7_ONES
    for i in range(4):
        control = (value >> (16 + 4 * i)) & 15
        if (value >> (2 * i)) & 3 and control & 3 == 2:
            return -EPERM  # I/O breakpoints
    v.cpu.dr[7] = value
    return 0


def get_debug_register(v: VcpuPtr, number: u32, value: U64Ptr) -> i64:
    """0 or -ENODEV."""
    if number > 7:
        return -ENODEV
    value[0] = v.cpu.dr[number + 2 if number == 4 or number == 5 else number]
    return 0
