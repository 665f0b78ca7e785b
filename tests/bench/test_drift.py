"""A guest's clocks beside the host's, over some seconds and a pause of the guest."""

from __future__ import annotations

import shutil
import time

import pytest

from paravirt.bench.drift import PATIENCE_S, ask, follow
from paravirt.bench.guestprogram import KERNEL_OPTIONS, ramdisk
from paravirt.domain0.toolstack import Machine
from paravirt.guestkernels import obtain

ROUNDED_NS = 100_000
SLEWED_PPM = 1000
"""What a host's clocks may be slewed by: 500 ppm each of both."""


def set_by() -> int:
    """How far the host's wall clock is ahead of the one that nobody sets, in ns."""
    return time.time_ns() - time.monotonic_ns()


@pytest.mark.network
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_clocks_stay_right_also_over_a_pause() -> None:
    with Machine(memory=320) as machine:
        domain = machine.create(
            kernel=obtain("debian-cloud").path,
            ramdisk=ramdisk("clocks"),
            memory=256,
            cmdline=f"console=hvc0 {KERNEL_OPTIONS}",
        )
        domain.console.expect("PVBENCH CLOCKS", timeout=PATIENCE_S)
        before = set_by()
        first = ask(domain)
        readings = follow(domain, 0.04, every=1.0, pause=True)
        is_set = abs(set_by() - before)  # somebody may have set it: the guest's goes on as it was
        assert len(readings) >= 2
        for reading in readings:
            # However slow this machine is: a right clock is off by no more than what the question took.
            slewed = (reading.host - first.host) * SLEWED_PPM // 1_000_000
            unsure = first.uncertainty + reading.uncertainty + slewed + ROUNDED_NS
            assert abs(reading.raw - first.raw) <= unsure
            assert abs(reading.wall - first.wall) <= unsure + is_set
