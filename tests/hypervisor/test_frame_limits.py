"""Checks of the frame table that no guest gets to in a test's time, asked for directly: counts at their limits, and
frames that the hypervisor shares for reading."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paravirt.abi.errno import EBUSY, EINVAL, EPERM

from . import native

DOMID = 3
LIMIT = 0x7FFFFFFF
WRITABLE, ALLOCATED, VALIDATED, XEN, READONLY = 7, 1, 4, 8, 16
PRESENT, RW = 1, 2
L2 = 2


@pytest.fixture
def machine() -> Iterator[native.Machine]:
    made = native.Machine()
    yield made
    made.close()


def test_references_stop_short_of_overflowing(machine: native.Machine) -> None:
    frames, mfn = native.functions("frames"), machine.alloc(DOMID)
    frame = machine.frames[mfn]
    frame.refs = LIMIT - 1
    assert frames.get_page(machine.at, mfn, DOMID)
    assert not frames.get_page(machine.at, mfn, DOMID)
    assert frame.refs == LIMIT


def test_uses_stop_short_of_overflowing(machine: native.Machine) -> None:
    frames, mfn = native.functions("frames"), machine.alloc(DOMID)
    frame = machine.frames[mfn]
    assert frames.get_page_type(machine.at, mfn, WRITABLE) == 0
    frame.type_refs = LIMIT - 1
    assert frames.get_page_type(machine.at, mfn, WRITABLE) == 0
    assert frames.get_page_type(machine.at, mfn, WRITABLE) != 0
    assert frame.type_refs == LIMIT
    frame.refs = 5
    assert frames.get_page_and_type(machine.at, mfn, DOMID, WRITABLE) == -EINVAL
    assert frame.refs == 5


def test_a_frame_without_references_is_nobodys(machine: native.Machine) -> None:
    frames, mfn = native.functions("frames"), machine.alloc(DOMID)
    machine.frames[mfn].refs = 0
    assert not frames.get_page(machine.at, mfn, DOMID)
    assert not frames.release_allocation(machine.at, machine.host.nr_frames, DOMID)


def test_what_the_hypervisor_shares_for_reading_is_not_mapped_writable(machine: native.Machine) -> None:
    mmu, mfn = native.functions("mmu"), machine.alloc(DOMID)
    frame = machine.frames[mfn]
    frame.flags = ALLOCATED | XEN | READONLY
    assert mmu.get_l1_entry(machine.at, mfn << 12 | PRESENT | RW, DOMID) == -EBUSY
    assert (frame.refs, frame.type_refs) == (1, 0)
    assert mmu.get_l1_entry(machine.at, mfn << 12 | PRESENT, DOMID) == 0
    assert frame.refs == 2
    # One that is shared for writing, as the shared info is.
    frame.flags, frame.type, frame.type_refs = ALLOCATED | XEN | VALIDATED, WRITABLE, 1
    assert mmu.get_l1_entry(machine.at, mfn << 12 | PRESENT | RW, DOMID) == 0
    assert (frame.refs, frame.type_refs) == (3, 2)


def test_frames_that_do_not_exist(machine: native.Machine) -> None:
    mmu, frames = native.functions("mmu"), native.functions("frames")
    for mfn in (machine.host.nr_frames, machine.host.nr_frames + 1, (1 << 40) - 1):
        assert mmu.get_l1_entry(machine.at, mfn << 12 | PRESENT, DOMID) in (-EPERM, -EINVAL)
        assert not frames.get_page(machine.at, mfn, DOMID)


def test_only_an_owner_gives_up_an_allocation(machine: native.Machine) -> None:
    frames, mfn = native.functions("frames"), machine.alloc(DOMID)
    machine.frames[mfn].refs = 2  # and somebody maps it
    assert not frames.release_allocation(machine.at, mfn, DOMID + 1)
    machine.host.nr_frames = mfn  # as if the memory ended before it
    assert not frames.release_allocation(machine.at, mfn, DOMID)
    machine.host.nr_frames = mfn + 1
    assert (machine.frames[mfn].owner, machine.frames[mfn].flags) == (DOMID, ALLOCATED)
    assert frames.release_allocation(machine.at, mfn, DOMID)
    assert not frames.release_allocation(machine.at, mfn, DOMID)


def test_only_what_is_allocated_and_there_changes_hands(machine: native.Machine) -> None:
    guest = native.Guest(machine, DOMID)
    frames, mfn = native.functions("frames"), machine.alloc(DOMID)
    all_of_it = machine.host.nr_frames
    machine.host.nr_frames = mfn
    assert not frames.steal_frame(machine.at, mfn, DOMID)
    machine.host.nr_frames = all_of_it
    machine.frames[mfn].flags = 0  # given back, and somebody still refers to it
    assert not frames.steal_frame(machine.at, mfn, DOMID)
    machine.frames[mfn].flags = ALLOCATED
    guest.rec.tot_pages = 1
    assert frames.steal_frame(machine.at, mfn, DOMID)
    assert guest.rec.tot_pages == 0


# --- linear page tables ---------------------------------------------------------------------------------------------

class Linear:
    """Two L2 tables of a domain, of which one shall name the other."""

    def __init__(self, machine: native.Machine) -> None:
        self.machine = machine
        self.above, self.below = machine.alloc(DOMID), machine.alloc(DOMID)
        for mfn in (self.above, self.below):
            frame = machine.frames[mfn]
            frame.type, frame.type_refs, frame.flags, frame.linear = L2, 1, frame.flags | VALIDATED, 0

    def get(self, flags: int = PRESENT, *, to: int | None = None) -> bool:
        value = (self.below if to is None else to) << 12 | flags
        return bool(native.functions("promotion").get_linear(self.machine.at, self.above, value, L2, DOMID))


@pytest.fixture
def linear(machine: native.Machine) -> Linear:
    return Linear(machine)


def test_a_table_names_another_of_its_level_and_itself(linear: Linear) -> None:
    above, below = (linear.machine.frames[mfn] for mfn in (linear.above, linear.below))
    assert linear.get()
    assert (above.linear, below.linear, below.type_refs, below.refs) == (1, -1, 2, 2)
    assert linear.get(to=linear.above)
    assert (above.linear, above.type_refs, above.refs) == (1, 1, 1)
    assert not linear.get(PRESENT | RW)
    assert not linear.get(PRESENT | RW, to=linear.above)


@pytest.mark.parametrize(
    ("which", "field", "value"),
    [
        ("above", "owner", DOMID + 1),
        ("below", "owner", DOMID + 1),
        ("above", "linear", -1),
        ("above", "linear", 32767),
        ("below", "linear", 1),
        ("below", "linear", -32768),
        ("below", "type_refs", 0x7FFFFFFF),
        ("below", "type_refs", 0),
        ("below", "type", 3),
        ("below", "flags", 1),
    ],
)
def test_what_stands_against_it_leaves_no_trace(linear: Linear, which: str, field: str, value: int) -> None:
    setattr(linear.machine.frames[getattr(linear, which)], field, value)
    frames = [linear.machine.frames[mfn] for mfn in (linear.above, linear.below)]
    before = [bytes(frame) for frame in frames]
    assert not linear.get()
    assert [bytes(frame) for frame in frames] == before
