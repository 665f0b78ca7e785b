"""Verbs about scheduling: the parameters of schedulers.

Each pool of physical CPUs has a scheduler of its own, and a scheduler's verb is about the pools that have it: of one
that no pool has there are no parameters to get or set. Domain 0 has a line under credit alone: the host's own scheduler
runs it.
"""

from __future__ import annotations

from typing import Any

from paravirt.xl.client import FAILURE, Daemon, Options, parse_number, say
from paravirt.xl.pools import find_pool

_MS = 1_000_000


def _pools(scheduler: str, daemon: Daemon, qualifier: str | None) -> list[dict[str, Any]]:
    """The pools with this scheduler, or the one that was asked for if it has it; none, and a message, otherwise."""
    pools = daemon.call("cpupools") if qualifier is None else [find_pool(daemon, qualifier)]
    found = [pool for pool in pools if pool["scheduler"] == scheduler]
    if not found:
        present = ", ".join(sorted({pool["scheduler"] for pool in pools}))
        where = "the machine's scheduler" if qualifier is None else f"the scheduler of the pool {qualifier}"
        say(f"xl: {where} is {present}, not {scheduler}")
    return found


def _parameters(
    daemon: Daemon, scheduler: str, pool: dict[str, Any] | None, domain: str | None
) -> list[tuple[dict[str, Any], dict[str, int]]]:
    """Rows of a pool's domains, or of one domain, each with its parameters."""
    rows = daemon.domains(domain or "")
    if pool is not None:
        rows = [row for row in rows if row["cpupool"] == pool["id"]]
    if domain is None and scheduler != "credit":
        rows = [row for row in rows if row["domid"] != 0]
    return [(row, daemon.call("sched-get", domain=str(row["domid"]))) for row in rows]


def _other_scheduler(daemon: Daemon, scheduler: str, domain: str) -> bool:
    """Whether a domain is in a pool with another scheduler, and a message then."""
    (row,) = daemon.domains(domain)
    present = find_pool(daemon, str(row["cpupool"]))["scheduler"]
    if present != scheduler:
        say(f"xl: the scheduler of the domain {domain} is {present}, not {scheduler}")
    return bool(present != scheduler)


def _change(daemon: Daemon, options: Options, domain: str | None, names: dict[str, tuple[str, int]]) -> int | None:
    """Change what the options say; ``names`` has for each letter a parameter and its unit. None: there was nothing."""
    given = {name: parse_number(str(options.get(letter))) * unit for letter, (name, unit) in names.items()
             if letter in options}  # fmt: skip
    if not given:
        return None
    if domain is None:
        say("xl: parameters are those of one domain, which -d names")
        return FAILURE
    daemon.call("sched-set", domain=domain, parameters=given)
    return 0


def credit(options: Options) -> int:
    """``xl sched-credit``."""
    if "m" in options:
        say("xl: there is no migration delay in this version")
        return FAILURE
    domain, qualifier = options.get("d"), options.get("p")
    own = {letter for letter in "dwc" if letter in options}
    if own and ("s" in options or qualifier is not None):
        say("xl: parameters of a domain, and those of the scheduler or a pool, cannot be given together")
        return FAILURE
    daemon = Daemon()
    if domain is not None:
        return _credit_of_domain(daemon, options, domain)
    changes = {name: parse_number(str(options.get(letter)))
               for letter, name in (("t", "tslice_ms"), ("r", "ratelimit_us")) if letter in options}  # fmt: skip
    if changes and "s" not in options:
        say("xl: a time slice or a rate limit is a parameter of the scheduler's own, for which -s is needed")
        return FAILURE
    done = _change(daemon, options, domain, {"w": ("weight", 1), "c": ("cap", 1)})
    if done is not None:
        return done
    pools = _pools("credit", daemon, "0" if "s" in options and qualifier is None else qualifier)
    for pool in pools:
        if changes:
            daemon.call("sched-info", pool=pool["id"], change=True, set=changes)
            continue
        info = daemon.call("sched-info", pool=pool["id"])
        times = f"tslice={info['tslice_ms']}ms ratelimit={info['ratelimit_us']}us migration-delay=0us"
        print(f"Cpupool {pool['name']}: {times}")
        if "s" not in options:
            _print_credit(_parameters(daemon, "credit", pool, None))
    return 0 if pools else FAILURE


def _credit_of_domain(daemon: Daemon, options: Options, domain: str) -> int:
    if _other_scheduler(daemon, "credit", domain):
        return FAILURE
    done = _change(daemon, options, domain, {"w": ("weight", 1), "c": ("cap", 1)})
    if done is None:
        _print_credit(_parameters(daemon, "credit", None, domain))
    return done or 0


def _print_credit(rows: list[tuple[dict[str, Any], dict[str, int]]]) -> None:
    print(f"{'Name':<33} {'ID':>4} {'Weight':>6} {'Cap':>4}")
    for row, has in rows:
        print(f"{row['name']:<33} {row['domid']:4d} {has['weight']:6d} {has['cap']:4d}")


def credit2(options: Options) -> int:
    """``xl sched-credit2``."""
    return _absent("credit2")


def rtds(options: Options) -> int:
    """``xl sched-rtds``."""
    return _absent("rtds")


def _absent(scheduler: str) -> int:
    present = Daemon().call("sched-info")["name"]
    say(f"xl: the machine's scheduler is {present}, and {scheduler} is not in this version")
    return FAILURE


def sedf(options: Options) -> int:
    """``xl sched-sedf``, of old Xen; periods, slices and latencies are milliseconds."""
    daemon, domain = Daemon(), options.get("d")
    if domain is not None and _other_scheduler(daemon, "sedf", domain):
        return FAILURE
    pools = _pools("sedf", daemon, options.get("c"))
    if not pools:
        return FAILURE
    names = {"p": ("period", _MS), "s": ("slice", _MS), "l": ("latency", _MS), "e": ("extratime", 1),
             "w": ("weight", 1)}  # fmt: skip
    done = _change(daemon, options, domain, names)
    if done is not None:
        return done
    print(f"{'Name':<33} {'ID':>4} {'Period':>9} {'Slice':>9} {'Latency':>7} {'Extra':>6} {'Weight':>6}")
    for pool in pools:
        for row, has in _parameters(daemon, "sedf", pool, domain):
            print(
                f"{row['name']:<33} {row['domid']:4d} {has['period'] // _MS:9d} {has['slice'] // _MS:9d} "
                f"{has['latency'] // _MS:7d} {has['extratime']:6d} {has['weight']:6d}"
            )
    return 0


def bvt(options: Options) -> int:
    """``xl sched-bvt``, of old Xen; without arguments, a list. The limits of warps are milliseconds."""
    daemon = Daemon()
    pools = _pools("bvt", daemon, None)
    if not pools:
        return FAILURE
    if options.arguments:
        if len(options.arguments) != 6:
            say("xl: sched-bvt takes a domain, mcuadv, warpback, warpvalue, warpl and warpu")
            return FAILURE
        domain, *texts = options.arguments
        if _other_scheduler(daemon, "bvt", domain):
            return FAILURE
        advance, back, value, limit, rest = (parse_number(text) for text in texts)
        daemon.call(
            "sched-set",
            domain=domain,
            parameters={
                "mcuadv": advance, "warpback": back, "warpvalue": value, "warpl": limit * _MS, "warpu": rest * _MS,
            },
        )  # fmt: skip
        return 0
    _print_bvt(daemon, pools)
    return 0


def _print_bvt(daemon: Daemon, pools: list[dict[str, Any]]) -> None:
    print(f"{'Name':<33} {'ID':>4} {'Mcuadv':>6} {'Warpback':>8} {'Warpvalue':>9} {'Warpl':>6} {'Warpu':>6}")
    for pool in pools:
        for row, has in _parameters(daemon, "bvt", pool, None):
            print(
                f"{row['name']:<33} {row['domid']:4d} {has['mcuadv']:6d} {has['warpback']:8d} {has['warpvalue']:9d} "
                f"{has['warpl'] // _MS:6d} {has['warpu'] // _MS:6d}"
            )


def bvt_ctxallow(options: Options) -> int:
    """``xl sched-bvt-ctxallow``, of old Xen: the context-switch allowance, in ns, of all pools under BVT; without an
    argument, what it is."""
    daemon = Daemon()
    pools = _pools("bvt", daemon, None)
    for pool in pools:
        if options.arguments:
            allowance = parse_number(options.arguments[0])
            daemon.call("sched-info", pool=pool["id"], change=True, set={"ctx_allow": allowance})
        else:
            print(f"Cpupool {pool['name']}: ctx_allow={daemon.call('sched-info', pool=pool['id'])['ctx_allow']}ns")
    return 0 if pools else FAILURE
