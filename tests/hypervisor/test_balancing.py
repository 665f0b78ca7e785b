"""Scheduling over several physical CPUs, on the virtual clock: who runs where, and who does not wait."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import native
from .test_policies import FAIR, MS, SECOND, Bench

scheduling = native.functions("scheduling")
timekeeping = native.functions("timekeeping")
timers = native.functions("timers")

PATIENCE = 5 * MS
ALL = ["credit", "sedf", "bvt", "null"]


class Cpus:
    """Physical CPUs that run side by side: each looks again when its time is over, or somebody made it."""

    def __init__(self, policy: str, domains: int, pcpus: int, vcpus: int = 1) -> None:
        self.bench = Bench(policy, domains, pcpus, vcpus)
        self.records = self.bench.machine.cpus
        self.runs: list[int | None] = [None] * pcpus
        self.got = [0] * len(self.bench.units)
        self.busy = [0] * pcpus
        self.longest_beside_idle = 0
        self._due = [0] * pcpus
        self._started = False

    @property
    def now(self) -> int:
        return self.bench.now

    def look(self) -> None:
        """Every physical CPU chooses that has to, until none has."""
        self._started = True
        while True:
            for number, record in enumerate(self.records):
                if record.need_resched or self.now >= self._due[number]:
                    record.idle = 0
                    timekeeping.run_timers(native.address(record))
                    self.runs[number] = who = self.bench.pick(number)
                    record.idle = who is None
                    self._due[number] = record.slice_end or self.now + SECOND
                    self._look_at_timers(number)
                    assert self._due[number] > self.now
            if not any(record.need_resched for record in self.records):
                break
        running = [who for who in self.runs if who is not None]
        assert len(running) == len(set(running)), "a domain is on one physical CPU at a time"
        for number, who in enumerate(self.runs):
            assert who is None or self.affinity(who) >> number & 1, "and only where it may be"

    def _look_at_timers(self, number: int) -> None:
        timer = scheduling.earliest_deadline(native.address(self.records[number]))
        self._due[number] = min(self._due[number], timer)

    def set_timer(self, vcpu: int, at: int) -> None:
        """One that runs sets its timer; that of its physical CPU is set anew then."""
        if vcpu in self.runs:
            timers.set_singleshot(self.bench.vcpus[vcpu].at, at)
            self._look_at_timers(self.runs.index(vcpu))

    def overdue(self) -> list[int]:
        """Whose timers should have gone off."""
        timers = [int(vcpu.rec.singleshot) for vcpu in self.bench.vcpus]
        return [number for number, at in enumerate(timers) if 0 < at <= self.now]

    def affinity(self, domain: int) -> int:
        return int(self.bench.units[domain].affinity)

    def pin(self, domain: int, affinity: int, preferred: int = 0) -> None:
        scheduling.set_unit_affinity(native.address(self.bench.units[domain]), affinity, preferred)

    def home(self, domain: int) -> int:
        homes = [native.address(record) for record in self.records]
        return homes.index(self.bench.units[domain].home)

    def run(self, ns: int) -> None:
        """Let time pass."""
        end = self.now + ns
        while True:
            self.look()
            step = min(end, *self._due) - self.now
            if step == 0:
                return
            for number, who in enumerate(self.runs):
                if who is not None:
                    self.got[who] += step
                    self.busy[number] += step
                else:
                    self._watch_waiting(number)
            self.bench.machine.host.virtual_ns += step

    def _watch_waiting(self, idle: int) -> None:
        for domain, unit in enumerate(self.bench.units):
            waits = unit.awake and domain not in self.runs and self.affinity(domain) >> idle & 1
            if waits and not unit.credit.parked:
                self.longest_beside_idle = max(self.longest_beside_idle, self.now - unit.waits_since)

    def sleep(self, domain: int) -> None:
        """Its vcpu blocks, which it does itself: one that waits for its turn cannot. At the start all can."""
        if self._started and domain not in self.runs:
            return
        self.bench.block(domain)
        if domain in self.runs:
            scheduling.force_reschedule(native.address(self.records[self.runs.index(domain)]))

    def close(self) -> None:
        self.bench.close()


@pytest.mark.parametrize("policy", ALL)
def test_new_domains_go_where_the_fewest_are(policy: str) -> None:
    cpus = Cpus(policy, 6, 3)
    assert [cpus.home(i) for i in range(6)] == [0, 1, 2, 0, 1, 2]
    cpus.close()


@pytest.mark.parametrize("policy", ALL)
def test_as_many_domains_as_physical_cpus_have_one_each(policy: str) -> None:
    cpus = Cpus(policy, 3, 3)
    cpus.run(SECOND)
    assert cpus.got == [SECOND] * 3
    cpus.close()


def test_credit_gives_shares_by_weight_over_all_physical_cpus() -> None:
    cpus = Cpus("credit", 4, 2)
    for i in range(4):
        cpus.bench.set(i, weight=i + 1)
    cpus.run(20 * SECOND)
    assert sum(cpus.got) == 40 * SECOND
    for got, weight in zip(cpus.got, [1, 2, 3, 4], strict=True):
        assert got / (20 * SECOND) == pytest.approx(weight / 5, abs=0.05)
    cpus.close()


def test_three_domains_share_two_physical_cpus_evenly_under_credit() -> None:
    cpus = Cpus("credit", 3, 2)
    cpus.run(20 * SECOND)
    assert [got / (20 * SECOND) for got in cpus.got] == pytest.approx([2 / 3] * 3, abs=0.05)
    cpus.close()


def test_an_idle_physical_cpu_takes_over_who_waits_and_not_at_once() -> None:
    cpus = Cpus("credit", 4, 2)
    for domain in (1, 3):
        cpus.sleep(domain)
    cpus.run(PATIENCE // 2)
    assert cpus.home(0) == cpus.home(2) == 0
    cpus.run(PATIENCE)
    assert sorted([cpus.home(0), cpus.home(2)]) == [0, 1]
    cpus.close()


def test_a_free_physical_cpu_takes_over_who_was_assigned_none_under_null() -> None:
    cpus = Cpus("null", 3, 2)
    cpus.run(SECOND)
    assert cpus.got == [SECOND, SECOND, 0]
    scheduling.domain_shutdown(cpus.bench.guests[1].at, 0)
    cpus.run(SECOND)
    assert cpus.got == [2 * SECOND, SECOND, SECOND]
    cpus.close()


@pytest.mark.parametrize("policy", ALL)
def test_who_wakes_goes_on_where_it_was(policy: str) -> None:
    """Be it the last of many that are idle: there is what its engine, and the host's caches, have of it."""
    cpus = Cpus(policy, 1, 4)
    cpus.run(MS)
    cpus.pin(0, 0b0100)
    cpus.run(MS)
    cpus.pin(0, 0b1111)
    for _ in range(20):
        cpus.sleep(0)
        cpus.run(10 * MS)
        assert cpus.runs == [None] * 4
        cpus.bench.wake(0)
        cpus.run(10 * MS)
        assert cpus.runs == [None, None, 0, None]
    cpus.close()


def test_of_idle_physical_cpus_one_that_is_preferred_takes_over() -> None:
    cpus = Cpus("credit", 2, 4)
    cpus.run(MS)
    for domain in (0, 1):
        cpus.pin(domain, 0b0010)
        cpus.run(MS)
    cpus.pin(1, 0b1111, preferred=0b1010)
    while cpus.runs[3] is None:
        cpus.run(MS)
        assert cpus.now < SECOND
        assert 1 not in (cpus.runs[0], cpus.runs[2])
    cpus.run(SECOND)
    assert cpus.runs == [None, 0, None, 1]
    cpus.close()


def test_another_idle_physical_cpu_looks_when_the_one_that_did_gets_work() -> None:
    cpus = Cpus("credit", 5, 3)
    for domain in (0, 1, 2):
        cpus.sleep(domain)
    cpus.run(MS)
    cpus.pin(3, 0b010)
    cpus.pin(4, 0b010)
    cpus.run(MS)
    cpus.pin(3, 0b111)
    cpus.pin(4, 0b111)
    cpus.run(MS)
    assert cpus.runs.count(None) == 2, "one waits behind the other"
    cpus.bench.wake(0)
    cpus.run(2 * PATIENCE)
    assert cpus.runs.count(None) == 0
    cpus.close()


def test_one_that_was_told_of_who_waits_and_gets_work_of_its_own_tells_another() -> None:
    cpus = Cpus("credit", 5, 3)
    for domain in (1, 2, 3, 4):
        cpus.sleep(domain)
    cpus.run(MS)
    assert [cpus.home(domain) for domain in range(5)] == [0, 1, 2, 0, 1]
    cpus.bench.units[0].credit.priority = 0  # nobody goes before it
    cpus.bench.wake(3)
    cpus.bench.wake(1)
    cpus.look()
    assert cpus.runs == [0, 1, None]
    cpus.run(2 * PATIENCE)
    assert cpus.runs == [0, 1, 3]
    cpus.close()


@pytest.mark.parametrize("policy", ["credit", "null"])
def test_a_domain_that_is_paused_while_it_waits_is_not_taken_over(policy: str) -> None:
    cpus = Cpus(policy, 3, 2)
    cpus.run(MS)
    assert cpus.home(2) == 0
    scheduling.domain_pause(cpus.bench.guests[2].at)
    scheduling.domain_shutdown(cpus.bench.guests[1].at, 0)
    cpus.run(SECOND)
    assert (cpus.home(2), cpus.bench.units[2].run_ns, cpus.bench.units[2].awake) == (0, 0, 0)
    scheduling.domain_unpause(cpus.bench.guests[2].at)
    cpus.run(2 * PATIENCE)
    assert set(cpus.runs) == {0, 2}
    cpus.close()


def test_who_goes_elsewhere_asleep_is_not_taken_over_on_the_way() -> None:
    cpus = Cpus("credit", 1, 3)
    cpus.run(MS)
    cpus.bench.block(0)
    cpus.pin(0, 0b110)
    cpus.bench.pick(0)
    assert (cpus.home(0), cpus.bench.units[0].awake, cpus.bench.units[0].waits_since) == (1, 0, 0)
    cpus.close()


def test_under_null_a_physical_cpu_that_is_anothers_is_passed_over_for_one_that_is_free() -> None:
    """Those that have physical CPUs sleep; who wakes is at home at one of these, and one that is nobody's idles."""
    cpus = Cpus("null", 4, 3)
    scheduling.domain_pause(cpus.bench.guests[3].at)
    cpus.run(MS)
    assert cpus.home(3) == 0
    scheduling.domain_shutdown(cpus.bench.guests[2].at, 0)
    for domain in (0, 1):
        cpus.sleep(domain)
    cpus.run(MS)
    assert cpus.runs == [None, None, None]
    scheduling.domain_unpause(cpus.bench.guests[3].at)
    cpus.run(MS)
    assert cpus.runs == [None, None, 3]
    cpus.close()


@pytest.mark.parametrize("policy", ALL)
def test_affinity_holds_at_once(policy: str) -> None:
    cpus = Cpus(policy, 2, 3)
    cpus.run(10 * MS)
    cpus.pin(0, 0b100)
    cpus.pin(1, 0b010)
    cpus.run(10 * MS)
    assert cpus.runs == [None, 1, 0]
    cpus.sleep(0)
    cpus.run(10 * MS)
    cpus.pin(0, 0b001)
    assert cpus.home(0) == 0
    cpus.close()


@pytest.mark.parametrize("policy", ALL)
def test_the_timer_of_one_that_sleeps_goes_along(policy: str) -> None:
    cpus = Cpus(policy, 1, 2)
    cpus.run(MS)
    cpus.set_timer(0, cpus.now + 50 * MS)
    cpus.sleep(0)
    cpus.run(MS)
    cpus.pin(0, 0b10)
    cpus.run(100 * MS)
    assert (cpus.runs, cpus.overdue()) == ([None, 0], [])
    cpus.close()


@pytest.mark.parametrize("policy", ALL)
def test_who_would_rather_be_elsewhere_goes_there(policy: str) -> None:
    cpus = Cpus(policy, 1, 3)
    cpus.run(10 * MS)
    cpus.pin(0, 0b111, 0b100)
    cpus.run(10 * MS)
    assert cpus.runs == [None, None, 0]
    cpus.pin(0, 0b011, 0b100)
    cpus.run(10 * MS)
    assert cpus.home(0) < 2, "what is not possible is no preference"
    cpus.close()


@pytest.mark.parametrize("policy", ["credit", "null"])
def test_who_would_rather_be_where_others_are_does_not_go_to_and_fro(policy: str) -> None:
    cpus = Cpus(policy, 2, 2)
    for domain in (0, 1):
        cpus.pin(domain, 0b11, 0b01)
    cpus.run(20 * PATIENCE)
    settled = [int(unit.moved) for unit in cpus.bench.units]
    cpus.run(SECOND)
    assert [int(unit.moved) for unit in cpus.bench.units] == settled
    assert set(cpus.runs) == {0, 1}
    (there,) = (who for who in (0, 1) if cpus.home(who) == 0)
    scheduling.domain_shutdown(cpus.bench.guests[there].at, 0)
    cpus.run(10 * PATIENCE)
    if policy == "credit":
        assert cpus.runs == [1 - there, None]
    cpus.close()


WHAT = st.tuples(
    st.sampled_from(["sleep", "wake", "pin", "prefer", "down", "up", "pause", "unpause", "timer"]),
    st.integers(0, 4),
    st.integers(1, 7),
    st.integers(0, 60),
)
History = list[tuple[str, int, int, int]]


def happen(cpus: Cpus, history: History) -> None:
    """Have it all done to vcpus and their domains, with time in between; after each step what is kept of them is
    true."""
    for what, domain, affinity, ms in history:
        vcpu, unit = cpus.bench.vcpus[domain], cpus.bench.units[domain]
        if what == "sleep":
            cpus.sleep(domain)
        elif what == "wake":
            cpus.bench.wake(domain)
        elif what in ("down", "up"):
            (scheduling.vcpu_down if what == "down" else scheduling.vcpu_up)(vcpu.at)
        elif what == "pause":
            scheduling.domain_pause(vcpu.guest.at)
        elif what == "unpause":
            scheduling.domain_unpause(vcpu.guest.at)
        elif what == "timer":
            cpus.set_timer(domain, cpus.now + affinity * 10 * MS)
        else:
            cpus.pin(domain, affinity if what == "pin" else int(unit.affinity), affinity if what == "prefer" else 0)
        cpus.run(ms * MS)
        for number, who in enumerate(cpus.runs):
            running = cpus.bench.sched.cpus[number].running
            assert running == (None if who is None else native.address(cpus.bench.units[who]))
        for one, other in zip(cpus.bench.vcpus, cpus.bench.units, strict=True):
            assert bool(other.awake) == (one.guest.rec.paused == 0 and one.rec.pause_flags == 0)
            assert one.rec.pcpu == other.home
            one.take_event()
        assert cpus.overdue() == []
    for had, one in zip(cpus.got, cpus.bench.units, strict=True):
        assert one.run_ns <= had, "nobody is charged for what another had, or nobody"


MACHINES = pytest.mark.parametrize("domains, vcpus", [(5, 1), (3, 2)], ids=["one vcpu", "two in parallel"])


@MACHINES
@settings(deadline=None, max_examples=40)
@given(history=st.lists(WHAT, max_size=25))
def test_under_null_nobody_waits_while_a_physical_cpu_is_nobodys(domains: int, vcpus: int, history: History) -> None:
    cpus = Cpus("null", domains, 3, vcpus)
    happen(cpus, history)
    cpus.run(MS)
    for domain, unit in enumerate(cpus.bench.units):
        free = [n for n in range(3) if not cpus.bench.sched.cpus[n].assigned and cpus.affinity(domain) >> n & 1]
        assert not unit.awake or domain in cpus.runs or not free
    cpus.close()


@pytest.mark.parametrize("policy", FAIR)
@MACHINES
@settings(deadline=None, max_examples=30)
@given(history=st.lists(WHAT, max_size=25))
def test_any_history_keeps_everybody_going(policy: str, domains: int, vcpus: int, history: History) -> None:
    cpus = Cpus(policy, domains, 3, vcpus)
    happen(cpus, history)
    ran = sum(int(unit.run_ns) for unit in cpus.bench.units)
    assert sum(cpus.got) == sum(cpus.busy)
    assert ran <= sum(cpus.busy), "nobody is charged more than there was"
    if policy == "credit":
        assert cpus.longest_beside_idle <= PATIENCE
    before = list(cpus.got)
    cpus.run(2 * SECOND)
    for domain, unit in enumerate(cpus.bench.units):
        if unit.awake:
            assert cpus.got[domain] > before[domain], "whoever can run, runs"
    cpus.close()
