"""Entries into a guest's kernel that cannot be made, and returns from it: who crashes, and who gets a fault."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from . import native

traps, debugreg = native.functions("traps"), native.functions("debugreg")

FRAMES = 64
END = FRAMES << 12  # of what is mapped
HANDLER = 0x5000
CS = 1
RSP = 4
UD, GP = 6, 13
HYPERVISORS = 0xFFFF_8000_0000_0000
EINVAL, ENODEV, EPERM = 22, 19, 1
KERNEL_CS, PROCESS_CS, FLAT_SS = 0xE030, 0xE033, 0xE02B


class World:
    """A vcpu in its kernel, which has a stack but no handlers yet."""

    def __init__(self) -> None:
        self.machine = native.Machine(frames=FRAMES)
        self.guest = native.Guest(self.machine)
        self.at = self.guest.vcpu[0].at
        self.who = self.machine.at, self.at
        self.vcpu: Any = self.guest.vcpu[0].rec
        self.cpu = self.vcpu.cpu
        self.stack = self.guest.page()
        self.cpu.gpr[RSP] = self.vcpu.kernel_sp = self.stack + 0x800
        self.cpu.seg[CS].flags = 0xA0FB00
        self.cpu.rip = 0x1002

    def crash(self) -> tuple[bool, int]:
        """Whether the domain crashed, and the number that its report shows."""
        return bool(self.guest.rec.crashed), self.guest.rec.crash_detail

    def leave_kernel(self) -> None:
        """Run a process of the guest's, by the same page tables."""
        self.cpu.user = 1
        self.vcpu.user_table = self.vcpu.kernel_table


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.machine.close()


# --- entries --------------------------------------------------------------------------------------------------------


def test_an_exception_needs_a_handler(world: World) -> None:
    traps.inject_exception(world.at, UD, 0, 0)
    assert world.crash() == (True, UD)
    assert world.cpu.rip == 0x1002
    world.guest.rec.crashed = 0
    world.vcpu.traps[UD].address = HANDLER
    traps.inject_exception(world.at, UD, 0, 0)
    assert not world.guest.rec.crashed
    assert world.cpu.rip == HANDLER


def test_a_frame_needs_a_stack(world: World) -> None:
    world.vcpu.traps[UD].address = HANDLER
    world.cpu.gpr[RSP] = END + 0x1000
    traps.inject_exception(world.at, UD, 0, 0)
    assert world.crash() == (True, END + 0x1000 - 56)
    assert (world.cpu.rip, world.cpu.gpr[RSP]) == (0x1002, END + 0x1000)


def test_a_segment_that_cannot_be_loaded_needs_a_failsafe_callback(world: World) -> None:
    world.cpu.seg[CS].selector = 0x1234
    traps.inject_failsafe(world.at)
    assert world.crash() == (True, 0x1234)
    assert world.cpu.rip == 0x1002
    world.guest.rec.crashed = 0
    world.vcpu.failsafe_callback.address = HANDLER
    traps.inject_failsafe(world.at)
    assert world.cpu.rip == HANDLER


def test_an_event_needs_a_callback(world: World) -> None:
    world.guest.vcpu[0].info[0], world.guest.vcpu[0].info[1] = 1, 0
    assert traps.deliver_events(world.at)
    assert world.crash() == (True, 0)
    assert (world.cpu.rip, world.guest.vcpu[0].info[1]) == (0x1002, 0)
    world.guest.rec.crashed = 0
    world.vcpu.event_callback.address = HANDLER
    assert traps.deliver_events(world.at)
    assert (world.cpu.rip, world.guest.vcpu[0].info[1]) == (HANDLER, 1)


@pytest.mark.parametrize("wide", [True, False])
def test_system_calls_need_a_callback(world: World, *, wide: bool) -> None:
    world.leave_kernel()
    world.vcpu.traps[UD].address = HANDLER
    callback, other = world.vcpu.syscall_callback, world.vcpu.syscall32_callback
    if not wide:
        world.cpu.seg[CS].flags &= ~(1 << 21)
        callback, other = other, callback
    other.address = HANDLER + 0x100
    traps.system_call(*world.who)
    assert (world.cpu.rip, _saved_rip(world)) == (HANDLER, 0x1000)
    world.leave_kernel()
    world.cpu.rip = 0x1002
    world.cpu.seg[CS].flags = 0xA0FB00 if wide else 0xC0FB00
    callback.address = HANDLER + 0x200
    traps.system_call(*world.who)
    assert (world.cpu.rip, _saved_rip(world)) == (HANDLER + 0x200, 0x1002)


@pytest.mark.parametrize("user", [True, False])
def test_sysenter_is_for_processes_of_a_kernel_with_a_callback(world: World, *, user: bool) -> None:
    world.vcpu.traps[GP].address = HANDLER
    for callback in (0, HANDLER + 0x100):
        world.cpu.rip, world.cpu.user = 0x1002, 0
        if user:
            world.leave_kernel()
        world.vcpu.sysenter_callback.address = callback
        traps.system_enter(*world.who)
        assert world.cpu.rip == (callback if callback and user else HANDLER)


def _saved_rip(world: World) -> int:
    """The instruction pointer in the frame that was built: behind rcx and r11."""
    return int.from_bytes(world.machine.read(world.cpu.gpr[RSP] + 16, 8), "little")


# --- returns --------------------------------------------------------------------------------------------------------


def _push_iret(world: World, cs: int, at: int) -> None:
    """rax, r11, rcx, flags, rip, cs, rflags, rsp, ss."""
    words = (7, 0, 0, 0, 0x4000, cs, 0x202, at, FLAT_SS)
    world.machine.write(at, b"".join(word.to_bytes(8, "little") for word in words))
    world.cpu.gpr[RSP] = at


def test_a_frame_of_iret_is_read_whole(world: World) -> None:
    world.cpu.gpr[RSP] = END - 64
    traps.iret(world.at)
    assert world.crash() == (True, END - 64)
    assert world.cpu.rip == 0x1002


def test_iret_to_processes_needs_their_page_table(world: World) -> None:
    _push_iret(world, PROCESS_CS, world.stack)
    traps.iret(world.at)
    assert world.crash() == (True, 0x4000)
    assert (world.cpu.rip, world.cpu.user) == (0x1002, 0)
    world.guest.rec.crashed = 0
    world.vcpu.user_table = world.vcpu.kernel_table
    assert traps.iret(world.at) == 7
    assert (world.cpu.rip, world.cpu.user) == (0x4000, 1)


def test_iret_to_what_cannot_be_loaded_is_a_fault_at_the_target(world: World) -> None:
    world.vcpu.traps[GP].address = HANDLER
    _push_iret(world, 8, world.stack)
    traps.iret(world.at)
    assert world.cpu.rip == HANDLER
    assert int.from_bytes(world.machine.read(world.cpu.gpr[RSP] + 24, 8), "little") == 0x4000


# --- debug registers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "value", "answer"),
    [
        (0, END, 0),
        (3, HYPERVISORS, -EPERM),
        (1, 1 << 47, -EPERM),
        (6, 0xFFFF_0FF1, 0),
        (6, 1 << 32, -EINVAL),
        (4, 1 << 32, -EINVAL),
        (7, 0x401, 0),
        (7, 1 << 32, -EINVAL),
        (7, 0x2401, -EPERM),
        (7, 0x2_0401, -EPERM),
        (7, 0x2_0402, -EPERM),
        (7, 0x2_0400, 0),
        (7, 0x2000_0440, -EPERM),
        (5, 0x401, 0),
        (8, 0, -ENODEV),
    ],
)
def test_what_debug_registers_take(world: World, number: int, value: int, answer: int) -> None:
    before = list(world.cpu.dr)
    assert debugreg.set_debug_register(world.at, number, value) == answer
    assert (list(world.cpu.dr) == before) == (answer != 0)


def test_there_are_eight_debug_registers(world: World) -> None:
    found = ctypes.c_uint64()
    assert debugreg.get_debug_register(world.at, 7, native.address(found)) == 0
    assert debugreg.get_debug_register(world.at, 8, native.address(found)) == -ENODEV
