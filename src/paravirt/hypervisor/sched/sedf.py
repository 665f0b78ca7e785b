# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""Simple earliest deadline first: so much time in each period is promised; what is left over is shared.

Of the domains with something left of their slice in this period, the one whose period ends first runs. If there is
none, those with ``extratime`` share by weight. A domain with a weight and no extra time has its slice made from its
weight: such domains share what fixed slices leave of each 100 ms. A domain with a latency has, after it woke, short
periods with short slices, which double until they are as long as its own.

Behaviour: Xen 3 and 4 up to 4.5, common/sched_sedf.c. Different here: extra time is given out in turns of 5 ms (in
Xen 0.5 ms), because a change of domains costs an engine its translations.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import PcpuPtr, i64, u32, u64
from cython.cimports.paravirt.hypervisor.sched.policy import CpupoolPtr, PcpuSchedPtr, UnitPtr
from cython.cimports.paravirt.hypervisor.sched.units import cpu_of, least_loaded, to_the_end

NEVER = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)
EXTRA_TURN = cython.declare(u64, 5_000_000)
WEIGHT_PERIOD = cython.declare(u64, 100_000_000)
# Of each such period this much is never promised.
WEIGHT_SAFETY = cython.declare(u64, 5_000_000)
# One unit of weight's worth of extra time, so that division by weights loses nothing.
EXTRA_SCALE = cython.declare(u64, 256)


def by_weight(u: UnitPtr) -> cython.bint:
    """Whether its slice is made from its weight."""
    return u.params.weight != 0 and not u.params.extratime


def extra_weight(u: UnitPtr) -> u64:
    """Its weight in extra time."""
    return u.params.weight if u.params.weight else 1


def share_by_weight(p: PcpuPtr) -> cython.void:
    """The slices of the domains here that have theirs from their weights."""
    pool: CpupoolPtr = cpu_of(p).pool
    weights: u64 = 0
    fixed: u64 = 0
    rest: u64
    u: UnitPtr
    i: u32
    for i in range(pool.count):
        u = pool.units[i]
        if u.home != p:
            continue
        if by_weight(u):
            weights += u.params.weight
        else:
            fixed += u.params.slice * (WEIGHT_PERIOD // 1000) // (u.params.period // 1000)
    rest = WEIGHT_PERIOD - WEIGHT_SAFETY - fixed if fixed < WEIGHT_PERIOD - WEIGHT_SAFETY else 0
    for i in range(pool.count):
        u = pool.units[i]
        if u.home == p and by_weight(u):
            u.sedf.period = WEIGHT_PERIOD
            u.sedf.slice = rest * u.params.weight // weights
            if u.sedf.left > u.sedf.slice:
                u.sedf.left = u.sedf.slice


def sedf_adjusted(u: UnitPtr, at: u64) -> cython.void:
    """A new period begins with the new parameters."""
    u.sedf.period = u.params.period
    u.sedf.slice = u.params.slice
    share_by_weight(u.home)
    u.sedf.deadline = at + u.sedf.period
    u.sedf.left = u.sedf.slice


def sedf_moved(u: UnitPtr, old: PcpuPtr, at: u64) -> cython.void:
    """What is promised, and had beyond that, is the physical CPU's: it has as much more, or less, of the new one's."""
    ahead: i64 = cython.cast(i64, u.sedf.extra) - cpu_of(old).virtual_time
    u.sedf.extra = cython.cast(u64, cpu_of(u.home).virtual_time + (ahead if ahead > 0 else 0))
    share_by_weight(old)
    share_by_weight(u.home)


def sedf_insert(u: UnitPtr, at: u64) -> cython.void:
    """It starts with extra time only, as all others."""
    u.params.weight = 0
    sedf_adjusted(u, at)


def sedf_remove(u: UnitPtr) -> cython.void:
    """What it was promised is free for the others."""
    home: PcpuPtr = u.home
    u.home = cython.NULL
    if home != cython.NULL:
        share_by_weight(home)


def begin_period(u: UnitPtr, at: u64) -> cython.void:
    """See that the unit's period is the one that contains ``at``, with a full slice if it has just begun."""
    whole: u64
    if at < u.sedf.deadline:
        return
    if not by_weight(u) and u.sedf.period < u.params.period:
        u.sedf.period *= 2
        u.sedf.slice *= 2
        if u.sedf.period >= u.params.period:
            u.sedf.period = u.params.period
            u.sedf.slice = u.params.slice
    whole = (at - u.sedf.deadline) // u.sedf.period + 1
    u.sedf.deadline += whole * u.sedf.period
    u.sedf.left = u.sedf.slice


def sedf_wake(u: UnitPtr, at: u64) -> cython.bint:
    """A period that ended while it slept is forgotten: one begins now, a short one if it set a latency."""
    running: UnitPtr = cpu_of(u.home).running
    # Extra time that it slept through is not saved up.
    if u.sedf.extra < cython.cast(u64, cpu_of(u.home).virtual_time):
        u.sedf.extra = cython.cast(u64, cpu_of(u.home).virtual_time)
    if at >= u.sedf.deadline:
        if u.params.latency and not by_weight(u) and u.params.slice:
            u.sedf.period = u.params.latency
            u.sedf.slice = u.params.slice * u.params.latency // u.params.period
        u.sedf.deadline = at + u.sedf.period
        u.sedf.left = u.sedf.slice
    to_the_end(u)
    if running == cython.NULL:
        return True
    if u.sedf.left == 0:
        return False
    return running.sedf.left == 0 or u.sedf.deadline < running.sedf.deadline


def sedf_sleep(u: UnitPtr, at: u64) -> cython.void:
    """Nothing to do: it is passed over."""


def sedf_charge(u: UnitPtr, ran: u64, at: u64) -> cython.void:
    """First its slice is used, then extra time."""
    least: UnitPtr
    used: u64 = ran if ran < u.sedf.left else u.sedf.left
    u.sedf.left -= used
    if ran > used:
        u.sedf.extra += (ran - used) * EXTRA_SCALE // extra_weight(u)
        least = extra_turn(u.home, cython.NULL)
        if least != cython.NULL and cython.cast(i64, least.sedf.extra) > cpu_of(u.home).virtual_time:
            cpu_of(u.home).virtual_time = cython.cast(i64, least.sedf.extra)


def sedf_tick(pool: CpupoolPtr, at: u64) -> cython.void:
    """Periods begin, whether anybody runs or not."""
    i: u32
    for i in range(pool.nr_awake):
        begin_period(pool.awake[i], at)


def earliest(p: PcpuPtr, but: UnitPtr) -> UnitPtr:
    """The unit with something left whose period ends first, other than one that yields; or NULL."""
    pool: CpupoolPtr = cpu_of(p).pool
    best: UnitPtr = cython.NULL
    u: UnitPtr
    i: u32
    for i in range(pool.nr_awake):
        u = pool.awake[i]
        if u.home == p and u.sedf.left and u != but:
            if (
                best == cython.NULL
                or u.sedf.deadline < best.sedf.deadline
                or (u.sedf.deadline == best.sedf.deadline and u.domain.domid < best.domain.domid)
            ):
                best = u
    return best


def extra_turn(p: PcpuPtr, but: UnitPtr) -> UnitPtr:
    """The unit that has had the least extra time for its weight, other than ``but``; or NULL."""
    pool: CpupoolPtr = cpu_of(p).pool
    best: UnitPtr = cython.NULL
    u: UnitPtr
    i: u32
    for i in range(pool.nr_awake):
        u = pool.awake[i]
        if u.home == p and u.params.extratime and u != but:
            if (
                best == cython.NULL
                or u.sedf.extra < best.sedf.extra
                or (u.sedf.extra == best.sedf.extra and u.order < best.order)
            ):
                best = u
    return best


def next_period(p: PcpuPtr) -> u64:
    """When the next period with a slice begins for a unit that can run here."""
    pool: CpupoolPtr = cpu_of(p).pool
    first: u64 = NEVER
    u: UnitPtr
    i: u32
    for i in range(pool.nr_awake):
        u = pool.awake[i]
        if u.home == p and u.sedf.slice and u.sedf.deadline < first:
            first = u.sedf.deadline
    return first


def sedf_do_schedule(p: PcpuPtr, at: u64) -> UnitPtr:
    """Promised time first, by deadlines; then extra time, in turns."""
    cpu: PcpuSchedPtr = cpu_of(p)
    current: UnitPtr = cpu.running
    yields: UnitPtr = current if current != cython.NULL and current.yielded else cython.NULL
    chosen: UnitPtr = earliest(p, yields)
    if chosen != cython.NULL:
        cpu.turn_end = at + chosen.sedf.left
    else:
        chosen = extra_turn(p, yields)
        if chosen == cython.NULL and yields != cython.NULL and yields.awake:
            chosen = earliest(p, cython.NULL)
            if chosen == cython.NULL:
                chosen = extra_turn(p, cython.NULL)
        elif chosen != cython.NULL and current != cython.NULL and yields == cython.NULL:
            if current.awake and current.home == p and current.params.extratime and at < cpu.turn_end:
                chosen = current
        if chosen != cython.NULL and (chosen != current or at >= cpu.turn_end):
            cpu.turn_end = at + EXTRA_TURN
    if current != cython.NULL:
        current.yielded = 0
        if current != chosen:
            to_the_end(current)
    p.slice_end = 0
    if chosen != cython.NULL:
        p.slice_end = cpu.turn_end
        if next_period(p) < p.slice_end:
            p.slice_end = next_period(p)
        if chosen.sedf.slice == 0 and extra_turn(p, chosen) == cython.NULL and next_period(p) == NEVER:
            p.slice_end = 0
    return chosen


def sedf_deadline(p: PcpuPtr, at: u64) -> u64:
    """Who has used its slice and takes no extra time waits for its next period."""
    return next_period(p)


sedf.name = b"sedf"
sedf.insert = sedf_insert
sedf.remove = sedf_remove
sedf.pick_cpu = least_loaded
sedf.wake = sedf_wake
sedf.sleep = sedf_sleep
sedf.charge = sedf_charge
sedf.tick = sedf_tick
sedf.do_schedule = sedf_do_schedule
sedf.deadline = sedf_deadline
sedf.moved = sedf_moved
sedf.adjusted = sedf_adjusted
