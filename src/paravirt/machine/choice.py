"""Which CPU engine a machine runs on.

A machine has one engine, chosen at its start.  ``auto`` is the Unicorn engine; the KVM engine is experimental and
has to be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from paravirt.errors import UserError
from paravirt.machine.memory import Memory

ENGINES = ("auto", "kvm", "unicorn")
Registers = tuple[int, int, int, int]


@cache
def _probe_kvm() -> tuple[dict[str, int], Any]:
    from paravirt.machine.kvm.selftest import probe

    findings, capabilities = probe()
    return findings, capabilities


def choose(name: str, *, deterministic: bool = False) -> Callable[[Memory], Any]:
    """Test the engine of that name; the answer opens it over a machine's memory.

    Raises:
        UserError: there is no such engine, it cannot be used here, or it cannot repeat a run.
    """
    if name not in ENGINES:
        raise UserError(f"There is no CPU engine {name!r}: one of {', '.join(ENGINES)} is possible.")
    if name != "kvm":
        from paravirt.machine.unicorn.engine import UnicornEngine
        from paravirt.machine.unicorn.selftest import self_test

        self_test()
        return lambda memory: UnicornEngine(memory.address, memory.size, deterministic)
    if deterministic:
        raise UserError("The KVM engine cannot repeat a run event for event: use the Unicorn engine for that.")
    from paravirt.machine.kvm.engine import KvmEngine

    findings, capabilities = _probe_kvm()
    return lambda memory: KvmEngine(memory.address, memory.size, findings, capabilities)


def set_cpuid(engine: Any, policy: Mapping[tuple[int, int | None], Registers], time_scale: tuple[int, int]) -> None:
    """Give an engine whose processor answers ``cpuid`` itself the table, and the leaf with the guests' time scale."""
    if hasattr(engine, "set_cpuid"):
        scale, shift = time_scale
        engine.set_cpuid({**policy, (0x40000003, 1): (0, 0, scale, shift & 0xFFFFFFFF)})
