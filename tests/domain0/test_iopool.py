"""The threads for I/O: who wants them takes turns, and a job that fails keeps nobody waiting."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from paravirt import Machine
from paravirt.domain0.iopool import IoPool, JobOwner

from ..patience import PATIENCE


class Owner:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.all_done = threading.Event()
        self.expected = 0

    def completed(self, jobs: list[Any]) -> None:
        self.done += [job.name for job in jobs]
        if len(self.done) == self.expected:
            self.all_done.set()


class Work:
    def __init__(self, owner: Owner, name: str, gate: threading.Event | None = None, fails: bool = False) -> None:
        self.owner: JobOwner = owner
        self.name, self.gate, self.fails = name, gate, fails

    def run(self) -> None:
        if self.gate is not None:
            self.gate.wait(PATIENCE)
        if self.fails:
            raise ZeroDivisionError


def test_turns(caplog: pytest.LogCaptureFixture) -> None:
    with Machine(memory=16) as machine:
        pool = IoPool(machine._services, 1)
        owner, gate = Owner(), threading.Event()
        owner.expected = 8
        pool.submit(1, Work(owner, "first", gate))
        for number in range(4):
            pool.submit(1, Work(owner, f"hog {number}", fails=number == 0))
        for number in range(3):
            pool.submit(2, Work(owner, f"other {number}"))
        gate.set()
        assert owner.all_done.wait(PATIENCE)
        pool.stop()
    order = owner.done
    assert order[0] == "first"
    assert sorted(order.index(f"other {number}") for number in range(3))[-1] <= 6
    assert [name for name in order if name.startswith("hog")] == [f"hog {number}" for number in range(4)]
    assert "ZeroDivisionError" in caplog.text


def test_an_owner_that_fails_keeps_no_other_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Owner):
        def completed(self, jobs: list[Any]) -> None:
            raise ZeroDivisionError

    with Machine(memory=16) as machine:
        broken, owner = Broken(), Owner()
        owner.expected = 1

        def submit() -> None:
            pool = IoPool(machine._services, 0)
            pool.submit(1, Work(broken, "one"))
            pool.submit(2, Work(owner, "another"))

        machine.call(submit)  # both are told of in one turn
        assert owner.all_done.wait(PATIENCE)
    assert "ZeroDivisionError" in caplog.text


def test_without_threads_a_job_is_done_at_once() -> None:
    with Machine(memory=16) as machine:
        owner = Owner()
        owner.expected = 1
        machine.call(lambda: IoPool(machine._services, 0).submit(1, Work(owner, "now")))
        assert owner.all_done.wait(PATIENCE)
