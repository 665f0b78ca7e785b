# cython: language_level=3, cdivision=True
# mypy: ignore-errors
"""The way from native code to the hypercalls whose handlers are Python."""

import traceback

import cython
from cython.cimports.paravirt.abi.constants import ENOSYS, HYPERVISOR_xen_version, XENVER_version
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, i64, u32, u64
from cython.cimports.paravirt.hypervisor.scheduling import domain_shutdown
from cython.cimports.paravirt.machine.cpu import GPR_R8, GPR_R9, GPR_R10, GPR_RDI, GPR_RDX, GPR_RSI, U64Ptr

from paravirt.hypervisor.hypercalls.registry import HypercallContinuation, HypercallError
from paravirt.hypervisor.hypercalls.version import MAJOR, MINOR

# What such a call counts beside its own work, in looks at page-table entries.
WORK_OF_FAMILY = cython.declare(u64, 128)
VERSION = cython.declare(i64, MAJOR << 16 | MINOR)


def call_family(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """A hypercall whose handler is Python.  What it raises by mistake is our bug, and ends the calling domain."""
    owner: object = cython.cast(object, host.owner)
    vcpu: object = owner.domains[v.domain.domid].vcpus[v.id]
    host.stats.python_hypercalls += 1
    host.work += WORK_OF_FAMILY
    try:
        return owner.families[v.hypercall](vcpu, args[0], args[1], args[2], args[3], args[4], args[5])
    except HypercallError as error:
        return -error.errno
    except HypercallContinuation as more:
        return continue_hypercall(v, args, more.arguments)
    except Exception:  # noqa: BLE001 - shown as our bug
        traceback.print_exc()
        domain_shutdown(v.domain, 3)
        return -ENOSYS


def continue_hypercall(v: VcpuPtr, args: U64Ptr, arguments: tuple) -> i64:
    """Have the guest make the hypercall in progress again, with these arguments."""
    i: u32
    registers: tuple = (GPR_RDI, GPR_RSI, GPR_RDX, GPR_R10, GPR_R8, GPR_R9)
    for i in range(len(arguments)):
        args[i] = arguments[i]
        if not v.in_multicall:
            v.cpu.gpr[cython.cast(u32, registers[i])] = args[i]
    v.preempted = 1
    if not v.in_multicall:
        v.cpu.rip -= 2  # to the syscall instruction, with its number in rax again
    return v.hypercall


def python_hypercall(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """From native code into a Python family.

    But for xen_version's number: Linux asks for that whenever it wants a pending event delivered, so that it is
    answered here, without waiting for the interpreter.
    """
    if v.hypercall == HYPERVISOR_xen_version and cython.cast(u32, args[0]) == XENVER_version:
        return VERSION
    with cython.gil:
        return call_family(host, v, args)
