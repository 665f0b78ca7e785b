"""Starting a vcpu from a vcpu_guest_context: checks, references, registers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.abi.arch_x86 import (
    FLAT_KERNEL_CS64,
    FLAT_KERNEL_SS64,
    VcpuGuestContext,
    VGCF_failsafe_disables_events,
    VGCF_i387_valid,
    VGCF_in_kernel,
    VGCF_online,
    VGCF_syscall_disables_events,
)
from paravirt.abi.errno import EINVAL, EOPNOTSUPP, ERESTART

from . import native
from .native import Guest, GuestVcpu, Machine

context = native.functions("context")

HYPERVISORS = 0xFFFF_8000_0000_0000
L4, SEGDESC = 4, 5
NUMBERED = tuple(f"r{i}" for i in range(8, 16))
CPU_ORDER = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *NUMBERED)
FRAME_ORDER = (*reversed(NUMBERED), "rbp", "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "rsp")
DOWN = 2
WORK_LIMIT = 65536


class World:
    """A machine with one domain of two vcpus that were never initialised, and a context that is all right."""

    def __init__(self) -> None:
        self.machine = Machine(frames=128)
        self.guest = Guest(self.machine, 1, 2, running=False)
        for vcpu in self.guest.vcpu:
            vcpu.rec.kernel_table = 0
        self.kernel, self.user, self.gdt = (self.machine.alloc(1) for _ in range(3))
        for mfn, kind in ((self.kernel, L4), (self.user, L4), (self.gdt, SEGDESC)):
            # In use as such already, as pinned tables are.
            frame = self.machine.frames[mfn]
            frame.type, frame.type_refs, frame.refs, frame.flags = kind, 1, 2, 1 | 4
        self.context = c = VcpuGuestContext()
        c.flags = VGCF_in_kernel
        c.ctrlreg[3] = self.kernel << 12
        c.user_regs.rip = 0xFFFF_FFFF_8100_0000
        c.user_regs.cs = FLAT_KERNEL_CS64 & ~3
        c.user_regs.ss = FLAT_KERNEL_SS64 & ~3
        c.gdt_frames[0] = self.gdt
        c.gdt_ents = 512

    @property
    def vcpu(self) -> GuestVcpu:
        """The one that gets the context: not the first."""
        return self.guest.vcpu[1]

    def set(self, vcpu: GuestVcpu | None = None) -> int:
        """Put the context in force."""
        at = (vcpu or self.vcpu).at
        return int(context.set_vcpu_context(self.machine.at, at, native.address(self.context)))

    def counts(self) -> list[tuple[int, int]]:
        """References of the kernel table, the user table and the GDT frame."""
        frames = self.machine.frames
        return [(frames[mfn].refs, frames[mfn].type_refs) for mfn in (self.kernel, self.user, self.gdt)]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.machine.close()


def test_a_context_is_put_in_force(world: World) -> None:
    c, rec = world.context, world.vcpu.rec
    for i, name in enumerate(FRAME_ORDER):
        setattr(c.user_regs, name, 1000 + i)
    c.user_regs.rflags = 0x3000 | 0x8D5
    c.kernel_ss, c.kernel_sp = 0xE028, 0xFFFF_8800_0000_5000
    c.ctrlreg[0], c.ctrlreg[4] = 0x8000_003B, 0x4
    c.trap_ctxt[14].vector = 3
    c.trap_ctxt[14].flags, c.trap_ctxt[14].cs, c.trap_ctxt[14].address = 4 | 3, 0xE030, 0xFFFF_FFFF_8000_1234
    c.event_callback_eip, c.failsafe_callback_eip, c.syscall_callback_eip = 0x1000, 0x2000, 0x3000
    c.ldt_base, c.ldt_ents = 0xFFFF_8800_0000_0000, 8
    c.gs_base_kernel, c.gs_base_user, c.fs_base = 0xFFFF_8800_0000_7000, 0x7000, 0x6000
    assert world.set() == 0
    assert list(rec.cpu.gpr) == [getattr(c.user_regs, name) for name in CPU_ORDER]
    assert (rec.cpu.rip, rec.cpu.rflags, rec.iopl) == (c.user_regs.rip, 0x8D5 | 0x202, 3)
    assert (rec.kernel_ss, rec.kernel_sp) == (0xE02B, c.kernel_sp)
    assert (rec.guest_ts, rec.cpu.ts, rec.cr4 & 0xC) == (1, 1, 4)
    trap = rec.traps[14]
    assert (trap.address, trap.cs, trap.dpl, trap.mask_events) == (0xFFFF_FFFF_8000_1234, 0xE033, 3, 1)
    callbacks = (rec.event_callback, rec.failsafe_callback, rec.syscall_callback)
    assert [callback.address for callback in callbacks] == [0x1000, 0x2000, 0x3000]
    assert [callback.mask_events for callback in callbacks] == [1, 0, 0]
    assert (rec.ldt_base, rec.ldt_entries) == (c.ldt_base, 8)
    assert (rec.gdt_frames[0], rec.gdt_entries) == (world.gdt, 512)
    assert (rec.kernel_table, rec.cpu.kernel_cr3) == (world.kernel, world.kernel << 12)
    assert (rec.user_table, rec.cpu.user_cr3, rec.cpu.user) == (0, 0, 0)
    assert rec.cpu.seg[5].base == c.gs_base_kernel
    assert (rec.gs_base_kernel, rec.cpu.seg[4].base) == (0x7000, 0x6000)
    assert (rec.initialised, rec.pause_flags, rec.cpu.segs_dirty) == (1, DOWN, 1)
    assert world.counts() == [(3, 2), (2, 1), (3, 2)]


def test_a_vcpu_may_start_in_user_mode_and_online(world: World) -> None:
    c, rec = world.context, world.vcpu.rec
    c.flags = VGCF_online | VGCF_failsafe_disables_events | VGCF_syscall_disables_events
    assert world.set() == -EINVAL
    c.ctrlreg[1] = world.user << 12
    c.gs_base_kernel, c.gs_base_user = 0x1000, 0x2000
    assert world.set() == 0
    assert (rec.cpu.user, rec.user_table, rec.cpu.user_cr3) == (1, world.user, world.user << 12)
    assert (rec.cpu.seg[5].base, rec.gs_base_kernel) == (0x2000, 0x1000)
    assert rec.pause_flags == 0
    assert (rec.failsafe_callback.mask_events, rec.syscall_callback.mask_events) == (1, 1)
    assert world.counts() == [(3, 2), (3, 2), (3, 2)]


def _set_trap(c: VcpuGuestContext) -> None:
    c.trap_ctxt[255].address = 1 << 47


BAD: dict[str, Callable[[VcpuGuestContext], None]] = {
    "rip": lambda c: setattr(c.user_regs, "rip", 1 << 47),
    "rsp": lambda c: setattr(c.user_regs, "rsp", 1 << 63),
    "kernel_sp": lambda c: setattr(c, "kernel_sp", 1 << 47),
    "fs_base": lambda c: setattr(c, "fs_base", 1 << 47),
    "gs_base_kernel": lambda c: setattr(c, "gs_base_kernel", 1 << 47),
    "gs_base_user": lambda c: setattr(c, "gs_base_user", 1 << 47),
    "event callback": lambda c: setattr(c, "event_callback_eip", 1 << 47),
    "failsafe callback": lambda c: setattr(c, "failsafe_callback_eip", 1 << 47),
    "syscall callback": lambda c: setattr(c, "syscall_callback_eip", 1 << 47),
    "trap": _set_trap,
    "LDT in the hole": lambda c: setattr(c, "ldt_base", 1 << 47),
    "LDT in the hypervisor": lambda c: setattr(c, "ldt_base", HYPERVISORS),
    "LDT alignment": lambda c: setattr(c, "ldt_base", 0x1008),
    "LDT size": lambda c: setattr(c, "ldt_ents", 8193),
    "GDT size": lambda c: setattr(c, "gdt_ents", 14 * 512 + 1),
    "GDT frame": lambda c: c.gdt_frames.__setitem__(0, 10**9),
    "no page table": lambda c: c.ctrlreg.__setitem__(3, 0x7FFF_F000),
    "no user page table": lambda c: c.ctrlreg.__setitem__(1, 0x7FFF_F000),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_context_changes_no_count(world: World, what: str) -> None:
    before = world.counts()
    BAD[what](world.context)
    assert world.set() == -EINVAL
    assert world.counts() == before
    rec = world.vcpu.rec
    assert (rec.initialised, rec.kernel_table, rec.user_table, rec.gdt_entries) == (0, 0, 0, 0)


def test_a_table_of_another_domain_is_refused(world: World) -> None:
    world.machine.frames[world.kernel].owner = 2
    assert world.set() == -EINVAL
    world.machine.frames[world.kernel].owner = 1
    world.machine.frames[world.kernel].type = 7
    assert world.set() == -EINVAL
    assert world.counts() == [(2, 1)] * 3


def test_the_first_vcpu_brings_the_assists(world: World) -> None:
    world.context.vm_assist = 0x21
    assert world.set() == 0
    assert world.guest.rec.arch_vm_assist == 0
    assert world.set(world.guest.vcpu[0]) == 0
    assert world.guest.rec.arch_vm_assist == 0x21


def test_later_only_registers_may_change(world: World) -> None:
    assert world.set() == 0
    before = world.counts()
    for change in (
        lambda c: c.ctrlreg.__setitem__(3, world.user << 12),
        lambda c: c.ctrlreg.__setitem__(1, world.user << 12),
        lambda c: setattr(c, "flags", 0),
        lambda c: setattr(c, "gdt_ents", 256),
        lambda c: c.gdt_frames.__setitem__(3, world.gdt),
        lambda c: setattr(c, "ldt_ents", 1),
        lambda c: setattr(c, "ldt_base", 0x1000),
    ):
        kept = bytes(world.context)
        change(world.context)
        assert world.set() == -EOPNOTSUPP
        world.context = VcpuGuestContext.from_buffer_copy(kept)
    world.context.user_regs.rax = 4711
    world.context.gdt_frames[0] = world.gdt
    assert world.set() == 0
    assert world.vcpu.rec.cpu.gpr[0] == 4711
    assert world.counts() == before


@pytest.mark.parametrize("of_vcpu", [True, False])
def test_what_a_hypercall_left_over_is_released_first(world: World, *, of_vcpu: bool) -> None:
    machine, left = world.machine, world.machine.alloc(1)
    frame = machine.frames[left]
    frame.type, frame.type_refs, frame.refs, frame.flags = L4 - 1, 1, 2, 1 | 4
    (world.vcpu.rec.old if of_vcpu else machine.host.spare).mfn = left
    machine.host.work = WORK_LIMIT
    before = world.counts()
    assert world.set() == -ERESTART
    assert world.counts() == before
    machine.host.work = 0
    assert world.set() == 0
    assert (frame.refs, frame.type_refs) == (1, 0)


def test_floating_point(world: World) -> None:
    def image() -> bytes:
        return world.machine.images[world.vcpu.at]

    fresh = bytes([0x7F, 3]) + bytes(22) + bytes([0x80, 0x1F]) + bytes(486)
    world.context.fpu_ctxt[:] = [1] * 512
    assert world.set() == 0
    assert image() == fresh
    world.context.flags |= VGCF_i387_valid
    assert world.set() == 0
    assert image() == fresh, "an MXCSR with reserved bits is no state"
    world.context.fpu_ctxt[26:28] = [0, 0]
    assert world.set() == 0
    assert image() == bytes(world.context.fpu_ctxt)


WORD = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))


@given(dr=st.lists(WORD, min_size=8, max_size=8), de=st.booleans())
@settings(max_examples=60)
def test_debug_registers_obey_their_rules(dr: list[int], de: bool) -> None:
    world = World()
    world.context.debugreg[:] = dr
    world.context.ctrlreg[4] = 8 * de
    assert world.set() == 0
    got = list(world.vcpu.rec.cpu.dr)
    for asked, kept in zip(dr[:4], got[:4], strict=True):
        assert kept == (asked if asked < 1 << 47 or asked >= 0xFFFF_8800_0000_0000 else 0)
    assert got[6] == (0 if dr[6] >> 32 else dr[6] & 0xE00F) | 0xFFFF_0FF0
    io = any(dr[7] >> 2 * i & 3 and dr[7] >> (16 + 4 * i) & 3 == 2 for i in range(4))
    refused = dr[7] >> 32 or dr[7] & 0x2000 or (io and not de)
    assert got[7] == (0x400 if refused else (dr[7] & 0xFFFF_03FF) | 0x400)
    world.machine.close()


def test_layout_is_the_public_one() -> None:
    ours = native.load_records("paravirt/hypervisor/context.pxd")["Context"]
    assert ctypes.sizeof(ours) == ctypes.sizeof(VcpuGuestContext) == 5168
    for (mine, *_), (public, *_) in zip(ours._fields_, VcpuGuestContext._fields_, strict=True):
        assert getattr(ours, mine).offset == getattr(VcpuGuestContext, public).offset
