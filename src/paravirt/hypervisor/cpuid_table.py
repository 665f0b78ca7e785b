# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""cpuid by table: the policy (cpuid.py) as C records, and the few answers that depend on who asks."""

import cython
from cython.cimports.paravirt.hypervisor.cpuid_table import LeafPtr, LeavesPtr
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, u32, u64
from cython.cimports.paravirt.machine.cpu import U32Ptr

from paravirt.hypervisor.cpuid import ANY, POLICY, XSAVE_LEAST, with_vector_state

XEN_TIME_LEAF = cython.declare(u32, 0x40000003)
XSAVE_LEAF = cython.declare(u32, 13)
SMALLEST = cython.declare(u32, XSAVE_LEAST)


def fill(table: LeavesPtr, policy: dict) -> None:
    """Copy a policy into a table."""
    i: cython.int
    table.count = 0
    for (leaf, subleaf), registers in policy.items():
        table.leaves[table.count].number = leaf
        table.leaves[table.count].subleaf = ANY if subleaf is None else subleaf
        for i in range(4):
            table.leaves[table.count].regs[i] = registers[i]
        table.count += 1


def offer_native_state(host: HostPtr, native: dict) -> None:
    """Processes see the host's own leaves: see cpuid.py. They are the same for all machines of this process."""
    states, table = with_vector_state(native)
    host.xcr0_states = states
    if states:
        fill(cython.address(wide), table)


def size_of_state(table: LeavesPtr, xcr0: u64) -> u32:
    """Bytes of a save area for these states, in the standard format."""
    i: u32
    size: u32 = SMALLEST
    leaf: LeafPtr
    for i in range(table.count):
        leaf = cython.address(table.leaves[i])
        if leaf.number == XSAVE_LEAF and leaf.subleaf >= 2 and xcr0 >> leaf.subleaf & 1:
            size = max(size, leaf.regs[0] + leaf.regs[1])
    return size


def cpuid(host: HostPtr, v: VcpuPtr, leaf: u32, subleaf: u32, regs: U32Ptr) -> cython.void:
    """eax, ebx, ecx, edx of a leaf, as this vcpu sees them; what is not in the table is zero."""
    i: u32
    j: u32
    table: LeavesPtr = cython.address(wide) if host.xcr0_states else cython.address(plain)
    found: LeafPtr
    for i in range(4):
        regs[i] = 0
    for i in range(table.count):
        found = cython.address(table.leaves[i])
        if found.number == leaf and (found.subleaf == ~cython.cast(u32, 0) or found.subleaf == subleaf):
            for j in range(4):
                regs[j] = found.regs[j]
            break
    if leaf == 1:
        regs[1] |= (v.id * 2) << 24
    elif leaf == XEN_TIME_LEAF and subleaf == 1:
        regs[2] = host.tsc_mul
        regs[3] = cython.cast(u32, host.tsc_shift)
    elif leaf == XSAVE_LEAF and subleaf == 0 and host.xcr0_states:
        regs[1] = size_of_state(table, v.xcr0)


fill(cython.address(plain), POLICY)
