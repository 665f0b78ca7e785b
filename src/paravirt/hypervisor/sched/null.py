# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""The null policy: each physical CPU runs one domain, until that domain ends; others wait for a CPU to be free.

Behaviour: Xen 4.17, common/sched/null.c, which does it with vcpus.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import HostPtr, PcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.sched.moving import move_unit
from cython.cimports.paravirt.hypervisor.sched.policy import CpupoolPtr, PcpuSchedPtr, UnitPtr
from cython.cimports.paravirt.hypervisor.sched.units import allowed, cpu_of, least_loaded
from cython.cimports.paravirt.hypervisor.scheduling import force_reschedule

NEVER = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)


def null_insert(u: UnitPtr, at: u64) -> cython.void:
    """It is assigned when its physical CPU chooses."""


def null_remove(u: UnitPtr) -> cython.void:
    """Its physical CPU is free for another one, which it looks for now."""
    host: HostPtr = u.domain.host
    i: u32
    for i in range(host.nr_pcpus):
        if cpu_of(host.pcpus[i]).assigned == u:
            cpu_of(host.pcpus[i]).assigned = cython.NULL
            force_reschedule(host.pcpus[i])


def null_wake(u: UnitPtr, at: u64) -> cython.bint:
    """Nothing else runs where it runs."""
    return cpu_of(u.home).assigned == cython.NULL or cpu_of(u.home).assigned == u


def null_sleep(u: UnitPtr, at: u64) -> cython.void:
    """It keeps its physical CPU."""


def null_charge(u: UnitPtr, ran: u64, at: u64) -> cython.void:
    """Nothing is accounted."""


def null_tick(pool: CpupoolPtr, at: u64) -> cython.void:
    """Nothing is accounted."""


def may_take(u: UnitPtr, p: PcpuPtr) -> cython.bint:
    """Whether a unit waits for a physical CPU to be free, and may have this one."""
    home: UnitPtr = cpu_of(u.home).assigned
    return home != cython.NULL and home != u and allowed(u, p)


def null_do_schedule(p: PcpuPtr, at: u64) -> UnitPtr:
    """The domain assigned here; if there is none, the first of those that could run: at home here, else elsewhere."""
    pool: CpupoolPtr = cpu_of(p).pool
    cpu: PcpuSchedPtr = cpu_of(p)
    u: UnitPtr = cpu.assigned
    i: u32
    if u != cython.NULL and (u.home != p or u.domain.is_shut_down or u.domain.dying):
        cpu.assigned = cython.NULL
    if cpu.assigned == cython.NULL:
        for i in range(pool.nr_awake):
            u = pool.awake[i]
            if not (u.home == p or may_take(u, p)):
                continue
            if (
                cpu.assigned == cython.NULL
                or (u.home == p and cpu.assigned.home != p)
                or ((u.home == p) == (cpu.assigned.home == p) and u.order < cpu.assigned.order)
            ):
                cpu.assigned = u
        u = cpu.assigned
        if u != cython.NULL and u.home != p:
            move_unit(u, p, at)
            cpu.assigned = u
    p.slice_end = 0
    return cpu.assigned if cpu.assigned != cython.NULL and cpu.assigned.awake else cython.NULL


def null_deadline(p: PcpuPtr, at: u64) -> u64:
    """Nothing happens by itself."""
    return NEVER


def null_moved(u: UnitPtr, old: PcpuPtr, at: u64) -> cython.void:
    """Its physical CPU is free for another one."""
    null_remove(u)


def null_adjusted(u: UnitPtr, at: u64) -> cython.void:
    """There are no parameters."""


null.name = b"null"
null.balances = 1
null.insert = null_insert
null.remove = null_remove
null.pick_cpu = least_loaded
null.wake = null_wake
null.sleep = null_sleep
null.charge = null_charge
null.tick = null_tick
null.do_schedule = null_do_schedule
null.deadline = null_deadline
null.moved = null_moved
null.adjusted = null_adjusted
