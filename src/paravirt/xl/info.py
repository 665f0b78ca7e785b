"""Verbs about the machine: info, dmesg, debug-keys."""

from __future__ import annotations

import sys
from typing import Any

from paravirt.xl.client import Daemon, Options


def info(options: Options) -> int:
    """``xl info``, or one field of it. Without -n, a field's name may be shortened, as xl allows."""
    facts = Daemon().call("info")
    fields = _fields(facts)
    if "n" in options:
        _print(fields[:_HARDWARE])
        _print_topology(facts)
        _print(fields[_HARDWARE:])
    elif options.arguments:
        wanted = options.arguments[0]
        for name, value in fields:
            if f"{name:<23}: {value}".startswith(wanted):
                print(value)
    else:
        _print(fields)
    return 0


_HARDWARE = 18
"""How many fields come before those on Xen itself, between which -n has the topology."""


def _print(fields: list[tuple[str, str]]) -> None:
    for name, value in fields:
        print(f"{name:<23}: {value}")


def _fields(facts: dict[str, Any]) -> list[tuple[str, str]]:
    cpus, khz = facts["nr_cpus"], facts["cpu_khz"]
    pairs: list[tuple[str, Any]] = [
        ("host", facts["host"]),
        ("release", facts["release"]),
        ("version", facts["version"]),
        ("machine", facts["machine"]),
        ("nr_cpus", cpus),
        ("max_cpu_id", cpus - 1),
        ("nr_nodes", 1),
        ("cores_per_socket", cpus),
        ("threads_per_core", 1),
        ("cpu_mhz", f"{khz // 1000}.{khz % 1000:03d}"),
        ("hw_caps", ":".join(f"{word:08x}" for word in facts["hw_caps"])),
        ("virt_caps", " ".join(facts["virt_caps"])),
        ("total_memory", facts["total_memory_mib"]),
        ("free_memory", facts["free_memory_mib"]),
        ("sharing_freed_memory", 0),
        ("sharing_used_memory", 0),
        ("outstanding_claims", 0),
        ("free_cpus", len(facts["free_cpus"])),
        ("xen_major", facts["xen_major"]),
        ("xen_minor", facts["xen_minor"]),
        ("xen_extra", facts["xen_extra"]),
        ("xen_version", f"{facts['xen_major']}.{facts['xen_minor']}{facts['xen_extra']}"),
        ("xen_caps", facts["xen_caps"]),
        ("xen_scheduler", facts["xen_scheduler"]),
        ("xen_pagesize", facts["xen_pagesize"]),
        ("platform_params", f"virt_start={facts['virt_start']:#x}"),
        ("xen_changeset", facts["xen_changeset"]),
        ("xen_commandline", facts["xen_commandline"]),
        ("cc_compiler", facts["cc_compiler"]),
        ("cc_compile_by", facts["cc_compile_by"]),
        ("cc_compile_domain", ""),
        ("cc_compile_date", ""),
        ("build_id", ""),
        ("xend_config_format", 4),
    ]
    return [(name, str(value)) for name, value in pairs]


def _print_topology(facts: dict[str, Any]) -> None:
    print("cpu_topology           :")
    print("cpu:    core    socket     node")
    for cpu in range(facts["nr_cpus"]):
        print(f"{cpu:3d}:    {cpu:4d}     {0:4d}     {0:4d}")
    print("device topology        :")
    print("device           node")
    print("No device topology data available")
    print("numa_info              :")
    print("node:    memsize    memfree    distances")
    print(f"{0:4d}:    {facts['total_memory_mib']:6d}     {facts['free_memory_mib']:6d}      10")


def dmesg(options: Options) -> int:
    """``xl dmesg``."""
    sys.stdout.write(Daemon().call("dmesg", clear="c" in options))
    return 0


def debug_keys(options: Options) -> int:
    """``xl debug-keys``."""
    Daemon().call("debug-keys", keys=options.arguments[0])
    return 0
