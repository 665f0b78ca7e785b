# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors

"""Moving units of scheduling from one physical CPU to another.

A unit has a home, whose engine runs its vcpus, and which alone has its timers. It moves as a whole, and never while
it runs: what an engine still has of its vcpus (floating-point state) is saved first, and code that the new engine
translated when the unit was there before is dropped. Who moves when is a policy's decision, and affinity's.
"""

import cython
from cython.cimports.paravirt.hypervisor.frames import arrive
from cython.cimports.paravirt.hypervisor.records import DomainPtr, HostPtr, PcpuPtr, VcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.sched.policy import UnitPtr
from cython.cimports.paravirt.hypervisor.sched.units import cpu_of, vcpu_unit
from cython.cimports.paravirt.hypervisor.timers import join_timers


def leave_engine(p: PcpuPtr) -> cython.void:
    """The physical CPU's engine, which runs nothing now, has no vcpu any more."""
    if p.current != cython.NULL and p.ops != cython.NULL and p.ops.unload != cython.NULL:
        p.ops.unload(p.engine)
    p.current = cython.NULL


def forget_vcpu(host: HostPtr, v: VcpuPtr) -> cython.void:
    """No engine has the vcpu any more: one that it comes back to empties its translation cache first."""
    i: u32
    for i in range(host.nr_pcpus):
        if host.pcpus[i].current == v:
            leave_engine(host.pcpus[i])


def where_running(u: UnitPtr) -> PcpuPtr:
    """The physical CPU that runs the unit, or has not looked since it did; NULL: none."""
    return u.home if u.home != cython.NULL and cpu_of(u.home).running == u else cython.NULL


def settle_unit(u: UnitPtr, p: PcpuPtr, at: u64) -> cython.void:
    """A unit that does not run now lives on ``p`` from now on."""
    d: DomainPtr = u.domain
    i: u32
    for i in range(d.nr_vcpus):
        if d.vcpus[i] != cython.NULL and vcpu_unit(d.vcpus[i]) == u:
            forget_vcpu(d.host, d.vcpus[i])
            join_timers(d.vcpus[i], p)
    arrive(p, d)
    u.home = p
    u.moved = at


def move_unit(u: UnitPtr, p: PcpuPtr, at: u64) -> cython.void:
    """Give a unit that does not run now another home in its pool. Whoever asks for it sees that its new home chooses
    anew."""
    old: PcpuPtr = u.home
    if old != p:
        settle_unit(u, p, at)
        u.pool.policy.moved(u, old, at)
