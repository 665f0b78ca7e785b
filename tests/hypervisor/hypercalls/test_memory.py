"""memory_op: reservations, maps, and what a guest without a physmap is told."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paravirt.abi import memory as abi
from paravirt.abi.arch_x86 import ArchSharedInfo
from paravirt.abi.errno import EACCES, EDOM, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from paravirt.abi.memory import (
    XenAddToPhysmap,
    XenAddToPhysmapBatch,
    XenForeignMemoryMap,
    XenMachphysMapping,
    XenMachphysMfnList,
    XenMemAccessOp,
    XenMemAcquireResource,
    XenMemoryDomain,
    XenMemoryMap,
    XenMemoryReservation,
    XenPodTarget,
    XenRemoveFromPhysmap,
    XenReservedDeviceMemoryMap,
    XenVnumaTopologyInfo,
)
from paravirt.abi.xen import DOMID_XEN, HYPERCALLS, SharedInfo
from paravirt.hypervisor.hypercalls.registry import PREEMPT_AFTER
from paravirt.hypervisor.hypercalls.state import MemoryRange

from .fakes import ALLOCATED, BAD, FREE, L1, SELF, WORD, XEN, FakeDomain, FakeHost, FakeVcpu

MEMORY_OP = HYPERCALLS["memory_op"]
HYPERVISOR_RANGE = 0xFFFF_8000_0000_0000


def reservation(
    vcpu: FakeVcpu, frames: list[int], *, order: int = 0, count: int | None = None, flags: int = 0, domid: int = SELF
) -> tuple[int, int]:
    """A request in guest memory, and the list in it."""
    frame_list = vcpu.frame_list(*frames)
    count = len(frames) if count is None else count
    return vcpu.put(XenMemoryReservation(frame_list, count, order, flags, domid)), frame_list


def give(vcpu: FakeVcpu, *frames: int, order: int = 0) -> int:
    request, _ = reservation(vcpu, list(frames), order=order)
    return vcpu.call(MEMORY_OP, abi.XENMEM_decrease_reservation, request)


# --- decrease_reservation -----------------------------------------------------------------------------------------


def test_frames_given_back_are_gone(vcpu: FakeVcpu, host: FakeHost) -> None:
    domain = vcpu.domain
    before = domain.tot_pages
    assert give(vcpu, *domain.mfns[:3]) == 3
    assert domain.tot_pages == before - 3
    for mfn in domain.mfns[:3]:
        assert host.frames[mfn].refs == 0
        assert host.m2p(mfn) == WORD


def test_a_frame_in_use_stays_until_its_last_use_ends(vcpu: FakeVcpu, host: FakeHost) -> None:
    mfn, before = vcpu.domain.mfns[5], vcpu.domain.tot_pages
    host.get_page_and_type(mfn, 3, L1)
    assert give(vcpu, mfn) == 1
    assert give(vcpu, mfn) == 1  # again: it is still the domain's, and nothing happens
    assert (host.frames[mfn].owner, vcpu.domain.tot_pages) == (3, before)
    host.put_page_and_type(mfn)
    assert vcpu.domain.tot_pages == before - 1


def test_only_ones_own_frames_can_be_given(vcpu: FakeVcpu, host: FakeHost, other: FakeDomain) -> None:
    mine, theirs = vcpu.domain.mfns[0], other.mfns[0]
    references = host.references()
    for foreign in (theirs, 0, host.nr_frames, WORD):
        assert give(vcpu, foreign, mine) == 0
    assert host.references() == references
    assert give(vcpu, mine, theirs) == 1


def test_a_share_in_a_frame_of_the_hypervisors_can_be_given_up(vcpu: FakeVcpu, host: FakeHost) -> None:
    shared, before = vcpu.domain.shared_info_mfn, vcpu.domain.tot_pages
    assert host.get_page(shared, 3)  # the guest has it mapped
    assert give(vcpu, shared) == 1
    assert host.frames[shared].owner == 3
    assert give(vcpu, shared) == 1
    host.put_page(shared)
    # The hypervisor keeps the frame; to the domain it is nobody's memory now.
    assert host.frames[shared].owner == DOMID_XEN
    assert give(vcpu, shared) == 0
    assert vcpu.domain.tot_pages == before
    vcpu.domain.unshare_frame(shared)
    assert host.frames[shared].owner == FREE


def test_a_large_extent_is_given_as_a_whole_or_up_to_what_is_not_ones_own(vcpu: FakeVcpu) -> None:
    first = FakeDomain._need(vcpu.domain.alloc_extent(2))
    before = vcpu.domain.tot_pages
    assert give(vcpu, first, order=2) == 1
    assert vcpu.domain.tot_pages == before - 4


# --- populate_physmap and increase_reservation --------------------------------------------------------------------


def test_populate_gives_frames_with_their_place(vcpu: FakeVcpu, host: FakeHost) -> None:
    domain = vcpu.domain
    before = domain.tot_pages
    request, frames = reservation(vcpu, [1000, 1001, 77])
    assert vcpu.call(MEMORY_OP, abi.XENMEM_populate_physmap, request) == 3
    got = vcpu.numbers(frames, 3)
    assert len(set(got)) == 3
    assert [host.m2p(mfn) for mfn in got] == [1000, 1001, 77]
    assert all(host.frames[mfn].owner == 3 and host.frames[mfn].flags == ALLOCATED for mfn in got)
    assert domain.tot_pages == before + 3


def test_populate_of_an_order_gives_aligned_extents(vcpu: FakeVcpu, host: FakeHost) -> None:
    request, frames = reservation(vcpu, [4096], order=3)
    assert vcpu.call(MEMORY_OP, abi.XENMEM_populate_physmap, request) == 1
    (first,) = vcpu.numbers(frames, 1)
    assert first % 8 == 0
    assert [host.m2p(first + n) for n in range(8)] == [4096 + n for n in range(8)]


def test_increase_gives_frames_without_a_place(vcpu: FakeVcpu, host: FakeHost) -> None:
    request, frames = reservation(vcpu, [5, 6])
    assert vcpu.call(MEMORY_OP, abi.XENMEM_increase_reservation, request) == 2
    got = vcpu.numbers(frames, 2)
    assert [host.m2p(mfn) for mfn in got] == [WORD, WORD]
    assert all(host.frames[mfn].owner == 3 for mfn in got)


def test_increase_can_do_without_a_list(vcpu: FakeVcpu) -> None:
    before = vcpu.domain.tot_pages
    request = vcpu.put(XenMemoryReservation(0, 4, 0, 0, SELF))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_increase_reservation, request) == 4
    assert vcpu.domain.tot_pages == before + 4
    assert vcpu.call(MEMORY_OP, abi.XENMEM_populate_physmap, request) == 0
    assert vcpu.call(MEMORY_OP, abi.XENMEM_decrease_reservation, request) == 0


@pytest.mark.parametrize("operation", [abi.XENMEM_increase_reservation, abi.XENMEM_populate_physmap])
def test_the_reservation_has_a_limit(vcpu: FakeVcpu, operation: int) -> None:
    room = vcpu.domain.max_pages - vcpu.domain.tot_pages
    request, _ = reservation(vcpu, [9] * (room + 5))
    assert vcpu.call(MEMORY_OP, operation, request) == room
    assert vcpu.domain.tot_pages == vcpu.domain.max_pages
    assert vcpu.call(MEMORY_OP, operation, request) == 0


def test_an_address_has_more_bits_than_a_place_in_a_page(vcpu: FakeVcpu) -> None:
    """Whatever is asked: also of one who only gives frames back."""
    before = vcpu.domain.tot_pages
    for bits, done in ((1, 0), (12, 0), (13, 1)):
        request, _ = reservation(vcpu, [vcpu.domain.mfns[0]], flags=bits)
        assert vcpu.call(MEMORY_OP, abi.XENMEM_decrease_reservation, request) == done
        assert vcpu.domain.tot_pages == before - done


@pytest.mark.parametrize("operation", [abi.XENMEM_increase_reservation, abi.XENMEM_populate_physmap])
def test_addresses_can_be_limited(vcpu: FakeVcpu, operation: int) -> None:
    bits = 22  # 1024 frames
    request, frames = reservation(vcpu, [9], flags=bits)
    assert vcpu.call(MEMORY_OP, operation, request) == 1
    assert vcpu.numbers(frames, 1)[0] < 1024
    for useless in (1, 12):
        request, _ = reservation(vcpu, [9], flags=useless)
        assert vcpu.call(MEMORY_OP, operation, request) == 0


@pytest.mark.parametrize(
    ("flags", "done"),
    [
        (1 << 8, 1),  # a node is a wish
        (1 << 8 | abi.XENMEMF_exact_node_request, 0),  # a demand it can only be for a privileged domain
        (abi.XENMEMF_exact_node_request, 1),  # of no node
        (1 << 8 | abi.XENMEMF_exact_node_request | abi.XENMEMF_vnode, 1),
    ],
)
def test_nodes(vcpu: FakeVcpu, flags: int, done: int) -> None:
    request, _ = reservation(vcpu, [9], flags=flags)
    assert vcpu.call(MEMORY_OP, abi.XENMEM_increase_reservation, request) == done


def test_nothing_is_populated_on_demand(vcpu: FakeVcpu) -> None:
    before = vcpu.domain.tot_pages
    request, _ = reservation(vcpu, [9], flags=abi.XENMEMF_populate_on_demand)
    assert vcpu.call(MEMORY_OP, abi.XENMEM_populate_physmap, request) == 0
    assert vcpu.domain.tot_pages == before


RESERVATIONS = [
    abi.XENMEM_increase_reservation,
    abi.XENMEM_decrease_reservation,
    abi.XENMEM_populate_physmap,
]


@pytest.mark.parametrize("operation", RESERVATIONS)
@pytest.mark.parametrize("start", [0, 1])
def test_refusals_answer_how_far_the_call_had_come(
    vcpu: FakeVcpu, host: FakeHost, other: FakeDomain, operation: int, start: int
) -> None:
    frames = vcpu.domain.mfns[:2]
    tot_pages, references = vcpu.domain.tot_pages, host.references()
    requests = [
        BAD,
        reservation(vcpu, frames, domid=99)[0],
        reservation(vcpu, frames, domid=7)[0],
        reservation(vcpu, frames, order=10)[0],
        reservation(vcpu, frames, order=WORD & 0xFFFF_FFFF)[0],
        reservation(vcpu, frames, count=1 << 26)[0],
        reservation(vcpu, frames, count=0)[0],
        reservation(vcpu, frames, count=start)[0],
        vcpu.put(XenMemoryReservation(HYPERVISOR_RANGE, 2, 0, 0, SELF)),
    ]
    for request in requests:
        assert vcpu.call(MEMORY_OP, operation | start << 6, request) == start
    assert (vcpu.domain.tot_pages, host.references()) == (tot_pages, references)


@pytest.mark.parametrize("operation", RESERVATIONS)
def test_a_list_that_cannot_be_read_ends_the_call_where_it_ends(vcpu: FakeVcpu, operation: int) -> None:
    frames = vcpu.put(struct.pack("<3Q", *vcpu.domain.mfns[:3]), at_end=True)
    request = vcpu.put(XenMemoryReservation(frames, 5, 0, 0, SELF))
    assert vcpu.call(MEMORY_OP, operation, request) == 3


def test_a_call_goes_on_where_its_number_says(vcpu: FakeVcpu) -> None:
    mfns = vcpu.domain.mfns[:4]
    request, _ = reservation(vcpu, mfns)
    assert vcpu.call(MEMORY_OP, abi.XENMEM_decrease_reservation | 2 << 6, request) == 4
    owners = [vcpu.domain.host.frames[mfn].owner == 3 for mfn in mfns]
    assert owners == [True, True, False, False]
    assert vcpu.call(MEMORY_OP, abi.XENMEM_decrease_reservation | 5 << 6, request) == 5


def test_a_long_call_is_preempted_and_goes_on(vcpu: FakeVcpu, host: FakeHost) -> None:
    vcpu.domain.max_pages = 10_000
    count = 2 * PREEMPT_AFTER + 7
    request, frames = reservation(vcpu, list(range(count)))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_populate_physmap, request) == count
    assert vcpu.continuations == 2
    got = vcpu.numbers(frames, count)
    assert [host.m2p(mfn) for mfn in got] == list(range(count))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_decrease_reservation, request) == count
    assert all(host.frames[mfn].refs == 0 for mfn in got)


def test_a_call_ends_when_its_time_is_over(vcpu: FakeVcpu, host: FakeHost) -> None:
    """One extent each time: what it makes of the time that it has is no less."""
    host.is_spent = True
    mfns = vcpu.domain.mfns[:4]
    request, _ = reservation(vcpu, mfns)
    assert vcpu.call(MEMORY_OP, abi.XENMEM_decrease_reservation, request) == 4
    assert vcpu.continuations == 3


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*RESERVATIONS, abi.XENMEM_exchange]),
            st.integers(0, 3),
            st.lists(st.integers(0, 40) | st.sampled_from([2**64 - 1, 2047, 2048]), max_size=5),
        ),
        max_size=12,
    )
)
def test_frames_are_counted_right_whatever_is_asked(calls: list[tuple[int, int, list[int]]]) -> None:
    host = FakeHost()
    other, domain = FakeDomain(host, 7, pages=4), FakeDomain(host, 3, pages=16)
    vcpu = domain.vcpus[0]
    for operation, order, frames in calls:
        request, _ = reservation(vcpu, frames, order=order)
        if operation == abi.XENMEM_exchange:
            raw = vcpu.copy_from_guest(request, ctypes.sizeof(XenMemoryReservation))
            request = vcpu.put(raw * 2 + bytes(8))
        vcpu.call(MEMORY_OP, operation, request)
        owned = [frame for frame in host.frames if frame.owner == 3 and not frame.flags & XEN]
        assert domain.tot_pages == len(owned) <= domain.max_pages
        assert all(frame.refs == 1 and frame.flags == ALLOCATED for frame in owned)
        assert other.tot_pages == 4


# --- sizes and maps -----------------------------------------------------------------------------------------------


def test_sizes(vcpu: FakeVcpu, host: FakeHost) -> None:
    domain = vcpu.domain
    me = vcpu.put(XenMemoryDomain(SELF))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_current_reservation, me) == domain.tot_pages
    assert vcpu.call(MEMORY_OP, abi.XENMEM_maximum_reservation, me) == domain.max_pages
    assert vcpu.call(MEMORY_OP, abi.XENMEM_maximum_ram_page, BAD) == host.nr_frames


@pytest.mark.parametrize(("max_pfn", "highest"), [(0, 0), (1, 0), (64, 63), (2**64 - 1, -2)])
def test_the_highest_frame_is_what_the_guest_says(vcpu: FakeVcpu, max_pfn: int, highest: int) -> None:
    offset = SharedInfo.arch.offset + ArchSharedInfo.max_pfn.offset
    address = (vcpu.domain.shared_info_mfn << 12) + offset
    vcpu.domain.host.memory.write(address, max_pfn.to_bytes(8, "little"))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_maximum_gpfn, vcpu.put(XenMemoryDomain(SELF))) == highest


@pytest.mark.parametrize(
    "operation", [abi.XENMEM_current_reservation, abi.XENMEM_maximum_reservation, abi.XENMEM_maximum_gpfn]
)
@pytest.mark.parametrize(("domid", "errno"), [(99, ESRCH), (7, EPERM)])
def test_sizes_of_others(vcpu: FakeVcpu, operation: int, domid: int, errno: int) -> None:
    assert vcpu.call(MEMORY_OP, operation, vcpu.put(XenMemoryDomain(domid))) == -errno
    assert vcpu.call(MEMORY_OP, operation, BAD) == -EFAULT


def test_the_machine_to_phys_table_is_where_it_always_is(vcpu: FakeVcpu) -> None:
    where = vcpu.put(XenMachphysMapping())
    assert vcpu.call(MEMORY_OP, abi.XENMEM_machphys_mapping, where) == 0
    mapping = vcpu.read_struct(where, XenMachphysMapping)
    assert (mapping.v_start, mapping.v_end) == (0xFFFF_8000_0000_0000, 0xFFFF_8040_0000_0000)
    assert mapping.v_start + 8 * (mapping.max_mfn + 1) == mapping.v_end


@pytest.mark.parametrize(("room", "frames", "got"), [(9, 2048, 1), (0, 2048, 0), (9, 512 * 512 * 2 + 1, 3)])
def test_the_tables_frames(vcpu: FakeVcpu, room: int, frames: int, got: int) -> None:
    vcpu.domain.host.nr_frames = frames
    mfns = vcpu.frame_list(0, 0, 0, 0)
    request = vcpu.put(XenMachphysMfnList(room, mfns, 77))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_machphys_mfn_list, request) == 0
    assert vcpu.read_struct(request, XenMachphysMfnList).nr_extents == got
    first = vcpu.domain.host.m2p_mfn
    assert vcpu.numbers(mfns, 4) == [first + 512 * n for n in range(got)] + [0] * (4 - got)


def test_a_memory_map_is_what_was_set(vcpu: FakeVcpu) -> None:
    buffer = vcpu.map()
    request = vcpu.put(XenMemoryMap(8, buffer))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_memory_map, request) == -ENOSYS
    entries = vcpu.put(struct.pack("<QQI", 0, 0x100000, 1) + struct.pack("<QQI", 1 << 32, 4096, 2))
    given = vcpu.put(XenForeignMemoryMap(SELF, XenMemoryMap(2, entries)))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_set_memory_map, given) == 0
    assert vcpu.domain.state.memory_map == [MemoryRange(0, 0x100000, 1), MemoryRange(1 << 32, 4096, 2)]
    assert vcpu.call(MEMORY_OP, abi.XENMEM_memory_map, request) == 0
    assert vcpu.read_struct(request, XenMemoryMap).nr_entries == 2
    assert vcpu.copy_from_guest(buffer, 40) == vcpu.copy_from_guest(entries, 40)
    request = vcpu.put(XenMemoryMap(1, buffer))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_memory_map, request) == 0
    assert vcpu.read_struct(request, XenMemoryMap).nr_entries == 1
    assert vcpu.call(MEMORY_OP, abi.XENMEM_memory_map, vcpu.put(XenMemoryMap(1, BAD))) == -EFAULT


@pytest.mark.parametrize(
    ("domid", "count", "errno"), [(SELF, 1025, EINVAL), (99, 1, ESRCH), (7, 1, EPERM), (SELF, 1, EFAULT)]
)
def test_memory_maps_that_are_not_taken(vcpu: FakeVcpu, domid: int, count: int, errno: int) -> None:
    request = vcpu.put(XenForeignMemoryMap(domid, XenMemoryMap(count, BAD)))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_set_memory_map, request) == -errno
    assert vcpu.domain.state.memory_map == []


# --- refusals -----------------------------------------------------------------------------------------------------

# What real Xen 4.17.7 answers an unprivileged guest that passes a pointer to nothing.
REAL_XEN = {
    **dict.fromkeys((0, 1, 6, 18, 19), 0),
    **dict.fromkeys((3, 4, 5, 7, 9, 11, 12, 13, 14, 15, 16, 17, 21, 23, 24, 26, 27, 28), -EFAULT),
    **dict.fromkeys((8, 20, 22, 29, 30, 31, 63), -ENOSYS),
    10: -EPERM,
    25: -EOPNOTSUPP,
}


@pytest.mark.parametrize("operation", sorted(REAL_XEN))
def test_every_operation_answers_as_real_xen(vcpu: FakeVcpu, operation: int) -> None:
    assert vcpu.call(MEMORY_OP, operation, BAD) == REAL_XEN[operation]


@pytest.mark.parametrize("operation", sorted(set(REAL_XEN) | {2}))
def test_only_some_operations_can_go_on(vcpu: FakeVcpu, operation: int) -> None:
    answers = {
        **dict.fromkeys((0, 1, 6), 1),
        **dict.fromkeys((7, 21, 23, 28), -EFAULT),
        **dict.fromkeys((2, 3, 4, 11, 14, 15, 24, 26, 27), -EINVAL),
    }
    assert vcpu.call(MEMORY_OP, operation | 1 << 6, BAD) == answers.get(operation, -ENOSYS)


Request = Callable[[int], ctypes.Structure]


@pytest.mark.parametrize(
    ("operation", "request_for", "answers"),
    [
        (abi.XENMEM_add_to_physmap, lambda domid: XenAddToPhysmap(domid), (EACCES, EACCES, ESRCH)),
        (abi.XENMEM_add_to_physmap, lambda domid: XenAddToPhysmap(domid, space=4), (ENOSYS, ENOSYS, ENOSYS)),
        (abi.XENMEM_add_to_physmap_batch, lambda domid: XenAddToPhysmapBatch(domid), (EACCES, EACCES, ESRCH)),
        (abi.XENMEM_add_to_physmap_batch, lambda domid: XenAddToPhysmapBatch(domid, 3), (EOPNOTSUPP,) * 3),
        (abi.XENMEM_remove_from_physmap, lambda domid: XenRemoveFromPhysmap(domid), (EACCES, EACCES, ESRCH)),
        (abi.XENMEM_set_pod_target, lambda domid: XenPodTarget(domid=domid), (EPERM, EPERM, ESRCH)),
        (abi.XENMEM_get_pod_target, lambda domid: XenPodTarget(domid=domid), (EPERM, EPERM, ESRCH)),
        (abi.XENMEM_access_op, lambda domid: XenMemAccessOp(domid=domid), (ESRCH, EINVAL, ESRCH)),
        (abi.XENMEM_claim_pages, lambda domid: XenMemoryReservation(domid=domid), (EINVAL, EPERM, EINVAL)),
        (abi.XENMEM_claim_pages, lambda domid: XenMemoryReservation(8, domid=domid), (EINVAL,) * 3),
        (abi.XENMEM_claim_pages, lambda domid: XenMemoryReservation(0, 1, 1, domid=domid), (EINVAL,) * 3),
        (abi.XENMEM_claim_pages, lambda domid: XenMemoryReservation(0, 1, 0, 1, domid), (EINVAL,) * 3),
        (abi.XENMEM_get_vnumainfo, lambda domid: XenVnumaTopologyInfo(domid), (EOPNOTSUPP, EPERM, ESRCH)),
        (abi.XENMEM_get_vnumainfo, lambda domid: XenVnumaTopologyInfo(domid, 1), (EINVAL,) * 3),
        (abi.XENMEM_acquire_resource, lambda domid: XenMemAcquireResource(domid), (ESRCH, EPERM, ESRCH)),
        (abi.XENMEM_acquire_resource, lambda domid: XenMemAcquireResource(domid, pad=1), (EINVAL,) * 3),
    ],
)
def test_refusals_by_domain(
    vcpu: FakeVcpu, operation: int, request_for: Request, answers: tuple[int, int, int]
) -> None:
    for domid, errno in zip((SELF, 7, 99), answers, strict=True):
        assert vcpu.call(MEMORY_OP, operation, vcpu.put(request_for(domid))) == -errno


def test_ones_own_number_is_not_a_remote_domain(vcpu: FakeVcpu) -> None:
    assert vcpu.call(MEMORY_OP, abi.XENMEM_access_op, vcpu.put(XenMemAccessOp(domid=3))) == -EPERM
    assert vcpu.call(MEMORY_OP, abi.XENMEM_acquire_resource, vcpu.put(XenMemAcquireResource(3))) == -EPERM


@pytest.mark.parametrize("operation", [abi.XENMEM_add_to_physmap, abi.XENMEM_add_to_physmap_batch])
def test_a_batch_has_at_most_65535_entries(vcpu: FakeVcpu, operation: int) -> None:
    assert vcpu.call(MEMORY_OP, operation | 0xFFFF << 6, BAD) == -EFAULT
    assert vcpu.call(MEMORY_OP, operation | 0x10000 << 6, BAD) == -EDOM


def test_no_memory_is_reserved_for_devices(vcpu: FakeVcpu) -> None:
    request = vcpu.put(XenReservedDeviceMemoryMap(abi.XENMEM_RDM_ALL, 5, BAD))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_reserved_device_memory_map, request) == 0
    assert vcpu.read_struct(request, XenReservedDeviceMemoryMap).nr_entries == 0
    request = vcpu.put(XenReservedDeviceMemoryMap(2, 5, BAD))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_reserved_device_memory_map, request) == -EINVAL
    request = vcpu.put(XenReservedDeviceMemoryMap(0, 5, HYPERVISOR_RANGE))
    assert vcpu.call(MEMORY_OP, abi.XENMEM_reserved_device_memory_map, request) == -EFAULT
