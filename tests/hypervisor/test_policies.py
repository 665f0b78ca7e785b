"""Scheduling policies on the virtual clock: who gets how much, and when."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import native
from .native import Guest, Machine

pools = native.functions("sched.pools")
scheduling = native.functions("scheduling")
timekeeping = native.functions("timekeeping")
RECORDS = native.load_records(
    "paravirt/machine/cpu.pxd", "paravirt/hypervisor/records.pxd", "paravirt/hypervisor/sched/policy.pxd"
)
Unit, HostSched, Cpupool = RECORDS["Unit"], RECORDS["HostSched"], RECORDS["Cpupool"]

MS = 10**6
SECOND = 10**9
IN_BLOCK = 1
FAIR = ["credit", "sedf", "bvt"]


class Bench:
    """A machine with a policy and one-vcpu domains, driven as a physical CPU's loop does it.

    With more ``vcpus`` the engine runs those of a domain in parallel: each is a unit, and has a number here.
    """

    def __init__(self, policy: str, domains: int, pcpus: int = 1, vcpus: int = 1) -> None:
        self.machine = Machine(frames=256, pcpus=pcpus)
        self.machine.ops.parallel = vcpus > 1
        assert pools.set_policy(self.machine.at, native.address(ctypes.create_string_buffer(policy.encode())))
        self.guests = [Guest(self.machine, i + 1, vcpus=vcpus) for i in range(domains)]
        self.vcpus = [vcpu for guest in self.guests for vcpu in guest.vcpu]
        self.units = [Unit.from_address(vcpu.rec.sched) for vcpu in self.vcpus]
        self.sched = HostSched.from_address(self.machine.host.sched)
        self.by_vcpu = {vcpu.at: i for i, vcpu in enumerate(self.vcpus)}
        self.pool = Cpupool.from_address(self.sched.pools)
        self.policy = RECORDS["SchedPolicy"].from_address(self.pool.policy)

    @property
    def now(self) -> int:
        return int(self.machine.host.virtual_ns)

    def set(self, domain: int, **parameters: int) -> None:
        """Change parameters, as the control call does."""
        for name, value in parameters.items():
            setattr(self.units[domain].params, name, value)
        adjusted = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)(self.policy.adjusted)
        adjusted(native.address(self.units[domain]), self.now)

    def pick(self, cpu: int = 0) -> int | None:
        """One round of the loop: who runs now."""
        record = self.machine.cpus[cpu]
        chosen = scheduling.pick_next(native.address(record))
        if chosen is not None:
            record.current = chosen
        return None if chosen is None else self.by_vcpu[chosen]

    def step(self, longest: int = 10 * MS, late: int = 0) -> tuple[int | None, int]:
        """Run whoever is chosen until its turn ends, or ``longest``, and ``late`` longer: (who, for how long)."""
        who = self.pick()
        end = self.machine.cpus[0].slice_end
        ran = longest if end == 0 else min(longest, end - self.now)
        assert ran > 0
        self.machine.host.virtual_ns += ran + late
        return who, ran + late

    def run(self, ns: int, longest: int = 10 * MS) -> list[int]:
        """Run for a while: how much of it each domain got."""
        end = self.now + ns
        got = [0] * len(self.guests)
        while self.now < end:
            who, ran = self.step(min(longest, end - self.now))
            if who is not None:
                got[who] += ran
        return got

    def run_on_a_busy_host(self, ns: int, seed: int = 1) -> list[int]:
        """The same; one turn in ten is some 20 ms longer than it should be."""
        chance = random.Random(seed)
        end = self.now + ns
        got = [0] * len(self.guests)
        while self.now < end:
            who, ran = self.step(late=int(chance.expovariate(1 / (20 * MS))) if chance.random() < 0.1 else 0)
            if who is not None:
                got[who] += ran
        return got

    def run_beside_a_sleeper(self, ns: int, sleeper: int, use: int, period: int) -> list[int]:
        """The same; one domain wakes in each period, and sleeps again when it had what it wants."""
        got = [0] * len(self.guests)
        for _ in range(ns // period):
            self.wake(sleeper)
            end, left = self.now + period, use
            while self.now < end:
                who, ran = self.step(min(left or period, end - self.now))
                if who is not None:
                    got[who] += ran
                if who == sleeper:
                    left -= ran
                    if left == 0:
                        self.block(sleeper)
        return got

    def block(self, domain: int) -> None:
        """The domain's vcpu blocks, as a hypercall of its own does it."""
        self.vcpus[domain].rec.pause_flags |= IN_BLOCK

    def wake(self, domain: int) -> None:
        scheduling.vcpu_wake(self.vcpus[domain].at)

    def awake(self) -> list[int]:
        """The domains that are listed as awake, where each says that it is."""
        found = self._listed(self.pool.awake, self.pool.nr_awake)
        assert [self.units[i].place for i in found] == list(range(len(found)))
        return sorted(found)

    def active(self) -> list[int]:
        """The same for those that earn credit."""
        found = self._listed(self.pool.active, self.pool.nr_active)
        assert [self.units[i].credit.place for i in found] == list(range(len(found)))
        assert sorted(found) == [i for i, unit in enumerate(self.units) if unit.credit.active]
        return sorted(found)

    def _listed(self, at: int, count: int) -> list[int]:
        units = [native.address(unit) for unit in self.units]
        return [units.index(unit) for unit in ctypes.cast(at, ctypes.POINTER(ctypes.c_uint64))[:count]]

    def close(self) -> None:
        self.machine.close()


def shares(got: list[int]) -> list[float]:
    return [one / sum(got) for one in got]


def set_weights(bench: Bench, policy: str) -> None:
    """The first four domains have the weights 1 to 4."""
    for i in range(4):
        if policy == "bvt":
            bench.set(i, mcuadv=12 // (i + 1))
        else:
            bench.set(i, weight=i + 1)


@pytest.fixture
def weighted(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param, 4)
    set_weights(bench, request.param)
    yield bench
    bench.close()


@pytest.mark.parametrize("weighted", FAIR, indirect=True)
def test_weights_of_1_to_4_give_shares_within_four_per_cent(weighted: Bench) -> None:
    for share, weight in zip(shares(weighted.run(10 * SECOND)), [1, 2, 3, 4], strict=True):
        assert share == pytest.approx(weight / 10, rel=0.04)


@pytest.mark.parametrize("weighted", FAIR, indirect=True)
def test_turns_that_the_host_makes_longer_are_paid_for(weighted: Bench) -> None:
    for share, weight in zip(shares(weighted.run_on_a_busy_host(60 * SECOND)), [1, 2, 3, 4], strict=True):
        assert share == pytest.approx(weight / 10, rel=0.04)


@pytest.mark.parametrize("weight", [1, 100])
@pytest.mark.parametrize("policy", FAIR)
def test_what_a_sleeper_does_not_use_is_shared_by_weight(policy: str, weight: int) -> None:
    bench = Bench(policy, 5)
    set_weights(bench, policy)
    bench.set(4, **({"mcuadv": max(1, 12 // weight)} if policy == "bvt" else {"weight": weight}))
    got = bench.run_beside_a_sleeper(40 * SECOND, sleeper=4, use=MS, period=20 * MS)
    assert got[4] == pytest.approx(2 * SECOND, rel=0.01)
    for share, of_ten in zip(shares(got[:4]), [1, 2, 3, 4], strict=True):
        assert share == pytest.approx(of_ten / 10, rel=0.04)
    bench.close()


def test_weights_without_extra_time_make_slices() -> None:
    bench = Bench("sedf", 4)
    for i in range(4):
        bench.set(i, weight=i + 1, extratime=0)
    got = bench.run(10 * SECOND)
    assert sum(got) == pytest.approx(9.5 * SECOND, rel=0.01)
    for share, weight in zip(shares(got), [1, 2, 3, 4], strict=True):
        assert share == pytest.approx(weight / 10, rel=0.01)
    bench.close()


@pytest.mark.parametrize("cap", [5, 20, 50, 90])
@pytest.mark.parametrize("others", [0, 2])
def test_a_cap_holds_with_and_without_competition(cap: int, others: int) -> None:
    bench = Bench("credit", 1 + others)
    bench.set(0, cap=cap, weight=65535)
    got = bench.run(20 * SECOND)
    assert got[0] / (20 * SECOND) == pytest.approx(cap / 100, abs=0.02 * cap / 100 + 0.001)
    if others:
        assert sum(got) == 20 * SECOND
    bench.close()


@pytest.mark.parametrize("cap", [20, 50])
def test_a_cap_holds_on_a_busy_host(cap: int) -> None:
    bench = Bench("credit", 1)
    bench.set(0, cap=cap)
    (got,) = bench.run_on_a_busy_host(60 * SECOND)
    assert got / bench.now == pytest.approx(cap / 100, rel=0.02)
    bench.close()


def test_a_long_stop_of_the_host_is_nobodys_debt_for_ever() -> None:
    """Whoever had the physical CPU meanwhile runs again before long, though it had minutes more than the others."""
    bench = Bench("credit", 4)
    bench.run(SECOND)
    unlucky, _ = bench.step(late=300 * SECOND)
    assert unlucky is not None
    assert bench.run(2 * SECOND)[unlucky] > SECOND // 10
    bench.close()


def test_a_cap_taken_away_acts_at_once() -> None:
    bench = Bench("credit", 1)
    bench.set(0, cap=5)
    while bench.step()[0] is not None:
        pass
    bench.set(0, cap=0)
    assert bench.pick() == 0
    bench.close()


def test_a_shorter_time_slice_acts_at_once() -> None:
    bench = Bench("credit", 2)
    bench.pool.tslice = SECOND
    bench.run(50 * MS)
    who = bench.pick()
    assert bench.machine.cpus[0].slice_end > bench.now + 100 * MS
    bench.pool.tslice = 10 * MS
    pools.params_changed(native.address(bench.pool))
    assert bench.machine.cpus[0].need_resched
    assert bench.step(longest=SECOND) == (0 if who else 1, 10 * MS)
    assert bench.pool.next_account <= bench.now
    assert shares(bench.run(SECOND)) == pytest.approx([0.5, 0.5], abs=0.1)
    bench.close()


def test_who_wakes_with_credit_goes_first_but_not_within_the_rate_limit() -> None:
    bench = Bench("credit", 3)
    bench.block(2)
    bench.run(300 * MS)
    runs = bench.pick()
    bench.machine.host.virtual_ns += MS // 2
    bench.wake(2)
    assert bench.machine.cpus[0].need_resched == 1
    if bench.now < bench.sched.cpus[0].started + MS:
        assert bench.pick() == runs
        bench.machine.host.virtual_ns = bench.machine.cpus[0].slice_end
    assert bench.pick() == 2
    bench.close()


def test_a_slice_is_kept_against_extra_time() -> None:
    """30 ms of each 100 ms are promised to one of three domains that all want everything."""
    bench = Bench("sedf", 3)
    bench.set(0, period=100 * MS, slice=30 * MS, extratime=0)
    got = bench.run(10 * SECOND)
    assert got[0] == pytest.approx(3 * SECOND, rel=0.01)
    assert got[1] == pytest.approx(3.5 * SECOND, rel=0.02)
    for _ in range(20):
        assert bench.run(100 * MS)[0] == pytest.approx(30 * MS, abs=MS)
    bench.close()


def test_without_extra_time_a_slice_is_all_there_is() -> None:
    bench = Bench("sedf", 1)
    bench.set(0, period=50 * MS, slice=10 * MS, extratime=0)
    assert bench.run(5 * SECOND)[0] == SECOND
    bench.close()


def test_a_latency_shortens_periods_after_a_wake() -> None:
    bench = Bench("sedf", 2)
    bench.set(0, period=160 * MS, slice=80 * MS, latency=10 * MS, extratime=0)
    bench.block(0)
    bench.run(SECOND)
    bench.wake(0)
    assert bench.units[0].sedf.period == 10 * MS
    got = [bench.run(length)[0] for length in (10 * MS, 20 * MS, 40 * MS, 80 * MS, 160 * MS)]
    assert got == [5 * MS, 10 * MS, 20 * MS, 40 * MS, 80 * MS]
    bench.close()


def test_bvt_lets_a_domain_run_ahead_by_the_allowance() -> None:
    bench = Bench("bvt", 2)
    turns = [bench.step(SECOND) for _ in range(7)]
    assert [who for who, _ in turns] == [0, 1, 0, 1, 0, 1, 0]
    assert all(ran == pytest.approx(10 * MS, abs=10) for _, ran in turns[1:])
    bench.close()


def test_bvt_warps_who_wakes_for_as_long_as_it_may() -> None:
    bench = Bench("bvt", 2)
    bench.set(1, warpback=1, warpvalue=10_000, warpl=8 * MS, warpu=100 * MS)
    bench.block(1)
    bench.run(SECOND)
    bench.pick()
    bench.wake(1)
    assert bench.machine.cpus[0].need_resched == 1
    assert bench.run(8 * MS) == [0, 8 * MS]
    assert bench.pick() == 0
    bench.block(1)
    bench.run(20 * MS)
    bench.wake(1)
    assert bench.units[1].bvt.warped == 0
    bench.block(1)
    bench.run(100 * MS)
    bench.wake(1)
    assert bench.units[1].bvt.warped == 1
    bench.close()


def test_null_keeps_a_cpu_for_its_domain() -> None:
    bench = Bench("null", 2)
    assert bench.run(SECOND) == [SECOND, 0]
    bench.block(0)
    assert bench.pick() is None
    bench.guests[0].rec.is_shut_down = 1
    assert bench.pick() == 1
    bench.close()


def test_accounting_is_about_those_that_run() -> None:
    """Who sleeps earns until it has what it may keep, and again from when it runs."""
    bench = Bench("credit", 4)
    for domain in (1, 2, 3):
        bench.block(domain)
    bench.run(SECOND)
    assert bench.active() == [0]
    bench.wake(2)
    bench.run(SECOND)
    assert bench.active() == [0, 2]
    scheduling.remove_vcpu(bench.guests[0].vcpu[0].at)
    assert bench.pool.nr_active == 1
    assert bench.units[2].credit.place == 0
    bench.close()


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 80)), min_size=1, max_size=40))
def test_who_earns_is_listed_once(steps: list[tuple[int, bool, int]]) -> None:
    """However they sleep and wake: the list is what the units say, and who is in debt is on it."""
    bench = Bench("credit", 5)
    for domain, wake, ms in steps:
        if wake:
            bench.wake(domain)
        else:
            bench.block(domain)
        bench.run(ms * MS)
        bench.pick()
        earning = bench.active()
        assert all(i in earning for i, unit in enumerate(bench.units) if unit.credit.credit < 0)
    bench.close()


@pytest.mark.parametrize("policy", FAIR)
def test_who_ran_alone_does_not_pay_for_it_later(policy: str) -> None:
    """Neither does time slept through count as a claim."""
    bench = Bench(policy, 2)
    bench.block(0)
    assert bench.run(5 * SECOND) == [0, 5 * SECOND]
    bench.block(1)
    bench.run(100 * MS)
    bench.wake(0)
    bench.wake(1)
    assert shares(bench.run(SECOND)) == pytest.approx([0.5, 0.5], abs=0.06)
    bench.close()


ACTIONS = st.tuples(st.integers(0, 3), st.sampled_from(["block", "wake", "run"]), st.integers(1, 60))
HISTORY = st.lists(ACTIONS, max_size=60)


@pytest.mark.parametrize("policy", FAIR)
@settings(deadline=None, max_examples=60)
@given(history=HISTORY)
def test_any_history_conserves_work_and_starves_nobody(policy: str, history: list[tuple[int, str, int]]) -> None:
    """A CPU is never idle while somebody can run; all time is charged to somebody; whoever can run, does in time."""
    bench = Bench(policy, 4)
    idle = 0
    asleep: set[int] = set()
    for who, what, length in history:
        if what == "block":
            bench.block(who)
            asleep.add(who)
        elif what == "wake":
            bench.wake(who)
            asleep.discard(who)
        for _ in range(length):
            ran_by, ran = bench.step()
            assert (ran_by is None) == (len(asleep) == 4)
            assert ran_by not in asleep
            assert bench.awake() == sorted({0, 1, 2, 3} - asleep)
            idle += ran if ran_by is None else 0
    for who in range(4):
        bench.wake(who)
    got = bench.run(2 * SECOND)
    assert min(got) > SECOND // 10
    bench.pick()
    assert sum(unit.run_ns for unit in bench.units) + idle == bench.now
    bench.close()


@settings(deadline=None, max_examples=40)
@given(weights=st.lists(st.integers(1, 1000), min_size=2, max_size=5))
def test_credit_is_earned_as_fast_as_it_is_spent(weights: list[int]) -> None:
    """While all domains want everything, what accounting gives out is what running costs."""
    bench = Bench("credit", len(weights))
    for i, weight in enumerate(weights):
        bench.set(i, weight=weight)
    bench.run(3 * SECOND)
    before = sum(unit.credit.credit for unit in bench.units)
    for unit in bench.units:
        assert unit.credit.credit >= -60 * MS
    bench.run(3 * SECOND)
    after = sum(unit.credit.credit for unit in bench.units)
    assert abs(after - before) <= 60 * MS * len(weights)
    bench.close()


@pytest.mark.parametrize("policy", [*FAIR, "null"])
def test_the_same_history_gives_the_same_trace(policy: str) -> None:
    def trace() -> list[Any]:
        bench = Bench(policy, 3)
        steps = []
        for i in range(200):
            steps.append(bench.step())
            if i % 7 == 0:
                bench.block(i % 3)
            if i % 5 == 0:
                bench.wake(i % 3)
        bench.close()
        return steps

    assert trace() == trace()
