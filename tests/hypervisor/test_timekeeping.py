"""System time, time records, wall clock, runstates and timers, against plain Python models of them."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.abi.vcpu import XEN_RUNSTATE_UPDATE, VcpuRunstateInfo
from paravirt.abi.xen import SharedInfo, VcpuTimeInfo, VMASST_TYPE_runstate_update_flag

from . import native
from .native import NEVER, Guest, GuestVcpu, Machine

timekeeping = native.functions("timekeeping")
timers = native.functions("timers")
scheduling = native.functions("scheduling")

SECOND = 10**9
MS = 10**6
RUNNING = 0


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


def guest_time(record: VcpuTimeInfo, tsc: int) -> int:
    """What a guest computes from its record (Linux, pvclock_scale_delta)."""
    delta = (tsc - record.tsc_timestamp) % 2**64
    delta = delta << record.tsc_shift if record.tsc_shift >= 0 else delta >> -record.tsc_shift
    return int(record.system_time + ((delta % 2**64) * record.tsc_to_system_mul >> 32))


def record_of(vcpu: GuestVcpu) -> VcpuTimeInfo:
    """A copy of the vcpu's time record."""
    return VcpuTimeInfo.from_buffer_copy(bytes(vcpu.info)[32:])


# --- scaling ------------------------------------------------------------------------------------------------


@given(st.integers(10**6, 10**11), st.integers(1, 3600), st.integers(0, 10 * 3600))
def test_scale_gives_nanoseconds_for_any_frequency(frequency: int, measured: int, seconds: int) -> None:
    """The multiplier uses all its bits, and the formula errs by a rounding of it and of the last tick."""
    host = native.Host()
    timekeeping.set_scale(native.address(host), measured * SECOND, measured * frequency)
    assert 2**31 <= host.tsc_mul < 2**32
    ticks = seconds * frequency + 12345
    exact = Fraction(ticks * SECOND, frequency)
    got = timekeeping.scale_delta(ticks, host.tsc_mul, host.tsc_shift)
    record = VcpuTimeInfo(tsc_to_system_mul=host.tsc_mul, tsc_shift=host.tsc_shift)
    assert got == guest_time(record, ticks)
    one_tick = max(1, Fraction(SECOND, frequency) * 2 ** max(0, -host.tsc_shift))
    assert abs(got - exact) <= exact * Fraction(1, 2**32) + 1 + one_tick


@given(st.integers(0, 2**40), st.integers(2**31, 2**32 - 1), st.integers(-20, 20))
def test_scale_delta_is_the_guests_formula(delta: int, mul: int, shift: int) -> None:
    record = VcpuTimeInfo(tsc_to_system_mul=mul, tsc_shift=shift)
    assert timekeeping.scale_delta(delta, mul, shift) == guest_time(record, delta)


def test_nothing_measured_changes_nothing() -> None:
    host = native.Host(tsc_mul=7, tsc_shift=3)
    timekeeping.set_scale(native.address(host), 0, 100)
    timekeeping.set_scale(native.address(host), 100, 0)
    assert (host.tsc_mul, host.tsc_shift) == (7, 3)


def test_real_calibration_is_refined_and_survives_a_jump_of_the_counter() -> None:
    machine = Machine(virtual=False)
    host = machine.host
    assert host.boot_ns and host.boot_tsc

    def frequency() -> float:
        return float(2.0 ** (32 - host.tsc_shift) / host.tsc_mul)

    first = frequency()
    assert 0.05 < first < 20
    while timekeeping.now(machine.at) < 3 * MS:
        pass
    timekeeping.calibrate(machine.at)
    assert frequency() == pytest.approx(first, rel=1 / 32)
    refined = (host.tsc_mul, host.tsc_shift)
    host.boot_tsc -= 2**50
    timekeeping.calibrate(machine.at)
    assert (host.tsc_mul, host.tsc_shift) == refined
    timekeeping.calibrate(machine.at)
    assert frequency() == pytest.approx(first, rel=1 / 32)


# --- records ------------------------------------------------------------------------------------------------


def test_virtual_time_is_exactly_what_the_guest_computes(machine: Machine) -> None:
    guest = Guest(machine)
    for at in (0, 1, 999, 12 * SECOND + 345, 10**15):
        machine.host.virtual_ns = at
        timekeeping.update_time_record(guest.vcpu[0].at)
        record = record_of(guest.vcpu[0])
        assert record.version % 2 == 0
        assert record.flags == 0
        machine.host.virtual_ns = at + 1_234_567
        assert guest_time(record, timekeeping.guest_tsc(machine.at)) == timekeeping.now(machine.at)


def test_every_record_has_a_new_even_version_whatever_the_guest_writes(machine: Machine) -> None:
    vcpu = Guest(machine).vcpu[0]
    seen = []
    for scribble in (0, 7, 2**32 - 1):
        vcpu.info[32:36] = scribble.to_bytes(4, "little")
        timekeeping.update_time_record(vcpu.at)
        seen.append(record_of(vcpu).version)
    assert seen == sorted(set(seen))
    assert all(version % 2 == 0 for version in seen)


def test_the_secondary_area_gets_the_same_record(machine: Machine) -> None:
    guest = Guest(machine)
    vcpu = guest.vcpu[0]
    vcpu.rec.time_area = area = guest.page() + 64
    vcpu.rec.cpu.user = 1
    machine.host.virtual_ns = 77 * SECOND
    timekeeping.update_time_record(vcpu.at)
    assert vcpu.rec.cpu.user == 1
    assert machine.read(area, 32) == bytes(record_of(vcpu))
    assert record_of(vcpu).system_time == 77 * SECOND


def test_a_real_record_brackets_the_hosts_time() -> None:
    machine = Machine(virtual=False)
    vcpu = Guest(machine).vcpu[0]
    for _ in range(50):
        timekeeping.update_time_record(vcpu.at)
        record = record_of(vcpu)
        before = timekeeping.now(machine.at)
        computed = guest_time(record, timekeeping.guest_tsc(machine.at))
        after = timekeeping.now(machine.at)
        assert before - MS <= computed <= after + MS
    machine.close()


@given(ahead=st.integers(1_000, 900_000))
@settings(max_examples=30)
def test_a_guests_time_never_goes_back_over_an_update(ahead: int) -> None:
    machine = Machine(virtual=False)
    vcpu = Guest(machine).vcpu[0]
    timekeeping.update_time_record(vcpu.at)
    old = record_of(vcpu)
    old.system_time += ahead
    vcpu.info[32:64] = bytes(old)
    timekeeping.update_time_record(vcpu.at)
    new = record_of(vcpu)
    assert guest_time(new, new.tsc_timestamp) >= guest_time(old, new.tsc_timestamp)
    assert new.tsc_to_system_mul <= machine.host.tsc_mul
    machine.close()


def test_a_record_far_off_is_simply_set_right() -> None:
    machine = Machine(virtual=False)
    vcpu = Guest(machine).vcpu[0]
    timekeeping.update_time_record(vcpu.at)
    old = record_of(vcpu)
    old.system_time += 10 * SECOND
    vcpu.info[32:64] = bytes(old)
    timekeeping.update_time_record(vcpu.at)
    assert record_of(vcpu).system_time <= timekeeping.now(machine.at)
    machine.close()


def test_records_are_renewed_about_every_second(machine: Machine) -> None:
    guest = Guest(machine)
    vcpu, cpu = guest.vcpu[0], machine.cpus[0]
    cpu.current = scheduling.pick_next(native.address(cpu))
    version = record_of(vcpu).version
    timekeeping.run_timers(native.address(cpu))
    assert record_of(vcpu).version == version
    machine.host.virtual_ns = 1 << 30
    timekeeping.run_timers(native.address(cpu))
    assert record_of(vcpu).version > version
    assert record_of(vcpu).system_time == 1 << 30


@given(st.integers(0, 2**62), st.integers(-(2**31), 2**31))
def test_the_wall_clock_is_split_into_seconds_and_nanoseconds(boot: int, offset: int) -> None:
    machine = Machine()
    guest = Guest(machine)
    machine.host.wall_offset_ns = boot
    guest.rec.time_offset = offset
    timekeeping.update_wallclock(guest.at)
    shared = SharedInfo.from_buffer_copy(machine.read(guest.shared_mfn << 12, 4096))
    seconds = shared.wc_sec | shared.wc_sec_hi << 32
    assert seconds * SECOND + shared.wc_nsec == max(0, boot + offset * SECOND)
    assert shared.wc_nsec < SECOND
    assert shared.wc_version == 2
    machine.close()


# --- runstates ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 3)), max_size=25))
def test_runstate_times_add_up(steps: list[tuple[int, int]]) -> None:
    machine = Machine()
    guest = Guest(machine)
    vcpu = guest.vcpu[0]
    vcpu.rec.runstate_area = area = guest.page() + 4096 - 48
    state, since, times = vcpu.rec.runstate, 0, [0, 0, 0, 0]
    for elapsed, new in steps:
        machine.host.virtual_ns += elapsed
        timekeeping.set_runstate(vcpu.at, new)
        if new != state:
            times[state] += machine.host.virtual_ns - since
            state, since = new, machine.host.virtual_ns
            shown = VcpuRunstateInfo.from_buffer_copy(machine.read(area, 48))
            assert (shown.state, shown.state_entry_time, list(shown.time)) == (state, since, times)
    machine.host.virtual_ns += 5
    answer = VcpuRunstateInfo()
    timekeeping.get_runstate(vcpu.at, native.address(answer))
    times[state] += machine.host.virtual_ns - since
    assert (answer.state, list(answer.time)) == (state, times)
    assert sum(answer.time) == machine.host.virtual_ns
    machine.close()


def test_the_update_flag_is_gone_when_the_copy_is_complete(machine: Machine) -> None:
    guest = Guest(machine)
    vcpu = guest.vcpu[0]
    guest.rec.arch_vm_assist = 1 << VMASST_TYPE_runstate_update_flag
    vcpu.rec.runstate_area = area = guest.page()
    machine.host.virtual_ns = 123
    timekeeping.set_runstate(vcpu.at, 2)
    shown = VcpuRunstateInfo.from_buffer_copy(machine.read(area, 48))
    assert (shown.state, shown.state_entry_time) == (2, 123)
    assert not shown.state_entry_time & XEN_RUNSTATE_UPDATE


def test_an_area_that_is_not_mapped_is_left_alone(machine: Machine) -> None:
    vcpu = Guest(machine).vcpu[0]
    for area in (machine.host.nr_frames << 12, 0xFFFF800000001000, 0x0000_8000_0000_0000, NEVER - 7):
        vcpu.rec.runstate_area = area
        vcpu.rec.time_area = area
        timekeeping.set_runstate(vcpu.at, 3 - vcpu.rec.runstate)
        timekeeping.update_time_record(vcpu.at)
    assert record_of(vcpu).version == 8


def test_of_an_area_that_can_be_written_in_part_no_record_is_finished(machine: Machine) -> None:
    guest = Guest(machine)
    vcpu = guest.vcpu[0]
    first, second = guest.page(), guest.page()
    assert second == first + 4096
    l1 = guest.table
    for _ in range(3):
        l1 = machine.words(l1)[0] >> 12
    machine.words(l1)[second >> 12] = 0
    vcpu.rec.time_area = vcpu.rec.runstate_area = area = second - 8
    # The version stays odd: it is a record that is being written.
    timekeeping.update_time_record(vcpu.at)
    assert int.from_bytes(machine.read(area, 4), "little") == record_of(vcpu).version - 1
    vcpu.rec.time_area = 0
    machine.write(area, bytes(8))
    guest.rec.arch_vm_assist = 1 << VMASST_TYPE_runstate_update_flag
    timekeeping.set_runstate(vcpu.at, 2)
    assert machine.read(area, 8) == bytes(8)


# --- timers -------------------------------------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just("pass"), st.integers(0, 30 * MS)),
    st.tuples(st.just("singleshot"), st.integers(1, 200 * MS)),
    st.tuples(st.just("periodic"), st.sampled_from([0, MS, 10 * MS, 37 * MS])),
    st.tuples(st.just("state"), st.integers(0, 3)),
)


@given(st.lists(STEP, max_size=40))
def test_timers_fire_as_in_a_model(steps: list[tuple[str, int]]) -> None:
    """Singleshot timers fire in any state, periodic ones only while the vcpu runs."""
    machine = Machine()
    vcpu = Guest(machine).vcpu[0]
    host, rec = machine.host, vcpu.rec
    host.virtual_ns = now = 1
    singleshot, period, last = 0, 0, 0
    for what, value in steps:
        if what == "pass":
            host.virtual_ns = now = now + value
        elif what == "singleshot":
            singleshot = now + value
            timers.set_singleshot(vcpu.at, singleshot)
        elif what == "periodic":
            rec.periodic_period = period = value
        else:
            rec.runstate = value
        running = rec.runstate == 0
        due = [at for at in (singleshot, last + period if period and running else 0) if at]
        assert timekeeping.next_deadline(vcpu.at) == min(due, default=NEVER)
        timekeeping.run_vcpu_timers(vcpu.at, now)
        fired = False
        if singleshot and now >= singleshot:
            singleshot, fired = 0, True
        if period and running and now >= last + period:
            last, fired = now, True
        assert vcpu.take_event() == fired
        assert (rec.singleshot, rec.periodic_last) == (singleshot, last)
    machine.close()


def ticks(machine: Machine, vcpu: GuestVcpu, *periods: int) -> list[int]:
    """A singleshot timer goes off after each of these periods: what is expected of the next one each time."""
    expected = []
    for period in periods:
        at = machine.host.virtual_ns + period
        timers.set_singleshot(vcpu.at, at)
        machine.host.virtual_ns = at
        timekeeping.run_vcpu_timers(vcpu.at, at)
        assert vcpu.take_event()
        expected.append(vcpu.rec.expected_timer - at if vcpu.rec.expected_timer else 0)
    return expected


def test_a_tick_is_expected_to_go_on_as_it_did(machine: Machine) -> None:
    vcpu = Guest(machine).vcpu[0]
    vcpu.rec.cpu.has_shortcuts, vcpu.rec.runstate = 1, RUNNING
    machine.host.virtual_ns = SECOND
    got = ticks(machine, vcpu, 4 * MS, 4 * MS, 5 * MS, 20 * MS + 1, MS // 10, MS, MS)
    assert got[1:] == [4 * MS, 5 * MS, 0, 0, MS, MS]


@pytest.mark.parametrize(
    "change", [{"has_shortcuts": 0}, {"runstate": 1}, {"runstate": 2}], ids=["for nobody", "it waited", "it slept"]
)
def test_nothing_is_expected_of_a_timer_that_did_not_interrupt_a_guest_on_an_engine_that_asks(
    machine: Machine, change: dict[str, int]
) -> None:
    vcpu = Guest(machine).vcpu[0]
    vcpu.rec.cpu.has_shortcuts = change.get("has_shortcuts", 1)
    vcpu.rec.runstate = change.get("runstate", RUNNING)
    assert ticks(machine, vcpu, 4 * MS, 4 * MS, 4 * MS) == [0, 0, 0]


def test_the_engine_is_left_when_a_tick_is_expected_but_not_again_for_one_that_did_not_come(machine: Machine) -> None:
    vcpu, cpu = Guest(machine).vcpu[0], machine.cpus[0]
    vcpu.rec.cpu.has_shortcuts, vcpu.rec.runstate = 1, RUNNING
    cpu.current = vcpu.at
    ticks(machine, vcpu, 4 * MS, 4 * MS)
    expected = machine.host.virtual_ns + 4 * MS
    assert scheduling.earliest_deadline(native.address(cpu)) == expected
    # A timer that the guest sets to a time before that counts, and one behind it changes nothing.
    timers.set_singleshot(vcpu.at, expected - 1)
    assert scheduling.earliest_deadline(native.address(cpu)) == expected - 1
    timers.set_singleshot(vcpu.at, expected + MS)
    assert scheduling.earliest_deadline(native.address(cpu)) == expected
    machine.host.virtual_ns = expected
    timekeeping.run_timers(native.address(cpu))
    assert scheduling.earliest_deadline(native.address(cpu)) == expected + MS
    assert not vcpu.take_event()


def test_a_new_vcpu_ticks_at_100_hz() -> None:
    machine = Machine()
    vcpu = Guest(machine, running=False).vcpu[0]
    assert vcpu.rec.periodic_period == 10 * MS
    assert timekeeping.next_deadline(vcpu.at) == NEVER
    machine.close()


@pytest.mark.parametrize(
    ("asked", "kept"), [(0, 1), (1, 1), (5, 5), (2**63 - 1, 2**63 - 1), (2**63, 1), (NEVER, 1)]
)
def test_deadlines_are_signed(asked: int, kept: int) -> None:
    assert timekeeping.signed_deadline(asked) == kept


def test_a_poll_that_times_out_ends(machine: Machine) -> None:
    vcpu = Guest(machine).vcpu[0]
    vcpu.rec.pause_flags = 4
    timers.set_poll_deadline(vcpu.at, 100)
    timekeeping.run_vcpu_timers(vcpu.at, 99)
    assert vcpu.rec.pause_flags == 4
    timekeeping.run_vcpu_timers(vcpu.at, 100)
    assert vcpu.rec.pause_flags == 0
    assert not vcpu.take_event()


def test_layouts_are_the_public_ones() -> None:
    records = native.load_records("paravirt/hypervisor/timekeeping.pxd")
    assert ctypes.sizeof(records["TimeRecord"]) == ctypes.sizeof(VcpuTimeInfo) == 32
    assert ctypes.sizeof(records["RunstateRecord"]) == ctypes.sizeof(VcpuRunstateInfo) == 48
    for ours, public in (("TimeRecord", VcpuTimeInfo), ("RunstateRecord", VcpuRunstateInfo)):
        for name, *_ in public._fields_:
            assert getattr(records[ours], name).offset == getattr(public, name).offset
    assert struct.calcsize("<IIQQIbB2x") == 32
