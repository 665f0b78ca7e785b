"""Which engines forget which translations, on a machine of several physical CPUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .native import Guest, Machine, address, functions

frames = functions("frames")
moving = functions("sched.moving")

FLUSH_ALL = 3


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine(pcpus=3)
    yield made
    made.close()


def test_a_domain_is_flushed_where_its_vcpus_are(machine: Machine) -> None:
    one, other = Guest(machine, 1, vcpus=2), Guest(machine, 2)
    machine.cpus[0].current, machine.cpus[1].current = one.vcpu[0].at, other.vcpu[0].at
    machine.cpus[2].current = one.vcpu[1].at
    frames.flush_domain(one.at)
    assert machine.translations == [("flush_tlb", 1, FLUSH_ALL), ("flush_tlb", 3, FLUSH_ALL)]
    machine.translations.clear()
    frames.flush_page(other.at, 0x5000)
    assert machine.translations == [("flush_page", 2, 0x5000)]


def test_only_engines_that_have_not_flushed_since_do(machine: Machine) -> None:
    stamp = machine.host.flush_clock
    frames.flush_pcpu(address(machine.cpus[1]))
    machine.translations.clear()
    frames.flush_stale(machine.at, stamp)
    assert machine.translations == [("flush_tlb", 1, FLUSH_ALL), ("flush_tlb", 3, FLUSH_ALL)]
    machine.translations.clear()
    frames.flush_stale(machine.at, stamp)
    assert machine.translations == []


def test_what_was_written_is_translated_anew_everywhere(machine: Machine) -> None:
    frames.drop_code(machine.at, 0x3008, 0x3010)
    assert machine.translations == [("invalidate_code", n, 0x3008, 0x3010) for n in (1, 2, 3)]
    machine.translations.clear()
    frames.release_table(machine.at, 7)
    assert machine.translations == [("release_table", n, 7) for n in (1, 2, 3)]


def test_a_vcpu_that_moved_is_a_new_one_when_it_comes_back(machine: Machine) -> None:
    vcpu = Guest(machine).vcpu[0]
    machine.cpus[0].current = vcpu.at
    moving.forget_vcpu(machine.at, vcpu.at)
    assert machine.cpus[0].current is None
