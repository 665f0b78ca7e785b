"""Free frames: extents, beside a search that looks at one frame after the other, and memory that goes and comes."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt import Machine as Toolstack
from paravirt import UserError
from paravirt.domain0.builder import build_domain
from paravirt.domain0.toolstack import building

from ..oracle import kernels
from ..patience import PATIENCE
from . import native
from .audited import audited

free_frames = native.functions("free_frames")
FRAMES = 400
HELLO = kernels.GUESTS.parent / "src/paravirt/data/hello"
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


@settings(deadline=None)
@given(
    st.sets(st.integers(1, FRAMES - 1)), st.sets(st.integers(1, FRAMES - 1)), st.integers(0, FRAMES),
    st.integers(0, FRAMES),
)  # fmt: skip
def test_used_frames_are_found(machine: native.Machine, free: set[int], clean: set[int], first: int, end: int) -> None:
    """Those that are free and not clean: what a frame is to whoever claims it."""
    fill(machine, free)
    for mfn in range(FRAMES):
        free_frames.take_clean(machine.at, mfn)
    for mfn in clean:
        free_frames.note_clean(machine.at, mfn)
    used = free - clean
    found = [mfn for mfn in range(first, end) if mfn in used]
    assert free_frames.find_used(machine.at, first, end) == min(found, default=end)
    for mfn in range(FRAMES):
        assert bool(free_frames.is_used(machine.at, mfn)) == (mfn in used)
        assert bool(free_frames.take_clean(machine.at, mfn)) == (mfn in clean)
        assert not free_frames.take_clean(machine.at, mfn)


def resident(toolstack: Toolstack) -> int:
    """KiB of the machine's memory that the host has pages for."""
    start = f"{toolstack.memory.address:x}-"
    lines = iter(Path("/proc/self/smaps").read_text(encoding="ascii").splitlines())
    next(line for line in lines if line.startswith(start))
    return int(next(line for line in lines if line.startswith("Rss:")).split()[1])


def test_the_memory_of_a_domain_that_has_ended_is_the_hosts_again() -> None:
    with Toolstack(memory=32) as toolstack, audited(toolstack):
        before = resident(toolstack)
        domains = [toolstack.host.create_domain(domid, 1024, 1) for domid in (7, 8)]
        frames = [[int(mfn) for mfn in domain.p2m] for domain in domains]
        for mfn in frames[0] + frames[1]:
            toolstack.memory.write(mfn << 12, b"\xff" * 4096)
        full = resident(toolstack)
        assert full >= before + 8 * 1024
        domains[0].destroy()
        assert resident(toolstack) <= full - 4 * 1024
        again = toolstack.host.create_domain(9, 1024, 1)
        assert set(frames[0]) & {int(mfn) for mfn in again.p2m}, "the test is about these frames"
        for mfn in again.p2m:
            assert not toolstack.memory.view(int(mfn)).any()
        for mfn in frames[1]:
            assert toolstack.memory.view(mfn).all(), "another domain's"
        again.destroy()
        domains[1].destroy()


def test_a_frame_that_its_owner_gave_up_is_cleared_for_the_next() -> None:
    with Toolstack(memory=16) as toolstack, audited(toolstack):
        domain = toolstack.host.create_domain(7, 4, 1)
        mfn = int(domain.p2m[2])
        toolstack.memory.write(mfn << 12, b"\xff" * 4096)
        assert domain.release_page(mfn)
        assert domain.alloc_extent(0) == mfn
        assert not toolstack.memory.view(mfn).any()
        domain.destroy()


def test_a_domain_gets_its_memory_in_parts() -> None:
    with Toolstack(memory=16) as toolstack, audited(toolstack):
        host = toolstack.host
        free = host.free_frames
        whole = host.create_domain(7, 20, 1)
        parts = host.create_domain(8, 20, 1, populated=False)
        assert parts.tot_pages == 0
        steps: list[bool] = []
        while not (steps or [False])[-1]:
            steps.append(parts.populate(8))
        assert steps == [False, False, True] and parts.tot_pages == whole.tot_pages == 20
        assert len({*map(int, parts.p2m), *map(int, whole.p2m)}) == 40
        assert [host.owner_of(int(mfn)) for mfn in parts.p2m] == [8] * 20
        starved = host.create_domain(9, host.free_frames - 100, 1, populated=False)
        whole.max_pages = 1 << 20
        assert not starved.populate(5)
        while whole.alloc_extent(0) is not None:
            continue
        with pytest.raises(UserError, match="no free memory"):
            starved.populate(8)
        for domain in (starved, parts, whole):
            domain.destroy()
        assert host.free_frames == free


def test_other_domains_have_the_machine_while_one_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large ramdisk is copied without the machine lock."""
    written: list[int] = []

    def build(target: Any, *arguments: Any, **settings: Any) -> Any:
        write = target.write

        def look(pfn: int, offset: int, data: bytes) -> None:
            other = threading.Thread(target=toolstack.stats)
            other.start()
            other.join(PATIENCE)
            assert not other.is_alive(), "the lock is held"
            written.append(len(data))
            write(pfn, offset, data)

        target.write = look
        return build_domain(target, *arguments, **settings)

    monkeypatch.setattr(building, "build_domain", build)
    with Toolstack(memory=64) as toolstack:
        toolstack.create(HELLO, b"x" * (4 << 20), memory=32, paused=True).destroy()
    assert 4 << 20 in written
