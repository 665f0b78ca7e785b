# cython: language_level=3, cdivision=True
# mypy: ignore-errors

"""Pools of physical CPUs as Python sees them, shaped like XEN_SYSCTL_cpupool_op.

A physical CPU that is taken out of a pool lets go of what runs there, and a domain that changes pools has to stop
running first: both take a moment, for which the machine lock has to be free. All functions are called under it, and
what may have to be called again says so.

Behaviour: Xen 4.17, common/sched/cpupool.c.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import HostPtr, PcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.sched.policy import CpupoolPtr, UnitPtr
from cython.cimports.paravirt.hypervisor.sched.pools import (
    assign_cpu,
    create_pool,
    destroy_pool,
    is_empty,
    move_to_pool,
    runs_somewhere,
    unassign_cpu,
)
from cython.cimports.paravirt.hypervisor.sched.units import cpu_of, sched_of, unit_of
from cython.cimports.paravirt.hypervisor.views.domain import Domain
from cython.cimports.paravirt.hypervisor.views.host import Host
from cython.cimports.paravirt.hypervisor.views.scheduler import policy_name, pool_of_number

from paravirt.errors import UserError
from paravirt.hypervisor.views.scheduler import POLICIES


def _numbers(bits: u64) -> list:
    return [cpu for cpu in range(64) if bits >> cpu & 1]


def _domains(pool: CpupoolPtr) -> cython.int:
    """How many domains are in a pool, where each has one unit or several."""
    found: cython.int = 0
    i: u32
    for i in range(pool.count):
        found += pool.units[i] == unit_of(pool.units[i].domain)
    return found


def pools(host: Host) -> list:
    """Every pool, by number: its ``id``, its ``scheduler``, its ``cpus``, and how many ``domains`` it has, Domain 0
    being in Pool-0."""
    pool: CpupoolPtr = pool_of_number(host, 0)
    found: list = []
    while pool != cython.NULL:
        found.append(
            {
                "id": pool.id,
                "scheduler": policy_name(pool),
                "cpus": _numbers(pool.cpus),
                "domains": _domains(pool) + (1 if pool.id == 0 else 0),
            }
        )
        pool = pool.next
    return found


def free_cpus(host: Host) -> list:
    """The physical CPUs that are in no pool, and that run nothing any more."""
    rec: HostPtr = host.rec
    found: list = []
    i: u32
    pool_of_number(host, 0)
    for i in range(rec.nr_pcpus):
        if cpu_of(rec.pcpus[i]).pool == cython.NULL:
            found.append(i)
    return found


def create(host: Host, scheduler: str) -> int:
    """Make a pool without physical CPUs: its number.

    Raises:
        UserError: there is no such scheduler, or there are as many pools as can be: two for each physical CPU.
    """
    encoded: bytes = scheduler.encode()
    pool: CpupoolPtr
    if scheduler not in POLICIES:
        raise UserError(f"There is no scheduler {scheduler!r}: {', '.join(POLICIES)} are.")
    if sched_of(host.rec) != cython.NULL and sched_of(host.rec).nr_pools >= 2 * host.rec.nr_pcpus:
        raise UserError(f"The machine has {2 * host.rec.nr_pcpus} pools of physical CPUs, as many as are possible.")
    pool = create_pool(host.rec, encoded)
    if pool == cython.NULL:
        raise MemoryError
    return pool.id


def destroy(host: Host, number: int) -> None:
    """End a pool.

    Raises:
        UserError: there is none of that number, it has physical CPUs or domains, or it is Pool-0.
    """
    pool: CpupoolPtr = pool_of_number(host, number)
    if number == 0:
        raise UserError("The first pool stays as long as the machine: Domain 0 is in it.")
    if not is_empty(pool):
        raise UserError("The pool has physical CPUs, or domains.")
    destroy_pool(pool)


def pcpu_of(host: Host, cpu: object) -> PcpuPtr:
    """A physical CPU of the machine's, by its number.

    Raises:
        UserError: there is none.
    """
    if not 0 <= cpu < host.nr_pcpus:
        raise UserError(f"There is no physical CPU {cpu}: the machine has 0 to {host.nr_pcpus - 1}.")
    return host.rec.pcpus[cython.cast(u32, cpu)]


def add_cpu(host: Host, number: int, cpu: int) -> None:
    """Put a free physical CPU into a pool.

    Raises:
        UserError: there is no such pool or physical CPU, or it is not free.
    """
    pool: CpupoolPtr = pool_of_number(host, number)
    p: PcpuPtr = pcpu_of(host, cpu)
    if cpu_of(p).pool != cython.NULL:
        raise UserError(f"The physical CPU {cpu} is not free.")
    assign_cpu(pool, p)


def remove_cpu(host: Host, number: int, cpu: int) -> None:
    """Take a physical CPU out of a pool. It is free soon (:func:`free_cpus`), if it is not at once.

    Raises:
        UserError: there is no such pool or physical CPU, it is not in that pool, or it is its last one and the pool has
            domains; or it is physical CPU 0 and the pool is the first, which keeps it.
    """
    pool: CpupoolPtr = pool_of_number(host, number)
    p: PcpuPtr = pcpu_of(host, cpu)
    if number == 0 and cpu == 0:
        raise UserError("The physical CPU 0 stays in the first pool.")
    if not pool.cpus >> p.id & 1:
        raise UserError(f"The physical CPU {cpu} is not in that pool.")
    if pool.nr_cpus == 1 and pool.count:
        raise UserError(f"The physical CPU {cpu} is the last one of a pool that has domains.")
    unassign_cpu(p)


def pool_of(domain: Domain) -> int:
    """The number of the pool that a domain is in."""
    u: UnitPtr = unit_of(domain.rec)
    return u.pool.id if u != cython.NULL else 0


def move_domain(domain: Domain, number: int) -> bool:
    """Move a domain into a pool, where it has default parameters and may run on all physical CPUs. False: it runs just
    now, and does not change pools before it has stopped; whoever wants that pauses it and asks again.

    Raises:
        UserError: there is no such pool, or it has no physical CPUs; or it is Domain 0.
    """
    u: UnitPtr = unit_of(domain.rec)
    pool: CpupoolPtr = pool_of_number(domain.host, number)
    if u == cython.NULL:
        raise UserError("Domain 0 stays in the first pool: it runs on no physical CPU of the machine.")
    if u.pool == pool:
        return True
    if pool.nr_cpus == 0:
        raise UserError("The pool has no physical CPUs.")
    if runs_somewhere(domain.rec):
        return False
    if not move_to_pool(domain.rec, pool):
        raise MemoryError
    return True
