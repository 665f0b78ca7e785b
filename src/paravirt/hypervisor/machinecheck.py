# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""The machine-check registers that a guest sees: two banks, in which no error ever appears by itself.

Xen shows MCE and MCA in CPUID to paravirtual guests, and Linux sets up what it finds there.  Behaviour: Xen 4.17,
xen/arch/x86/cpu/mcheck/vmce.c and vmce_intel.c.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import VcpuPtr, u32, u64

P5_MC_TYPE = cython.declare(u32, 1)
MCG_CAP = cython.declare(u32, 0x179)
MCG_STATUS = cython.declare(u32, 0x17A)
MCG_CTL = cython.declare(u32, 0x17B)
# Of each bank one, or four; numbers exist for 32 banks, whatever the processor has.
MC0_CTL2 = cython.declare(u32, 0x280)
MC0_CTL = cython.declare(u32, 0x400)
NUMBERED_BANKS = cython.declare(u32, 32)
BANKS = cython.declare(u32, 2)

# The number of banks; software recovery, threshold-based status.
MCG_CAP_VALUE = cython.declare(u64, 0x1000802)
ALL_ONES = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)


def is_machine_check_msr(number: u32) -> cython.bint:
    """Whether it is one of these registers."""
    return (
        number <= P5_MC_TYPE
        or MCG_CAP <= number <= MCG_CTL
        or MC0_CTL <= number < MC0_CTL + 4 * NUMBERED_BANKS
        or MC0_CTL2 <= number < MC0_CTL2 + NUMBERED_BANKS
    )


def read_machine_check(v: VcpuPtr, number: u32) -> u64:
    """rdmsr of one of them, which never faults."""
    if number == MCG_CAP:
        return MCG_CAP_VALUE
    if number == MCG_STATUS:
        return v.mcg_status
    if MC0_CTL <= number < MC0_CTL + 4 * BANKS and number % 4 == 0:
        return ALL_ONES
    if MC0_CTL2 <= number < MC0_CTL2 + BANKS:
        return v.mc_ctl2[number - MC0_CTL2]
    return 0


def write_machine_check(v: VcpuPtr, number: u32, value: u64) -> cython.bint:
    """wrmsr of one of them: false where it faults.  A bank's status, address and the rest can only be cleared."""
    if number <= P5_MC_TYPE:
        return False
    if number == MCG_STATUS:
        v.mcg_status = value
    elif MC0_CTL2 <= number < MC0_CTL2 + BANKS:
        v.mc_ctl2[number - MC0_CTL2] = value
    elif MC0_CTL <= number < MC0_CTL + 4 * BANKS and number % 4 != 0:
        return value == 0
    return True
