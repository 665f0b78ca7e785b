"""Page tables that are validated and released bit by bit: whatever happens in between, every count is right.

Two vcpus of a domain make random calls on a handful of frames; each call is interrupted after every step or two, and
the other vcpu may have its turn then.  After each step all references and uses are counted anew.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .native import Guest, Machine, functions

mmu = functions("mmu_ops", "paravirt.hypervisor.hypercalls")
frames = functions("frames")

PRESENT, RW, USER, PCD = 1, 2, 4, 16
ALLOCATED, PINNED, VALIDATED, PARTIAL, PARTIAL_SET = 1, 2, 4, 32, 64
WRITABLE = 7
WORK_LIMIT = 65536
DOMID_SELF = 0x7FF0
PIN_L1, UNPIN, NEW_USER_BASE = 0, 4, 15
NR_FRAMES = 9
EINVAL = 22


@dataclass
class Call:
    """A hypercall in progress: its handler and the arguments with which it goes on."""

    handler: Any
    args: list[int]
    result: int | None = None


@dataclass
class World:
    """A domain with some frames, and the calls that its vcpus are in."""

    machine: Machine = field(default_factory=lambda: Machine(frames=64))
    calls: dict[int, Call] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.guest = Guest(self.machine, vcpus=2)
        for vcpu in self.guest.vcpu:
            vcpu.rec.pcpu = self.machine.pcpus[0]
            vcpu.rec.in_multicall = 1  # its arguments are then given back in place
        self.frames = [self.guest.page() >> 12 for _ in range(NR_FRAMES)]
        self.lists = [self.guest.page() for _ in range(2)]
        self.first = {mfn: self.machine.frames[mfn].refs for mfn in self.frames}

    def entry(self, target: int, flags: int) -> int:
        return (self.frames[target] << 12) | flags

    def start(self, vcpu: int, handler: Any, data: bytes, count: int) -> None:
        at = self.lists[vcpu]
        self.machine.write(at, data)
        self.calls[vcpu] = Call(handler, [at, count, at + 0x800, DOMID_SELF])

    def step(self, vcpu: int, steps: int) -> None:
        """Let a vcpu's call go on for so many steps; without a limit when it is 0."""
        call = self.calls[vcpu]
        record = self.guest.vcpu[vcpu]
        record.rec.preempted = 0
        self.machine.host.work = WORK_LIMIT + 1 - steps if steps else 0
        words = (ctypes.c_uint64 * 6)(*call.args, 0, 0)
        result = call.handler(self.machine.at, record.at, ctypes.addressof(words))
        call.args = list(words[:4])
        if not record.rec.preempted:
            call.result = result
            del self.calls[vcpu]

    def finish(self) -> None:
        for vcpu in list(self.calls):
            for _ in range(3):
                if vcpu in self.calls:
                    self.step(vcpu, 0)
            assert vcpu not in self.calls

    # --- counting, by code of its own -----------------------------------------------------------------------

    def held(self, mfn: int) -> list[tuple[int, int, int]]:
        """What a frame's entries hold: (frame, references, uses), and at the end whether as a linear use."""
        frame = self.machine.frames[mfn]
        if not 1 <= frame.type <= 4 or not frame.type_refs:
            return []
        found = []
        words = self.machine.words(mfn)
        limit = 512 if frame.flags & VALIDATED else frame.nr_validated
        for index in range(limit):
            if words[index] & PRESENT and not (frame.type == 4 and 256 <= index < 272):
                target = words[index] >> 12 & 0xFFFFFFFFFF
                if frame.type == 1:
                    found.append((target, 1, WRITABLE if words[index] & RW else 0))
                elif target != mfn:
                    found.append((target, 1, int(self.machine.frames[target].type)))
        if frame.flags & PARTIAL:
            found.append((mfn, 1, int(frame.type)))
            if frame.flags & PARTIAL_SET:
                found.append((words[limit] >> 12 & 0xFFFFFFFFFF, 1, 0))
        return found

    def check(self) -> None:
        refs = dict.fromkeys(self.frames, 0)
        uses = dict.fromkeys(self.frames, 0)
        linear = dict.fromkeys(self.frames, 0)

        def hold(mfn: int, type: int) -> None:
            if mfn in refs:
                refs[mfn] += 1
                if type:
                    assert self.machine.frames[mfn].type == type
                    uses[mfn] += 1

        for mfn in self.frames:
            frame = self.machine.frames[mfn]
            hold(mfn, 0)
            if frame.flags & PINNED:
                hold(mfn, frame.type)
            for target, _, type in self.held(mfn):
                hold(target, type)
                level = self.machine.frames[mfn].type
                if target != mfn and level > 1 and type == level:
                    linear[mfn] += 1
                    linear[target] -= 1
                elif target != mfn and level > 1 and type:
                    assert type == level - 1, "a table names one of another level"
        for vcpu in self.guest.vcpu:
            old = vcpu.rec.old
            if old.mfn:
                hold(old.mfn, 0 if old.partial else self.machine.frames[old.mfn].type)
                same = old.above and self.machine.frames[old.mfn].type == self.machine.frames[old.above].type
                if same and not old.partial:
                    linear[old.above] += 1
                    linear[old.mfn] -= 1
            if vcpu.rec.user_table:
                hold(vcpu.rec.user_table, 4)
        for mfn in self.frames:
            frame = self.machine.frames[mfn]
            assert (frame.refs, frame.type_refs) == (refs[mfn], uses[mfn]), self.describe(mfn)
            if frame.type_refs and 2 <= frame.type <= 4:
                assert frame.linear == linear[mfn], self.describe(mfn)
            if frame.type_refs:
                assert frame.flags & (VALIDATED | PARTIAL), self.describe(mfn)

    def describe(self, mfn: int) -> str:
        frame = self.machine.frames[mfn]
        return (
            f"frame {self.frames.index(mfn)}: type {frame.type} refs {frame.refs} uses {frame.type_refs} "
            f"flags {frame.flags:#x} validated {frame.nr_validated} linear {frame.linear}"
        )


FRAME = st.integers(0, NR_FRAMES - 1)
INDEX = st.sampled_from([0, 1, 2, 300, 510, 511])
FLAGS = st.sampled_from([PRESENT | USER, PRESENT | USER, PRESENT | USER | RW, PRESENT | USER | PCD, 0])
VCPU = st.integers(0, 1)
OPERATION = st.one_of(
    st.tuples(st.just("fill"), FRAME, INDEX, FRAME, FLAGS),
    st.tuples(st.just("fill"), FRAME, INDEX, FRAME, FLAGS),
    st.tuples(st.just("pin"), VCPU, FRAME, st.integers(1, 4)),
    st.tuples(st.just("unpin"), VCPU, FRAME),
    st.tuples(st.just("base"), VCPU, FRAME),
    st.tuples(st.just("set"), VCPU, FRAME, INDEX, FRAME, FLAGS),
    st.tuples(st.just("step"), VCPU, st.integers(1, 3)),
    st.tuples(st.just("step"), VCPU, st.integers(1, 600)),
)


def carry_out(world: World, operation: tuple[Any, ...]) -> None:
    name, *args = operation
    if name == "fill":
        table, index, target, flags = args
        frame = world.machine.frames[world.frames[table]]
        if frame.type_refs == 0:
            world.machine.words(world.frames[table])[index] = world.entry(target, flags) if flags else 0
        return
    vcpu = args[0]
    if name == "step":
        if vcpu in world.calls:
            world.step(vcpu, args[1])
        return
    if vcpu in world.calls:
        return
    if name == "set":
        _, table, index, target, flags = args
        request = struct.pack(
            "<QQ", (world.frames[table] << 12) + 8 * index, world.entry(target, flags) if flags else 0
        )
        world.start(vcpu, mmu.do_mmu_update, request, 1)
    else:
        command = {"pin": PIN_L1 + args[-1] - 1, "unpin": UNPIN, "base": NEW_USER_BASE}[name]
        world.start(vcpu, mmu.do_mmuext_op, struct.pack("<QQQ", command, world.frames[args[1]], 0), 1)
    world.step(vcpu, 1)


def release_everything(world: World) -> None:
    world.finish()
    for mfn in world.frames:
        if world.machine.frames[mfn].flags & PINNED:
            world.start(0, mmu.do_mmuext_op, struct.pack("<QQQ", UNPIN, mfn, 0), 1)
            world.finish()
    for vcpu in range(2):
        world.start(vcpu, mmu.do_mmuext_op, struct.pack("<QQQ", NEW_USER_BASE, 0, 0), 1)
        world.finish()
    for mfn in world.frames:
        # A change that was refused when it went on leaves the table below part way, until somebody uses it again or
        # the domain ends.
        if world.machine.frames[mfn].flags & PARTIAL:
            world.machine.host.whole += 1
            frames.drop_page_type(world.machine.at, mfn, True, 0)
            world.machine.host.whole -= 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPERATION, min_size=5, max_size=80))
def test_counts_are_right_at_every_step_and_all_is_given_back(operations: list[tuple[Any, ...]]) -> None:
    world = World()
    try:
        for operation in operations:
            carry_out(world, operation)
            world.check()
        release_everything(world)
        world.check()
        for mfn in world.frames:
            frame = world.machine.frames[mfn]
            assert (frame.refs, frame.type_refs, frame.flags & PARTIAL) == (1, 0, 0), world.describe(mfn)
    finally:
        world.machine.close()


def pin(world: World, vcpu: int, table: int, level: int) -> Call:
    world.start(vcpu, mmu.do_mmuext_op, struct.pack("<QQQ", PIN_L1 + level - 1, world.frames[table], 0), 1)
    return world.calls[vcpu]


def tower(world: World) -> None:
    """Frames 0 to 3 as L4 to L1, the upper ones with many entries that name the same table."""
    for level in range(3):
        for index in (0, 1, 2, 100, 511):
            world.machine.words(world.frames[level])[index] = world.entry(level + 1, PRESENT | USER)
    world.machine.words(world.frames[3])[5] = world.entry(4, PRESENT | USER | RW)


def test_a_validation_is_gone_on_with_by_whoever_comes() -> None:
    world = World()
    tower(world)
    first = pin(world, 0, 0, 4)
    world.step(0, 1)
    world.check()
    assert first.result is None
    assert world.machine.frames[world.frames[0]].flags & PARTIAL
    second = pin(world, 1, 0, 4)
    world.step(1, 0)
    world.check()
    assert second.result == 0
    world.step(0, 0)
    assert first.result == -EINVAL, "it is pinned by now"
    release_everything(world)
    world.check()
    world.machine.close()


def test_a_table_that_is_part_way_is_of_no_other_use() -> None:
    world = World()
    tower(world)
    pin(world, 0, 0, 4)
    world.step(0, 1)
    for level in (1, 2, 3):
        refused = pin(world, 1, 0, level)
        world.step(1, 0)
        assert refused.result == -EINVAL
    world.start(1, mmu.do_mmu_update, struct.pack("<QQ", world.frames[0] << 12, 0), 1)
    refused = world.calls[1]
    world.step(1, 0)
    assert refused.result == -EINVAL
    world.check()
    release_everything(world)
    world.machine.close()


def test_every_step_of_a_long_release_goes_on_where_the_last_one_stopped() -> None:
    world = World()
    tower(world)
    pin(world, 0, 0, 4)
    world.step(0, 0)
    world.start(0, mmu.do_mmuext_op, struct.pack("<QQQ", UNPIN, world.frames[0], 0), 1)
    steps = 0
    while 0 in world.calls:
        world.step(0, 1)
        world.check()
        steps += 1
        assert steps < 5000
    assert steps > 1000, "each table has 512 entries"
    assert world.machine.frames[world.frames[4]].type_refs == 0
    world.machine.close()
