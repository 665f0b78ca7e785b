"""``paravirt info``: what this machine and this build can do."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from typing import Any

import click

from paravirt.errors import UserError
from paravirt.machine.choice import DEFAULT_ENGINE, probe_kvm, settle

# What each capability means to someone who has not read the source.
MEANINGS = {
    "parallel_vcpus": "the vcpus of one guest run at the same time",
    "atomics": "locked instructions are atomic against the host",
    "deterministic": "runs can be repeated event for event",
    "honours_ts": "lazy FPU switching works (CR0.TS)",
    "honours_debug_registers": "hardware breakpoints work",
    "honours_slot_256": "the machine-to-phys table is at its usual address",
}

# What the KVM engine's self-test finds out about the host.
FINDINGS = {
    "shadow_tables": "KVM keeps shadow page tables",
    "reload_repairs": "and learns what was written to a page table when CR3 is loaded",
    "user_stubs": "system calls enter the trampoline in ring 3",
    "real_selectors": "segment selectors read back as they were loaded",
    "rip_after_out": "KVM reports a port access behind the instruction",
    "icebp_is_fault": "KVM reports `icebp` before the instruction",
    "shortcuts": "some hypercalls are answered without an exit",
    "returns": "and a kernel goes back to its process without one",
    "native_cpuid": "processes see the host's own `cpuid`, and so use its vector state",
}


def require_platform() -> None:
    """Refuse what paravirt cannot run on.

    Raises:
        UserError: this is not Linux on x86-64 with the GNU C library.
    """
    system, machine = sys.platform, platform.machine()
    if system != "linux" or machine != "x86_64":
        raise UserError(f"paravirt runs on Linux on x86-64, and this is {system} on {machine}.")
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except ValueError:
        libc = None
    if not libc:
        raise UserError("paravirt needs the GNU C library, and this Linux has another.")


def engines() -> list[dict[str, Any]]:
    """A row for every engine that this version knows, usable here or not."""
    from paravirt.machine.unicorn.engine import CAPABILITIES, VERSION
    from paravirt.machine.unicorn.selftest import self_test

    unicorn: dict[str, Any] = {"name": "unicorn", "version": VERSION, "usable": True, "why_not": ""}
    try:
        self_test()
    except UserError as error:
        unicorn.update(usable=False, why_not=str(error))
    unicorn["capabilities"] = dataclasses.asdict(CAPABILITIES)
    return [unicorn, _kvm()]


def _kvm() -> dict[str, Any]:
    try:
        findings, capabilities, native_leaves = probe_kvm()
    except UserError as error:
        return {"name": "kvm", "version": "", "usable": False, "why_not": str(error), "capabilities": {}}
    return {
        "name": "kvm",
        "version": "",
        "usable": True,
        "why_not": "",
        "capabilities": dataclasses.asdict(capabilities),
        "findings": {name: bool(value) for name, value in {**findings, "native_cpuid": native_leaves}.items()},
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(as_json: bool) -> None:
    """Say which CPU engines are usable here and what they can do."""
    from paravirt import __version__

    require_platform()
    rows = engines()
    if as_json:
        facts = {
            "paravirt": __version__,
            "python": platform.python_version(),
            "engines": rows,
            "default_engine": DEFAULT_ENGINE,
            "auto_engine": settle("auto")[0],
        }
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"paravirt {__version__}, Python {platform.python_version()}, {os.cpu_count()} processors")
    for row in rows:
        if not row["usable"]:
            click.echo(f"engine {row['name']}: not usable: {row['why_not']}")
            continue
        click.echo(f"{' '.join(('engine', row['name'], row['version'])).rstrip()}: usable")
        for name, value in row["capabilities"].items():
            click.echo(f"  {'yes' if value else 'no ':3}  {MEANINGS.get(name, name)}")
        for name, value in row.get("findings", {}).items():
            click.echo(f"  {'yes' if value else 'no ':3}  this host: {FINDINGS.get(name, name)}")
    click.echo(f"by default: {DEFAULT_ENGINE}; --engine auto: {settle('auto')[1]}")
