# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (a C array)

"""Units of scheduling, and what policies have in common.

The records of the machine (HostSched), of Pool-0 (Cpupool), and of a domain (Unit) are made when they are first needed.
The machine's end with the machine (:func:`end_sched`), a domain's with its last vcpu. Other pools: pools.py.
"""

import cython
from cython.cimports.libc.stdlib import calloc, free, realloc
from cython.cimports.libc.string import memmove, memset
from cython.cimports.paravirt.hypervisor.records import MAX_PCPUS, DomainPtr, HostPtr, PcpuPtr, VcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.sched.policy import (
    Cpupool,
    CpupoolPtr,
    HostSched,
    HostSchedPtr,
    PcpuSchedPtr,
    SchedParams,
    Unit,
    UnitPtr,
    UnitPtrPtr,
    UnitPtrPtrPtr,
)

MS = cython.declare(u64, 1_000_000)
EVERYWHERE = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)


def sched_of(host: HostPtr) -> HostSchedPtr:
    """What scheduling keeps for the machine, made if need be, with all physical CPUs in one pool that has no policy
    yet; NULL without memory."""
    made: HostSchedPtr = cython.cast(HostSchedPtr, host.sched)
    pool: CpupoolPtr
    i: u32
    if made != cython.NULL:
        return made
    made = cython.cast(HostSchedPtr, calloc(1, cython.sizeof(HostSched)))
    pool = new_pool(host)
    if made == cython.NULL or pool == cython.NULL:
        free(made)
        free(pool)
        return cython.NULL
    made.pools = pool
    made.nr_pools = 1
    host.sched = made
    for i in range(host.nr_pcpus):
        made.cpus[i].pool = pool
        pool.cpus |= cython.cast(u64, 1) << i
    pool.nr_cpus = host.nr_pcpus
    return made


def new_pool(host: HostPtr) -> CpupoolPtr:
    """A pool without a policy, physical CPUs or domains, with the parameters that policies have at first; NULL without
    memory."""
    pool: CpupoolPtr = cython.cast(CpupoolPtr, calloc(1, cython.sizeof(Cpupool)))
    if pool != cython.NULL:
        pool.host = host
        pool.tslice = 30 * MS
        pool.ratelimit = MS
        pool.ctx_allow = 5 * MS
    return pool


def free_pool(pool: CpupoolPtr) -> cython.void:
    """Give back a pool, and the units that are left in it."""
    i: u32
    for i in range(pool.count):
        free(pool.units[i])
    free(pool.units)
    free(pool.awake)
    free(pool.active)
    free(pool)


def cpu_of(p: PcpuPtr) -> PcpuSchedPtr:
    """What scheduling keeps for a physical CPU of a machine that has a unit."""
    return cython.address(cython.cast(HostSchedPtr, p.host.sched).cpus[p.id])


def end_sched(host: HostPtr) -> cython.void:
    """The machine ends: give back what scheduling kept for it."""
    made: HostSchedPtr = cython.cast(HostSchedPtr, host.sched)
    pool: CpupoolPtr
    if made == cython.NULL:
        return
    while made.pools != cython.NULL:
        pool = made.pools
        made.pools = pool.next
        free_pool(pool)
    free(made)
    host.sched = cython.NULL


def runs_parallel(host: HostPtr) -> cython.bint:
    """Whether the engines can run vcpus of one domain at the same time."""
    return host.nr_pcpus != 0 and host.pcpus[0].ops != cython.NULL and host.pcpus[0].ops.parallel


def unit_of(d: DomainPtr) -> UnitPtr:
    """The unit that the domain is, or its first vcpu; or NULL."""
    return cython.cast(UnitPtr, d.sched)


def vcpu_unit(v: VcpuPtr) -> UnitPtr:
    """The unit that the vcpu, or its domain, is; or NULL."""
    return cython.cast(UnitPtr, v.sched)


def own_unit(d: DomainPtr, number: u32) -> UnitPtr:
    """The unit of the domain's vcpu of that number, if that is not the first one's; or NULL."""
    v: VcpuPtr = d.vcpus[number]
    if v == cython.NULL or (number != 0 and vcpu_unit(v) == unit_of(d)):
        return cython.NULL
    return vcpu_unit(v)


def default_params(u: UnitPtr) -> cython.void:
    """The parameters that a domain starts with in a pool, as in Xen."""
    memset(cython.address(u.params), 0, cython.sizeof(SchedParams))
    u.params.weight = 256
    u.params.period = 100 * MS
    u.params.extratime = 1
    u.params.mcuadv = 10


def make_unit(d: DomainPtr) -> UnitPtr:
    """A unit for a new domain, in Pool-0, or for its next vcpu, in its pool; without a home. NULL without memory."""
    sched: HostSchedPtr = sched_of(d.host)
    u: UnitPtr = cython.cast(UnitPtr, calloc(1, cython.sizeof(Unit)))
    pool: CpupoolPtr
    if sched == cython.NULL or u == cython.NULL:
        free(u)
        return cython.NULL
    pool = sched.pools if d.sched == cython.NULL else unit_of(d).pool
    if not make_room(pool, 1):
        free(u)
        return cython.NULL
    u.domain = d
    enter_pool(u, pool)
    if d.sched == cython.NULL:
        d.sched = u
    else:
        u.params = unit_of(d).params
    return u


def make_room(pool: CpupoolPtr, more: u32) -> cython.bint:
    """See that the pool has room for so many more units; false without memory."""
    wanted: u32 = 2 * (pool.count + more) + 8
    lists: UnitPtrPtrPtr[3] = [cython.address(pool.units), cython.address(pool.awake), cython.address(pool.active)]
    grown: UnitPtrPtr
    i: u32
    if pool.count + more <= pool.capacity:
        return True
    for i in range(3):
        grown = cython.cast(UnitPtrPtr, realloc(lists[i][0], wanted * cython.sizeof(UnitPtr)))
        if grown == cython.NULL:
            return False
        lists[i][0] = grown
    pool.capacity = wanted
    return True


def enter_pool(u: UnitPtr, pool: CpupoolPtr) -> cython.void:
    """The unit is one of the pool's, which has room: asleep, with default parameters, and allowed everywhere."""
    at: u32 = 0
    while at < pool.count and pool.units[at].domain.domid < u.domain.domid:
        at += 1
    memmove(
        cython.address(pool.units[at + 1]),
        cython.address(pool.units[at]),
        (pool.count - at) * cython.sizeof(UnitPtr),
    )
    pool.units[at] = u
    pool.count += 1
    u.pool = pool
    u.affinity = EVERYWHERE
    u.preferred = 0
    default_params(u)
    to_the_end(u)


def leave_pool(u: UnitPtr) -> cython.void:
    """The unit is not one of its pool's any more, and asleep; no physical CPU takes it for the one that runs."""
    pool: CpupoolPtr = u.pool
    sched: HostSchedPtr = cython.cast(HostSchedPtr, pool.host.sched)
    at: u32 = 0
    i: u32
    set_awake(u, False)
    for i in range(MAX_PCPUS):
        if sched.cpus[i].running == u:
            sched.cpus[i].running = cython.NULL
    while pool.units[at] != u:
        at += 1
    pool.count -= 1
    memmove(
        cython.address(pool.units[at]),
        cython.address(pool.units[at + 1]),
        (pool.count - at) * cython.sizeof(UnitPtr),
    )
    u.pool = cython.NULL


def drop_unit(u: UnitPtr) -> cython.void:
    """The last vcpu of the unit has gone."""
    other: UnitPtr
    i: u32
    leave_pool(u)
    if u.domain.sched == u:
        u.domain.sched = cython.NULL
        for i in range(u.domain.nr_vcpus):
            other = cython.NULL if u.domain.vcpus[i] == cython.NULL else vcpu_unit(u.domain.vcpus[i])
            if other != cython.NULL and other != u:
                u.domain.sched = other
                break
    free(u)


def set_awake(u: UnitPtr, awake: cython.bint) -> cython.void:
    """Some vcpu of the unit can run from now on, or none."""
    pool: CpupoolPtr = u.pool
    last: UnitPtr
    if awake and not u.awake:
        u.place = pool.nr_awake
        pool.awake[u.place] = u
        pool.nr_awake += 1
    elif u.awake and not awake:
        pool.nr_awake -= 1
        last = pool.awake[pool.nr_awake]
        pool.awake[u.place] = last
        last.place = u.place
    u.awake = awake


def allowed(u: UnitPtr, p: PcpuPtr) -> cython.bint:
    """Whether the unit may run on a physical CPU."""
    return ((u.affinity & u.pool.cpus) >> p.id) & 1


def prefers(u: UnitPtr, p: PcpuPtr) -> cython.bint:
    """Whether the unit would as soon run there as anywhere."""
    return u.preferred & u.affinity & u.pool.cpus == 0 or (u.preferred >> p.id) & 1


def least_loaded(u: UnitPtr) -> PcpuPtr:
    """Of the physical CPUs that the unit may run on, and rather of those it prefers, the one where the fewest other
    vcpus are at home."""
    host: HostPtr = u.domain.host
    pool: CpupoolPtr = u.pool
    best: PcpuPtr = cython.NULL
    here: PcpuPtr
    count: u32[64]  # MAX_PCPUS
    i: u32
    for i in range(host.nr_pcpus):
        count[i] = 0
    for i in range(pool.count):
        if pool.units[i].home != cython.NULL and pool.units[i] != u:
            count[pool.units[i].home.id] += pool.units[i].nr_vcpus
    for i in range(host.nr_pcpus):
        here = host.pcpus[i]
        if allowed(u, here) and (
            best == cython.NULL
            or (prefers(u, here) and not prefers(u, best))
            or (prefers(u, here) == prefers(u, best) and count[i] < count[best.id])
        ):
            best = here
    return best


def waits_elsewhere(u: UnitPtr, p: PcpuPtr) -> cython.bint:
    """Whether the unit waits behind another one on its physical CPU, be it that this one runs or has it for good, and
    may as well run on ``p``."""
    home: PcpuSchedPtr
    if u.home == cython.NULL:
        return False
    home = cpu_of(u.home)
    return (
        u.waits_since != 0
        and u.awake
        and u.home != p
        and allowed(u, p)
        and cpu_of(p).assigned == cython.NULL
        and home.running != u
        and home.assigned != u
        and (home.running != cython.NULL or home.assigned != cython.NULL)
    )


def to_the_end(u: UnitPtr) -> cython.void:
    """The unit waits behind all others that are waiting now."""
    u.pool.order += 1
    u.order = u.pool.order
