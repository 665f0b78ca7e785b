"""The Cpu protocol as Python sees it.

The native side of the protocol, which the trap path uses, is ``cpu.h``; it says what an engine does and when.  An
:class:`Engine` is the handle that Python holds: who it is, what it can do, and where its native side is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Capabilities:
    """What the hypervisor must know of an engine to schedule on it and to stay correct.

    Attributes:
        parallel_vcpus: vcpus of one domain may run at the same time.
        atomics: the guest's locked instructions are atomic against the host's threads.
        deterministic: it can count blocks, and stop at a counted block.
        honours_ts: CR0.TS raises #NM.
        honours_debug_registers: breakpoints in DR0-DR3 raise #DB.
        honours_slot_256: the guest may use the machine-to-phys table in L4 slot 256.
    """

    parallel_vcpus: bool
    atomics: bool
    deterministic: bool
    honours_ts: bool
    honours_debug_registers: bool
    honours_slot_256: bool


class Engine(Protocol):
    """One physical CPU's engine, opened over the machine's memory."""

    name: str
    version: str
    capabilities: Capabilities
    native_leaves: Mapping[tuple[int, int], tuple[int, int, int, int]]
    """Where the guests' processes see the host's own ``cpuid``, whatever the hypervisor's table says: the leaves 1, 7
    and 13, {(leaf, subleaf): (eax, ebx, ecx, edx)}. Empty elsewhere."""

    @property
    def ops_address(self) -> int:
        """The address of its ``struct cpu_ops``."""

    @property
    def handle(self) -> int:
        """The address to pass as ``engine`` to these operations."""

    def close(self) -> None:
        """Free it; no vcpu may be running."""
