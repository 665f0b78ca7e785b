"""Verbs that list domains: list, vm-list, domid, domname, uptime, claims, sharing."""

from __future__ import annotations

import sys
import time
from typing import Any

from paravirt.domain0.daemon.protocol import NOT_FOUND, Refusal
from paravirt.xl.client import FAILURE, Daemon, Options, parse_number, say
from paravirt.xl.rendering import LIST_HEADER, bitmap, clock, duration, list_line, pretty


def list_domains(options: Options) -> int:
    """``xl list``."""
    if len(options.arguments) > 1:
        say("xl: list takes one domain, or none")
        return FAILURE
    daemon = Daemon()
    rows = daemon.domains(*options.arguments)
    if "l" in options:
        return _details(daemon, rows)
    verbose, context = "v" in options, "Z" in options
    extra = "   UUID                            Reason-Code\tSecurity Label" if verbose else ""
    extra += "   Security Label" if context and not verbose else ""
    extra += "         Cpupool" if "c" in options else ""
    extra += " NODE Affinity" if "n" in options else ""
    pools = {pool["id"]: pool["name"] for pool in daemon.call("cpupools")} if "c" in options else {}
    print(LIST_HEADER + extra)
    for row in rows:
        line = list_line(row)
        if verbose:
            line += f" {row['uuid']} " + (f"{row['shutdown_reason']:8x}" if row["shutdown"] else f"{'-':>8}")
        if verbose or context:
            line += f" {'-':>16}"
        if "c" in options:
            line += f"{pools.get(row['cpupool'], ''):>16}"
        if "n" in options:
            line += " " + bitmap([0], 1)
        print(line)
    return 0


def _details(daemon: Daemon, rows: list[dict[str, Any]]) -> int:
    from paravirt.domain0.xlcfg.config import DomainConfig
    from paravirt.xl.libxl_json import domain_0_config, running_config
    from paravirt.xl.network import with_scripts

    pcpus, script = int(daemon.call("info")["nr_cpus"]), str(daemon.call("network-script"))
    found = []
    for row in rows:
        try:
            has = daemon.call("config", domain=str(row["domid"]))
        except Refusal as refusal:
            if refusal.code != NOT_FOUND:
                raise
            continue  # it went while we were looking
        if has["config"] is None:
            shown = domain_0_config(has["scheduling"])
        else:
            config = with_scripts(DomainConfig.from_json(has["config"]), script)
            shown = running_config(config, has["name"], has["uuid"], has["scheduling"], pcpus)
        found.append({"domid": row["domid"], "config": shown})
    sys.stdout.write(pretty(found) + "\n\n")
    return 0


def vm_list(options: Options) -> int:
    """``xl vm-list``."""
    print("UUID                                  ID    name")
    for row in Daemon().domains():
        print(f"{row['uuid']}  {row['domid']}    {row['name']:<30}")
    return 0


def domid(options: Options) -> int:
    """``xl domid``: of a name only."""
    name = options.arguments[0]
    for row in Daemon().domains():
        if row["name"] == name:
            print(row["domid"])
            return 0
    say(f"xl: there is no domain with the name {name!r}")
    return FAILURE


def domname(options: Options) -> int:
    """``xl domname``: of a number only."""
    number = parse_number(options.arguments[0])
    for row in Daemon().domains():
        if row["domid"] == number:
            print(row["name"])
            return 0
    say(f"xl: there is no domain with the number {number}")
    return FAILURE


def uptime(options: Options) -> int:
    """``xl uptime``."""
    daemon = Daemon()
    if options.arguments:
        rows = [row for word in options.arguments for row in daemon.domains(word)]
    else:
        rows = daemon.domains()
    short = "s" in options
    if not short:
        print(f"{'Name':<33} {'ID':>4} Uptime")
    for row in rows:
        up = duration(int(time.time() - row["started"]), short)
        if short:
            print(f" {clock()} up {up}, {row['name']} ({row['domid']})")
        else:
            print(f"{row['name']:<33} {row['domid']:4d} {up}")
    return 0


def claims(options: Options) -> int:
    """``xl claims``: nothing is ever claimed without being taken at once."""
    print(LIST_HEADER + "  Claimed")
    for row in Daemon().domains():
        print(f"{list_line(row)} {0:5d}")
    return 0


def sharing(options: Options) -> int:
    """``xl sharing``: domains share no memory."""
    rows = Daemon().domains(*options.arguments[:1])
    print("Name                                        ID   Mem Shared")
    for row in rows:
        print(f"{row['name']:<40} {row['domid']:5d} {row['memory_kib'] // 1024:5d}  {0:5d}")
    return 0
