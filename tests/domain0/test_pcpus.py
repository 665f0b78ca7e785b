"""Guests on a machine of several physical CPUs, and moved between them while they run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt import Machine, UserError

from ..hypervisor.audited import audited
from .rewriting import MOVES, comes_to, goes_on, rewrites, where

__all__ = ["rewrites"]


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=128, pcpus=2) as made, audited(made):
        yield made


def test_domains_are_spread_over_the_physical_cpus(machine: Machine, rewrites: Path) -> None:
    domains = [machine.create(rewrites, memory=8, paused=True) for _ in range(4)]
    assert [where(domain) for domain in domains] == [0, 1, 0, 1]
    for domain in domains:
        domain.unpause()
    for domain in domains:
        goes_on(domain)


def test_a_guest_that_is_moved_sees_what_it_writes(machine: Machine, rewrites: Path) -> None:
    moved, beside = (machine.create(rewrites, memory=8) for _ in range(2))
    chance = random.Random(1)
    for _ in range(MOVES):
        target = chance.randrange(2)
        moved.pin([target])
        comes_to(moved, target)
        goes_on(moved)
    goes_on(beside)
    assert b"wrong 0" in moved.console.output and b"wrong 1" not in moved.console.output


def test_a_paused_guest_moves_at_once(machine: Machine, rewrites: Path) -> None:
    domain = machine.create(rewrites, memory=8, paused=True)
    for target in (1, 0, 1):
        domain.pin([target, 7])
        assert where(domain) == target
    domain.unpause()
    goes_on(domain)


def test_there_must_be_a_physical_cpu(machine: Machine, rewrites: Path) -> None:
    domain = machine.create(rewrites, memory=8, paused=True)
    with pytest.raises(UserError, match="no such physical CPU"):
        domain.pin([2, 3])
    with pytest.raises(UserError, match="1 to 64 physical CPUs"):
        Machine(memory=16, pcpus=0)
    with pytest.raises(UserError, match="deterministic machine has one"):
        Machine(memory=16, pcpus=2, deterministic=True)
