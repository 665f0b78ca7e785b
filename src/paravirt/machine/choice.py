"""Which CPU engine a machine runs on.

A machine has one kind of engine, chosen at its start, and one engine of it for each physical CPU.  ``auto`` is KVM
where its self-test passes, else Unicorn; a machine that has to repeat its runs always takes Unicorn then.
``kvm-exact`` is KVM without the shortcuts that some hosts make worth while (machine/kvm/shortcuts.c).  This module
is light: an engine is imported when it is chosen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paravirt.errors import UserError

if TYPE_CHECKING:
    from paravirt.machine.memory import Memory

ENGINES = ("auto", "kvm", "kvm-exact", "unicorn")
DEFAULT_ENGINE = "unicorn"
ENGINE_VARIABLE = "PARAVIRT_ENGINE"
"""The environment variable that names the engine of commands which are told none."""
KVM_DEVICE = "/dev/kvm"
MAX_PCPUS = 64
Registers = tuple[int, int, int, int]


@cache
def probe_kvm() -> tuple[dict[str, int], Any, dict[tuple[int, int], Registers]]:
    """The KVM engine's self-test, once in this process: its findings, capabilities and native leaves.

    Raises:
        UserError: it cannot be used here.
    """
    from paravirt.machine.kvm.selftest import probe

    findings, capabilities, native_leaves = probe()
    return findings, capabilities, native_leaves


def kvm_host() -> dict[str, object]:
    """What the KVM engine's self-test found out about this host, and its capabilities, by name.

    Raises:
        UserError: it cannot be used here.
    """
    findings, capabilities, native_leaves = probe_kvm()
    return {**findings, **vars(capabilities), "native_cpuid": bool(native_leaves)}


def settle(name: str, *, deterministic: bool = False) -> tuple[str, str]:
    """Which engine ``name``, which may be ``auto``, is here; and a sentence that says so if this was not the caller's
    own choice, else "".

    Raises:
        UserError: there is no such engine, or it cannot be used here, or not for this.
    """
    if name not in ENGINES:
        raise UserError(f"There is no CPU engine {name!r}: one of {', '.join(ENGINES)} is possible.")
    if name == "unicorn":
        return name, ""
    if name in ("kvm", "kvm-exact"):
        if deterministic:
            raise UserError("The KVM engine cannot repeat a run event for event: use the Unicorn engine for that.")
        probe_kvm()
        return name, ""
    if deterministic:
        return "unicorn", "Guests run on the Unicorn engine: the KVM engine cannot repeat a run event for event."
    try:
        probe_kvm()
    except UserError as error:
        return "unicorn", f"Guests run on the Unicorn engine. {error}{_permission_hint()}"
    return "kvm", "Guests run on the KVM engine."


def _permission_hint() -> str:
    """What a user can do who may not open /dev/kvm: a sentence, or "" if that is not what is in the way."""
    if not Path(KVM_DEVICE).exists() or os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return ""
    return f" Whoever may read and write {KVM_DEVICE} can use it: on most systems the members of the group kvm."


def default_pcpus(*, deterministic: bool = False) -> int:
    """How many physical CPUs a machine has unless somebody says so: as many as the host lets this process use."""
    if deterministic:
        return 1
    return min(len(os.sched_getaffinity(0)), MAX_PCPUS)


def choose(name: str, pcpus: int, *, deterministic: bool = False) -> Callable[[Memory], list[Any]]:
    """Test the engine that :func:`settle` found; the answer opens one for each physical CPU, over a machine's memory.

    Raises:
        UserError: it cannot be used here, or have so many physical CPUs.
    """
    if not 1 <= pcpus <= MAX_PCPUS:
        raise UserError(f"A machine has 1 to {MAX_PCPUS} physical CPUs, not {pcpus}.")
    if deterministic and pcpus != 1:
        raise UserError("A deterministic machine has one physical CPU: between several no run is like another.")
    if name == "unicorn":
        from paravirt.machine.unicorn.engine import UnicornEngine, code_buffer_mib
        from paravirt.machine.unicorn.selftest import self_test

        self_test()

        def open_unicorn(memory: Memory) -> list[Any]:
            buffer = code_buffer_mib(memory.size, pcpus)
            return [UnicornEngine(memory.address, memory.size, deterministic, buffer) for _ in range(pcpus)]

        return open_unicorn
    if deterministic:
        raise UserError("The KVM engine cannot repeat a run event for event: use the Unicorn engine for that.")
    from paravirt.machine.kvm.engine import KvmEngine, KvmMachine

    findings, capabilities, native_leaves = probe_kvm()

    def open_kvm(memory: Memory) -> list[Any]:
        shortcuts = findings["shortcuts"] and name != "kvm-exact"
        returns = findings["returns"] and shortcuts
        machine = KvmMachine(
            memory.address, memory.size, {**findings, "shortcuts": shortcuts, "returns": returns}
        )
        return [KvmEngine(machine, capabilities, native_leaves) for _ in range(pcpus)]

    return open_kvm


def set_cpuid(
    engines: list[Any], policy: Mapping[tuple[int, int | None], Registers], time_scale: tuple[int, int]
) -> None:
    """Give engines whose processors answer ``cpuid`` themselves the table, and the leaf with the guests' time scale."""
    scale, shift = time_scale
    for engine in engines:
        if hasattr(engine, "set_cpuid"):
            engine.set_cpuid({**policy, (0x40000003, 1): (0, 0, scale, shift & 0xFFFFFFFF)})
