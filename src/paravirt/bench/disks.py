"""A guest's disk: the same program in the same guest, on our block backend and on QEMU's virtio-blk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paravirt.bench.guestprogram import DONE_LINE, KERNEL_OPTIONS, Report, parse
from paravirt.domain0.block.backend import BlockBackend
from paravirt.domain0.toolstack import Machine
from paravirt.domain0.xlcfg.disks import disk_spec

MEMORY_MIB = 256
DISK_MIB = 64
TIMEOUT_S = 300


@dataclass(frozen=True)
class DiskReport:
    """What the program measured; and what Domain 0's work took of the host's CPU, in µs for each MB."""

    report: Report
    service_us_per_mb: float


@contextmanager
def scratch_disk() -> Iterator[Path]:
    """A disk's file of the host's, whose bytes are all there."""
    with tempfile.TemporaryDirectory(prefix="paravirt-bench-") as folder:
        path = Path(folder, "disk")
        with path.open("wb") as file:
            for _ in range(DISK_MIB):
                file.write(os.urandom(1 << 20))
        yield path


def measure(kernel: Path, ramdisk: Path, engine: str = "unicorn") -> DiskReport:
    """Boot Linux with a disk, and have it measured."""
    with scratch_disk() as path, Machine(memory=MEMORY_MIB + 64, engine=engine) as machine:
        disk = disk_spec(path, "xvda")
        cmdline = f"console=hvc0 {KERNEL_OPTIONS}"
        domain = machine.create(kernel, ramdisk, cmdline, memory=MEMORY_MIB, devices=[disk])
        text = domain.console.expect(DONE_LINE, TIMEOUT_S)
        (device,) = machine.call(lambda: machine.devices.of(domain.domid))
        assert isinstance(device.backend, BlockBackend)
        counts = device.backend.counts
        transferred = (counts.read_bytes + counts.written_bytes) / 1e6
        spent = machine.service_time_ns() + machine.stats()["errand_ns"]
        return DiskReport(parse(text), spent / 1000 / transferred)
