"""Verbs about virtual CPUs: vcpu-list, vcpu-pin, vcpu-set."""

from __future__ import annotations

from typing import Any

from paravirt.domain0.xlcfg.config import cpu_set
from paravirt.xl.client import FAILURE, Daemon, Options, parse_number, say
from paravirt.xl.rendering import bitmap, seconds


def vcpu_list(options: Options) -> int:
    """``xl vcpu-list``. Domain 0 has a line too: the thread that it is."""
    daemon = Daemon()
    cpus = int(daemon.call("info")["nr_cpus"])
    print(f"{'Name':<32} {'ID':>5} {'VCPU':>5} {'CPU':>5} {'State':>5} {'Time(s)':>9} Affinity (Hard / Soft)")
    for word in options.arguments or [""]:
        for row in daemon.domains(word):
            for vcpu in _vcpus(daemon, row, cpus):
                print(_line(row, vcpu, cpus))
    return 0


def _vcpus(daemon: Daemon, row: dict[str, Any], cpus: int) -> list[dict[str, Any]]:
    if row["domid"] != 0:
        return list(daemon.call("vcpus", domain=str(row["domid"])))
    everywhere = list(range(cpus))
    return [
        {"vcpu": 0, "online": True, "running": row["running"], "blocked": row["blocked"], "cpu": 0,
         "cpu_time_ns": row["cpu_time_ns"], "hard": everywhere, "soft": everywhere}
    ]  # fmt: skip


def _line(row: dict[str, Any], vcpu: dict[str, Any], cpus: int) -> str:
    line = f"{row['name']:<32} {row['domid']:5d} {vcpu['vcpu']:5d}"
    if vcpu["online"]:
        running, blocked = "r" if vcpu["running"] else "-", "b" if vcpu["blocked"] else "-"
        line += f"{vcpu['cpu']:5d} {running:>3}{blocked}- "
    else:
        line += f"{'-':>5} {'-':>3}-p "
    hard, soft = bitmap(vcpu["hard"], cpus), bitmap(vcpu["soft"], cpus)
    return f"{line}{seconds(vcpu['cpu_time_ns']):9.1f}  {hard} / {soft}"


def vcpu_pin(options: Options) -> int:
    """``xl vcpu-pin``."""
    domain, which, hard, *rest = options.arguments
    soft = rest[0] if rest else "-"
    if "f" in options:
        say("xl: no kernel overrides the pinning here, so that --force has nothing to do")
        return FAILURE
    number = -1 if which == "all" else parse_number(which)
    if number < 0 and which != "all":
        say(f"xl: {which!r} is no vcpu")
        return FAILURE
    daemon = Daemon()
    if "n" in options:
        cpus = int(daemon.call("info")["nr_cpus"])
        shown = [bitmap(cpu_set(text, cpus), cpus) if text != "-" else "-" for text in (hard, *rest[:1])]
        print("cpumap: " + " ".join(shown))
        return 0
    daemon.call(
        "vcpu-pin", domain=domain, vcpu=number, hard="" if hard == "-" else hard, soft="" if soft == "-" else soft
    )
    return 0


def vcpu_set(options: Options) -> int:
    """``xl vcpu-set``."""
    domain, text = options.arguments[:2]
    count = parse_number(text)
    daemon = Daemon()
    if "i" not in options:
        online = daemon.domains(domain)[0]["vcpus_online"]
        cpus = int(daemon.call("info")["nr_cpus"])
        if count > online and count > cpus:
            say(f"xl: {count} virtual CPUs are more than the {cpus} physical ones; --ignore-host allows that")
            return FAILURE
    daemon.call("vcpu-set", domain=domain, vcpus=count)
    return 0
