"""Pools of physical CPUs: each schedules its own domains on its own physical CPUs, by a policy of its own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import native
from .test_policies import MS, RECORDS, SECOND, Bench

pools = native.functions("sched.pools")
scheduling = native.functions("scheduling")
Cpupool = RECORDS["Cpupool"]
ALL = ["credit", "sedf", "bvt", "null"]
EVERYWHERE = (1 << 64) - 1


class Pools(Bench):
    """A machine whose physical CPUs are all looked at, in turn, whenever time passes."""

    def __init__(self, policy: str, domains: int, pcpus: int, vcpus: int = 1) -> None:
        super().__init__(policy, domains, pcpus, vcpus)
        self.pcpus = pcpus
        self.runs: list[int | None] = [None] * pcpus
        self.had: list[dict[int, int]] = [{} for _ in self.units]

    def create(self, policy: str) -> int:
        """A pool: its address."""
        made = pools.create_pool(self.machine.at, native.address(ctypes.create_string_buffer(policy.encode())))
        assert made is not None
        return int(made)

    def cpu(self, number: int) -> int:
        return native.address(self.machine.cpus[number])

    def pool_of_cpu(self, number: int) -> int | None:
        found: int | None = self.sched.cpus[number].pool
        return found

    def remove(self, cpu: int) -> None:
        """Take a physical CPU out of its pool; it lets go of what it runs when it looks."""
        pools.unassign_cpu(self.cpu(cpu))
        self.look()

    def move(self, domain: int, pool: int) -> None:
        """Move a domain, as control calls do it: it is paused meanwhile."""
        scheduling.domain_pause(self.guests[domain].at)
        self.look()
        assert pools.move_to_pool(self.guests[domain].at, pool)
        scheduling.domain_unpause(self.guests[domain].at)
        self.look()

    def look(self) -> None:
        """Every physical CPU chooses, until none has to choose anew."""
        for number in range(self.pcpus):
            self._choose(number)
        while any(cpu.need_resched for cpu in self.machine.cpus):
            for number in range(self.pcpus):
                if self.machine.cpus[number].need_resched:
                    self._choose(number)

    def _choose(self, number: int) -> None:
        self.runs[number] = self.pick(number)
        self.machine.cpus[number].idle = self.runs[number] is None

    def pass_time(self, ns: int) -> None:
        """Let time pass in steps of 1 ms, after each of which everybody looks."""
        for _ in range(ns // MS):
            self.look()
            self.machine.host.virtual_ns += MS
            for number, who in enumerate(self.runs):
                if who is not None:
                    self.had[who][number] = self.had[who].get(number, 0) + MS
        self.look()

    def policy_of(self, domain: int) -> str:
        policy = RECORDS["SchedPolicy"].from_address(Cpupool.from_address(self.units[domain].pool).policy)
        return ctypes.string_at(policy.name).decode()

    def home(self, domain: int) -> int:
        return [native.address(cpu) for cpu in self.machine.cpus].index(self.units[domain].home)

    def consistent(self) -> None:
        """Whatever happened: domains and physical CPUs are where their pools say."""
        listed = []
        at: int | None = self.sched.pools
        while at is not None:
            pool = Cpupool.from_address(at)
            units = ctypes.cast(pool.units, ctypes.POINTER(ctypes.c_uint64))[: pool.count]
            awake = ctypes.cast(pool.awake, ctypes.POINTER(ctypes.c_uint64))[: pool.nr_awake]
            assert pool.nr_cpus == pool.cpus.bit_count()
            assert set(awake) <= set(units)
            for unit in (RECORDS["Unit"].from_address(one) for one in units):
                assert unit.pool == at
                home = [native.address(cpu) for cpu in self.machine.cpus].index(unit.home)
                assert pool.cpus >> home & 1
                assert unit.affinity & pool.cpus
            listed += units
            at = pool.next
        assert sorted(listed) == sorted(native.address(unit) for unit in self.units)
        for number, who in enumerate(self.runs):
            if who is not None:
                assert self.units[who].pool == self.pool_of_cpu(number)


@pytest.fixture
def two() -> Iterator[Pools]:
    """Four domains that want everything; the second physical CPU is free."""
    made = Pools("credit", 4, 2)
    made.look()
    made.remove(1)
    yield made
    made.close()


def test_a_physical_cpu_is_free_when_it_has_let_go() -> None:
    bench = Pools("credit", 2, 2)
    bench.look()
    assert set(bench.runs) == {0, 1}
    pools.unassign_cpu(bench.cpu(1))
    assert bench.pool_of_cpu(1) is not None, "it runs a domain still"
    bench.look()
    assert bench.pool_of_cpu(1) is None
    assert bench.runs[1] is None
    bench.pass_time(SECOND)
    assert [set(had) for had in bench.had] == [{0}, {0}]
    assert bench.had[0][0] == pytest.approx(SECOND / 2, rel=0.1)
    bench.consistent()
    bench.close()


def test_one_that_runs_nothing_is_free_at_once() -> None:
    bench = Pools("credit", 1, 2)
    bench.look()
    pools.unassign_cpu(bench.cpu(1))
    assert bench.pool_of_cpu(1) is None
    bench.close()


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("other", ALL)
def test_a_domain_runs_on_after_it_was_moved(policy: str, other: str) -> None:
    bench = Pools(policy, 2, 2)
    bench.look()
    bench.remove(1)
    pool = bench.create(other)
    pools.assign_cpu(pool, bench.cpu(1))
    bench.pass_time(100 * MS)
    bench.had = [{}, {}]
    bench.move(1, pool)
    bench.consistent()
    bench.pass_time(SECOND)
    assert bench.had == [{0: SECOND}, {1: SECOND}]
    bench.move(1, int(bench.sched.pools))
    bench.had = [{}, {}]
    bench.pass_time(SECOND)
    assert all(set(had) <= {0} for had in bench.had)
    assert sum(had.get(0, 0) for had in bench.had) == SECOND
    bench.consistent()
    bench.close()


def test_pools_share_out_their_own_time_only(two: Pools) -> None:
    """Three of four domains in one pool get a third of its physical CPU each, whatever the weight of the fourth."""
    pool = two.create("sedf")
    pools.assign_cpu(pool, two.cpu(1))
    two.set(0, weight=65535)
    for domain in (1, 2, 3):
        two.move(domain, pool)
    two.had = [{} for _ in range(4)]
    two.pass_time(3 * SECOND)
    assert two.had[0] == {0: 3 * SECOND}
    for domain in (1, 2, 3):
        assert set(two.had[domain]) == {1}
        assert two.had[domain][1] == pytest.approx(SECOND, rel=0.04)


def test_in_another_pool_a_domain_has_default_parameters(two: Pools) -> None:
    pool = two.create("credit")
    pools.assign_cpu(pool, two.cpu(1))
    two.set(0, weight=1000, cap=50)
    two.units[0].affinity = 1
    two.units[0].preferred = 1
    two.move(0, pool)
    assert (two.units[0].params.weight, two.units[0].params.cap) == (256, 0)
    assert (two.units[0].affinity, two.units[0].preferred) == (EVERYWHERE, 0)
    assert two.home(0) == 1


def test_one_that_sleeps_sleeps_on_after_a_move(two: Pools) -> None:
    pool = two.create("credit")
    pools.assign_cpu(pool, two.cpu(1))
    two.block(2)
    two.pass_time(100 * MS)
    two.move(2, pool)
    assert (two.units[2].awake, two.runs[1]) == (0, None)
    two.wake(2)
    two.look()
    assert two.runs[1] == 2


def test_timers_of_one_that_sleeps_are_looked_at_by_its_new_home(two: Pools) -> None:
    """Else nobody would wake it: the thread of an idle physical CPU sleeps until the next timer that it knows of."""
    pool = two.create("credit")
    pools.assign_cpu(pool, two.cpu(1))
    two.block(2)
    two.look()
    assert not two.machine.cpus[1].need_resched
    assert pools.move_to_pool(two.guests[2].at, pool)
    assert two.machine.cpus[1].need_resched


def test_who_was_allowed_there_only_may_run_anywhere() -> None:
    bench = Pools("credit", 2, 3)
    bench.look()
    scheduling.set_unit_affinity(native.address(bench.units[0]), 0b100, 0)
    scheduling.set_unit_affinity(native.address(bench.units[1]), 0b110, 0)
    bench.look()
    bench.remove(2)
    assert (bench.units[0].affinity, bench.units[1].affinity) == (EVERYWHERE, 0b110)
    assert bench.home(1) == 1
    bench.pass_time(10 * MS)
    assert sorted(who for who in bench.runs if who is not None) == [0, 1]
    bench.close()


def test_a_physical_cpu_that_comes_takes_its_share_of_the_work(two: Pools) -> None:
    pools.assign_cpu(int(two.sched.pools), two.cpu(1))
    two.pass_time(2 * SECOND)
    for had in two.had:
        assert sum(had.values()) == pytest.approx(SECOND, rel=0.1)


def test_numbers_go_on_after_the_highest(two: Pools) -> None:
    first, second = two.create("bvt"), two.create("null")
    assert [Cpupool.from_address(at).id for at in (first, second)] == [1, 2]
    pools.destroy_pool(first)
    assert pools.find_pool(two.machine.at, 1) is None
    assert pools.find_pool(two.machine.at, 2) == second
    assert Cpupool.from_address(two.create("credit")).id == 3
    assert not pools.is_empty(int(two.sched.pools))
    assert pools.is_empty(second)


def test_there_is_no_pool_with_a_policy_that_there_is_not(two: Pools) -> None:
    assert pools.create_pool(two.machine.at, native.address(ctypes.create_string_buffer(b"credit2"))) is None
    assert two.sched.nr_pools == 1


ACTIONS = ["block", "wake", "run", "move", "give", "take"]
STEP = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 7), st.integers(0, 7))


@pytest.mark.parametrize("vcpus", [1, 2])
@settings(deadline=None, max_examples=40)
@given(policies=st.tuples(*[st.sampled_from(ALL)] * 3), history=st.lists(STEP, max_size=40))
def test_any_history_leaves_everybody_in_one_pool(
    vcpus: int, policies: tuple[str, ...], history: list[tuple[str, int, int]]
) -> None:
    """Physical CPUs come and go, domains move, vcpus sleep and wake; all the time who can run has where to run."""
    bench = Pools(policies[0], 4 // vcpus, 4, vcpus)
    made = [int(bench.sched.pools), *(bench.create(policy) for policy in policies[1:])]
    bench.look()
    for what, one, other in history:
        domain, cpu, pool = one % 4, one % 4, made[other % 3]
        record = Cpupool.from_address(bench.pool_of_cpu(cpu) or made[0])
        if what == "move" and Cpupool.from_address(pool).nr_cpus and bench.units[domain].pool != pool:
            bench.move(domain // vcpus, pool)
            assert all(unit.pool == pool for unit in bench.units[domain // vcpus * vcpus :][:vcpus])
        elif what == "give" and bench.pool_of_cpu(cpu) is None:
            pools.assign_cpu(pool, bench.cpu(cpu))
        elif what == "take" and bench.pool_of_cpu(cpu) and (record.nr_cpus > 1 or not record.count):
            bench.remove(cpu)
        elif what == "block" and domain in bench.runs:
            bench.block(domain)
        elif what == "wake":
            bench.wake(domain)
        bench.pass_time(one * MS)
        bench.consistent()
    for domain in range(4):
        bench.wake(domain)
    bench.had = [{} for _ in range(4)]
    bench.pass_time(SECOND)
    for domain in range(4):
        if bench.policy_of(domain) != "null":
            assert sum(bench.had[domain].values()) > SECOND // 10, "it starved"
    bench.close()
