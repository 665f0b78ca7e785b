# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""Borrowed virtual time: the domain that is furthest behind in virtual time runs, and may borrow from its future.

A domain's actual virtual time advances by ``mcuadv`` for each unit of time (100 us) that it runs: twice the advance
is half the share. Its effective virtual time is that, less ``warpvalue`` while it is warped. A domain that wakes
after a long sleep starts at the lowest virtual time of those that can run, and is warped if its ``warpback`` is set;
after ``warpl`` of running warped it is not any more, and stays so for ``warpu``. A running domain may be ahead of
the next by the context-switch allowance before it has to make way.

Source: Duda and Cheriton, "Borrowed-Virtual-Time (BVT) scheduling", SOSP 1999, and its use in the Xen paper.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import PcpuPtr, i64, u32, u64
from cython.cimports.paravirt.hypervisor.sched.policy import CpupoolPtr, PcpuSchedPtr, UnitPtr
from cython.cimports.paravirt.hypervisor.sched.units import cpu_of, least_loaded, to_the_end

NEVER = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)
# Units of time that a warp's value counts, in ns.
MCU = cython.declare(u64, 100_000)
# Virtual times are moved back before they grow past what fits.
HIGHEST = cython.declare(i64, 0x1000000000000000)


def evt(u: UnitPtr) -> i64:
    """Effective virtual time."""
    return u.bvt.avt - cython.cast(i64, u.params.warpvalue * MCU) if u.bvt.warped else u.bvt.avt


def lowest(p: PcpuPtr, but: UnitPtr) -> UnitPtr:
    """The unit with the least effective virtual time that can run here, other than ``but``; or NULL."""
    pool: CpupoolPtr = cpu_of(p).pool
    best: UnitPtr = cython.NULL
    u: UnitPtr
    i: u32
    for i in range(pool.nr_awake):
        u = pool.awake[i]
        if u == but or u.home != p:
            continue
        if best == cython.NULL or evt(u) < evt(best) or (evt(u) == evt(best) and u.order < best.order):
            best = u
    return best


def time_goes_on(p: PcpuPtr) -> cython.void:
    """The scheduler's virtual time is the lowest of those that can run, and stays when nobody can."""
    pool: CpupoolPtr = cpu_of(p).pool
    least: UnitPtr = cython.NULL
    u: UnitPtr
    i: u32
    for i in range(pool.nr_awake):
        u = pool.awake[i]
        if u.home == p and (least == cython.NULL or u.bvt.avt < least.bvt.avt):
            least = u
    if least != cython.NULL and least.bvt.avt > cpu_of(p).virtual_time:
        cpu_of(p).virtual_time = least.bvt.avt


def bvt_insert(u: UnitPtr, at: u64) -> cython.void:
    """It starts where the others are, once it wakes."""


def bvt_remove(u: UnitPtr) -> cython.void:
    """Nothing to give back."""


def bvt_wake(u: UnitPtr, at: u64) -> cython.bint:
    """It is not behind the others, may be warped, and goes first if that puts it further back than the allowance."""
    running: UnitPtr = cpu_of(u.home).running
    # Time that it slept through is not saved up.
    if u.bvt.avt < cpu_of(u.home).virtual_time:
        u.bvt.avt = cpu_of(u.home).virtual_time
    if u.params.warpback and at >= u.bvt.unwarped_until:
        u.bvt.warped = 1
        u.bvt.warp_used = 0
    to_the_end(u)
    return running == cython.NULL or evt(u) + allowance(running) < evt(running)


def allowance(u: UnitPtr) -> i64:
    """How far the running unit may be ahead of another one, in virtual time."""
    return cython.cast(i64, u.pool.ctx_allow * u.params.mcuadv)


def bvt_sleep(u: UnitPtr, at: u64) -> cython.void:
    """A warp ends with its reason."""
    u.bvt.warped = 0


def bvt_charge(u: UnitPtr, ran: u64, at: u64) -> cython.void:
    """Virtual time passes for who runs; a warp has an end."""
    u.bvt.avt += cython.cast(i64, ran * u.params.mcuadv)
    time_goes_on(u.home)
    if u.bvt.warped:
        u.bvt.warp_used += ran
        if u.params.warpl and u.bvt.warp_used >= u.params.warpl:
            u.bvt.warped = 0
            u.bvt.unwarped_until = at + u.params.warpu


def bvt_tick(pool: CpupoolPtr, at: u64) -> cython.void:
    """Move all virtual times back before they overflow."""
    high: cython.bint = False
    i: u32
    for i in range(pool.nr_awake):
        high = high or pool.awake[i].bvt.avt > HIGHEST
    if high:
        for i in range(pool.count):
            pool.units[i].bvt.avt -= HIGHEST
        for i in range(pool.host.nr_pcpus):
            if cpu_of(pool.host.pcpus[i]).pool == pool:
                cpu_of(pool.host.pcpus[i]).virtual_time -= HIGHEST


def bvt_do_schedule(p: PcpuPtr, at: u64) -> UnitPtr:
    """The lowest effective virtual time, unless what runs is within the allowance of it."""
    cpu: PcpuSchedPtr = cpu_of(p)
    chosen: UnitPtr = cpu.running
    other: UnitPtr = lowest(p, chosen)
    ahead: i64
    if chosen != cython.NULL and (not chosen.awake or chosen.home != p):
        chosen = cython.NULL
    if other != cython.NULL and (
        chosen == cython.NULL or chosen.yielded or evt(chosen) >= evt(other) + allowance(chosen)
    ):
        if cpu.running != cython.NULL:
            to_the_end(cpu.running)
        chosen = other
    if cpu.running != cython.NULL:
        cpu.running.yielded = 0
    p.slice_end = 0
    if chosen == cython.NULL:
        return cython.NULL
    other = lowest(p, chosen)
    if other != cython.NULL:
        ahead = evt(other) + allowance(chosen) - evt(chosen)
        p.slice_end = at + (cython.cast(u64, ahead) // chosen.params.mcuadv if ahead > 0 else 0) + 1
        if chosen.bvt.warped and chosen.params.warpl and chosen.bvt.warp_used < chosen.params.warpl:
            if at + chosen.params.warpl - chosen.bvt.warp_used < p.slice_end:
                p.slice_end = at + chosen.params.warpl - chosen.bvt.warp_used
    return chosen


def bvt_deadline(p: PcpuPtr, at: u64) -> u64:
    """Whoever can run, does."""
    return NEVER


def bvt_moved(u: UnitPtr, old: PcpuPtr, at: u64) -> cython.void:
    """Each physical CPU has a virtual time of its own: the unit is as far ahead of, or behind, the new one's."""
    u.bvt.avt += cpu_of(u.home).virtual_time - cpu_of(old).virtual_time


def bvt_adjusted(u: UnitPtr, at: u64) -> cython.void:
    """Only warps depend on parameters."""
    if not u.params.warpback:
        u.bvt.warped = 0


bvt.name = b"bvt"
bvt.insert = bvt_insert
bvt.remove = bvt_remove
bvt.pick_cpu = least_loaded
bvt.wake = bvt_wake
bvt.sleep = bvt_sleep
bvt.charge = bvt_charge
bvt.tick = bvt_tick
bvt.do_schedule = bvt_do_schedule
bvt.deadline = bvt_deadline
bvt.moved = bvt_moved
bvt.adjusted = bvt_adjusted
