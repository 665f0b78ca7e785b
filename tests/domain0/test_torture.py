"""Domains made, paused, moved between physical CPUs and destroyed at random, with guests at work: nobody notices."""

from __future__ import annotations

import contextlib
import random
import threading
from pathlib import Path

import pytest

from paravirt import Domain, Machine, UserError
from paravirt.hypervisor.audit import require_clean

from ..oracle import kernels

PATIENCE = 120.0
STEPS = 120
MOST = 6
KERNELS = {"rewrites": 1, "burn": 1, "smp": 4, "events": 1, "grants": 2, "timers": 1}
"""What the guests do, and how many vcpus they have: code and mappings, time, siblings, events, grants."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kernels")
    return {name: kernels.build(name, folder) for name in KERNELS}


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Torture:
    """Random steps on a machine with a domain that must not notice any."""

    def __init__(self, machine: Machine, built: dict[str, Path], seed: int) -> None:
        self.machine = machine
        self.built = built
        self.chance = random.Random(seed)
        self.witness = machine.create(built["rewrites"], memory=8, name="witness")
        self.domains: list[Domain] = []

    def create(self) -> None:
        name = self.chance.choice(list(KERNELS))
        paused = self.chance.random() < 0.2
        self.domains.append(self.machine.create(self.built[name], memory=16, vcpus=KERNELS[name], paused=paused))

    def step(self) -> None:
        """Do something to some domain; those that have ended are forgotten."""
        self.domains = [one for one in self.domains if not one.ended]
        if len(self.domains) < 2 or (len(self.domains) < MOST and self.chance.random() < 0.3):
            self.create()
        one = self.chance.choice([self.witness, *self.domains])
        what = self.chance.choice(["pause", "unpause", "pin", "spread", "sched", "destroy", "audit"])
        if what == "audit":
            with self.machine.host.lock:
                require_clean(self.machine.host, "in between")
        elif one.ended or (one is self.witness and what in ("pause", "destroy")):
            return
        elif what == "destroy":
            one.destroy()
        else:
            with contextlib.suppress(UserError):  # it ended by itself just now
                self._change(one, what)

    def _change(self, one: Domain, what: str) -> None:
        if what == "pin":
            one.pin([self.chance.randrange(self.machine.host.nr_pcpus)])
        elif what == "spread":
            one.pin(range(self.machine.host.nr_pcpus))
        elif what == "sched":
            one.sched_set(weight=self.chance.randint(1, 1000), cap=self.chance.choice([0, 0, 30]))
        else:
            getattr(one, what)()


@pytest.mark.parametrize("pcpus", [2, 5])
def test_random_lives_of_domains(pcpus: int, built: dict[str, Path]) -> None:
    files, threads = open_files(), threading.active_count()
    with Machine(memory=256, pcpus=pcpus) as machine:
        torture = Torture(machine, built, seed=pcpus)
        for _ in range(STEPS):
            torture.step()
        torture.witness.sched_set(cap=0)
        torture.witness.unpause()
        so_far = torture.witness.console.output.count(b"\n")
        while torture.witness.console.output.count(b"\n") < so_far + 2:
            torture.witness.console.expect("wrong 0\n", PATIENCE)
        assert b"wrong 1" not in torture.witness.console.output
        for domain in [torture.witness, *torture.domains]:
            domain.destroy()
        with machine.host.lock:
            require_clean(machine.host, "at the end")
            assert machine.host.zombies == {}
    assert (open_files(), threading.active_count()) == (files, threads)
