"""Pools of physical CPUs under guests that work, moved between them while they do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt import Domain, Machine, UserError
from paravirt.machine.choice import choose

from ..hypervisor.audited import audited, check
from .rewriting import MOVES, goes_on, rewrites, where

__all__ = ["rewrites"]


@pytest.fixture(params=["unicorn", "kvm"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        choose(name, 1)
    except UserError as error:
        pytest.skip(str(error))
    return name


@pytest.fixture
def machine(engine: str) -> Iterator[Machine]:
    with Machine(memory=128, pcpus=3, engine=engine) as made, audited(made):
        yield made


@pytest.fixture
def large(engine: str) -> Iterator[Machine]:
    with Machine(memory=128, pcpus=5, engine=engine) as made, audited(made):
        yield made


def split(machine: Machine, scheduler: str = "sedf") -> None:
    """The physical CPUs 1 and 2 in a pool of their own."""
    pools = machine.cpupools
    for cpu in (1, 2):
        pools.remove_cpu(pools.find(0), cpu)
    assert pools.free_cpus() == [1, 2]
    pools.create("second", scheduler, [1, 2])


def test_a_busy_guest_is_moved_between_pools(machine: Machine, rewrites: Path) -> None:
    moved, beside = (machine.create(rewrites, memory=8) for _ in range(2))
    for one in (moved, beside):
        goes_on(one)
    split(machine)
    pools = machine.cpupools
    for number in range(MOVES):
        machine.cpupools.migrate(moved, pools.find("second" if number % 2 == 0 else "Pool-0"))
        goes_on(moved)
        assert (moved.pool, where(moved) == 0) == (1 - number % 2, number % 2 == 1)
    goes_on(beside)
    assert where(beside) == 0
    assert b"wrong 0" in moved.console.output and b"wrong 1" not in moved.console.output


def test_a_busy_guest_is_driven_from_one_physical_cpu_to_the_next(machine: Machine, rewrites: Path) -> None:
    split(machine, "bvt")
    second = machine.cpupools.find("second")
    guests = [machine.create(rewrites, memory=8, pool="second") for _ in range(3)]
    for number in range(MOVES):
        cpu = 1 + number % 2
        machine.cpupools.remove_cpu(second, cpu)
        assert [where(guest) for guest in guests] == [3 - cpu] * 3
        machine.cpupools.add_cpu(second, cpu)
        goes_on(guests[number % 3])
    assert not any(b"wrong 1" in guest.console.output for guest in guests)


def homes(domain: Domain) -> set[int]:
    """The physical CPUs of its vcpus."""
    return domain.control(lambda view: {vcpu.pcpu for vcpu in view.vcpus})


def test_a_busy_guest_with_several_vcpus_is_moved_between_schedulers(large: Machine, rewrites: Path) -> None:
    """Each pool has as many physical CPUs as the guest has vcpus, or one; beside it another guest works."""
    pools = large.cpupools
    for cpu in (1, 2, 3, 4):
        pools.remove_cpu(pools.find(0), cpu)
    made = [pools.create("one", "bvt", [1]), pools.create("two", "null", [2, 3]), pools.create("three", "sedf", [4])]
    moved = large.create(rewrites, memory=8, vcpus=2)
    beside = large.create(rewrites, memory=8, vcpus=2, pool="three")
    chance = random.Random(2)
    for _ in range(MOVES):
        target = chance.choice([pools.find(0), *made])
        pools.migrate(moved, target)
        assert homes(moved) <= set(target.cpus)
        goes_on(moved)
        check(large, "while it works")
    goes_on(beside)
    for one in (moved, beside):
        assert b"wrong 0" in one.console.output and b"wrong 1" not in one.console.output


def test_physical_cpus_change_pools_under_guests_with_several_vcpus(large: Machine, rewrites: Path) -> None:
    pools = large.cpupools
    for cpu in (3, 4):
        pools.remove_cpu(pools.find(0), cpu)
    pools.create("second", "sedf", [3, 4])
    guests = [large.create(rewrites, memory=8, vcpus=3, pool=name) for name in ("Pool-0", "second")]
    chance = random.Random(3)
    for number in range(MOVES):
        source, target = pools.find(0), pools.find("second")
        if len(source.cpus) == 1 or (len(target.cpus) > 1 and number % 2):
            source, target = target, source
        cpu = chance.choice([cpu for cpu in source.cpus if cpu])
        pools.remove_cpu(source, cpu)
        pools.add_cpu(target, cpu)
        for guest, pool in zip(guests, ("Pool-0", "second"), strict=True):
            assert homes(guest) <= set(pools.find(pool).cpus)
        goes_on(guests[number % 2])
    check(large, "while they work")
    for one in guests:
        goes_on(one)
        assert b"wrong 1" not in one.console.output


def test_what_cannot_be_done_with_pools(machine: Machine, rewrites: Path) -> None:
    pools = machine.cpupools
    with pytest.raises(UserError, match="stays in the first pool"):
        pools.remove_cpu(pools.find(0), 0)
    with pytest.raises(UserError, match="not free"):
        pools.create("second", "credit", [1])
    with pytest.raises(UserError, match="'lottery'"):
        pools.create("second", "lottery")
    with pytest.raises(UserError, match="no pool"):
        machine.create(rewrites, memory=8, pool="second")
    split(machine)
    second = pools.find("second")
    with pytest.raises(UserError, match="already"):
        pools.create("second", "credit")
    with pytest.raises(UserError, match="already"):
        pools.rename(second, "Pool-0")
    with pytest.raises(UserError, match="not in that pool"):
        pools.remove_cpu(second, 0)
    guest = machine.create(rewrites, memory=8, pool="second", paused=True)
    with pytest.raises(UserError, match="pool has no such"):
        guest.pin([0])
    pools.remove_cpu(second, 1)
    with pytest.raises(UserError, match="the last one"):
        pools.remove_cpu(second, 2)
    with pytest.raises(UserError, match="There are domains"):
        pools.destroy(second)
    bare = pools.create("bare", "null")
    with pytest.raises(UserError, match="no physical CPUs"):
        pools.migrate(guest, bare)
    with pytest.raises(UserError, match="no physical CPUs"):
        machine.create(rewrites, memory=8, pool="bare")
    assert (guest.pool, [pool.domains for pool in pools.all()]) == (second.id, [1, 1, 0])


def test_a_pool_ends_when_its_last_domain_has(machine: Machine, rewrites: Path) -> None:
    split(machine, "null")
    second = machine.cpupools.find("second")
    guest = machine.create(rewrites, memory=8, pool="second")
    goes_on(guest)
    guest.destroy()
    machine.cpupools.destroy(second)
    assert [pool.name for pool in machine.cpupools.all()] == ["Pool-0"]
    assert machine.cpupools.free_cpus() == [1, 2]
    assert machine.cpupools.create("third", "credit").id == 1


def test_there_is_an_end_to_pools(machine: Machine) -> None:
    for number in range(5):
        machine.cpupools.create(f"pool-{number}", "credit")
    with pytest.raises(UserError, match="6 pools"):
        machine.cpupools.create("another", "credit")


def test_each_pools_scheduler_has_parameters_of_its_own(machine: Machine, rewrites: Path) -> None:
    split(machine, "credit")
    machine.set_sched_info(1, tslice_ms=5)
    assert (machine.sched_info()["tslice_ms"], machine.sched_info(1)["tslice_ms"]) == (30, 5)
    guest = machine.create(rewrites, memory=8, paused=True)
    guest.sched_set(weight=1000)
    machine.cpupools.migrate(guest, machine.cpupools.find(1))
    assert guest.sched_get()["weight"] == 256
    with pytest.raises(UserError, match="number 7"):
        machine.sched_info(7)
