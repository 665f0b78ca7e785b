"""vcpu_op: answers and the order of checks for an unprivileged domain, and what is shared afterwards."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from paravirt.abi.arch_x86 import VcpuGuestContext
from paravirt.abi.errno import EEXIST, EFAULT, EINVAL, ENOENT, ENOSYS, ENXIO
from paravirt.abi.sched import SHUTDOWN_poweroff
from paravirt.abi.vcpu import (
    VCPU_SSHOTTMR_future,
    VCPUOP_down,
    VCPUOP_get_physid,
    VCPUOP_get_runstate_info,
    VCPUOP_initialise,
    VCPUOP_is_up,
    VCPUOP_register_runstate_memory_area,
    VCPUOP_register_vcpu_info,
    VCPUOP_register_vcpu_time_memory_area,
    VCPUOP_send_nmi,
    VCPUOP_set_periodic_timer,
    VCPUOP_set_singleshot_timer,
    VCPUOP_stop_periodic_timer,
    VCPUOP_stop_singleshot_timer,
    VCPUOP_up,
    VcpuRunstateInfo,
)
from paravirt.abi.xen import VcpuInfo

from . import native
from .native import NEVER, Guest, Machine, call

vcpu_op = native.functions("hypercalls.vcpu_op")
scheduling = native.functions("scheduling")
timekeeping = native.functions("timekeeping")

UNMAPPED = 0x7000_0000_0000
HYPERVISORS = 0xFFFF_8000_0000_0000
MS = 10**6
WRITABLE = 7
DOWN = 2


class World:
    """A machine with one domain of 34 vcpus; vcpu 0 runs and makes the hypercalls, the others are down."""

    def __init__(self) -> None:
        self.machine = Machine(frames=256)
        self.guest = Guest(self.machine, 1, 34, running=False)
        self.vcpu = self.guest.vcpu[0]
        self.vcpu.rec.initialised = 1
        self.vcpu.rec.periodic_period = 0
        scheduling.vcpu_up(self.vcpu.at)
        self.cpu = self.machine.cpus[0]
        self.cpu.current = scheduling.pick_next(native.address(self.cpu))
        assert self.cpu.current == self.vcpu.at
        self.machine.calls.clear()

    def op(self, command: int, number: int = 0, argument: bytes | int = 0) -> int:
        """vcpu_op with an argument structure (put into the guest's memory) or an address."""
        if isinstance(argument, bytes):
            argument = self.guest.arguments(argument)
        return call(vcpu_op.do_vcpu_op, self.machine, self.vcpu, command, number, argument)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.machine.close()


def test_vcpus_that_do_not_exist(world: World) -> None:
    for command in (*range(14), 14, 99):
        assert world.op(command, 34) == -ENOENT
        assert world.op(command, 2**32 - 1) == -ENOENT
    assert world.op(VCPUOP_is_up, 2**32) == 1


def test_unknown_commands(world: World) -> None:
    assert world.op(14) == -ENOSYS
    assert world.op(-1) == -ENOSYS
    assert world.op(VCPUOP_get_physid) == -EINVAL


@pytest.mark.parametrize(
    "command",
    [
        VCPUOP_initialise,
        VCPUOP_get_runstate_info,
        VCPUOP_register_runstate_memory_area,
        VCPUOP_set_periodic_timer,
        VCPUOP_set_singleshot_timer,
        VCPUOP_register_vcpu_info,
        VCPUOP_register_vcpu_time_memory_area,
    ],
)
def test_an_argument_that_is_not_there(world: World, command: int) -> None:
    for address in (UNMAPPED, HYPERVISORS, 0x8000_0000_0000, NEVER):
        assert world.op(command, 0, address) == -EFAULT


# --- up, down -----------------------------------------------------------------------------------------------


def test_up_and_down(world: World) -> None:
    other = world.guest.vcpu[1].rec
    assert world.op(VCPUOP_is_up, 1) == 0
    assert world.op(VCPUOP_up, 1) == -EINVAL
    other.initialised = 1
    assert world.op(VCPUOP_up, 1) == 0
    assert world.op(VCPUOP_up, 1) == 0
    assert (world.op(VCPUOP_is_up, 1), other.runstate) == (1, 1)
    assert world.op(VCPUOP_down, 1) == 0
    assert (world.op(VCPUOP_is_up, 1), other.runstate) == (0, 3)
    assert not world.guest.rec.is_shut_down


def test_the_last_vcpu_that_goes_down_powers_the_domain_off(world: World) -> None:
    world.guest.vcpu[3].rec.initialised = 1
    assert world.op(VCPUOP_up, 3) == 0
    assert world.op(VCPUOP_down, 0) == 0
    assert world.cpu.need_resched == 1
    assert not world.guest.rec.is_shut_down
    assert world.op(VCPUOP_down, 3) == 0
    assert (world.guest.rec.is_shut_down, world.guest.rec.shutdown_code) == (1, SHUTDOWN_poweroff)


# --- timers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "answer"),
    [(MS - 1, -EINVAL), (0, -EINVAL), (MS, 0), (2**62 - 1, 0), (2**62, -EINVAL), (NEVER, -EINVAL)],
)
def test_limits_of_a_periodic_timer(world: World, period: int, answer: int) -> None:
    assert world.op(VCPUOP_set_periodic_timer, 0, struct.pack("<Q", period)) == answer
    assert world.vcpu.rec.periodic_period == (period if answer == 0 else 0)


def test_a_periodic_timer_that_is_due_fires_at_once(world: World) -> None:
    world.machine.host.virtual_ns = 50 * MS
    world.machine.cpus[0].slice_end = 0  # or else the end of its turn is due too
    assert world.op(VCPUOP_set_periodic_timer, 0, struct.pack("<Q", 20 * MS)) == 0
    assert world.vcpu.take_event()
    assert world.machine.calls == [("budget", 1, 2 * MS + 1)]
    assert world.op(VCPUOP_stop_periodic_timer) == 0
    assert world.vcpu.rec.periodic_period == 0


def test_singleshot_timer(world: World) -> None:
    world.machine.host.virtual_ns = 1_000
    assert world.op(VCPUOP_set_singleshot_timer, 0, struct.pack("<QI4x", 3_000, 0)) == 0
    assert world.vcpu.rec.singleshot == 3_000
    assert world.machine.calls == [("budget", 1, 201)]
    assert world.op(VCPUOP_stop_singleshot_timer) == 0
    assert world.vcpu.rec.singleshot == 0


@pytest.mark.parametrize(
    ("timeout", "flags", "kept"),
    [
        (999, VCPU_SSHOTTMR_future, 999),
        (NEVER, VCPU_SSHOTTMR_future, 1),
        (2_000, VCPU_SSHOTTMR_future, 2_000),
        (999, 0, 999),
        (0, 0, 1),
        (0, 6, 1),
    ],
)
def test_a_singleshot_in_the_past(world: World, timeout: int, flags: int, kept: int) -> None:
    world.machine.host.virtual_ns = 1_000
    assert world.op(VCPUOP_set_singleshot_timer, 0, struct.pack("<QI4x", timeout, flags)) == 0
    assert world.vcpu.rec.singleshot == kept


def test_only_its_own_singleshot_timer(world: World) -> None:
    assert world.op(VCPUOP_set_singleshot_timer, 1, UNMAPPED) == -EINVAL
    assert world.op(VCPUOP_stop_singleshot_timer, 1) == -EINVAL


# --- areas --------------------------------------------------------------------------------------------------


def test_runstate_of_oneself_and_of_others(world: World) -> None:
    world.machine.host.virtual_ns = 700
    for number, state in ((0, 0), (1, 3)):
        area = world.guest.page()
        assert world.op(VCPUOP_get_runstate_info, number, area) == 0
        shown = VcpuRunstateInfo.from_buffer_copy(world.machine.read(area, 48))
        assert (shown.state, shown.time[state], sum(shown.time)) == (state, 700, 700)


def test_registering_a_runstate_area_fills_it(world: World) -> None:
    area = world.guest.page() + 8
    assert world.op(VCPUOP_register_runstate_memory_area, 1, struct.pack("<Q", area)) == 0
    assert VcpuRunstateInfo.from_buffer_copy(world.machine.read(area, 48)).state == 3
    assert world.guest.vcpu[1].rec.runstate_area == area
    for address, answer in ((0, 0), (UNMAPPED, 0), (HYPERVISORS, -EFAULT), (1 << 47, -EFAULT)):
        assert world.op(VCPUOP_register_runstate_memory_area, 1, struct.pack("<Q", address)) == answer
    assert world.guest.vcpu[1].rec.runstate_area == UNMAPPED


def test_registering_a_time_area_fills_it(world: World) -> None:
    area = world.guest.page()
    assert world.op(VCPUOP_register_vcpu_time_memory_area, 0, struct.pack("<Q", area)) == 0
    assert world.machine.read(area, 32) == bytes(world.vcpu.info)[32:]
    assert world.machine.read(area, 4) != bytes(4)
    assert world.op(VCPUOP_register_vcpu_time_memory_area, 0, struct.pack("<Q", HYPERVISORS)) == -EFAULT


# --- vcpu_info ----------------------------------------------------------------------------------------------


def register(world: World, number: int, mfn: int, offset: int) -> int:
    """VCPUOP_register_vcpu_info."""
    return world.op(VCPUOP_register_vcpu_info, number, struct.pack("<QII", mfn, offset, 0))


def test_registering_vcpu_info_moves_it(world: World) -> None:
    mfn = world.guest.page() >> 12
    world.vcpu.info[16:24] = b"the cr2!"
    assert register(world, 0, mfn, 128) == 0
    assert world.vcpu.rec.info == world.machine.host.memory + (mfn << 12) + 128
    moved = VcpuInfo.from_buffer_copy(world.machine.read((mfn << 12) + 128, 64))
    assert (moved.evtchn_upcall_mask, moved.evtchn_upcall_pending) == (1, 1)
    assert moved.evtchn_pending_sel == NEVER
    assert bytes(moved.arch)[:8] == b"the cr2!"
    assert moved.time.version % 2 == 0
    frame = world.machine.frames[mfn]
    assert (frame.refs, frame.type, frame.type_refs) == (2, WRITABLE, 1)
    assert register(world, 0, world.guest.page() >> 12, 0) == -EINVAL


def test_a_vcpu_past_those_in_shared_info_gets_a_fresh_one(world: World) -> None:
    mfn = world.guest.page() >> 12
    world.machine.write(mfn << 12, b"\xff" * 64)
    assert world.guest.vcpu[33].rec.info is None
    assert world.op(VCPUOP_initialise, 33, UNMAPPED) == -EINVAL
    assert register(world, 33, mfn, 0) == 0
    fresh = VcpuInfo.from_buffer_copy(world.machine.read(mfn << 12, 64))
    assert (fresh.evtchn_upcall_mask, fresh.evtchn_upcall_pending, bytes(fresh.arch)) == (1, 1, bytes(16))


def test_what_vcpu_info_cannot_be(world: World) -> None:
    mfn = world.guest.page() >> 12
    for offset in (4, 1, 4096 - 63, 4096 - 56, 2**32 - 64):
        assert register(world, 0, mfn, offset) == -ENXIO
    foreign = world.machine.alloc(2)
    table = world.machine.alloc(1)
    world.machine.frames[table].type = 1
    world.machine.frames[table].type_refs = 1
    for wrong in (foreign, table, 10**9, NEVER):
        assert register(world, 0, wrong, 0) == -EINVAL
    world.guest.vcpu[2].rec.pause_flags = 0
    assert register(world, 2, mfn, 0) == -EINVAL
    assert world.machine.frames[mfn].refs == 1
    assert world.vcpu.rec.info_mfn == 0
    assert register(world, 0, mfn, 4096 - 64) == 0


# --- the rest -----------------------------------------------------------------------------------------------


def test_send_nmi(world: World) -> None:
    other = world.guest.vcpu[1].rec
    assert world.op(VCPUOP_send_nmi, 1, 8) == -EINVAL
    assert not other.nmi_pending
    other.initialised, other.pause_flags, other.runstate = 1, 1, 2
    assert world.op(VCPUOP_send_nmi, 1) == 0
    assert (other.nmi_pending, other.pause_flags) == (1, 0)


def test_initialising_twice(world: World) -> None:
    context = world.guest.page()
    world.guest.page()
    assert world.op(VCPUOP_initialise, 0, context) == -EEXIST
    assert len(bytes(VcpuGuestContext())) == 5168
