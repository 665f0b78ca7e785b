"""Mutants that no test can notice, because something else refuses the same requests with the same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .mutants import Mutant


@dataclass(frozen=True)
class Equivalent:
    """One check of which the hypervisor is as safe without; ``why``: what refuses in its place."""

    module: str
    function: str
    condition: str
    why: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.module, self.function, self.condition


_MEMORY = "The host refuses the hypervisor memory for a record of its own: no guest decides that."
_FLUSHES = "Taken for true it has more engines forget what they know of a frame: that costs time and changes nothing."
_LEFT_OVER = "Something stays left over only when the time is over, and the next condition asks for that."

EQUIVALENT: tuple[Equivalent, ...] = (
    Equivalent("events.py", "ensure_ports", "grown == cython.NULL", _MEMORY),
    Equivalent("events.py", "alloc_port", "port >= d.nr_ports and not ensure_ports(d, port + 1)", _MEMORY),
    Equivalent("events_fifo.py", "take_over", "d.fifo_array == cython.NULL", _MEMORY),
    Equivalent("events_fifo.py", "fifo_init_control", "rc != 0", _MEMORY),
    Equivalent("scheduling.py", "join_unit", "u == cython.NULL", _MEMORY),
    Equivalent(
        "grant_entries.py",
        "find_grant_entry",
        "entry == cython.NULL",
        "The answer is what was found, nothing, whichever frame the rest of the function looks at.",
    ),
    Equivalent(
        "hypercalls/mmu_ops.py",
        "update_entry",
        "rc == 0",
        "It only saves a call: what answers 0 is not noted as refused.",
    ),
    Equivalent("hypercalls/mmu_ops.py", "update_batch", "put_old_table(host, host.old) != 0", _LEFT_OVER),
    Equivalent("hypercalls/mmu_ops.py", "mmuext_batch", "put_old_table(host, host.old) != 0", _LEFT_OVER),
    Equivalent("hypercalls/vcpu_op.py", "initialise", "context == cython.NULL", _MEMORY),
    Equivalent("views/domain.py", "new_domain", "rec == cython.NULL", _MEMORY),
    Equivalent("free_frames.py", "open_free_map", "host.free_map == cython.NULL", _MEMORY),
    Equivalent("free_frames.py", "open_free_map", "host.clean_map == cython.NULL", _MEMORY),
    Equivalent("views/host.py", "__init__", "open_free_map(rec)", _MEMORY),
    Equivalent("frames.py", "may_map", "owner == cython.NULL or owner.shared_out or may_hold(pcpu, owner)", _FLUSHES),
    Equivalent(
        "frames.py",
        "may_run_code",
        "owner == cython.NULL or owner.shared_out or owner.nr_vcpus == 0 or owner.vcpus[0] == cython.NULL "
        "or owner.vcpus[0].pcpu == pcpu",
        _FLUSHES,
    ),
    Equivalent("views/host.py", "__init__", "rec == cython.NULL", _MEMORY),
    Equivalent("views/host.py", "__init__", "rec.frames == cython.NULL", _MEMORY),
    Equivalent("views/host.py", "__init__", "rec.domains == cython.NULL", _MEMORY),
    Equivalent("views/host.py", "__init__", "rec.pcpus == cython.NULL", _MEMORY),
    Equivalent("views/vcpu.py", "new_vcpu", "rec == cython.NULL", _MEMORY),
)


def stale(known: Sequence[Equivalent], checked: Mapping[str, Sequence[Mutant]]) -> list[str]:
    """Entries whose check is not there any more."""
    there = {(name, mutant.function, mutant.condition) for name, found in checked.items() for mutant in found}
    return [f"{entry.module}: {entry.function}: {entry.condition}: is not there" for entry in known
            if entry.key not in there]  # fmt: skip
