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


_MADE = "A domain's vcpus are all made with it: there is one for each number below its count, which is asked first."
_MEMORY = "The host refuses the hypervisor memory for a record of its own: no guest decides that."
_EMPTY = "To decode an instruction of which no byte can be read fails too."

EQUIVALENT: tuple[Equivalent, ...] = (
    Equivalent("events.py", "bind_virq", "d.vcpus[vcpu] == cython.NULL", _MADE),
    Equivalent("events.py", "bind_ipi", "d.vcpus[vcpu] == cython.NULL", _MADE),
    Equivalent("events.py", "bind_vcpu", "d.vcpus[vcpu] == cython.NULL", _MADE),
    Equivalent("hypercalls/event_channel_op.py", "op_init_control", "d.vcpus[a.vcpu] == cython.NULL", _MADE),
    Equivalent("hypercalls/vcpu_op.py", "do_vcpu_op", "d.vcpus[number] == cython.NULL", _MADE),
    Equivalent("events.py", "ensure_ports", "grown == cython.NULL", _MEMORY),
    Equivalent("events.py", "alloc_port", "port >= d.nr_ports and not ensure_ports(d, port + 1)", _MEMORY),
    Equivalent("events_fifo.py", "take_over", "d.fifo_array == cython.NULL", _MEMORY),
    Equivalent("events_fifo.py", "fifo_init_control", "rc != 0", _MEMORY),
    Equivalent("scheduling.py", "set_policy", "sched == cython.NULL", _MEMORY),
    Equivalent("hypercalls/vcpu_op.py", "initialise", "context == cython.NULL", _MEMORY),
    Equivalent("watchdog.py", "start", "entry == cython.NULL", _MEMORY),
    Equivalent("emulate.py", "emulate_privileged", "length == 0", _EMPTY),
    Equivalent("m2pread.py", "read_machine_to_phys", "length == 0", _EMPTY),
    Equivalent("segments.py", "emulate_segment", "length == 0", _EMPTY),
)


def stale(known: Sequence[Equivalent], checked: Mapping[str, Sequence[Mutant]]) -> list[str]:
    """Entries whose check is not there any more."""
    there = {(name, mutant.function, mutant.condition) for name, found in checked.items() for mutant in found}
    return [f"{entry.module}: {entry.function}: {entry.condition}: is not there" for entry in known
            if entry.key not in there]  # fmt: skip
