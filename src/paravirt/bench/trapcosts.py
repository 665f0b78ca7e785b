"""What one trap costs: a kernel of our own makes the same trap in a loop.

Two figures for each: the round trip by the guest's own clock, engine included, and the time inside our handlers.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from paravirt.bench.kernels import kernel
from paravirt.domain0.toolstack import Machine, ShutdownReason
from paravirt.errors import HypervisorBug

TRAPS: dict[str, tuple[str, int]] = {
    "null": ("hypercall xen_version for its number", 1),
    "python": ("hypercall xen_version for the page size, whose handler is Python", 1),
    "stack_switch": ("hypercall stack_switch", 1),
    "mmu_update": ("mmu_update of one entry", 1),
    "update_va_mapping": ("update_va_mapping with invlpg", 1),
    "multicall_8": ("multicall of eight mmu_update", 8),
    "batch_4096": ("mmu_update of 4096 entries, each of them", 1),
    "page_table_write": ("store into a live page table, emulated", 1),
    "int3": ("exception bounced to the guest, and iret", 2),
    "page_fault": ("page fault bounced to the guest, and iret", 2),
    "cpuid": ("CPUID with the emulation prefix", 1),
    "event": ("event sent to oneself, delivered, and iret", 2),
    "event_mask": ("events unmasked and masked: no trap", 1),
    "grant_map": ("a grant mapped, and unmapped", 2),
    "grant_copy": ("1500 bytes copied out of a granted frame", 1),
    "validate_page": ("an L1 table of 512 entries pinned and unpinned", 1),
}
"""What each row of the kernel does, and how many trips into the hypervisor that is."""

MEMORY_MIB = 16
PATIENCE_S = 60.0

_LINE = re.compile(r"bench: (\w+) ([0-9]+\.[0-9]) ns\s")


@dataclass(frozen=True)
class TrapCost:
    """Nanoseconds for each trip into the hypervisor: all in all, and in its handlers."""

    round_trip_ns: float
    handler_ns: float


def measure(machine: Machine, trap: str, count: int) -> TrapCost:
    """Do one kind of trap ``count`` times in a domain of its own.

    Raises:
        UserError: the kernel cannot be had.
        HypervisorBug: the kernel did not end as it should.
    """
    before = machine.stats()["handler_ns"]
    domain = machine.create(kernel("traps"), cmdline=f"count={count} {trap}", memory=MEMORY_MIB, name="bench-traps")
    try:
        reason = domain.wait(PATIENCE_S)
    except TimeoutError as error:
        domain.destroy()
        raise HypervisorBug(f"the trap benchmark {trap!r} did not end") from error
    text = domain.console.output.decode(errors="replace")
    line = _LINE.search(text)
    if reason is not ShutdownReason.POWEROFF or line is None or line[1] != trap:
        raise HypervisorBug(f"the trap benchmark {trap!r} ended with {reason.name}: {text!r}")
    trips = TRAPS[trap][1]
    # The domain's start and end are in it too: some dozens of hypercalls beside `count`.
    handled = (machine.stats()["handler_ns"] - before) / count
    return TrapCost(float(line[2]) / trips, handled / trips)


@contextlib.contextmanager
def busy_python_thread() -> Iterator[None]:
    """A thread that computes and holds the interpreter's lock whenever it can."""
    stop = False

    def spin() -> None:
        number = 0
        while not stop:
            number = (number * 1103515245 + 12345) % 2147483648

    thread = threading.Thread(target=spin, name="bench-busy", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop = True
        thread.join()
