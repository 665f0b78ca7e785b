"""Verbs about scheduling: the the parameters of schedulers.

A scheduler's verb first asks which one the machine has: of another one there are no parameters to get or set.
Domain 0 has a line under credit alone: the host's own scheduler runs it.
"""

from __future__ import annotations

from typing import Any

from paravirt.xl.client import FAILURE, Daemon, Options, parse_number, say
from paravirt.xl.pools import pool_name

_MS = 1_000_000


def _daemon(scheduler: str, options: Options) -> Daemon | None:
    """The daemon, if the machine has this scheduler, and the pool that was asked for; else None, and a message."""
    daemon = Daemon()
    present = daemon.call("sched-info")["name"]
    if present != scheduler:
        say(f"xl: the machine's scheduler is {present}, not {scheduler}")
        return None
    pool = options.get("p") if scheduler == "credit" else options.get("c")
    if pool is not None and pool != pool_name(daemon):
        say(f"xl: there is no pool {pool!r}")
        return None
    return daemon


def _parameters(daemon: Daemon, scheduler: str, domain: str | None) -> list[tuple[dict[str, Any], dict[str, int]]]:
    """Rows of domains, or of one, each with its parameters."""
    rows = daemon.domains(domain or "")
    if domain is None and scheduler != "credit":
        rows = [row for row in rows if row["domid"] != 0]
    return [(row, daemon.call("sched-get", domain=str(row["domid"]))) for row in rows]


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
    daemon = _daemon("credit", options)
    if daemon is None:
        return FAILURE
    changes = {name: parse_number(str(options.get(letter)))
               for letter, name in (("t", "tslice_ms"), ("r", "ratelimit_us")) if letter in options}  # fmt: skip
    if changes and "s" not in options:
        say("xl: a time slice or a rate limit is a parameter of the scheduler's own, for which -s is needed")
        return FAILURE
    if "s" in options and {"d", "w", "c"} & {letter for letter in "dwc" if letter in options}:
        say("xl: parameters of a domain and of the scheduler cannot be given together")
        return FAILURE
    if changes:
        daemon.call("sched-info", change=True, set=changes)
        return 0
    done = _change(daemon, options, options.get("d"), {"w": ("weight", 1), "c": ("cap", 1)})
    if done is not None:
        return done
    info = daemon.call("sched-info")
    if "d" not in options:
        times = f"tslice={info['tslice_ms']}ms ratelimit={info['ratelimit_us']}us migration-delay=0us"
        print(f"Cpupool {pool_name(daemon)}: {times}")
    if "s" not in options:
        rows = _parameters(daemon, "credit", options.get("d"))
        print(f"{'Name':<33} {'ID':>4} {'Weight':>6} {'Cap':>4}")
        for row, has in rows:
            print(f"{row['name']:<33} {row['domid']:4d} {has['weight']:6d} {has['cap']:4d}")
    return 0


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
    daemon = _daemon("sedf", options)
    if daemon is None:
        return FAILURE
    names = {"p": ("period", _MS), "s": ("slice", _MS), "l": ("latency", _MS), "e": ("extratime", 1),
             "w": ("weight", 1)}  # fmt: skip
    done = _change(daemon, options, options.get("d"), names)
    if done is not None:
        return done
    print(f"{'Name':<33} {'ID':>4} {'Period':>9} {'Slice':>9} {'Latency':>7} {'Extra':>6} {'Weight':>6}")
    for row, has in _parameters(daemon, "sedf", options.get("d")):
        print(
            f"{row['name']:<33} {row['domid']:4d} {has['period'] // _MS:9d} {has['slice'] // _MS:9d} "
            f"{has['latency'] // _MS:7d} {has['extratime']:6d} {has['weight']:6d}"
        )
    return 0


def bvt(options: Options) -> int:
    """``xl sched-bvt``, of old Xen; without arguments, a list. The limits of warps are milliseconds."""
    daemon = _daemon("bvt", options)
    if daemon is None:
        return FAILURE
    if options.arguments:
        if len(options.arguments) != 6:
            say("xl: sched-bvt takes a domain, mcuadv, warpback, warpvalue, warpl and warpu")
            return FAILURE
        domain, *texts = options.arguments
        advance, back, value, limit, rest = (parse_number(text) for text in texts)
        daemon.call(
            "sched-set",
            domain=domain,
            parameters={
                "mcuadv": advance, "warpback": back, "warpvalue": value, "warpl": limit * _MS, "warpu": rest * _MS,
            },
        )  # fmt: skip
        return 0
    print(f"{'Name':<33} {'ID':>4} {'Mcuadv':>6} {'Warpback':>8} {'Warpvalue':>9} {'Warpl':>6} {'Warpu':>6}")
    for row, has in _parameters(daemon, "bvt", None):
        print(
            f"{row['name']:<33} {row['domid']:4d} {has['mcuadv']:6d} {has['warpback']:8d} {has['warpvalue']:9d} "
            f"{has['warpl'] // _MS:6d} {has['warpu'] // _MS:6d}"
        )
    return 0
