"""Which timers are due next on a physical CPU: a heap, beside a model that looks at everybody."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from . import native
from .native import NEVER, Guest, GuestVcpu, Machine

scheduling = native.functions("scheduling")
timekeeping = native.functions("timekeeping")
timers = native.functions("timers")
watchdog = native.functions("watchdog")

IN_BLOCK, IN_POLL = 1, 4
GUESTS = 10
SECOND = 10**9
ACTION = st.sampled_from(["singleshot", "singleshot", "poll", "stop", "wake", "die", "move", "end", "pass"])
STEP = st.tuples(ACTION, st.integers(0, GUESTS - 1), st.integers(1, 50))


def due(vcpu: GuestVcpu) -> int:
    """When the first timer of one vcpu is due, as a model knows it."""
    if vcpu.guest.rec.dying:
        return NEVER
    return min((at for at in (vcpu.rec.singleshot, vcpu.rec.poll_deadline) if at), default=NEVER)


def standing(root: int | None, before: int | None = None) -> Iterator[int]:
    """The vcpus in a heap, whose links are looked at on the way."""
    beside, above = before, root
    while above is not None:
        vcpu = native.Vcpu.from_address(above)
        assert vcpu.timer_before == beside
        yield above
        for below in standing(vcpu.timer_child, above):
            assert native.Vcpu.from_address(below).timer_due >= vcpu.timer_due
            yield below
        beside, above = above, vcpu.timer_next


def check(machine: Machine, vcpus: dict[int, GuestVcpu]) -> None:
    """Each physical CPU has the timers of its vcpus, and finds the first of them."""
    for cpu in machine.cpus:
        at = native.address(cpu)
        here = {vcpu.at: due(vcpu) for vcpu in vcpus.values() if vcpu.rec.pcpu == at}
        least = min(here.values(), default=NEVER)
        found = timers.first_timer(at)
        assert (NEVER if found is None else here[found]) == least
        assert scheduling.earliest_deadline(at) == least
        heap = list(standing(cpu.timers))
        assert len(heap) == len(set(heap))
        assert set(heap) >= {vcpu for vcpu, when in here.items() if when != NEVER}


def act(machine: Machine, vcpu: GuestVcpu, what: str, value: int) -> None:
    """One step that concerns one vcpu, or time that passes."""
    now = machine.host.virtual_ns
    if what == "singleshot":
        timers.set_singleshot(vcpu.at, max(1, now + value - 10))  # now and then it has passed
    elif what == "poll":
        vcpu.rec.pause_flags |= IN_POLL
        timers.set_poll_deadline(vcpu.at, now + value)
    elif what == "stop":
        timers.set_singleshot(vcpu.at, 0)
    elif what == "wake":
        scheduling.vcpu_wake(vcpu.at)
        vcpu.rec.pause_flags |= IN_BLOCK
        assert vcpu.rec.poll_deadline == 0
    elif what == "die":
        vcpu.guest.rec.dying = 1
    elif what == "move":
        scheduling.set_unit_affinity(vcpu.guest.rec.sched, 1 + value % 2, 0)


@settings(max_examples=200)
@given(st.lists(STEP, max_size=60))
def test_the_first_timer_is_the_least_of_all(steps: list[tuple[str, int, int]]) -> None:
    machine = Machine(frames=256, pcpus=2)
    vcpus = {i: Guest(machine, i + 1).vcpu[0] for i in range(GUESTS)}
    for vcpu in vcpus.values():
        vcpu.rec.pause_flags = IN_BLOCK  # so that affinity moves it at once
    for what, number, value in steps:
        if what == "pass":
            machine.host.virtual_ns += value
            for cpu in machine.cpus:
                timekeeping.run_timers(native.address(cpu))
            assert all(due(one) > machine.host.virtual_ns for one in vcpus.values())
        elif number in vcpus and what == "end":
            scheduling.remove_vcpu(vcpus.pop(number).at)
        elif number in vcpus:
            act(machine, vcpus[number], what, value)
        check(machine, vcpus)
    machine.close()


def test_what_is_due_together_goes_off_by_domain() -> None:
    machine = Machine(frames=128)
    guests = [Guest(machine, domid) for domid in (3, 1, 2)]
    for guest in guests:
        timers.set_singleshot(guest.vcpu[0].at, 100)
    order = []
    while (first := timers.first_timer(native.address(machine.cpus[0]))) is not None:
        order.append(native.Domain.from_address(native.Vcpu.from_address(first).domain).domid)
        timekeeping.run_vcpu_timers(first, 100)
    assert order == [1, 2, 3]
    machine.close()


def test_a_timer_goes_off_while_its_domain_is_paused() -> None:
    """As in Xen: the event is there when the domain goes on."""
    machine = Machine()
    guest = Guest(machine)
    timers.set_singleshot(guest.vcpu[0].at, 100)
    scheduling.domain_pause(guest.at)
    assert scheduling.earliest_deadline(native.address(machine.cpus[0])) == 100
    machine.host.virtual_ns = 100
    timekeeping.run_timers(native.address(machine.cpus[0]))
    assert guest.vcpu[0].rec.singleshot == 0
    assert guest.vcpu[0].take_event()
    machine.close()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 9)), max_size=30))
def test_the_first_watchdog_is_the_least_of_all(steps: list[tuple[int, int, int]]) -> None:
    """Watchdogs of four domains, set, set again, stopped and let expire; a second passes at each step."""
    machine = Machine(frames=128)
    guests = [Guest(machine, i + 1) for i in range(4)]
    expected: dict[tuple[int, int], int] = {}
    used: set[tuple[int, int]] = set()
    machine.host.virtual_ns = 1
    for domain, number, seconds in steps:
        at = machine.host.virtual_ns + seconds * SECOND
        answer = watchdog.set_watchdog(guests[domain].at, number, seconds)
        if number == 0 and answer in (1, 2):
            used.add((domain, answer))
            expected[domain, answer] = at
        elif number and (domain, number) in used:
            assert answer == 0
            expected[domain, number] = at
            if seconds == 0:
                used.remove((domain, number))
                del expected[domain, number]
        assert watchdog.next_watchdog(machine.at) == min(expected.values(), default=NEVER)
        machine.host.virtual_ns += SECOND
        timekeeping.run_timers(native.address(machine.cpus[0]))
        over = {domain for (domain, _), at in expected.items() if at <= machine.host.virtual_ns}
        assert all(guests[domain].rec.is_shut_down for domain in over)
        expected = {key: at for key, at in expected.items() if at > machine.host.virtual_ns}
        assert watchdog.next_watchdog(machine.at) == min(expected.values(), default=NEVER)
    shut_down = {domain for domain in range(4) if guests[domain].rec.is_shut_down}
    for domain in shut_down:
        scheduling.remove_vcpu(guests[domain].vcpu[0].at)
    remaining = [at for (domain, _), at in expected.items() if domain not in shut_down]
    assert watchdog.next_watchdog(machine.at) == min(remaining, default=NEVER)
    machine.close()
