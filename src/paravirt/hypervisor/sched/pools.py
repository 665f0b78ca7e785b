# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors

"""Pools of physical CPUs. Each has a policy of its own, and schedules its domains on its physical CPUs alone.

All physical CPUs are in Pool-0 at first. One that is in no pool is free, and idle. A physical CPU that is taken out of
its pool lets the unit go that runs there at its next exit, and is free then; a unit that changes pools does not run.

Behaviour: Xen 4.17, common/sched/cpupool.c. All functions are called under the machine lock.
"""

import cython
from cython.cimports.libc.string import memset, strcmp
from cython.cimports.paravirt.hypervisor.records import DomainPtr, HostPtr, PcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.sched.bvt import bvt
from cython.cimports.paravirt.hypervisor.sched.credit import credit
from cython.cimports.paravirt.hypervisor.sched.moving import move_unit, settle_unit, where_running
from cython.cimports.paravirt.hypervisor.sched.null import null
from cython.cimports.paravirt.hypervisor.sched.policy import (
    BvtState,
    CpupoolPtr,
    CreditState,
    HostSchedPtr,
    PcpuSched,
    PcpuSchedPtr,
    SchedPolicyPtr,
    SedfState,
    UnitPtr,
)
from cython.cimports.paravirt.hypervisor.sched.sedf import sedf
from cython.cimports.paravirt.hypervisor.sched.units import (
    cpu_of,
    enter_pool,
    free_pool,
    leave_pool,
    make_room,
    new_pool,
    own_unit,
    sched_of,
)
from cython.cimports.paravirt.hypervisor.scheduling import force_reschedule, runnable, vcpu_kick
from cython.cimports.paravirt.hypervisor.timekeeping import now

EVERYWHERE = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)


def policy_named(name: cython.p_const_char) -> SchedPolicyPtr:
    """The policy of that name, or NULL."""
    known: SchedPolicyPtr[4] = [
        cython.address(credit),
        cython.address(sedf),
        cython.address(bvt),
        cython.address(null),
    ]
    i: u32
    for i in range(4):
        if strcmp(known[i].name, name) == 0:
            return known[i]
    return cython.NULL


def set_policy(host: HostPtr, name: cython.p_const_char) -> cython.bint:
    """Choose the policy of Pool-0, before there is a domain; false: there is none of that name, or no memory."""
    sched: HostSchedPtr = sched_of(host)
    policy: SchedPolicyPtr = policy_named(name)
    if sched == cython.NULL or policy == cython.NULL:
        return False
    sched.pools.policy = policy
    return True


def find_pool(host: HostPtr, number: u32) -> CpupoolPtr:
    """The pool of that number, or NULL."""
    sched: HostSchedPtr = sched_of(host)
    pool: CpupoolPtr = cython.NULL if sched == cython.NULL else sched.pools
    while pool != cython.NULL and pool.id != number:
        pool = pool.next
    return pool


def create_pool(host: HostPtr, policy: cython.p_const_char) -> CpupoolPtr:
    """A pool without physical CPUs, with the number after the highest; NULL: no such policy, or no memory."""
    sched: HostSchedPtr = sched_of(host)
    chosen: SchedPolicyPtr = policy_named(policy)
    pool: CpupoolPtr
    last: CpupoolPtr
    if sched == cython.NULL or chosen == cython.NULL:
        return cython.NULL
    pool = new_pool(host)
    if pool == cython.NULL:
        return cython.NULL
    last = sched.pools
    while last.next != cython.NULL:
        last = last.next
    pool.policy = chosen
    pool.id = last.id + 1
    last.next = pool
    sched.nr_pools += 1
    return pool


def is_empty(pool: CpupoolPtr) -> cython.bint:
    """Whether no domain and no physical CPU is in the pool, nor one on its way out."""
    i: u32
    for i in range(pool.host.nr_pcpus):
        if cpu_of(pool.host.pcpus[i]).pool == pool:
            return False
    return pool.count == 0


def destroy_pool(pool: CpupoolPtr) -> cython.void:
    """End a pool that is empty, and not Pool-0."""
    sched: HostSchedPtr = sched_of(pool.host)
    before: CpupoolPtr = sched.pools
    while before.next != pool:
        before = before.next
    before.next = pool.next
    sched.nr_pools -= 1
    free_pool(pool)


def assign_cpu(pool: CpupoolPtr, p: PcpuPtr) -> cython.void:
    """Put a free physical CPU into a pool."""
    cpu_of(p).pool = pool
    cpu_of(p).since = now(p.host)
    pool.cpus |= cython.cast(u64, 1) << p.id
    pool.nr_cpus += 1
    force_reschedule(p)


def unassign_cpu(p: PcpuPtr) -> cython.void:
    """Take a physical CPU out of its pool, which has another one or no domain; it is free as soon as it runs nothing.

    A domain that was allowed on this one only may run anywhere in the pool then.
    """
    pool: CpupoolPtr = cpu_of(p).pool
    u: UnitPtr
    i: u32
    pool.cpus &= ~(cython.cast(u64, 1) << p.id)
    pool.nr_cpus -= 1
    for i in range(pool.count):
        u = pool.units[i]
        if u.affinity & pool.cpus == 0:
            u.affinity = EVERYWHERE
        if u.home == p and where_running(u) == cython.NULL:
            move_unit(u, pool.policy.pick_cpu(u), now(p.host))
            force_reschedule(u.home)
    if not leaves_pool(p):
        force_reschedule(p)


def params_changed(pool: CpupoolPtr) -> cython.void:
    """The parameters of the pool's policy itself have changed: they hold for what runs now, and for this period."""
    host: HostPtr = pool.host
    at: u64 = now(host)
    i: u32
    if pool.next_account > at + pool.tslice:
        pool.next_account = at + pool.tslice
    for i in range(host.nr_pcpus):
        if cpu_of(host.pcpus[i]).pool == pool:
            cpu_of(host.pcpus[i]).turn_end = 0
            force_reschedule(host.pcpus[i])


def leaves_pool(p: PcpuPtr) -> cython.bint:
    """Whether a physical CPU was taken out of its pool and runs nothing now: it is free from now on."""
    cpu: PcpuSchedPtr = cpu_of(p)
    if (cpu.pool.cpus >> p.id) & 1 or cpu.running != cython.NULL:
        return False
    memset(cpu, 0, cython.sizeof(PcpuSched))
    return True


def runs_somewhere(d: DomainPtr) -> cython.bint:
    """Whether some unit of the domain runs now."""
    i: u32
    for i in range(d.nr_vcpus):
        if own_unit(d, i) != cython.NULL and where_running(own_unit(d, i)) != cython.NULL:
            return True
    return False


def move_to_pool(d: DomainPtr, pool: CpupoolPtr) -> cython.bint:
    """Move a domain that does not run now into another pool, which has a physical CPU; false without memory.

    As in Xen it comes there with default parameters, and may run on all physical CPUs.
    """
    i: u32
    if not make_room(pool, d.nr_vcpus):
        return False
    for i in range(d.nr_vcpus):
        if own_unit(d, i) != cython.NULL:
            move_unit_to_pool(own_unit(d, i), pool, now(pool.host))
            force_reschedule(own_unit(d, i).home)  # also for one that sleeps: the timers are its new home's now
    for i in range(d.nr_vcpus):
        if d.vcpus[i] != cython.NULL and runnable(d.vcpus[i]):
            vcpu_kick(d.vcpus[i])
    return True


def move_unit_to_pool(u: UnitPtr, pool: CpupoolPtr, at: u64) -> cython.void:
    """One unit of those, which still has to be woken there."""
    u.pool.policy.remove(u)
    leave_pool(u)
    memset(cython.address(u.credit), 0, cython.sizeof(CreditState))
    memset(cython.address(u.sedf), 0, cython.sizeof(SedfState))
    memset(cython.address(u.bvt), 0, cython.sizeof(BvtState))
    u.waits_since = 0
    u.yielded = 0
    u.home = cython.NULL
    enter_pool(u, pool)
    settle_unit(u, pool.policy.pick_cpu(u), at)
    pool.policy.insert(u, at)
