"""Verbs about pools of physical CPUs: there is one, which every CPU and every domain is in."""

from __future__ import annotations

from paravirt.xl.client import FAILURE, Daemon, Options, say


def pool_name(daemon: Daemon) -> str:
    """The pool's name."""
    return str(daemon.call("cpupools")[0]["name"])


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


def cpupool_rename(options: Options) -> int:
    """``xl cpupool-rename``."""
    pool, name = options.arguments[:2]
    Daemon().call("cpupool-rename", pool=pool, name=name)
    return 0


def cpupool_migrate(options: Options) -> int:
    """``xl cpupool-migrate``: into the pool where the domain is."""
    domain, pool = options.arguments[:2]
    daemon = Daemon()
    daemon.domains(domain)
    if pool != pool_name(daemon):
        say(f"xl: there is no pool {pool!r}")
        return FAILURE
    return 0
