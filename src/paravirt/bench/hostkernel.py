"""What the host's own kernel keeps for the KVM engine's virtual machines.

The host tells of its kernel's memory as a whole only (/proc/meminfo): what others on it do meanwhile is in the figure.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from paravirt.bench.kernels import kernel
from paravirt.domain0.toolstack import Machine
from paravirt.errors import UserError

MACHINES = (1, 8, 32)
MEMORY_MIB = 16
SETTLE_S = 0.5
PATIENCE_S = 120.0
_PARTS = ("SUnreclaim", "KernelStack", "PageTables", "SecPageTables", "VmallocUsed", "Percpu")
"""Records and tables of the kernel's; SecPageTables are those of virtual machines."""


def memory(marks: tuple[int, ...]) -> Iterator[tuple[int, float]]:
    """For each number of idle domains on one machine, KiB of the host's kernel for each of them.

    Raises:
        UserError: this host does not tell.
    """
    with Machine(memory=(MEMORY_MIB + 1) * marks[-1] + 16, pcpus=1, engine="kvm") as machine:
        before, count = _kernel_kib(), 0
        for mark in marks:
            while count < mark:
                domain = machine.create(kernel("load"), cmdline="idle", memory=MEMORY_MIB)
                domain.console.expect("bench: idle", PATIENCE_S)
                count += 1
            time.sleep(SETTLE_S)
            yield mark, (_kernel_kib() - before) / mark


def _kernel_kib() -> int:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = {name: int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    if "SecPageTables" not in found:
        raise UserError("This host does not say what its kernel keeps for virtual machines (SecPageTables).")
    return sum(found[name] for name in _PARTS)
