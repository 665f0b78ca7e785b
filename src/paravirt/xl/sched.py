"""Verbs about scheduling: the parameters of schedulers, and pools of physical CPUs.

A scheduler's verb first asks which one the machine has: of another one there are no parameters to get or set.
"""

from __future__ import annotations

from paravirt.xl.client import FAILURE, Daemon, Options, say


def _of(scheduler: str, options: Options) -> int:
    daemon = Daemon()
    present = daemon.call("info")["xen_scheduler"]
    if present != scheduler:
        say(f"xl: the machine's scheduler is {present}, and {scheduler} is not in this version")
        return FAILURE
    raise AssertionError(f"{scheduler} has a verb, but no parameters")


def credit(options: Options) -> int:
    """``xl sched-credit``."""
    return _of("credit", options)


def credit2(options: Options) -> int:
    """``xl sched-credit2``."""
    return _of("credit2", options)


def rtds(options: Options) -> int:
    """``xl sched-rtds``."""
    return _of("rtds", options)


def sedf(options: Options) -> int:
    """``xl sched-sedf``, of old Xen."""
    return _of("sedf", options)


def bvt(options: Options) -> int:
    """``xl sched-bvt``, of old Xen."""
    return _of("bvt", options)


def cpupool_list(options: Options) -> int:
    """``xl cpupool-list``."""
    pools = Daemon().call("cpupools")
    if options.arguments:
        pools = [pool for pool in pools if pool["name"] == options.arguments[0]]
        if not pools:
            say(f"xl: there is no pool {options.arguments[0]!r}")
            return FAILURE
    print(f"{'Name':<19}" + ("CPU list" if "c" in options else "CPUs   Sched     Active   Domain count"))
    for pool in pools:
        if "c" in options:
            print(f"{pool['name']:<19}" + ",".join(str(cpu) for cpu in pool["cpus"]))
        else:
            print(f"{pool['name']:<19}{len(pool['cpus']):3d} {pool['scheduler']:>9}       y       {pool['domains']:4d}")
    return 0
