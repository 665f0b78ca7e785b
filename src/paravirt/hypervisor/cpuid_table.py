# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""cpuid by table: the policy (cpuid.py) as C records, and the few answers that depend on who asks."""

import cython
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, u32
from cython.cimports.paravirt.machine.cpu import U32Ptr

from paravirt.hypervisor.cpuid import ANY, POLICY

XEN_TIME_LEAF = cython.declare(u32, 0x40000003)


def fill() -> None:
    """Copy the policy into the table."""
    global nr_leaves
    i: cython.int
    for (leaf, subleaf), registers in POLICY.items():
        leaves[nr_leaves].number = leaf
        leaves[nr_leaves].subleaf = ANY if subleaf is None else subleaf
        for i in range(4):
            leaves[nr_leaves].regs[i] = registers[i]
        nr_leaves += 1


def cpuid(host: HostPtr, v: VcpuPtr, leaf: u32, subleaf: u32, regs: U32Ptr) -> cython.void:
    """eax, ebx, ecx, edx of a leaf, as this vcpu sees them; what is not in the table is zero."""
    i: u32
    for i in range(4):
        regs[i] = 0
    for i in range(nr_leaves):
        if leaves[i].number == leaf and (
            leaves[i].subleaf == ~cython.cast(u32, 0) or leaves[i].subleaf == subleaf
        ):
            regs[0] = leaves[i].regs[0]
            regs[1] = leaves[i].regs[1]
            regs[2] = leaves[i].regs[2]
            regs[3] = leaves[i].regs[3]
            break
    if leaf == 1:
        regs[1] |= (v.id * 2) << 24
    elif leaf == XEN_TIME_LEAF and subleaf == 1:
        regs[2] = host.tsc_mul
        regs[3] = cython.cast(u32, host.tsc_shift)


fill()
