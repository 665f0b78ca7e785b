# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""The credit policy: time in proportion to weights, limited by caps; who wakes with credit left goes first.

Credit is processor time in nanoseconds. Every 30 ms the pool's time of as long is shared out by weight among
the domains that used some, and running costs as much as it takes. A domain with credit goes before one without,
and one that woke with credit before both, until the next tick. One over its cap waits until it has earned credit.

A physical CPU that has nothing to do, or only domains without credit, takes one over that waits elsewhere.

Behaviour: Xen 4.17, common/sched/credit.c. Different here: use is measured where Xen samples it each tick; a domain
that waits for a CPU goes on earning, where Xen halves what it has and lets it earn no more; debt is kept, where Xen
forgives what is more than a time slice, so that turns that the host made longer do not add up.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import DomainPtr, PcpuPtr, i64, u32, u64
from cython.cimports.paravirt.hypervisor.sched.moving import move_unit
from cython.cimports.paravirt.hypervisor.sched.policy import (
    BOOST,
    OVER,
    UNDER,
    CpupoolPtr,
    PcpuSchedPtr,
    UnitPtr,
)
from cython.cimports.paravirt.hypervisor.sched.units import (
    cpu_of,
    least_loaded,
    own_unit,
    prefers,
    to_the_end,
    waits_elsewhere,
)

TICK = cython.declare(u64, 10_000_000)
NEVER = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)
# Moving costs an engine the unit's translations: a unit waits so long before an idle physical CPU takes it over, and
# stays so long before it is moved for the sake of shares.
PATIENCE = cython.declare(u64, 5_000_000)
SETTLING = cython.declare(u64, 500_000_000)
# Time slices that a unit can be behind. A host that does not let this process run makes turns longer than they should
# be, and whoever had them pays; what is longer than this is nobody's fault.
MOST_DEBT = cython.declare(i64, 10)


def credit_insert(u: UnitPtr, at: u64) -> cython.void:
    """It starts without credit or debt."""
    u.credit.priority = UNDER


def credit_remove(u: UnitPtr) -> cython.void:
    """It earns no more; its credit goes with it."""
    set_active(u, False)


def credit_wake(u: UnitPtr, at: u64) -> cython.bint:
    """With credit left it goes before those who only have credit."""
    running: UnitPtr = cpu_of(u.home).running
    if u.credit.priority == UNDER and not u.credit.parked:
        u.credit.priority = BOOST
    to_the_end(u)
    return not u.credit.parked and (running == cython.NULL or u.credit.priority < running.credit.priority)


def credit_sleep(u: UnitPtr, at: u64) -> cython.void:
    """Nothing to do: it is passed over."""


def credit_charge(u: UnitPtr, ran: u64, at: u64) -> cython.void:
    """Pay for the time; a tick ends the boost."""
    u.credit.credit -= cython.cast(i64, ran)
    if ran:
        set_active(u, True)
    if u.credit.priority == BOOST and at // TICK != (at - ran) // TICK:
        u.credit.priority = UNDER


def set_active(u: UnitPtr, active: cython.bint) -> cython.void:
    """The unit earns from now on, or does not: accounting looks at those that do, however many sleep."""
    pool: CpupoolPtr = u.pool
    last: UnitPtr
    if active and not u.credit.active:
        u.credit.place = pool.nr_active
        pool.active[u.credit.place] = u
        pool.nr_active += 1
    elif u.credit.active and not active:
        pool.nr_active -= 1
        last = pool.active[pool.nr_active]
        pool.active[u.credit.place] = last
        last.credit.place = u.credit.place
    u.credit.active = active


def earn(u: UnitPtr, fair: u64, bound: u64) -> cython.void:
    """What an accounting period brings to one unit that is active, and what follows from its credit."""
    tslice: i64 = cython.cast(i64, u.pool.tslice)
    u.credit.credit += cython.cast(i64, fair)
    if u.credit.credit < 0:
        u.credit.priority = OVER
        if u.params.cap and u.credit.credit < -cython.cast(i64, fair):
            u.credit.parked = 1
        if u.credit.credit < -MOST_DEBT * tslice:
            u.credit.credit = -MOST_DEBT * tslice
        return
    if u.credit.priority == OVER:
        u.credit.priority = UNDER
    u.credit.parked = 0
    if not u.awake and u.credit.credit > tslice:
        u.credit.credit //= 2
        set_active(u, False)
    elif u.credit.credit > cython.cast(i64, bound):
        u.credit.credit = cython.cast(i64, bound)


def settle(u: UnitPtr, peak: u64) -> u64:
    """The unit gets the most that it may have, and takes no part in further rounds; its weight."""
    u.credit.settled = 1
    u.credit.fair = peak
    return u.params.weight


def share_of_cap(u: UnitPtr, period: u64) -> u64:
    """What of a period the unit may have by its domain's cap, which the domain's active vcpus share."""
    d: DomainPtr = u.domain
    other: UnitPtr
    sharing: u32 = 1
    i: u32
    if u.params.cap == 0:
        return period
    for i in range(d.nr_vcpus):
        other = own_unit(d, i)
        if other != cython.NULL and other != u and other.credit.active:
            sharing += 1
    return period * u.params.cap // (100 * sharing)


def account(pool: CpupoolPtr, at: u64) -> cython.bint:
    """Share out one period's time among the active units by weight; nobody gets more than a whole CPU, or its cap.

    What caps leave over goes to the others: as many rounds as some reach theirs. So does what the active units are in
    debt together, since credit that was lost, by those that sleep, cannot be what the others used. False: none is
    active.
    """
    total: u64 = pool.tslice * pool.nr_cpus
    left: u64
    weights: u64 = 0
    reached: u64
    active: u32 = pool.nr_active
    peak: u64
    together: i64 = 0
    settled: cython.bint = False
    u: UnitPtr
    i: u32
    for i in range(active):
        u = pool.active[i]
        u.credit.settled = 0
        weights += u.params.weight
        together += u.credit.credit
    # All that they can have used since the last accounting is not earned yet.
    together += cython.cast(i64, (at - pool.next_account + pool.tslice) * pool.nr_cpus)
    if together < 0:
        total += cython.cast(u64, -together)
    while not settled:
        settled = True
        left = total
        reached = 0
        for i in range(active):
            u = pool.active[i]
            if u.credit.settled:
                continue
            peak = min(pool.tslice, share_of_cap(u, pool.tslice))
            u.credit.fair = total * u.params.weight // weights
            if u.credit.fair >= peak:
                reached += settle(u, peak)
                left -= peak
                settled = False
        total = left
        weights -= reached
    for i in range(active, 0, -1):  # who earns no more makes room for one that has earned already
        earn(pool.active[i - 1], pool.active[i - 1].credit.fair, pool.tslice * (active + 1))
    return active != 0


def credit_tick(pool: CpupoolPtr, at: u64) -> cython.void:
    """Accounting, once for each period that has passed, or until nobody is active any more."""
    if pool.next_account == 0:
        pool.next_account = at + pool.tslice
    while at >= pool.next_account:
        if not account(pool, at):
            pool.next_account = at - (at - pool.next_account) % pool.tslice
        pool.next_account += pool.tslice


def best_waiting(p: PcpuPtr, current: UnitPtr) -> UnitPtr:
    """The unit that waits here with the best priority, and longest; or NULL."""
    pool: CpupoolPtr = cpu_of(p).pool
    best: UnitPtr = cython.NULL
    u: UnitPtr
    i: u32
    for i in range(pool.nr_awake):
        u = pool.awake[i]
        if u == current or u.home != p or u.credit.parked:
            continue
        if (
            best == cython.NULL
            or u.credit.priority < best.credit.priority
            or (u.credit.priority == best.credit.priority and u.order < best.order)
        ):
            best = u
    return best


def may_move(u: UnitPtr, p: PcpuPtr, worst: cython.uchar, at: u64) -> u64:
    """When a unit that waits elsewhere may come here, if its priority is better than ``worst``; all ones: never."""
    when: u64 = u.waits_since + PATIENCE
    if u.credit.parked or u.credit.priority >= worst or not waits_elsewhere(u, p):
        return NEVER
    # Where something else could run here, shares are all that is to gain.
    if worst == OVER and u.moved != 0 and u.moved + SETTLING > when:
        when = u.moved + SETTLING
    return when


def to_steal(p: PcpuPtr, worst: cython.uchar, at: u64) -> UnitPtr:
    """The unit that has waited elsewhere, and may come here now: those that prefer it first, then by priority, and who
    has waited longest. NULL: none."""
    pool: CpupoolPtr = cpu_of(p).pool
    best: UnitPtr = cython.NULL
    u: UnitPtr
    i: u32
    if pool.nr_cpus == 1:
        return cython.NULL
    for i in range(pool.nr_awake):
        u = pool.awake[i]
        if may_move(u, p, worst, at) > at:
            continue
        if (
            best == cython.NULL
            or (prefers(u, p) and not prefers(best, p))
            or (
                prefers(u, p) == prefers(best, p)
                and (
                    u.credit.priority < best.credit.priority
                    or (u.credit.priority == best.credit.priority and u.waits_since < best.waits_since)
                )
            )
        ):
            best = u
    return best


def next_arrival(p: PcpuPtr, worst: cython.uchar, at: u64) -> u64:
    """When a unit that waits elsewhere now may come here; all ones: never."""
    pool: CpupoolPtr = cpu_of(p).pool
    first: u64 = NEVER
    i: u32
    if pool.nr_cpus > 1:
        for i in range(pool.nr_awake):
            first = min(first, may_move(pool.awake[i], p, worst, at))
    return first


def balance(p: PcpuPtr, local: UnitPtr, at: u64) -> UnitPtr:
    """What runs here instead of ``local`` (NULL: nothing), which may be a unit that waits elsewhere.

    A unit moves if nothing else can run here, or only who has used up its credit while the other one has some.
    """
    worst: cython.uchar = OVER + 1 if local == cython.NULL else OVER
    other: UnitPtr = cython.NULL
    if local == cython.NULL or local.credit.priority == OVER:
        other = to_steal(p, worst, at)
    if other == cython.NULL:
        return local
    move_unit(other, p, at)
    return other


def until_account(p: PcpuPtr, chosen: UnitPtr, contended: cython.bint, at: u64) -> u64:
    """When the choice is to be looked at again: the end of the turn, or the accounting."""
    pool: CpupoolPtr = cpu_of(p).pool
    end: u64 = cpu_of(p).turn_end
    if not contended or pool.next_account < end:
        end = pool.next_account
    if contended and chosen.credit.priority == BOOST and (at // TICK + 1) * TICK < end:
        end = (at // TICK + 1) * TICK
    return end


def credit_do_schedule(p: PcpuPtr, at: u64) -> UnitPtr:
    """The best priority first, in turns of a time slice; nobody is preempted within the rate limit."""
    pool: CpupoolPtr = cpu_of(p).pool
    cpu: PcpuSchedPtr = cpu_of(p)
    current: UnitPtr = cpu.running
    best: UnitPtr = best_waiting(p, current)
    stays: cython.bint = current != cython.NULL and current.awake and current.home == p and not current.credit.parked
    limited: cython.bint = stays and not current.yielded and at < cpu.started + pool.ratelimit
    if stays and best != cython.NULL and not limited:
        if (
            current.yielded
            or best.credit.priority < current.credit.priority
            or (at >= cpu.turn_end and best.credit.priority == current.credit.priority)
        ):
            stays = False
    if current != cython.NULL:
        current.yielded = 0
    if not stays:
        if current != cython.NULL:
            to_the_end(current)
        current = best
    if not limited:
        current = balance(p, current, at)
    if current == cython.NULL:
        return cython.NULL
    if current != cpu.running or cpu.turn_end == 0 or at >= cpu.turn_end:
        cpu.turn_end = at + pool.tslice
    p.slice_end = until_account(p, current, best_waiting(p, current) != cython.NULL, at)
    if current.credit.priority == OVER and not limited:
        p.slice_end = min(p.slice_end, next_arrival(p, OVER, at))
    if limited and best != cython.NULL and best.credit.priority < current.credit.priority:
        p.slice_end = min(p.slice_end, cpu.started + pool.ratelimit)
    return current


def credit_deadline(p: PcpuPtr, at: u64) -> u64:
    """A unit that is parked may go on after the accounting; one that waits elsewhere may come here soon."""
    pool: CpupoolPtr = cpu_of(p).pool
    first: u64 = next_arrival(p, OVER + 1, at)
    i: u32
    for i in range(pool.nr_awake):
        if pool.awake[i].credit.parked and pool.awake[i].home == p:
            first = min(first, pool.next_account)
    return first


def credit_moved(u: UnitPtr, old: PcpuPtr, at: u64) -> cython.void:
    """Credit is the pool's: it goes along."""


def credit_adjusted(u: UnitPtr, at: u64) -> cython.void:
    """A cap that is taken away, or raised, lets a parked unit go on at once."""
    u.credit.parked = 0


credit.name = b"credit"
credit.balances = 1
credit.insert = credit_insert
credit.remove = credit_remove
credit.pick_cpu = least_loaded
credit.wake = credit_wake
credit.sleep = credit_sleep
credit.charge = credit_charge
credit.tick = credit_tick
credit.do_schedule = credit_do_schedule
credit.deadline = credit_deadline
credit.moved = credit_moved
credit.adjusted = credit_adjusted
