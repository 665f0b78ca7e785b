"""Nobody holds the machine for long: guests of nothing but the longest legal batches, beside one with a timer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paravirt import Machine

from ..hypervisor.audited import audited
from ..oracle import kernels
from ..patience import PATIENCE

WORK_LIMIT = 65536  # after so many looks at page-table entries a hypercall is preempted (promotion.py)
ONE_MORE = 49152  # the longest that a batch may begin just before: 256 frames of a reservation
KINDS = ("updates", "calls", "copies", "memory", "exchange", "events", "pins")
DELAY_NS = 1_500_000


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("batches", tmp_path_factory.mktemp("batches"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_guest_of_long_batches_does_not_delay_anothers_timer(kernel: Path, kind: str) -> None:
    with Machine(memory=128, deterministic=True) as machine, audited(machine):
        busy = machine.create(kernel=kernel, cmdline=kind, memory=32, name=kind)
        busy.console.expect("going on", PATIENCE)
        patient = machine.create(kernel=kernel, cmdline="measure", memory=16, name="patient")
        patient.wait(timeout=PATIENCE)
        text = bytes(patient.console.output).decode()
        said = re.search(r"worst delay: (\d+) ns", text)
        assert said is not None and "FAILED" not in text
        assert int(said[1]) < DELAY_NS
        assert b"FAILED" not in bytes(busy.console.output)
        assert not busy.ended
        # By what was done, not by a clock: it is the same in every run.
        assert WORK_LIMIT // 4 < machine.stats()["most_work"] < WORK_LIMIT + ONE_MORE
        busy.destroy()
