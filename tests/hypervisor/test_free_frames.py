"""Extents of free frames, beside a search that looks at one frame after the other."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt import Machine as Toolstack

from . import native

free_frames = native.functions("free_frames")
FRAMES = 400
NO_FRAME = (1 << 64) - 1


def slow(free: set[int], order: int, end: int) -> int:
    size = 1 << order
    for first in range(0, FRAMES, size):
        if first + size <= end and free.issuperset(range(first, first + size)):
            return first
    return NO_FRAME


@pytest.fixture(scope="module")
def machine() -> Iterator[native.Machine]:
    made = native.Machine(frames=FRAMES)
    yield made
    made.close()


def fill(machine: native.Machine, free: set[int]) -> None:
    """Make these frames free, and no others."""
    for word in range(len(machine.free_map)):
        machine.free_map[word] = 0
    machine.host.alloc_hint, machine.host.free_frames = FRAMES, 0
    for mfn in free:
        free_frames.note_free(machine.at, mfn)
    assert machine.host.free_frames == len(free)
    assert machine.host.alloc_hint == min(free, default=FRAMES)


RANGES = st.lists(st.tuples(st.integers(1, FRAMES - 1), st.integers(1, 300)), max_size=6)


@settings(deadline=None)
@given(RANGES, st.sets(st.integers(1, FRAMES - 1), max_size=30), st.integers(0, 8), st.integers(0, FRAMES))
def test_the_lowest_extent_is_found(
    machine: native.Machine, ranges: list[tuple[int, int]], taken: set[int], order: int, end: int
) -> None:
    free = {mfn for first, size in ranges for mfn in range(first, min(first + size, FRAMES))}
    fill(machine, free)
    for mfn in free & taken:
        free_frames.note_taken(machine.at, mfn)
    free -= taken
    assert machine.host.free_frames == len(free)
    for limit in (FRAMES, end):
        assert free_frames.find_extent(machine.at, order, limit) == slow(free, order, limit)


@pytest.mark.parametrize("order", [0, 3, 6, 7])
def test_an_extent_ends_at_the_limit(machine: native.Machine, order: int) -> None:
    size = 1 << order
    fill(machine, set(range(256, 256 + size)))
    assert free_frames.find_extent(machine.at, order, 256 + size) == 256
    assert free_frames.find_extent(machine.at, order, 256 + size - 1) == NO_FRAME


@pytest.mark.parametrize("order", [1, 9])
def test_a_search_of_memory_in_pieces_is_short(order: int) -> None:
    """A GiB of which every second frame is taken: no extent, and not much work."""
    machine = native.Machine(frames=64)
    words = 1 << 12
    pieces = ctypes.c_uint64 * (words + 1)
    machine.free_map = pieces(*[0x5555555555555555] * words)
    machine.host.free_map = native.address(machine.free_map)
    machine.host.nr_frames, machine.host.alloc_hint, machine.host.work = words * 64, 0, 0
    assert free_frames.find_extent(machine.at, order, words * 64) == NO_FRAME
    assert 0 < machine.host.work <= words // 8
    machine.host.nr_frames = 64
    machine.close()


def test_a_machine_gives_all_its_frames_and_no_more() -> None:
    with Toolstack(memory=16) as toolstack:
        view = toolstack.host.create_domain(7, 1, 1)
        view.max_pages = 1 << 20
        given = []
        while (mfn := view.alloc_extent(0)) is not None:
            given.append(mfn)
        assert toolstack.host.free_frames == 0
        assert len(set(given)) == len(given)
        for mfn in (given[5], given[-1]):
            assert view.release_page(mfn)
        assert [view.alloc_extent(1), view.alloc_extent(0), view.alloc_extent(0)] == [None, given[5], given[-1]]
        view.destroy()
