# cython: language_level=3, cdivision=True
# mypy: ignore-errors
"""A hypercall on a vcpu's behalf, without guest code: what tests, models and fuzzers in Python work with.

The vcpu is one that the engine does not run (its domain is paused).  Arguments in memory are where the guest's own
page tables map them, as always.
"""

import cython
from cython.cimports.paravirt.hypervisor.hypercalls.native import hypercall as native_hypercall
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, i64, u64
from cython.cimports.paravirt.hypervisor.views import Vcpu
from cython.cimports.paravirt.machine.cpu import (
    GPR_R8,
    GPR_R9,
    GPR_R10,
    GPR_RAX,
    GPR_RDI,
    GPR_RDX,
    GPR_RSI,
)

SYSCALL_LENGTH = 2


def hypercall(vcpu: Vcpu, number: int, arguments: tuple, limit: int = 0) -> tuple:
    """Make a hypercall as the vcpu's kernel would, and go on with it as often as it is preempted.

    Args:
        limit: give up after so many continuations; 0: never.

    Returns:
        What the guest finds in rax, as a signed number, and how many continuations it took.
    """
    v: VcpuPtr = vcpu.rec
    host: HostPtr = v.domain.host
    here: u64 = v.cpu.rip
    registers: tuple = (GPR_RDI, GPR_RSI, GPR_RDX, GPR_R10, GPR_R8, GPR_R9)
    continuations = 0
    for i, register in enumerate(registers):
        value = arguments[i] if i < len(arguments) else 0
        v.cpu.gpr[cython.cast(u64, register)] = value & 0xFFFFFFFFFFFFFFFF
    v.cpu.gpr[GPR_RAX] = number
    while True:
        with cython.nogil:
            native_hypercall(host, v)
        if v.cpu.rip != here - SYSCALL_LENGTH:
            break
        v.cpu.rip = here
        continuations += 1
        if continuations == limit:
            break
    return cython.cast(i64, v.cpu.gpr[GPR_RAX]), continuations
