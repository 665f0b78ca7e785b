"""Verbs about pools of physical CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paravirt.domain0.daemon.protocol import Refusal
from paravirt.domain0.xlcfg.config import cpu_set
from paravirt.domain0.xlcfg.grammar import Setting, Source, parse
from paravirt.errors import UserError
from paravirt.xl.client import FAILURE, Daemon, Options, say

Pool = dict[str, Any]


def find_pool(daemon: Daemon, qualifier: str) -> Pool:
    """The pool of this number or name.

    Raises:
        UserError: there is none.
    """
    for pool in daemon.call("cpupools"):
        if qualifier in ((str(pool["id"]),) if qualifier.isdigit() else (pool["name"],)):
            return dict(pool)
    raise UserError(f"There is no pool of physical CPUs {qualifier!r}.")


def has_pool(daemon: Daemon, qualifier: str) -> bool:
    """Whether there is a pool of this number or name."""
    try:
        return bool(find_pool(daemon, qualifier))
    except UserError:
        return False


def cpupool_list(options: Options) -> int:
    """``xl cpupool-list``: here, as in Xen, a pool goes by its name alone."""
    pools = Daemon().call("cpupools")
    if options.arguments:
        pools = [pool for pool in pools if pool["name"] == options.arguments[0]]
        if not pools:
            say(f"xl: there is no pool of physical CPUs {options.arguments[0]!r}")
            return FAILURE
    print(f"{'Name':<19}" + ("CPU list" if "c" in options else "CPUs   Sched     Active   Domain count"))
    for pool in pools:
        if "c" in options:
            print(f"{pool['name']:<19}" + ",".join(str(cpu) for cpu in pool["cpus"]))
        else:
            print(f"{pool['name']:<19}{len(pool['cpus']):3d} {pool['scheduler']:>9}       y       {pool['domains']:4d}")
    return 0


def cpupool_create(options: Options) -> int:
    """``xl cpupool-create``: settings ``name``, ``sched``, ``cpus`` and ``nodes``, from a file and the command line."""
    files = [word for word in options.arguments if "=" not in word]
    files += [str(options.get("f"))] if "f" in options else []
    overrides = [word for word in options.arguments if "=" in word]
    if len(files) > 1:
        say(f"xl: one configuration file is enough, but here are {' and '.join(files)}")
        return FAILURE
    source = files[0] if files else "command line"
    try:
        text = Path(source).read_text(encoding="utf-8", errors="surrogateescape") if files else ""
    except OSError as error:
        say(f"xl: the configuration file {source} cannot be read: {error.strerror}")
        return FAILURE
    settings = parse(text, Source.of(source, text), overrides)
    name = _text(settings, "name") or (Path(source).name if files else "")
    if not name:
        say("xl: the pool has no name (a setting 'name' is missing)")
        return FAILURE
    daemon = Daemon()
    scheduler = _text(settings, "sched") or str(daemon.call("sched-info")["name"])
    wanted = {"name": name, "scheduler": scheduler, "cpus": _wanted_cpus(daemon, settings)}
    daemon.call("cpupool-check", **wanted)
    print(f'Using config file "{source}"')
    print(f"cpupool name:   {name}")
    print(f"scheduler:      {scheduler}")
    print(f"number of cpus: {len(wanted['cpus'])}")
    if "n" not in options:
        daemon.call("cpupool-create", **wanted)
    return 0


def _text(settings: dict[str, Setting], key: str) -> str:
    setting = settings.get(key)
    if setting is not None and not isinstance(setting.item.value, str):
        raise UserError(f"{key}: a single value is expected, not a list")
    return "" if setting is None else str(setting.item.value)


def _wanted_cpus(daemon: Daemon, settings: dict[str, Setting]) -> list[int]:
    """The physical CPUs that settings name: by ``nodes``, of which there is one, or by ``cpus``, a list or a range."""
    facts = daemon.call("info")
    for key in ("nodes", "cpus"):
        if key not in settings:
            continue
        value = settings[key].item.value
        if isinstance(value, str):
            return sorted(cpu_set(value, int(facts["nr_cpus"])))
        numbers = [str(item.value) for item in value]
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise UserError(f"{key}: a list of numbers is expected")
        if key == "cpus":
            return [int(number) for number in numbers]
        if not facts["free_cpus"] or "0" not in numbers:
            raise UserError("no free cpu found")
        return list(facts["free_cpus"])
    return []


def cpupool_destroy(options: Options) -> int:
    """``xl cpupool-destroy``."""
    daemon = Daemon()
    pool = find_pool(daemon, options.arguments[0])
    daemon.call("cpupool-destroy", pool=pool["id"])
    return 0


def cpupool_rename(options: Options) -> int:
    """``xl cpupool-rename``."""
    daemon = Daemon()
    pool = find_pool(daemon, options.arguments[0])
    daemon.call("cpupool-rename", pool=pool["id"], name=options.arguments[1])
    return 0


def cpupool_cpu_add(options: Options) -> int:
    """``xl cpupool-cpu-add``: as in Xen it succeeds whatever comes of it."""
    return _change_cpus(options, "cpupool-cpu-add")


def cpupool_cpu_remove(options: Options) -> int:
    """``xl cpupool-cpu-remove``: likewise."""
    return _change_cpus(options, "cpupool-cpu-remove")


def _change_cpus(options: Options, operation: str) -> int:
    daemon = Daemon()
    qualifier, text = options.arguments[:2]
    cpus = cpu_set(text, int(daemon.call("info")["nr_cpus"]))
    pool = find_pool(daemon, qualifier)
    for cpu in sorted(cpus):
        try:
            daemon.call(operation, pool=pool["id"], cpu=cpu)
        except Refusal as refusal:
            say(f"xl: {refusal}")
    return 0


def cpupool_migrate(options: Options) -> int:
    """``xl cpupool-migrate``."""
    domain, qualifier = options.arguments[:2]
    daemon = Daemon()
    daemon.domains(domain)
    pool = find_pool(daemon, qualifier)
    daemon.call("cpupool-migrate", domain=domain, pool=pool["id"])
    return 0


def cpupool_numa_split(options: Options) -> int:
    """``xl cpupool-numa-split``: the machine has one node, whose pool the first one becomes, with all that is free."""
    daemon = Daemon()
    if len(daemon.call("cpupools")) > 1:
        say("xl: splitting is not possible: there is more than one pool already")
        return FAILURE
    for cpu in daemon.call("info")["free_cpus"]:
        daemon.call("cpupool-cpu-add", pool=0, cpu=cpu)
    daemon.call("cpupool-rename", pool=0, name="Pool-node0")
    return 0
