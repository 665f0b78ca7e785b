"""XENMEM_exchange: chunks, refusals, and what is left after a failure."""

from __future__ import annotations

import pytest

from paravirt.abi.errno import EFAULT, EINVAL, ENOMEM, EPERM, ESRCH
from paravirt.abi.memory import (
    XENMEM_exchange,
    XENMEMF_exact_node_request,
    XenMemoryExchange,
    XenMemoryReservation,
)
from paravirt.abi.xen import HYPERCALLS
from paravirt.hypervisor.hypercalls.registry import PREEMPT_AFTER

from .fakes import BAD, SELF, XEN, FakeDomain, FakeHost, FakeVcpu, nothing_kept

MEMORY_OP = HYPERCALLS["memory_op"]
Side = tuple[int, int, int]  # list, extents, order


def request(
    vcpu: FakeVcpu, give: Side, get: Side, *, domids: tuple[int, int] = (SELF, SELF), done: int = 0, flags: int = 0
) -> int:
    sides = [
        XenMemoryReservation(frames, count, order, flags, domid)
        for (frames, count, order), domid in zip((give, get), domids, strict=True)
    ]
    return vcpu.put(XenMemoryExchange(*sides, done))


def exchange(vcpu: FakeVcpu, where: int) -> tuple[int, int]:
    """(result, how many input extents were exchanged)."""
    result = vcpu.call(MEMORY_OP, XENMEM_exchange, where)
    return result, vcpu.read_struct(where, XenMemoryExchange).nr_exchanged


def test_frame_for_frame(vcpu: FakeVcpu, host: FakeHost) -> None:
    domain = vcpu.domain
    old, before = domain.mfns[:3], domain.tot_pages
    out = vcpu.frame_list(0, 1, 2)
    assert exchange(vcpu, request(vcpu, (vcpu.frame_list(*old), 3, 0), (out, 3, 0))) == (0, 3)
    new = vcpu.numbers(out, 3)
    assert [host.m2p(mfn) for mfn in new] == [0, 1, 2]
    assert all(host.frames[mfn].owner == 3 for mfn in new)
    assert domain.tot_pages == before


def test_frames_for_a_contiguous_extent_and_back(vcpu: FakeVcpu, host: FakeHost) -> None:
    domain = vcpu.domain
    before = domain.tot_pages
    out = vcpu.frame_list(100)
    scattered = vcpu.frame_list(*domain.mfns[1:16:2][:8])
    assert exchange(vcpu, request(vcpu, (scattered, 8, 0), (out, 1, 3))) == (0, 8)
    (first,) = vcpu.numbers(out, 1)
    assert first % 8 == 0
    assert [host.m2p(first + n) for n in range(8)] == list(range(100, 108))
    singles = vcpu.frame_list(*range(200, 208))
    assert exchange(vcpu, request(vcpu, (vcpu.frame_list(first), 1, 3), (singles, 8, 0))) == (0, 1)
    assert [host.m2p(mfn) for mfn in vcpu.numbers(singles, 8)] == list(range(200, 208))
    assert domain.tot_pages == before


def test_a_full_reservation_is_no_obstacle(vcpu: FakeVcpu) -> None:
    vcpu.domain.max_pages = vcpu.domain.tot_pages
    out = vcpu.frame_list(1)
    frames = vcpu.frame_list(vcpu.domain.mfns[0])
    assert exchange(vcpu, request(vcpu, (frames, 1, 0), (out, 1, 0))) == (0, 1)
    assert vcpu.domain.tot_pages == vcpu.domain.max_pages


@pytest.mark.parametrize("bad", ["foreign", "none", "in use", "shared info", "given before", "twice"])
def test_a_frame_that_cannot_go_stops_its_chunk(
    vcpu: FakeVcpu, host: FakeHost, other: FakeDomain, bad: str
) -> None:
    mfns = vcpu.domain.mfns
    if bad in ("in use", "given before"):
        host.get_page_and_type(mfns[4], 3, 1)
    if bad == "given before":
        vcpu.domain.release_page(mfns[4])
    wrong = {
        "foreign": other.mfns[0],
        "none": 10**12,
        "in use": mfns[4],
        "shared info": vcpu.domain.shared_info_mfn,
        "given before": mfns[4],
        "twice": mfns[2],
    }[bad]
    frames = vcpu.frame_list(mfns[0], mfns[1], mfns[2], wrong)
    before, tot_pages = host.references(), vcpu.domain.tot_pages
    result = exchange(vcpu, request(vcpu, (frames, 4, 0), (vcpu.frame_list(8, 9), 2, 1)))
    assert result == (-EINVAL, 2)
    assert vcpu.domain.tot_pages == tot_pages
    # The chunk that failed is as it was.
    for mfn in (mfns[2], mfns[3]):
        assert host.references()[mfn] == before[mfn]


def test_no_contiguous_frames_leave_everything_as_it_was(vcpu: FakeVcpu, host: FakeHost) -> None:
    while FakeDomain._find(vcpu.domain, 8, host.m2p_mfn) is not None:
        vcpu.domain.alloc_extent(3, beyond_limit=True)
    frames = vcpu.frame_list(*vcpu.domain.mfns[:8])
    with nothing_kept(host):
        assert exchange(vcpu, request(vcpu, (frames, 8, 0), (vcpu.frame_list(1), 1, 3))) == (-ENOMEM, 0)


def test_outputs_already_found_go_back_when_one_is_missing(vcpu: FakeVcpu, host: FakeHost) -> None:
    first = FakeDomain._need(vcpu.domain.alloc_extent(2))
    while FakeDomain._find(vcpu.domain, 1, host.m2p_mfn) is not None:
        vcpu.domain.alloc_extent(0, beyond_limit=True)
    for mfn in vcpu.domain.mfns[:3]:
        vcpu.domain.release_page(mfn)  # room for three, and four are asked for
    with nothing_kept(host):
        answer = exchange(vcpu, request(vcpu, (vcpu.frame_list(first), 1, 2), (vcpu.frame_list(*range(4)), 4, 0)))
    assert answer == (-ENOMEM, 0)


@pytest.mark.parametrize(
    ("give", "get", "errno"),
    [
        ((2, 0), (1, 0), EINVAL),
        ((1, 1), (1, 0), EINVAL),
        ((1, 10), (1, 10), EPERM),
        ((1, 0), (1, 10), EPERM),
        ((2**64 - 1, 1), (2**64 - 1, 1), EINVAL),
    ],
)
def test_sides_that_do_not_fit(vcpu: FakeVcpu, give: tuple[int, int], get: tuple[int, int], errno: int) -> None:
    frames = vcpu.frame_list(*vcpu.domain.mfns[:4])
    where = request(vcpu, (frames, *give), (vcpu.frame_list(0, 1, 2, 3), *get))
    with nothing_kept(vcpu.domain.host):
        assert exchange(vcpu, where) == (-errno, 0)


@pytest.mark.parametrize(
    ("domids", "errno"), [((SELF, 3), EINVAL), ((0, SELF), EINVAL), ((99, 99), ESRCH), ((7, 7), EPERM)]
)
def test_domains(vcpu: FakeVcpu, domids: tuple[int, int], errno: int) -> None:
    frames = vcpu.frame_list(*vcpu.domain.mfns[:1])
    where = request(vcpu, (frames, 1, 0), (vcpu.frame_list(0), 1, 0), domids=domids)
    assert exchange(vcpu, where) == (-errno, 0)


def test_a_demand_for_one_node_is_not_for_guests(vcpu: FakeVcpu) -> None:
    frames = vcpu.frame_list(*vcpu.domain.mfns[:1])
    flags = 1 << 8 | XENMEMF_exact_node_request
    where = request(vcpu, (frames, 1, 0), (vcpu.frame_list(0), 1, 0), flags=flags)
    assert exchange(vcpu, where) == (-EINVAL, 0)


def test_more_done_than_there_is(vcpu: FakeVcpu) -> None:
    frames = vcpu.frame_list(*vcpu.domain.mfns[:1])
    where = request(vcpu, (frames, 1, 0), (vcpu.frame_list(0), 1, 0), done=2)
    assert exchange(vcpu, where) == (-EINVAL, 2)


def test_what_is_done_is_not_done_again(vcpu: FakeVcpu, host: FakeHost) -> None:
    mfns = vcpu.domain.mfns[:3]
    out = vcpu.frame_list(70, 71, 72)
    assert exchange(vcpu, request(vcpu, (vcpu.frame_list(*mfns), 3, 0), (out, 3, 0), done=2)) == (0, 3)
    assert vcpu.numbers(out, 2) == [70, 71]
    assert host.m2p(vcpu.numbers(out, 3)[2]) == 72


@pytest.mark.parametrize("which", [0, 1])
def test_lists_in_the_hypervisors_range(vcpu: FakeVcpu, which: int) -> None:
    lists = [vcpu.frame_list(vcpu.domain.mfns[0]), vcpu.frame_list(0)]
    lists[which] = 0xFFFF_8000_0000_0000
    with nothing_kept(vcpu.domain.host):
        assert exchange(vcpu, request(vcpu, (lists[0], 1, 0), (lists[1], 1, 0))) == (-EFAULT, 0)


@pytest.mark.parametrize("which", [0, 1])
def test_lists_are_looked_at_even_for_nothing(vcpu: FakeVcpu, which: int) -> None:
    lists = [vcpu.frame_list(vcpu.domain.mfns[0]), vcpu.frame_list(0)]
    assert exchange(vcpu, request(vcpu, (lists[0], 0, 0), (lists[1], 0, 0))) == (0, 0)
    lists[which] = 0xFFFF_8000_0000_0000
    assert exchange(vcpu, request(vcpu, (lists[0], 0, 0), (lists[1], 0, 0))) == (-EFAULT, 0)


def test_an_input_list_that_cannot_be_read(vcpu: FakeVcpu) -> None:
    with nothing_kept(vcpu.domain.host):
        assert exchange(vcpu, request(vcpu, (BAD, 1, 0), (vcpu.frame_list(0), 1, 0))) == (-EFAULT, 0)


def test_an_output_list_that_cannot_be_written_costs_the_numbers_not_the_frames(vcpu: FakeVcpu) -> None:
    frames = vcpu.frame_list(vcpu.domain.mfns[0])
    before = vcpu.domain.tot_pages
    assert exchange(vcpu, request(vcpu, (frames, 1, 0), (BAD, 1, 0))) == (-EFAULT, 0)
    assert vcpu.domain.tot_pages == before


def test_a_request_that_cannot_be_read_or_written(vcpu: FakeVcpu) -> None:
    assert vcpu.call(MEMORY_OP, XENMEM_exchange, BAD) == -EFAULT
    where = vcpu.put(XenMemoryExchange(), writable=False)
    assert vcpu.call(MEMORY_OP, XENMEM_exchange, where) == -EFAULT


def test_an_exchange_ends_when_its_time_is_over(vcpu: FakeVcpu, host: FakeHost) -> None:
    host.is_spent = True
    ins, out = vcpu.frame_list(*vcpu.domain.mfns[:3]), vcpu.frame_list(0, 1, 2)
    assert exchange(vcpu, request(vcpu, (ins, 3, 0), (out, 3, 0))) == (0, 3)
    assert vcpu.continuations == 2


def test_a_long_exchange_is_preempted_and_goes_on(vcpu: FakeVcpu, host: FakeHost) -> None:
    vcpu.domain.max_pages = 10_000
    count = PREEMPT_AFTER + 5
    old = [FakeDomain._need(vcpu.domain.alloc_extent(0)) for _ in range(count)]
    out = vcpu.frame_list(*range(count))
    assert exchange(vcpu, request(vcpu, (vcpu.frame_list(*old), count, 0), (out, count, 0))) == (0, count)
    assert vcpu.continuations == 1
    assert [host.m2p(mfn) for mfn in vcpu.numbers(out, count)] == list(range(count))
    assert all(not frame.flags & XEN for frame in (host.frames[mfn] for mfn in vcpu.numbers(out, count)))
