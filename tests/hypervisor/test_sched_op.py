"""sched_op, sched_op_compat and set_timer_op: answers, the order of checks, and what they do to the vcpu."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.abi.errno import EFAULT, EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH
from paravirt.abi.sched import (
    SCHEDOP_block,
    SCHEDOP_pin_override,
    SCHEDOP_poll,
    SCHEDOP_remote_shutdown,
    SCHEDOP_shutdown,
    SCHEDOP_shutdown_code,
    SCHEDOP_watchdog,
    SCHEDOP_yield,
    SHUTDOWN_crash,
    SHUTDOWN_poweroff,
    SHUTDOWN_reboot,
    SHUTDOWN_suspend,
)

from . import native
from .native import NEVER, Guest, Machine, call

sched_op = native.functions("hypercalls.sched_op")
scheduling = native.functions("scheduling")

UNMAPPED = 0x7000_0000_0000
IN_BLOCK, IN_POLL = 1, 4
MS = 10**6


class World:
    """A machine with one domain of two vcpus, the first of which runs and makes the hypercalls."""

    def __init__(self) -> None:
        self.machine = Machine(frames=128)
        self.guest = Guest(self.machine, 1, 2)
        self.vcpu = self.guest.vcpu[0]
        for port in (7, 8):
            self.guest.ports[port].state = 3
        self.cpu = self.machine.cpus[0]
        self.cpu.current = scheduling.pick_next(native.address(self.cpu))
        assert self.cpu.current == self.vcpu.at

    def op(self, command: int, argument: bytes | int = 0, *, compat: bool = False) -> int:
        """sched_op with an argument structure (put into the guest's memory), or an address or value."""
        if isinstance(argument, bytes):
            argument = self.guest.arguments(argument)
        handler = sched_op.do_sched_op_compat if compat else sched_op.do_sched_op
        return call(handler, self.machine, self.vcpu, command, argument)

    def timer(self, timeout: int) -> int:
        """set_timer_op."""
        return call(sched_op.do_set_timer_op, self.machine, self.vcpu, timeout)

    def poll(self, ports: list[int], timeout: int = 0) -> int:
        """SCHEDOP_poll over a list of ports."""
        at = self.guest.arguments(struct.pack(f"<{len(ports)}I", *ports))
        return self.op(SCHEDOP_poll, struct.pack("<QIxxxxQ", at, len(ports), timeout))

    def set_pending(self, port: int) -> None:
        """Set a port's pending bit (2-level)."""
        at = (self.guest.shared_mfn << 12) + 2048 + port // 8
        self.machine.memory[at] |= 1 << (port % 8)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.machine.close()


@pytest.mark.parametrize("compat", [False, True])
def test_yield(world: World, compat: bool) -> None:
    assert world.op(SCHEDOP_yield, compat=compat) == 0
    assert world.cpu.need_resched == 1
    assert scheduling.pick_next(native.address(world.cpu)) == world.guest.vcpu[1].at


@pytest.mark.parametrize("compat", [False, True])
def test_block_unmasks_events_and_waits(world: World, compat: bool) -> None:
    assert world.vcpu.info[1] == 1
    assert world.op(SCHEDOP_block, compat=compat) == 0
    assert world.vcpu.info[1] == 0
    assert (world.vcpu.rec.pause_flags, world.cpu.need_resched) == (IN_BLOCK, 1)


def test_block_does_not_wait_when_an_event_is_pending(world: World) -> None:
    world.vcpu.info[0] = 1
    assert world.op(SCHEDOP_block) == 0
    assert world.vcpu.info[1] == 0
    assert (world.vcpu.rec.pause_flags, world.cpu.need_resched) == (0, 0)


@pytest.mark.parametrize(
    "reason", [SHUTDOWN_poweroff, SHUTDOWN_reboot, SHUTDOWN_suspend, SHUTDOWN_crash, 200]
)
def test_shutdown(world: World, reason: int) -> None:
    assert world.op(SCHEDOP_shutdown, struct.pack("<I", reason | 0xABC00)) == 0
    assert (world.guest.rec.is_shut_down, world.guest.rec.shutdown_code) == (1, reason)
    assert world.cpu.need_resched == 1
    assert scheduling.pick_next(native.address(world.cpu)) is None


def test_shutdown_by_value_is_the_older_calls(world: World) -> None:
    assert world.op(SCHEDOP_shutdown, SHUTDOWN_reboot, compat=True) == 0
    assert world.guest.rec.shutdown_code == SHUTDOWN_reboot


def test_an_announced_code_wins(world: World) -> None:
    assert world.op(SCHEDOP_shutdown_code, struct.pack("<I", SHUTDOWN_crash)) == 0
    assert not world.guest.rec.is_shut_down
    assert world.op(SCHEDOP_shutdown_code, struct.pack("<I", SHUTDOWN_reboot)) == 0
    assert world.op(SCHEDOP_shutdown, struct.pack("<I", SHUTDOWN_poweroff)) == 0
    assert world.guest.rec.shutdown_code == SHUTDOWN_crash


@pytest.mark.parametrize(
    "command",
    [SCHEDOP_shutdown, SCHEDOP_shutdown_code, SCHEDOP_poll, SCHEDOP_remote_shutdown, SCHEDOP_watchdog],
)
def test_an_argument_that_is_not_there(world: World, command: int) -> None:
    for address in (UNMAPPED, 0xFFFF_8000_0000_0000, 0x8000_0000_0000, NEVER):
        assert world.op(command, address) == -EFAULT
    assert not world.guest.rec.is_shut_down
    assert world.vcpu.rec.pause_flags == 0


def test_what_an_ordinary_domain_may_not(world: World) -> None:
    other = Guest(world.machine, 2)
    assert world.op(SCHEDOP_pin_override, UNMAPPED) == -EPERM
    for domid, answer in ((1, -EPERM), (2, -EPERM), (3, -ESRCH), (0x7FF0, -ESRCH)):
        assert world.op(SCHEDOP_remote_shutdown, struct.pack("<HxxI", domid, SHUTDOWN_crash)) == answer
    assert not other.rec.is_shut_down
    world.guest.rec.is_privileged = 1
    assert world.op(SCHEDOP_remote_shutdown, struct.pack("<HxxI", 2, SHUTDOWN_crash)) == 0
    assert (other.rec.is_shut_down, other.rec.shutdown_code) == (1, SHUTDOWN_crash)


def test_only_a_domain_that_is_there_can_be_shut_down(world: World) -> None:
    world.guest.rec.is_privileged = 1
    other = Guest(world.machine, 2)
    beyond = world.machine.host.max_domains + 3
    domains = world.machine.keep((ctypes.c_void_p * (beyond + 1))())
    domains[1], domains[2], domains[beyond] = world.guest.at, other.at, other.at
    world.machine.host.domains = native.address(domains)
    assert world.op(SCHEDOP_remote_shutdown, struct.pack("<HxxI", beyond, SHUTDOWN_crash)) == -ESRCH
    other.rec.dying = 1
    assert world.op(SCHEDOP_remote_shutdown, struct.pack("<HxxI", 2, SHUTDOWN_crash)) == -ESRCH
    assert not other.rec.is_shut_down
    other.rec.dying = 0
    assert world.op(SCHEDOP_remote_shutdown, struct.pack("<HxxI", 2, SHUTDOWN_crash)) == 0
    assert other.rec.is_shut_down


@pytest.mark.parametrize("command", [8, 100, -1, 2**31])
def test_unknown_commands(world: World, command: int) -> None:
    assert world.op(command) == -ENOSYS
    assert world.op(command, compat=True) == -ENOSYS


def test_the_older_call_knows_three_commands(world: World) -> None:
    for command in (SCHEDOP_poll, SCHEDOP_remote_shutdown, SCHEDOP_shutdown_code, SCHEDOP_watchdog):
        assert world.op(command, compat=True) == -ENOSYS


def test_a_command_is_32_bits(world: World) -> None:
    assert world.op(SCHEDOP_block | 5 << 32) == 0
    assert world.vcpu.rec.pause_flags == IN_BLOCK


# --- poll ---------------------------------------------------------------------------------------------------


def test_poll_waits_for_its_port(world: World) -> None:
    assert world.poll([7], 12_345) == 0
    rec = world.vcpu.rec
    assert (rec.pause_flags, rec.poll_port, rec.poll_deadline) == (IN_POLL, 7, 12_345)
    assert world.cpu.need_resched == 1
    assert world.vcpu.info[1] == 1


def test_poll_of_several_ports_or_none_ends_with_any(world: World) -> None:
    for ports in ([7, 8], []):
        world.vcpu.rec.pause_flags = 0
        assert world.poll(ports) == 0
        assert (world.vcpu.rec.pause_flags, world.vcpu.rec.poll_port) == (IN_POLL, 0)
        assert world.vcpu.rec.poll_deadline == 0


def test_poll_goes_on_when_a_port_is_pending(world: World) -> None:
    world.guest.ports[9].state = 3
    world.set_pending(9)
    assert world.poll([7, 9, 8]) == 0
    assert (world.vcpu.rec.pause_flags, world.cpu.need_resched) == (0, 0)
    for state in (0, 1):
        world.guest.ports[9].state = state
        assert world.poll([9]) == -EINVAL


def test_poll_goes_on_when_a_posted_event_is_on_its_way(world: World) -> None:
    world.guest.ports[9].state = 3
    world.guest.ports[9].pending = 1
    assert world.poll([9]) == 0
    assert world.vcpu.rec.pause_flags == 0


def test_poll_sees_pending_bits_of_the_fifo_abi(world: World) -> None:
    array = (ctypes.c_uint64 * 1)(world.guest.page() >> 12)
    world.guest.rec.fifo = 1
    world.guest.rec.fifo_array = native.address(array)
    world.guest.rec.fifo_array_pages = 1
    world.guest.ports[9].state = 3
    assert world.poll([9]) == 0
    assert world.vcpu.rec.pause_flags == IN_POLL
    world.vcpu.rec.pause_flags = 0
    world.machine.write((array[0] << 12) + 4 * 9 + 3, b"\x80")
    assert world.poll([9]) == 0
    assert world.vcpu.rec.pause_flags == 0
    # A port has no bit before the guest gave a page for it.
    world.guest.rec.fifo_array_pages = 0
    assert world.poll([9]) == 0
    assert world.vcpu.rec.pause_flags == IN_POLL


def test_poll_goes_on_when_an_event_can_be_delivered(world: World) -> None:
    world.vcpu.info[0], world.vcpu.info[1] = 1, 0
    assert world.poll([7]) == 0
    assert world.vcpu.rec.pause_flags == 0
    world.vcpu.info[1] = 1
    assert world.poll([7]) == 0
    assert world.vcpu.rec.pause_flags == IN_POLL


def test_what_poll_refuses(world: World) -> None:
    assert world.poll([7, 64]) == -EINVAL
    assert world.poll([2**32 - 1]) == -EINVAL
    assert world.op(SCHEDOP_poll, struct.pack("<QIxxxxQ", UNMAPPED, 129, 0)) == -EINVAL
    assert world.op(SCHEDOP_poll, struct.pack("<QIxxxxQ", UNMAPPED, 1, 0)) == -EFAULT
    assert world.op(SCHEDOP_poll, struct.pack("<QIxxxxQ", 0xFFFF_8000_0000_0000, 0, 0)) == -EFAULT
    assert world.vcpu.rec.pause_flags == 0
    assert world.op(SCHEDOP_poll, struct.pack("<QIxxxxQ", UNMAPPED, 0, 0)) == 0
    assert world.vcpu.rec.pause_flags == IN_POLL


def test_a_poll_whose_time_is_past_ends_at_once(world: World) -> None:
    world.machine.host.virtual_ns = 50
    assert world.poll([7], NEVER) == 0
    assert scheduling.earliest_deadline(native.address(world.cpu)) <= 50


# --- watchdog and timer -------------------------------------------------------------------------------------


def test_watchdog(world: World) -> None:
    start = struct.pack("<II", 0, 5)
    world.cpu.slice_end = 0
    assert world.op(SCHEDOP_watchdog, start) == 1
    assert world.machine.calls == [("budget", 1, 5 * 10**8 + 1)]
    assert world.op(SCHEDOP_watchdog, start) == 2
    assert world.op(SCHEDOP_watchdog, start) == 2**32 - ENOSPC
    assert world.op(SCHEDOP_watchdog, struct.pack("<II", 3, 5)) == -EINVAL
    assert world.op(SCHEDOP_watchdog, struct.pack("<II", 2, 0)) == 0
    assert world.op(SCHEDOP_watchdog, struct.pack("<II", 2, 5)) == -EINVAL


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**60))
def test_set_timer_op_follows_its_model(timeout: int, now: int) -> None:
    world = World()
    world.machine.host.virtual_ns = now
    assert world.timer(timeout) == 0
    signed = timeout - 2**64 if timeout >= 2**63 else timeout
    if timeout == 0:
        expected = 0
    elif signed < 0 or (signed - now > 0 and ((signed - now) >> 50) % 2**32):
        expected = now + 100 * MS
    else:
        expected = timeout
    assert world.vcpu.rec.singleshot == expected
    world.machine.close()


def test_set_timer_op_moves_the_alarm_when_it_must(world: World) -> None:
    assert world.timer(1_000) == 0
    assert world.timer(5_000) == 0
    assert world.timer(500) == 0
    assert world.machine.calls == [("budget", 1, 101), ("budget", 1, 51)]
    assert world.timer(0) == 0
    assert world.vcpu.rec.singleshot == 0
