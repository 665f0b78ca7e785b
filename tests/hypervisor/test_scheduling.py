"""Which vcpu runs, blocks and wakes: the mechanism, and the turns of a domain's vcpus against a model of them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import native
from .native import NEVER, Guest, GuestVcpu, Machine

pools = native.functions("sched.pools")
scheduling = native.functions("scheduling")
timekeeping = native.functions("timekeeping")
timers = native.functions("timers")
watchdog = native.functions("watchdog")

MS = 10**6
RUNNING, RUNNABLE, BLOCKED, OFFLINE = range(4)
IN_BLOCK, DOWN, IN_POLL = 1, 2, 4


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine(frames=256)
    yield made
    made.close()


def run(machine: Machine, cpu: int = 0) -> GuestVcpu | None:
    """One round of a physical CPU's loop: the vcpu that it runs now."""
    record = machine.cpus[cpu]
    timekeeping.run_timers(native.address(record))
    chosen = scheduling.pick_next(native.address(record))
    for kept in machine._keep:
        if isinstance(kept, Guest):
            for vcpu in kept.vcpu:
                if vcpu.at == chosen:
                    record.current = chosen
                    return vcpu
    assert chosen is None
    return None


def test_a_machine_without_domains_runs_none(machine: Machine) -> None:
    assert run(machine) is None


@pytest.mark.parametrize("state", ["paused", "is_shut_down", "dying"])
def test_a_domain_that_is_stopped_or_ends_does_not_run(machine: Machine, state: str) -> None:
    guest = Guest(machine)
    setattr(guest.rec, state, 1)
    assert run(machine) is None
    setattr(guest.rec, state, 0)
    scheduling.domain_wake(guest.at)
    assert run(machine) is guest.vcpu[0]


def test_a_vcpu_without_a_place_for_events_has_none_to_take(machine: Machine) -> None:
    vcpu = Guest(machine, 1, 33).vcpu[32]
    assert vcpu.rec.info is None
    assert not scheduling.events_need_delivery(vcpu.at)


# --- turns --------------------------------------------------------------------------------------------------


def test_all_runnable_vcpus_take_turns_of_a_millisecond(machine: Machine) -> None:
    everyone = Guest(machine, 1, 3).vcpu
    seen = []
    for _ in range(9):
        vcpu = run(machine)
        assert vcpu is not None
        seen.append(everyone.index(vcpu))
        assert vcpu.rec.runstate == RUNNING
        assert machine.cpus[0].slice_end == machine.host.virtual_ns + MS
        machine.host.virtual_ns += MS // 2
        assert run(machine) is vcpu
        machine.host.virtual_ns += MS // 2
    assert seen == [0, 1, 2] * 3
    assert [vcpu.rec.runstate_time[RUNNING] for vcpu in everyone] == [3 * MS, 3 * MS, 2 * MS]
    assert sum(vcpu.rec.runstate_time[RUNNABLE] for vcpu in everyone) > 0


def test_a_vcpu_that_is_alone_has_no_end_of_turn(machine: Machine) -> None:
    assert pools.set_policy(machine.at, native.address(ctypes.create_string_buffer(b"null")))
    guest = Guest(machine, 1, 2)
    guest.vcpu[1].rec.pause_flags = IN_BLOCK
    assert run(machine) is guest.vcpu[0]
    assert machine.cpus[0].slice_end == 0
    machine.host.virtual_ns += 100 * MS
    assert run(machine) is guest.vcpu[0]


@pytest.mark.parametrize(
    ("tick", "others", "exits_at"),
    [(4 * MS, 0, 4 * MS), (0, 0, 0), (4 * MS, 1, 0), (5 * MS, 0, 5 * MS), (5 * MS + 1, 0, 0), (-MS, 0, -MS)],
    ids=["with it", "no tick is foreseen", "somebody waits", "the latest", "one that is too far", "one that is sooner"],
)
def test_the_end_of_a_turn_that_nobody_waits_for_goes_with_the_guests_next_tick(
    machine: Machine, tick: int, others: int, exits_at: int
) -> None:
    guests = [Guest(machine, 1 + number) for number in range(1 + others)]
    vcpu = run(machine)
    assert vcpu is not None and len(guests) == 1 + others
    end = machine.cpus[0].slice_end
    vcpu.rec.expected_timer = end + tick if tick else 0
    assert scheduling.next_alarm(native.address(machine.cpus[0])) - end == exits_at


def test_a_yield_passes_the_turn_on_at_once(machine: Machine) -> None:
    guest = Guest(machine, 1, 3)
    assert run(machine) is guest.vcpu[0]
    scheduling.vcpu_yield(guest.vcpu[0].at)
    assert machine.cpus[0].need_resched == 1
    assert run(machine) is guest.vcpu[1]
    assert machine.cpus[0].need_resched == 0
    assert guest.vcpu[0].rec.runstate == RUNNABLE


ACTIONS = ["block", "wake", "yield", "pass", "down", "up"]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(ACTIONS))))
def test_rotation_follows_its_model(steps: list[tuple[int, str]]) -> None:
    """After any history, whoever runs is runnable, and turns go round in the order of vcpus."""
    machine = Machine(frames=128)
    everyone = Guest(machine, 3, 5).vcpu
    flags = [0] * 5
    current: int | None = None
    ended = False
    for who, what in steps:
        chosen = run(machine)
        order = [(current + 1 + i) % 5 for i in range(5)] if current is not None else list(range(5))
        ready = [i for i in order if not flags[i]]
        if current is not None and not flags[current] and not ended:
            ready = [current]
        assert chosen is (everyone[ready[0]] if ready else None)
        for i, vcpu in enumerate(everyone):
            state = RUNNING if vcpu is chosen else RUNNABLE
            if flags[i]:
                state = BLOCKED if flags[i] & IN_BLOCK else OFFLINE
            assert vcpu.rec.runstate == state
        current = ready[0] if ready else current
        ended = False
        vcpu = everyone[who]
        if what == "pass":
            machine.host.virtual_ns += MS
            ended = machine.cpus[0].slice_end != 0
        elif what == "down":
            scheduling.vcpu_down(vcpu.at)
            flags[who] |= DOWN
        elif what == "up":
            scheduling.vcpu_up(vcpu.at)
            flags[who] &= ~DOWN
        elif what == "wake":
            scheduling.vcpu_wake(vcpu.at)
            flags[who] &= ~IN_BLOCK
        elif who == current and not flags[who]:
            if what == "block":
                scheduling.vcpu_block(vcpu.at)
                flags[who] |= IN_BLOCK
            else:
                scheduling.vcpu_yield(vcpu.at)
        ended = ended or machine.cpus[0].need_resched == 1
    machine.close()


# --- blocking and waking ------------------------------------------------------------------------------------


def test_block_and_wake(machine: Machine) -> None:
    guest = Guest(machine)
    vcpu = guest.vcpu[0]
    assert run(machine) is vcpu
    scheduling.vcpu_block(vcpu.at)
    assert run(machine) is None
    assert vcpu.rec.runstate == BLOCKED
    machine.host.virtual_ns += 40
    scheduling.vcpu_wake(vcpu.at)
    assert vcpu.rec.runstate == RUNNABLE
    assert vcpu.rec.runstate_time[BLOCKED] == 40
    assert run(machine) is vcpu


def test_nobody_blocks_with_an_event_to_take(machine: Machine) -> None:
    vcpu = Guest(machine).vcpu[0]
    assert run(machine) is vcpu
    vcpu.info[0], vcpu.info[1] = 1, 0
    scheduling.vcpu_block(vcpu.at)
    assert (vcpu.rec.pause_flags, machine.cpus[0].need_resched) == (0, 0)
    vcpu.info[1] = 1
    scheduling.vcpu_block(vcpu.at)
    assert (vcpu.rec.pause_flags, machine.cpus[0].need_resched) == (IN_BLOCK, 1)


def test_a_wake_ends_a_poll_and_its_time_limit(machine: Machine) -> None:
    rec = Guest(machine).vcpu[0].rec
    rec.pause_flags, rec.poll_deadline, rec.poll_port = IN_POLL, 99, 5
    scheduling.vcpu_wake(native.address(rec))
    assert (rec.pause_flags, rec.poll_deadline, rec.poll_port) == (0, 0, 0)


def test_waking_a_vcpu_that_is_down_does_not_bring_it_up(machine: Machine) -> None:
    vcpu = Guest(machine).vcpu[0]
    scheduling.vcpu_down(vcpu.at)
    scheduling.vcpu_wake(vcpu.at)
    assert vcpu.rec.pause_flags == DOWN
    assert run(machine) is None


def test_an_uninitialised_vcpu_never_runs(machine: Machine) -> None:
    vcpu = Guest(machine, running=False).vcpu[0]
    scheduling.vcpu_up(vcpu.at)
    assert run(machine) is None
    scheduling.vcpu_down(vcpu.at)
    vcpu.rec.initialised = 1
    scheduling.vcpu_up(vcpu.at)
    assert run(machine) is vcpu


def test_pauses_of_a_domain_nest(machine: Machine) -> None:
    guest = Guest(machine)
    assert run(machine) is guest.vcpu[0]
    scheduling.domain_pause(guest.at)
    scheduling.domain_pause(guest.at)
    assert machine.cpus[0].need_resched == 1
    assert run(machine) is None
    assert guest.vcpu[0].rec.runstate == OFFLINE
    scheduling.domain_unpause(guest.at)
    assert run(machine) is None
    scheduling.domain_unpause(guest.at)
    assert guest.vcpu[0].rec.runstate == RUNNABLE
    scheduling.domain_unpause(guest.at)
    assert run(machine) is guest.vcpu[0]


def test_the_toolstack_pauses_at_most_255_times(machine: Machine) -> None:
    """As domain_pause_by_systemcontroller has it; pauses of the hypervisor's own are neither counted nor taken back."""
    guest = Guest(machine)
    for _ in range(255):
        assert scheduling.domain_pause_by_systemcontroller(guest.at)
    assert not scheduling.domain_pause_by_systemcontroller(guest.at)
    scheduling.domain_pause(guest.at)
    for _ in range(255):
        assert scheduling.domain_unpause_by_systemcontroller(guest.at)
    assert not scheduling.domain_unpause_by_systemcontroller(guest.at)
    assert run(machine) is None
    scheduling.domain_unpause(guest.at)
    assert run(machine) is guest.vcpu[0]


# --- kicks --------------------------------------------------------------------------------------------------


def test_a_running_vcpu_is_kicked_while_it_is_in_guest_code_only(machine: Machine) -> None:
    vcpu = Guest(machine).vcpu[0]
    assert run(machine) is vcpu
    scheduling.vcpu_wake(vcpu.at)
    assert machine.calls == []
    vcpu.rec.on_cpu = 1
    scheduling.vcpu_wake(vcpu.at)
    assert machine.calls == [("kick", 1)]
    assert machine.cpus[0].need_resched == 0


def test_an_event_for_a_sibling_ends_the_turn(machine: Machine) -> None:
    guest = Guest(machine, 1, 2)
    guest.vcpu[1].rec.pause_flags = IN_BLOCK
    guest.vcpu[1].rec.runstate = BLOCKED
    assert run(machine) is guest.vcpu[0]
    scheduling.vcpu_wake(guest.vcpu[1].at)
    assert machine.cpus[0].need_resched == 1
    assert machine.calls == []
    assert run(machine) is guest.vcpu[1]
    guest.vcpu[1].rec.on_cpu = 1
    scheduling.vcpu_kick(guest.vcpu[0].at)
    assert machine.calls == [("kick", 1)]
    guest.vcpu[1].rec.on_cpu = 0
    assert run(machine) is guest.vcpu[0]


def test_another_domain_waits_for_the_end_of_the_turn(machine: Machine) -> None:
    one, two = Guest(machine, 1), Guest(machine, 2)
    assert run(machine) is one.vcpu[0]
    scheduling.vcpu_kick(two.vcpu[0].at)
    assert machine.cpus[0].need_resched == 0
    machine.host.virtual_ns += 9 * MS
    assert run(machine) is one.vcpu[0]
    machine.host.virtual_ns += MS
    assert run(machine) is two.vcpu[0]


def test_an_idle_physical_cpu_is_not_kicked_but_signalled(machine: Machine) -> None:
    vcpu = Guest(machine).vcpu[0]
    assert run(machine) is vcpu
    scheduling.vcpu_block(vcpu.at)
    assert run(machine) is None
    machine.cpus[0].idle = 1
    scheduling.vcpu_wake(vcpu.at)
    assert machine.calls == []
    assert vcpu.rec.runstate == RUNNABLE


def test_domains_are_spread_and_stay_together() -> None:
    machine = Machine(frames=256, pcpus=2)
    guests = [Guest(machine, domid, vcpus) for domid, vcpus in ((1, 2), (2, 1), (3, 1))]
    homes = [{vcpu.rec.pcpu for vcpu in guest.vcpu} for guest in guests]
    cpus = [native.address(cpu) for cpu in machine.cpus]
    assert homes == [{cpus[0]}, {cpus[1]}, {cpus[1]}]
    assert run(machine, 0) is guests[0].vcpu[0]
    assert run(machine, 1) is guests[1].vcpu[0]
    machine.close()


# --- alarms -------------------------------------------------------------------------------------------------


def test_the_earliest_deadline_of_all_vcpus_counts(machine: Machine) -> None:
    guest = Guest(machine, 1, 2)
    cpu = native.address(machine.cpus[0])
    assert scheduling.earliest_deadline(cpu) == NEVER
    timers.set_singleshot(guest.vcpu[0].at, 900)
    timers.set_poll_deadline(guest.vcpu[1].at, 800)
    assert scheduling.earliest_deadline(cpu) == 800
    guest.rec.dying = 1
    assert scheduling.earliest_deadline(cpu) == NEVER


def test_a_real_clock_wants_its_records_renewed() -> None:
    machine = Machine(virtual=False)
    guest = Guest(machine)
    cpu = native.address(machine.cpus[0])
    assert scheduling.earliest_deadline(cpu) == NEVER
    before = timekeeping.now(machine.at)
    assert run(machine) is guest.vcpu[0]
    after = timekeeping.now(machine.at)
    deadline = scheduling.earliest_deadline(cpu)
    assert deadline % (1 << 30) == 0
    assert before < deadline <= after + (1 << 30)
    machine.close()


def test_an_earlier_deadline_moves_the_alarm() -> None:
    machine = Machine(virtual=False)
    vcpu = Guest(machine).vcpu[0]
    assert run(machine) is vcpu
    timers.set_singleshot(vcpu.at, 5)
    scheduling.deadline_changed(vcpu.at, vcpu.at, NEVER)
    assert machine.calls == [("deadline", 1, machine.host.boot_ns + 5)]
    scheduling.deadline_changed(vcpu.at, vcpu.at, 4)
    assert len(machine.calls) == 1
    machine.close()


def test_the_alarm_is_never_moved_past_somebody_elses(machine: Machine) -> None:
    guest = Guest(machine, 1, 2)
    assert run(machine) is guest.vcpu[0]
    timers.set_singleshot(guest.vcpu[1].at, 2_000)
    timers.set_singleshot(guest.vcpu[0].at, 7_000)
    guest.vcpu[0].rec.cpu.blocks = 1_000
    scheduling.deadline_changed(guest.vcpu[0].at, guest.vcpu[0].at, NEVER)
    assert machine.calls == [("budget", 1, 1_000 + 2_000 // 10 + 1)]


def test_a_timer_set_for_another_physical_cpu_makes_that_one_look() -> None:
    machine = Machine(frames=128, pcpus=2)
    one, two = Guest(machine, 1), Guest(machine, 2)
    assert run(machine, 0) is one.vcpu[0]
    assert run(machine, 1) is two.vcpu[0]
    two.vcpu[0].rec.on_cpu = 1
    timers.set_singleshot(two.vcpu[0].at, 9)
    scheduling.deadline_changed(one.vcpu[0].at, two.vcpu[0].at, NEVER)
    assert machine.calls == [("kick", 2)]
    assert (machine.cpus[0].need_resched, machine.cpus[1].need_resched) == (0, 1)
    machine.close()


# --- shutdown and watchdogs ---------------------------------------------------------------------------------


def test_shutdown_stops_the_domain_and_tells_domain_0(machine: Machine) -> None:
    guest = Guest(machine, 1, 2)
    machine.host.service_fd = os.eventfd(0, os.EFD_NONBLOCK)
    assert run(machine) is guest.vcpu[0]
    assert guest.rec.shutdown_code == 0xFF
    scheduling.domain_shutdown(guest.at, 1)
    assert (guest.rec.is_shut_down, guest.rec.shutdown_code, machine.host.service_pending) == (1, 1, 1)
    assert os.eventfd_read(machine.host.service_fd) == 1
    assert run(machine) is None
    scheduling.domain_shutdown(guest.at, 3)
    assert guest.rec.shutdown_code == 1
    os.close(machine.host.service_fd)


def test_a_watchdog_shuts_the_domain_down_when_it_expires(machine: Machine) -> None:
    guest = Guest(machine)
    cpu = native.address(machine.cpus[0])
    assert watchdog.set_watchdog(guest.at, 0, 2) == 1
    assert watchdog.set_watchdog(guest.at, 0, 30) == 2
    assert watchdog.set_watchdog(guest.at, 0, 30) == 2**32 - 28
    assert watchdog.next_watchdog(machine.at) == scheduling.earliest_deadline(cpu) == 2 * 10**9
    machine.host.virtual_ns = 10**9
    assert watchdog.set_watchdog(guest.at, 1, 2) == 0
    machine.host.virtual_ns = 3 * 10**9 - 1
    timekeeping.run_timers(cpu)
    assert not guest.rec.is_shut_down
    machine.host.virtual_ns += 1
    timekeeping.run_timers(cpu)
    assert (guest.rec.is_shut_down, guest.rec.shutdown_code) == (1, 4)
    assert watchdog.next_watchdog(machine.at) == 30 * 10**9


def test_watchdogs_that_were_not_started(machine: Machine) -> None:
    guest = Guest(machine)
    assert watchdog.set_watchdog(guest.at, 3, 1) == -22
    assert watchdog.set_watchdog(guest.at, 1, 1) == -22
    assert watchdog.set_watchdog(guest.at, 0, 1) == 1
    assert watchdog.set_watchdog(guest.at, 33, 1) == -22, "whose bit is that of the first, in 32"
    assert watchdog.set_watchdog(guest.at, 1, 0) == 0
    assert watchdog.set_watchdog(guest.at, 1, 1) == -22
    machine.host.virtual_ns = 10**12
    timekeeping.run_timers(native.address(machine.cpus[0]))
    assert not guest.rec.is_shut_down


def test_a_new_domain_inherits_no_watchdog(machine: Machine) -> None:
    guest, other = Guest(machine, 1), Guest(machine, 2)
    assert watchdog.set_watchdog(guest.at, 0, 1) == 1
    assert watchdog.set_watchdog(other.at, 0, 5) == 1
    scheduling.init_domain(guest.at)
    assert watchdog.next_watchdog(machine.at) == 5 * 10**9
    scheduling.remove_vcpu(other.vcpu[0].at)
    assert watchdog.next_watchdog(machine.at) == NEVER


def test_machines_do_not_see_each_other() -> None:
    first, second = Machine(), Machine()
    one, two = Guest(first), Guest(second)
    assert watchdog.set_watchdog(one.at, 0, 1) == 1
    assert watchdog.next_watchdog(second.at) == NEVER
    assert run(first) is one.vcpu[0]
    assert run(second) is two.vcpu[0]
    scheduling.remove_vcpu(one.vcpu[0].at)
    assert first.cpus[0].current is None
    assert run(first) is None
    assert run(second) is two.vcpu[0]
    second.close()
