# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (a C array)

"""Units of scheduling, and what policies have in common.

The records of the machine (HostSched) and of a domain (Unit) are made when they are first needed. The machine's
ends with the machine (:func:`end_sched`), a domain's with its last vcpu.
"""

import cython
from cython.cimports.libc.stdlib import calloc, free, realloc
from cython.cimports.libc.string import memmove
from cython.cimports.paravirt.hypervisor.records import MAX_PCPUS, DomainPtr, HostPtr, PcpuPtr, VcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.sched.policy import (
    HostSched,
    HostSchedPtr,
    PcpuSchedPtr,
    SchedPolicyPtr,
    Unit,
    UnitPtr,
    UnitPtrPtr,
)

MS = cython.declare(u64, 1_000_000)
EVERYWHERE = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)


def sched_of(host: HostPtr) -> HostSchedPtr:
    """What scheduling keeps for the machine, made if need be, without a policy then; NULL without memory."""
    made: HostSchedPtr = cython.cast(HostSchedPtr, host.sched)
    if made == cython.NULL:
        made = cython.cast(HostSchedPtr, calloc(1, cython.sizeof(HostSched)))
        if made != cython.NULL:
            made.tslice = 30 * MS
            made.ratelimit = MS
            made.ctx_allow = 5 * MS
            host.sched = made
    return made


def cpu_of(p: PcpuPtr) -> PcpuSchedPtr:
    """What scheduling keeps for a physical CPU of a machine that has a unit."""
    return cython.address(cython.cast(HostSchedPtr, p.host.sched).cpus[p.id])


def policy_of(host: HostPtr) -> SchedPolicyPtr:
    """The policy of a machine that has a unit."""
    return cython.cast(SchedPolicyPtr, cython.cast(HostSchedPtr, host.sched).policy)


def end_sched(host: HostPtr) -> cython.void:
    """The machine ends: give back what scheduling kept for it."""
    made: HostSchedPtr = cython.cast(HostSchedPtr, host.sched)
    i: u32
    if made == cython.NULL:
        return
    for i in range(made.count):
        free(made.units[i])
    free(made.units)
    free(made.awake)
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
    """The parameters that a domain starts with, as in Xen."""
    u.params.weight = 256
    u.params.period = 100 * MS
    u.params.extratime = 1
    u.params.mcuadv = 10


def make_unit(d: DomainPtr) -> UnitPtr:
    """A unit for a new domain, or its next vcpu, without a home; NULL without memory."""
    sched: HostSchedPtr = sched_of(d.host)
    u: UnitPtr = cython.cast(UnitPtr, calloc(1, cython.sizeof(Unit)))
    grown: UnitPtrPtr
    at: u32 = 0
    if sched == cython.NULL or u == cython.NULL:
        free(u)
        return cython.NULL
    if sched.count == sched.capacity:
        grown = cython.cast(UnitPtrPtr, realloc(sched.units, (2 * sched.capacity + 8) * cython.sizeof(UnitPtr)))
        if grown == cython.NULL:
            free(u)
            return cython.NULL
        sched.units = grown
        grown = cython.cast(UnitPtrPtr, realloc(sched.awake, (2 * sched.capacity + 8) * cython.sizeof(UnitPtr)))
        if grown == cython.NULL:
            free(u)
            return cython.NULL
        sched.awake = grown
        sched.capacity = 2 * sched.capacity + 8
    while at < sched.count and sched.units[at].domain.domid < d.domid:
        at += 1
    memmove(
        cython.address(sched.units[at + 1]),
        cython.address(sched.units[at]),
        (sched.count - at) * cython.sizeof(UnitPtr),
    )
    sched.units[at] = u
    sched.count += 1
    u.domain = d
    u.affinity = EVERYWHERE
    if d.sched == cython.NULL:
        default_params(u)
        d.sched = u
    else:
        u.params = unit_of(d).params
    to_the_end(u)
    return u


def drop_unit(u: UnitPtr) -> cython.void:
    """The last vcpu of the unit has gone."""
    sched: HostSchedPtr = cython.cast(HostSchedPtr, u.domain.host.sched)
    other: UnitPtr
    at: u32 = 0
    i: u32
    set_awake(u, False)
    for i in range(MAX_PCPUS):
        if sched.cpus[i].running == u:
            sched.cpus[i].running = cython.NULL
    while sched.units[at] != u:
        at += 1
    sched.count -= 1
    memmove(
        cython.address(sched.units[at]),
        cython.address(sched.units[at + 1]),
        (sched.count - at) * cython.sizeof(UnitPtr),
    )
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
    sched: HostSchedPtr = cython.cast(HostSchedPtr, u.domain.host.sched)
    last: UnitPtr
    if awake and not u.awake:
        u.place = sched.nr_awake
        sched.awake[u.place] = u
        sched.nr_awake += 1
    elif u.awake and not awake:
        sched.nr_awake -= 1
        last = sched.awake[sched.nr_awake]
        sched.awake[u.place] = last
        last.place = u.place
    u.awake = awake


def allowed(u: UnitPtr, p: PcpuPtr) -> cython.bint:
    """Whether the unit may run on a physical CPU."""
    return (u.affinity >> p.id) & 1


def prefers(u: UnitPtr, p: PcpuPtr) -> cython.bint:
    """Whether the unit would as soon run there as anywhere."""
    return u.preferred & u.affinity == 0 or (u.preferred >> p.id) & 1


def least_loaded(u: UnitPtr) -> PcpuPtr:
    """Of the physical CPUs that the unit may run on, and rather of those it prefers, the one where the fewest other
    vcpus are at home."""
    host: HostPtr = u.domain.host
    sched: HostSchedPtr = cython.cast(HostSchedPtr, host.sched)
    best: PcpuPtr = cython.NULL
    here: PcpuPtr
    count: u32[64]  # MAX_PCPUS
    i: u32
    for i in range(host.nr_pcpus):
        count[i] = 0
    for i in range(sched.count):
        if sched.units[i].home != cython.NULL and sched.units[i] != u:
            count[sched.units[i].home.id] += sched.units[i].nr_vcpus
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
    """Whether the unit waits behind another one on its physical CPU, and may as well run on ``p``."""
    return (
        u.waits_since != 0
        and u.awake
        and u.home != p
        and u.home != cython.NULL
        and allowed(u, p)
        and cpu_of(u.home).running != u
        and cpu_of(u.home).running != cython.NULL
    )


def to_the_end(u: UnitPtr) -> cython.void:
    """The unit waits behind all others that are waiting now."""
    sched: HostSchedPtr = cython.cast(HostSchedPtr, u.domain.host.sched)
    sched.order += 1
    u.order = sched.order
