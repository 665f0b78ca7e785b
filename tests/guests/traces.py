"""Traces of the test kernels: every hypercall, exception and interrupt, in order, on one engine and on the other.

What is not compared is listed in docs/conformance.md ("Traces on both engines"), and is here:

* when something happened, and the exits with which an engine gives the hypervisor a turn (``WAITING``), or asks it for
  what a processor knows by itself;
* the user bit of a page fault's error code, which says in which ring an engine runs the guest's kernel; the hypervisor
  puts in what the guest is to see;
* #GP that the hypervisor carries out and KVM's processor does not need: on Unicorn every load of a segment register is
  one;
* where the machine-to-phys table is elsewhere: page faults at its usual address that the hypervisor carries out, and
  whether a page is there;
* how often a vcpu waits, which of several vcpus comes first, and how often one asks whether another has done its part;
* in ``TIMED`` runs, where and how often a timer interrupts the kernel: one may fire before it is stopped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

from paravirt import Machine
from paravirt.abi import xen

from ..oracle import kernels
from ..patience import PATIENCE

EXCEPTION, SOFTWARE_INTERRUPT, SYSCALL, SYSENTER, CPUID, RDTSC, KICKED, PAUSE, BUDGET = range(9)
WAITING = (CPUID, RDTSC, KICKED, PAUSE, BUDGET)
USER_BIT, PRESENT_BIT = 4, 1
MACHINE_TO_PHYS = range(0xFFFF_8000_0000_0000, 0xFFFF_8080_0000_0000)
TIMED = ("timers",)
MEMORY_MIB = 256
WINDOW, SAME = 48, 3
"""Behind a difference, so many exits in a row that are the same, among so many, are where both go on together."""

_RECORD = struct.Struct("<QIIIIQQII")
_HYPERCALLS = {
    value: name.removeprefix("__HYPERVISOR_") for name, value in vars(xen).items() if name.startswith("__HYPERVISOR_")
}
_SCHED_OP = xen.__HYPERVISOR_sched_op
_OF_UPCALLS = (xen.__HYPERVISOR_iret, xen.__HYPERVISOR_xen_version)
"""With which our kernels end an event's handler, and ask for events that are pending (``events_unmask``)."""
_ASKING = (xen.__HYPERVISOR_vcpu_op, xen.__HYPERVISOR_grant_table_op)
"""With which they ask how far another vcpu, or another domain, is."""
_EXCEPTIONS = {0: "#DE", 1: "#DB", 3: "#BP", 4: "#OF", 6: "#UD", 7: "#NM", 13: "#GP", 14: "#PF"}


@dataclass(frozen=True)
class Exit:
    """One exit: see trace.pxd."""

    kind: int
    vector: int
    domid: int
    vcpu: int
    rip: int
    address: int
    error_code: int
    entered: bool

    @property
    def is_wait(self) -> bool:
        return self.kind == SYSCALL and self.vector == _SCHED_OP

    def __str__(self) -> str:
        """What it is, without addresses."""
        if self.kind == SYSCALL:
            return _HYPERCALLS.get(self.vector, str(self.vector))
        name = _EXCEPTIONS.get(self.vector, f"#{self.vector}")
        return f"{name}({self.error_code:x})" if self.entered else f"{name}, carried out"


Trace = list[Exit]
Place = tuple[tuple[str, ...], tuple[str, ...]]
"""Exits on Unicorn that KVM has not, and those that it has instead."""


def take(run: kernels.Run, kernel: Path, engine: str) -> Trace:
    """Run a kernel on a machine of its own, and tell its exits."""
    return exits(records(run, kernel, engine))


def records(run: kernels.Run, kernel: Path, engine: str, patience: float = PATIENCE) -> bytes:
    """Run a kernel on a machine of its own; the machine's trace, as trace.pxd has it.

    Its output goes to Xen's console where that is possible: how often a ring is full is a matter of time.
    """
    command = run.setting.cmdline if run.kernel == "hostile" else f"{run.setting.cmdline} console=io"
    with Machine(memory=MEMORY_MIB, pcpus=1, engine=engine) as machine:
        with machine.host.lock:
            machine.host.set_tracing(True)
        size = run.setting.memory
        if run.setting.beside:
            machine.create(kernel=kernel, cmdline=run.setting.beside, memory=size, name="beside")
        domain = machine.create(kernel=kernel, cmdline=command, memory=size, vcpus=run.setting.vcpus, name="traced")
        domain.wait(patience)
        with machine.host.lock:
            return bytes(machine.host.take_trace())


def exits(trace: bytes) -> Trace:
    """What such records say."""
    return [
        Exit(kind, vector, domid, vcpu, rip, address, error_code, bool(entered))
        for _, kind, vector, domid, vcpu, rip, address, error_code, entered in _RECORD.iter_unpack(trace)
    ]


def differences(run: kernels.Run, unicorn: Trace, kvm: Trace, honours_slot_256: bool) -> list[Place]:
    """Where two traces of a run differ, beside what is not compared."""
    ours, theirs = (_comparable(run, trace, honours_slot_256) for trace in (unicorn, kvm))
    places: list[Place] = []
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key, []), theirs.get(key, [])
        places += [] if a == b else _places(a, b, honours_slot_256)
    return places


def _comparable(run: kernels.Run, trace: Trace, honours_slot_256: bool) -> dict[tuple[int, int], Trace]:
    """What is compared, for each vcpu of each domain."""
    alone = run.setting.vcpus == 1 and not run.setting.beside
    found: dict[tuple[int, int], Trace] = {}
    for one in trace:
        timers = run.name in TIMED and one.kind == SYSCALL and one.vector in _OF_UPCALLS
        if one.kind in WAITING or timers or (one.is_wait and not alone):
            continue
        own = found.setdefault((one.domid, one.vcpu), [])
        asks = one.is_wait or (one.kind == SYSCALL and one.vector in _ASKING and not alone)
        if not (asks and own and own[-1] == one):  # the same place: it waits until the answer is another one
            own.append(_masked(one, honours_slot_256))
    return found


def _masked(one: Exit, honours_slot_256: bool) -> Exit:
    if one.kind == EXCEPTION and one.vector == 14:
        hidden = USER_BIT
        if not honours_slot_256 and one.address in MACHINE_TO_PHYS:
            hidden |= PRESENT_BIT
        return replace(one, error_code=one.error_code & ~hidden)
    return one


def _places(unicorn: Trace, kvm: Trace, honours_slot_256: bool) -> list[Place]:
    places: list[Place] = []
    i = j = 0
    while i < len(unicorn) or j < len(kvm):
        if i < len(unicorn) and j < len(kvm) and unicorn[i] == kvm[j]:
            i, j = i + 1, j + 1
        elif i < len(unicorn) and _is_segment_load(unicorn[i]):
            i += 1
        elif j < len(kvm) and not honours_slot_256 and _is_m2p_read(kvm[j]):
            j += 1
        else:
            more, others = _next_common(unicorn[i : i + WINDOW], kvm[j : j + WINDOW])
            places.append((_names(unicorn[i : i + more]), _names(kvm[j : j + others])))
            i, j = i + more, j + others
    return places


def _next_common(unicorn: Trace, kvm: Trace) -> tuple[int, int]:
    """How many exits of each are passed over until both go on with the same ones."""
    for passed in range(1, len(unicorn) + len(kvm)):
        for i in range(max(0, passed - len(kvm)), min(passed, len(unicorn)) + 1):
            same = unicorn[i : i + SAME]
            if same and same == kvm[passed - i : passed - i + SAME]:
                return i, passed - i
    return len(unicorn), len(kvm)


def _names(exits: Trace) -> tuple[str, ...]:
    return tuple(str(one) for one in exits)


def _is_segment_load(one: Exit) -> bool:
    return one.kind == EXCEPTION and one.vector == 13 and not one.entered


def _is_m2p_read(one: Exit) -> bool:
    return one.kind == EXCEPTION and one.vector == 14 and not one.entered and one.address in MACHINE_TO_PHYS
