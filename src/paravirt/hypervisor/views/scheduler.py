# cython: language_level=3, cdivision=True
# mypy: ignore-errors

"""Parameters of scheduling as Python sees them, shaped like XEN_DOMCTL_scheduler_op and XEN_SYSCTL_scheduler_op.

All functions are called under the machine lock.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import DomainPtr, u32, u64
from cython.cimports.paravirt.hypervisor.sched.policy import CpupoolPtr, UnitPtr
from cython.cimports.paravirt.hypervisor.sched.pools import find_pool, params_changed, set_policy
from cython.cimports.paravirt.hypervisor.sched.units import own_unit, unit_of, vcpu_unit
from cython.cimports.paravirt.hypervisor.scheduling import force_reschedule, set_unit_affinity
from cython.cimports.paravirt.hypervisor.timekeeping import now
from cython.cimports.paravirt.hypervisor.views.domain import Domain
from cython.cimports.paravirt.hypervisor.views.host import Host

from paravirt.errors import UserError

MS = 1_000_000
SECOND = 1_000_000_000
POLICIES = ("credit", "sedf", "bvt", "null")

# The least and the most that each parameter of a domain may be. Times are ns.
DOMAIN_LIMITS = {
    "credit": {"weight": (1, 65535), "cap": (0, 3200)},
    "sedf": {
        "period": (10_000, 10 * SECOND),
        "slice": (0, 10 * SECOND),
        "latency": (0, 10 * SECOND),
        "extratime": (0, 1),
        "weight": (0, 65535),
    },
    "bvt": {
        "mcuadv": (1, 10_000),
        "warpback": (0, 1),
        "warpvalue": (0, 1_000_000),
        "warpl": (0, 3600 * SECOND),
        "warpu": (0, 3600 * SECOND),
    },
    "null": {},
}
HOST_LIMITS = {
    "credit": {"tslice_ms": (1, 1000), "ratelimit_us": (0, 500_000)},
    "sedf": {},
    "bvt": {"ctx_allow": (1_000, SECOND)},
    "null": {},
}


def choose_scheduler(host: Host, name: str) -> None:
    """Choose the policy of Pool-0, before the machine has any domain.

    Raises:
        UserError: there is none of that name.
    """
    encoded: bytes = name.encode()
    if name not in POLICIES or not set_policy(host.rec, encoded):
        raise UserError(f"There is no scheduler {name!r}: {', '.join(POLICIES)} are.")


def pool_of_number(host: Host, number: object) -> CpupoolPtr:
    """The pool of that number.

    Raises:
        UserError: there is none.
    """
    pool: CpupoolPtr = cython.NULL
    if 0 <= number < 0xFFFFFFFF:
        pool = find_pool(host.rec, cython.cast(u32, number))
    if pool == cython.NULL:
        raise UserError(f"There is no pool of physical CPUs with the number {number}.")
    return pool


def policy_name(pool: CpupoolPtr) -> str:
    """The name of a pool's policy."""
    return pool.policy.name.decode() if pool.policy != cython.NULL else "credit"


def sched_info(host: Host, number: int = 0) -> dict:
    """A pool's policy ("name") and its own parameters: credit's ``tslice_ms`` and ``ratelimit_us``, BVT's ``ctx_allow``
    in ns.

    Raises:
        UserError: there is no such pool.
    """
    pool: CpupoolPtr = pool_of_number(host, number)
    name: str = policy_name(pool)
    if name == "credit":
        return {"name": name, "tslice_ms": pool.tslice // MS, "ratelimit_us": pool.ratelimit // 1000}
    return {"name": name, "ctx_allow": pool.ctx_allow} if name == "bvt" else {"name": name}


def set_sched_info(host: Host, values: dict, number: int = 0) -> None:
    """Change parameters of a pool's policy itself; they act at once.

    Raises:
        UserError: there is no such pool, or the policy has no such parameter, or not with that value.
    """
    pool: CpupoolPtr = pool_of_number(host, number)
    name: str = policy_name(pool)
    wanted: dict = {**sched_info(host, number), **values}
    _check(name, HOST_LIMITS[name], values)
    if name == "credit":
        if wanted["ratelimit_us"] > wanted["tslice_ms"] * 1000 or 0 < wanted["ratelimit_us"] < 100:
            raise UserError("The rate limit is 0, or 100 us up to the time slice.")
        pool.tslice = wanted["tslice_ms"] * MS
        pool.ratelimit = wanted["ratelimit_us"] * 1000
    elif name == "bvt":
        pool.ctx_allow = wanted["ctx_allow"]
    params_changed(pool)


def _check(name: str, limits: dict, values: dict) -> None:
    for key, value in values.items():
        if key not in limits:
            raise UserError(f"The scheduler {name} has no parameter {key!r}.")
        least, most = limits[key]
        if not isinstance(value, int) or not least <= value <= most:
            raise UserError(f"The parameter {key} of the scheduler {name} is {least} to {most}, not {value}.")


def sched_get(domain: Domain) -> dict:
    """A domain's parameters under its pool's policy, by their names in domctl; times in ns."""
    rec: DomainPtr = domain.rec
    u: UnitPtr = unit_of(rec)
    name: str
    if u == cython.NULL:
        raise UserError("Domain 0 is not scheduled: it has no parameters.")
    name = policy_name(u.pool)
    everything = {
        "weight": u.params.weight,
        "cap": u.params.cap,
        "period": u.params.period,
        "slice": u.params.slice,
        "latency": u.params.latency,
        "extratime": u.params.extratime,
        "mcuadv": u.params.mcuadv,
        "warpback": u.params.warpback,
        "warpvalue": u.params.warpvalue,
        "warpl": u.params.warpl,
        "warpu": u.params.warpu,
    }
    return {key: everything[key] for key in DOMAIN_LIMITS[name]}


def sched_set(domain: Domain, values: dict) -> None:
    """Change a domain's parameters; they act at once.

    Raises:
        UserError: the policy has no such parameter, or not with that value.
    """
    rec: DomainPtr = domain.rec
    wanted: dict = {**sched_get(domain), **values}
    u: UnitPtr
    i: u32
    name: str = policy_name(unit_of(rec).pool)
    _check(name, DOMAIN_LIMITS[name], values)
    if name == "sedf":
        if wanted["slice"] > wanted["period"] or wanted["latency"] > wanted["period"]:
            raise UserError("A slice, and a latency, are no longer than the period.")
        if wanted["latency"] and wanted["latency"] < 10_000:
            raise UserError("A latency is 0, or 10000 ns and more.")
    for i in range(rec.nr_vcpus):
        u = own_unit(rec, i)
        if u != cython.NULL:
            _set_params(u, name, wanted)
            u.pool.policy.adjusted(u, now(rec.host))
            force_reschedule(u.home)


def _set_params(u: UnitPtr, name: str, wanted: dict) -> cython.void:
    if name == "sedf":
        u.params.period = wanted["period"]
        u.params.slice = wanted["slice"]
        u.params.latency = wanted["latency"]
        u.params.extratime = wanted["extratime"]
        u.params.weight = wanted["weight"]
    elif name == "credit":
        u.params.weight = wanted["weight"]
        u.params.cap = wanted["cap"]
    elif name == "bvt":
        u.params.mcuadv = wanted["mcuadv"]
        u.params.warpback = wanted["warpback"]
        u.params.warpvalue = wanted["warpvalue"]
        u.params.warpl = wanted["warpl"]
        u.params.warpu = wanted["warpu"]


def _bits(domain: Domain, pcpus: object) -> int:
    """Those of some physical CPUs' numbers that the machine has, as bits."""
    return sum({1 << number for number in pcpus if 0 <= number < domain.rec.host.nr_pcpus})


def set_affinity(domain: Domain, pcpus: object, preferred: object = (), vcpu: int = -1) -> None:
    """Say on which physical CPUs a vcpu (-1: each of the domain's) may run, and where it would rather (nothing: no
    matter); it leaves others at its next exit. Where the domain's vcpus do not run in parallel, all are together, and
    what is said of one holds for all.

    Raises:
        UserError: the domain's pool has none of those where it may, or the domain no such vcpu.
    """
    rec: DomainPtr = domain.rec
    wanted: u64 = _bits(domain, pcpus)
    liked: u64 = _bits(domain, preferred)
    i: u32
    if unit_of(rec) == cython.NULL:
        raise UserError("Domain 0 is not scheduled: it runs on no physical CPU of the machine.")
    if wanted == 0:
        raise UserError("The machine has no such physical CPU.")
    if wanted & unit_of(rec).pool.cpus == 0:
        raise UserError("The domain's pool has no such physical CPU.")
    if not -1 <= vcpu < rec.nr_vcpus:
        raise UserError(f"The domain has no vcpu {vcpu}.")
    if vcpu >= 0:
        set_unit_affinity(vcpu_unit(rec.vcpus[cython.cast(u32, vcpu)]), wanted, liked)
        return
    for i in range(rec.nr_vcpus):
        if own_unit(rec, i) != cython.NULL:
            set_unit_affinity(own_unit(rec, i), wanted, liked)


def run_time(domain: Domain) -> int:
    """For how long, in ns, the domain had a physical CPU, up to the last time that one was given to somebody; vcpus
    that run at the same time add up."""
    rec: DomainPtr = domain.rec
    total: u64 = 0
    i: u32
    for i in range(rec.nr_vcpus):
        if own_unit(rec, i) != cython.NULL:
            total += own_unit(rec, i).run_ns
    return total
