"""grant_table_op: set-up, versions, swaps, mappings, transfers, and requests that come as lists."""

from __future__ import annotations

import ctypes

import pytest

from paravirt.abi import grant_table as abi
from paravirt.abi.errno import EBUSY, EFAULT, EINVAL, ENOMEM, ENOSYS, EOPNOTSUPP, EPERM, ERANGE, ESRCH
from paravirt.abi.grant_table import (
    GnttabCacheFlush,
    GnttabMapGrantRef,
    GnttabSetupTable,
    GnttabSwapGrantRef,
    GnttabTransfer,
    GnttabUnmapGrantRef,
    GrantEntryV1,
    GrantEntryV2,
)
from paravirt.hypervisor.hypercalls.grant_table import BATCH

from .fakes import BAD, FREE, SELF, FakeDomain, FakeFrame, FakeHost, FakeVcpu, nothing_kept
from .grants import (
    GRANT_TABLE_OP,
    HYPERVISOR_RANGE,
    MAX_FRAMES,
    get_version,
    grant,
    op,
    query,
    set_version,
    setup,
    status_frames,
)

# --- set-up -------------------------------------------------------------------------------------------------------


def test_a_table_begins_with_one_frame_and_grows(vcpu: FakeVcpu, host: FakeHost) -> None:
    assert query(vcpu) == (0, 1, MAX_FRAMES)
    assert setup(vcpu, 0) == (0, [])
    _, first = setup(vcpu, 1)
    status, three = setup(vcpu, 3)
    assert (status, len(set(three))) == (0, 3)
    assert three[:1] == first
    assert all(host.frames[mfn].owner == 3 for mfn in three)
    assert query(vcpu) == (0, 3, MAX_FRAMES)
    assert setup(vcpu, 2) == (0, three[:2])
    assert query(vcpu) == (0, 3, MAX_FRAMES)


def test_the_frames_are_not_the_domains_memory(vcpu: FakeVcpu) -> None:
    before = vcpu.domain.tot_pages
    setup(vcpu, 10)
    assert vcpu.domain.tot_pages == before


def test_a_table_has_a_limit(vcpu: FakeVcpu) -> None:
    assert setup(vcpu, MAX_FRAMES + 1) == (abi.GNTST_general_error, [])
    assert query(vcpu)[1] == 1
    assert len(setup(vcpu, MAX_FRAMES)[1]) == MAX_FRAMES
    assert setup(vcpu, 0xFFFF_FFFF)[0] == abi.GNTST_general_error


@pytest.mark.parametrize(
    ("domid", "status"), [(99, abi.GNTST_bad_domain), (7, abi.GNTST_permission_denied), (3, abi.GNTST_okay)]
)
def test_tables_of_others(vcpu: FakeVcpu, domid: int, status: int) -> None:
    assert setup(vcpu, 1, domid)[0] == status
    assert query(vcpu, domid)[0] == status
    set_version(vcpu, 2)
    assert status_frames(vcpu, 1, domid)[0] == status


def test_a_privileged_domain_sets_up_anothers_table(host: FakeHost, other: FakeDomain) -> None:
    zero = FakeDomain(host, 0, pages=1, is_privileged=True)
    status, frames = setup(zero.vcpus[0], 2, 7)
    assert status == 0
    assert frames == setup(other.vcpus[0], 2)[1]


def test_a_list_that_cannot_be_written(vcpu: FakeVcpu) -> None:
    assert setup(vcpu, 1, frame_list=BAD)[0] == abi.GNTST_bad_virt_addr
    assert setup(vcpu, 0, frame_list=BAD)[0] == abi.GNTST_okay
    end = vcpu.put(bytes(8), at_end=True)
    assert setup(vcpu, 3, frame_list=end)[0] == abi.GNTST_bad_virt_addr
    assert vcpu.numbers(end, 1) == setup(vcpu, 1)[1]
    request = vcpu.put(GnttabSetupTable(SELF, 1, 0, HYPERVISOR_RANGE))
    assert vcpu.call(GRANT_TABLE_OP, abi.GNTTABOP_setup_table, request, 1) == -EFAULT


def fill(host: FakeHost, leave: int = 0) -> None:
    """Take all free frames but some."""
    free = [mfn for mfn, frame in enumerate(host.frames) if frame.owner == FREE and mfn < host.m2p_mfn]
    for mfn in free[leave:]:
        host.frames[mfn] = FakeFrame(7, refs=1)


def test_a_machine_without_memory(vcpu: FakeVcpu, host: FakeHost) -> None:
    setup(vcpu, 1)
    fill(host, leave=2)
    assert setup(vcpu, 4) == (abi.GNTST_general_error, [])
    assert query(vcpu)[1] == 1
    assert setup(vcpu, 3)[0] == abi.GNTST_okay  # what was found for the other call is not lost
    assert set_version(vcpu, 2) == (-ENOMEM, 1)


def test_a_table_for_which_there_never_was_a_frame(vcpu: FakeVcpu, host: FakeHost) -> None:
    fill(host)
    assert query(vcpu)[0] == abi.GNTST_general_error
    assert get_version(vcpu)[0] == -ENOMEM


# --- versions -----------------------------------------------------------------------------------------------------


def test_version_2_has_status_frames(vcpu: FakeVcpu, host: FakeHost) -> None:
    assert get_version(vcpu) == (0, 1)
    assert status_frames(vcpu, 1) == (abi.GNTST_general_error, [])
    assert set_version(vcpu, 2) == (0, 2)
    assert get_version(vcpu) == (0, 2)
    assert status_frames(vcpu, 0) == (0, [])
    status, frames = status_frames(vcpu, 1)
    assert (status, len(frames)) == (0, 1)
    assert host.memory.read(frames[0] << 12, 4096) == bytes(4096)
    assert status_frames(vcpu, 2)[0] == abi.GNTST_general_error
    setup(vcpu, 9)  # one status frame serves eight frames of entries
    assert len(status_frames(vcpu, 2)[1]) == 2
    assert len(set(status_frames(vcpu, 2)[1]) | set(setup(vcpu, 9)[1])) == 11


@pytest.mark.parametrize("version", [0, 3, 0xFFFF_FFFF])
def test_versions_that_are_none(vcpu: FakeVcpu, version: int) -> None:
    assert set_version(vcpu, version) == (-EINVAL, 1)


@pytest.mark.parametrize(("domid", "errno"), [(99, ESRCH), (7, EPERM)])
def test_the_version_of_others(vcpu: FakeVcpu, domid: int, errno: int) -> None:
    assert get_version(vcpu, domid)[0] == -errno


def test_changing_the_version_keeps_the_toolstacks_entries(vcpu: FakeVcpu, host: FakeHost) -> None:
    reserved = GrantEntryV1(abi.GTF_permit_access | abi.GTF_reading, 5, 1234)
    grant(vcpu.domain, 1, reserved)
    grant(vcpu.domain, 8, GrantEntryV1(abi.GTF_permit_access, 5, 99))
    set_version(vcpu, 2)
    shared, status = setup(vcpu, 1)[1][0] << 12, status_frames(vcpu, 1)[1][0] << 12
    wide = GrantEntryV2.from_buffer_copy(host.memory.read(shared + 16, 16))
    assert (wide.hdr.flags, wide.hdr.domid, wide.full_page.frame) == (abi.GTF_permit_access, 5, 1234)
    assert host.memory.read(status + 2, 2) == abi.GTF_reading.to_bytes(2, "little")
    assert host.memory.read(shared + 8 * 16, 4096 - 8 * 16) == bytes(4096 - 8 * 16)
    set_version(vcpu, 1)
    assert host.memory.read(shared + 8, 8) == bytes(reserved)
    assert host.memory.read(shared + 16, 4080) == bytes(4080)


@pytest.mark.parametrize("kind", ["transitive", "wide"])
def test_entries_that_version_1_cannot_say(vcpu: FakeVcpu, kind: str) -> None:
    set_version(vcpu, 2)
    entry = GrantEntryV2()
    if kind == "transitive":
        entry.transitive.hdr.flags = abi.GTF_transitive
    else:
        entry.full_page.hdr.flags = abi.GTF_permit_access
        entry.full_page.frame = 1 << 32
    grant(vcpu.domain, 7, entry)
    assert set_version(vcpu, 1) == (-ERANGE, 2)
    grant(vcpu.domain, 7, GrantEntryV2())
    grant(vcpu.domain, 8, entry)  # not the toolstack's: it goes
    assert set_version(vcpu, 1) == (0, 1)


def test_odd_reserved_entries_go_with_version_2(vcpu: FakeVcpu, host: FakeHost) -> None:
    set_version(vcpu, 2)
    entry = GrantEntryV2()
    entry.hdr.flags, entry.hdr.domid = abi.GTF_accept_transfer, 9
    grant(vcpu.domain, 2, entry)
    assert set_version(vcpu, 1) == (0, 1)
    assert host.memory.read(setup(vcpu, 1)[1][0] << 12, 4096) == bytes(4096)


def test_mapped_status_frames_hold_the_version(vcpu: FakeVcpu, host: FakeHost) -> None:
    set_version(vcpu, 2)
    mfn = status_frames(vcpu, 1)[1][0]
    host.get_page_and_type(mfn, 3, 7)
    assert set_version(vcpu, 1) == (-EBUSY, 2)
    host.put_page_and_type(mfn)
    assert set_version(vcpu, 1) == (0, 1)


def test_going_back_and_forth_takes_no_more_frames(vcpu: FakeVcpu, host: FakeHost) -> None:
    set_version(vcpu, 2)
    set_version(vcpu, 1)
    with nothing_kept(host):
        for version in (2, 1, 2, 2, 1):
            assert set_version(vcpu, version) == (0, version)


# --- the others ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_entries_change_places(vcpu: FakeVcpu, host: FakeHost, version: int) -> None:
    set_version(vcpu, version)
    entry: GrantEntryV1 | GrantEntryV2 = GrantEntryV1(1, 2, 3)
    if version == 2:
        entry = GrantEntryV2()
        entry.hdr.flags, entry.hdr.domid = 1, 2
    grant(vcpu.domain, 20, entry)
    if version == 2:
        host.memory.write((status_frames(vcpu, 1)[1][0] << 12) + 40, b"\x08\x00")
    (answer,) = op(vcpu, abi.GNTTABOP_swap_grant_ref, GnttabSwapGrantRef(20, 30, 99))
    size, table = ctypes.sizeof(entry), setup(vcpu, 1)[1][0] << 12
    assert answer.status == 0
    assert host.memory.read(table + 20 * size, size) == bytes(size)
    assert host.memory.read(table + 30 * size, size) == bytes(entry)
    if version == 2:
        assert host.memory.read((status_frames(vcpu, 1)[1][0] << 12) + 60, 2) == b"\x08\x00"


@pytest.mark.parametrize(
    ("one", "other_ref", "status"),
    [(20, 20, 0), (512, 20, abi.GNTST_bad_gntref), (20, 512, abi.GNTST_bad_gntref), (511, 0, 0)],
)
def test_swaps_and_the_tables_end(vcpu: FakeVcpu, one: int, other_ref: int, status: int) -> None:
    (answer,) = op(vcpu, abi.GNTTABOP_swap_grant_ref, GnttabSwapGrantRef(one, other_ref, 99))
    assert answer.status == status


DEVICE = abi.GNTMAP_device_map
DEVICE_READ = abi.GNTMAP_device_map | abi.GNTMAP_readonly


def grant_map(vcpu: FakeVcpu, ref: int, flags: int = DEVICE, domid: int = 7) -> GnttabMapGrantRef:
    """Map for a device, which needs no page table; what a processor maps is tested on a whole machine."""
    (answer,) = op(vcpu, abi.GNTTABOP_map_grant_ref, GnttabMapGrantRef(0, flags, ref, domid, 99, 42))
    assert isinstance(answer, GnttabMapGrantRef)
    return answer


def grant_unmap(vcpu: FakeVcpu, handle: int, bus_address: int) -> int:
    (answer,) = op(vcpu, abi.GNTTABOP_unmap_grant_ref, GnttabUnmapGrantRef(0, bus_address, handle, 99))
    return int(answer.status)


def flags_of(domain: FakeDomain, ref: int) -> int:
    _, shared = setup(domain.vcpus[0], 1)
    return int.from_bytes(domain.host.memory.read((shared[0] << 12) + 8 * ref, 2), "little")


@pytest.mark.parametrize(
    ("flags", "domid", "ref", "status"),
    [
        (DEVICE, 7, 9, abi.GNTST_general_error),
        (DEVICE, 7, 512, abi.GNTST_bad_gntref),
        (DEVICE, 99, 9, abi.GNTST_bad_domain),
        (DEVICE, SELF, 9, abi.GNTST_bad_domain),
        (abi.GNTMAP_readonly, 7, 9, abi.GNTST_bad_gntref),
    ],
)
def test_what_cannot_be_mapped(
    vcpu: FakeVcpu, other: FakeDomain, flags: int, domid: int, ref: int, status: int
) -> None:
    setup(other.vcpus[0], 1)
    with nothing_kept(vcpu.domain.host):
        answer = grant_map(vcpu, ref, flags, domid)
    assert (answer.status, answer.handle) == (status, 42)


def test_a_domain_that_ends_and_never_had_a_table_gets_none(
    vcpu: FakeVcpu, other: FakeDomain, host: FakeHost
) -> None:
    other.is_dying = True
    with nothing_kept(host):
        assert grant_map(vcpu, 9).status == abi.GNTST_bad_domain
    assert other.state.grants is None


def test_a_mapping_for_a_device_holds_the_frame(vcpu: FakeVcpu, other: FakeDomain, host: FakeHost) -> None:
    mfn = other.mfns[5]
    grant(other, 9, GrantEntryV1(abi.GTF_permit_access, 3, mfn))
    with nothing_kept(host):
        first, second = grant_map(vcpu, 9, DEVICE_READ), grant_map(vcpu, 9)
        assert (first.status, first.dev_bus_addr, second.status) == (0, mfn << 12, 0)
        assert first.handle != second.handle
        assert (host.frames[mfn].refs, host.frames[mfn].type_refs) == (3, 1)
        assert flags_of(other, 9) == abi.GTF_permit_access | abi.GTF_reading | abi.GTF_writing
        assert grant_unmap(vcpu, second.handle, (mfn + 1) << 12) == abi.GNTST_bad_dev_addr
        assert grant_unmap(vcpu, second.handle, mfn << 12) == 0
        assert flags_of(other, 9) == abi.GTF_permit_access | abi.GTF_reading
        assert grant_unmap(vcpu, first.handle, mfn << 12) == 0
    assert flags_of(other, 9) == abi.GTF_permit_access
    assert grant_unmap(vcpu, first.handle, mfn << 12) == abi.GNTST_bad_handle
    assert vcpu.domain.flushes >= 2


def test_a_use_goes_on_by_what_was_granted_when_it_began(vcpu: FakeVcpu, other: FakeDomain, host: FakeHost) -> None:
    first, second = other.mfns[5:7]
    grant(other, 9, GrantEntryV1(abi.GTF_permit_access, 3, first))
    with nothing_kept(host):
        held = grant_map(vcpu, 9, DEVICE_READ)
        grant(other, 9, GrantEntryV1(abi.GTF_permit_access, 3, second))
        again = grant_map(vcpu, 9, DEVICE_READ)
        assert (again.status, again.dev_bus_addr) == (0, first << 12)
        for answer in (held, again):
            assert grant_unmap(vcpu, answer.handle, first << 12) == 0
        anew = grant_map(vcpu, 9, DEVICE_READ)
        assert anew.dev_bus_addr == second << 12
        assert grant_unmap(vcpu, anew.handle, second << 12) == 0


def test_one_domain_at_a_time_uses_a_grant(vcpu: FakeVcpu, other: FakeDomain, host: FakeHost) -> None:
    third = FakeDomain(host, 4).vcpus[0]
    grant(other, 9, GrantEntryV1(abi.GTF_permit_access, 3, other.mfns[5]))
    assert grant_map(vcpu, 9).status == 0
    grant(other, 9, GrantEntryV1(abi.GTF_permit_access, 4, other.mfns[5]))
    assert grant_map(third, 9).status == abi.GNTST_general_error
    assert grant_map(vcpu, 9).status == 0


def test_handles_run_out(vcpu: FakeVcpu, other: FakeDomain, host: FakeHost) -> None:
    vcpu.domain.state.maptrack.max_frames = 1
    for ref in (8, 9):
        grant(other, ref, GrantEntryV1(abi.GTF_permit_access, 3, other.mfns[5]))
    before = host.references()
    # One handle of the 256 stays in the list for ever.
    handles = [grant_map(vcpu, 8 + n // 128, DEVICE_READ) for n in range(255)]
    assert {answer.status for answer in handles} == {0}
    assert len({answer.handle for answer in handles}) == 255
    full = host.references()
    assert grant_map(vcpu, 9, DEVICE_READ).status == abi.GNTST_no_space
    assert host.references() == full
    assert grant_unmap(vcpu, handles[7].handle, other.mfns[5] << 12) == 0
    freed = grant_map(vcpu, 9, DEVICE_READ)
    assert freed.status == 0
    for answer in [*handles[:7], *handles[8:], freed]:
        assert grant_unmap(vcpu, answer.handle, other.mfns[5] << 12) == 0
    assert host.references() == before


def test_the_version_stays_while_a_grant_is_used(vcpu: FakeVcpu, other: FakeDomain) -> None:
    for ref in (7, 8):
        grant(other, ref, GrantEntryV1(abi.GTF_permit_access, 3, other.mfns[5]))
    reserved, plain = grant_map(vcpu, 7), grant_map(vcpu, 8)
    assert set_version(other.vcpus[0], 2) == (-EBUSY, 1)
    assert grant_unmap(vcpu, plain.handle, other.mfns[5] << 12) == 0
    assert set_version(other.vcpus[0], 2) == (0, 2)
    # The toolstack's entries keep their uses, and the status says so.
    _, status = status_frames(other.vcpus[0], 1)
    read = other.host.memory.read
    assert read((status[0] << 12) + 2 * 7, 2)[0] == abi.GTF_reading | abi.GTF_writing
    assert grant_unmap(vcpu, reserved.handle, other.mfns[5] << 12) == 0
    assert read((status[0] << 12) + 2 * 7, 2)[0] == 0


def test_entries_in_use_are_not_swapped(vcpu: FakeVcpu, other: FakeDomain) -> None:
    grant(other, 8, GrantEntryV1(abi.GTF_permit_access, 3, other.mfns[5]))
    held = grant_map(vcpu, 8)
    for pair in ((8, 9), (9, 8)):
        (answer,) = op(other.vcpus[0], abi.GNTTABOP_swap_grant_ref, GnttabSwapGrantRef(*pair, 99))
        assert answer.status == abi.GNTST_eagain
    assert grant_unmap(vcpu, held.handle, other.mfns[5] << 12) == 0
    (answer,) = op(other.vcpus[0], abi.GNTTABOP_swap_grant_ref, GnttabSwapGrantRef(8, 9, 99))
    assert answer.status == 0


def give(vcpu: FakeVcpu, mfn: int, domid: int, ref: int) -> int:
    (answer,) = op(vcpu, abi.GNTTABOP_transfer, GnttabTransfer(mfn, domid, ref, 99))
    return int(answer.status)


@pytest.mark.parametrize("version", [1, 2])
def test_a_frame_is_transferred_with_its_contents(
    vcpu: FakeVcpu, other: FakeDomain, host: FakeHost, version: int
) -> None:
    mfn, mine, theirs = vcpu.domain.mfns[0], vcpu.domain.tot_pages, other.tot_pages
    host.memory.write(mfn << 12, b"contents")
    set_version(other.vcpus[0], version)
    if version == 1:
        entry: GrantEntryV1 | GrantEntryV2 = GrantEntryV1(abi.GTF_accept_transfer, 3, 77)
    else:
        entry = GrantEntryV2()
        entry.full_page.hdr.flags, entry.full_page.hdr.domid, entry.full_page.frame = abi.GTF_accept_transfer, 3, 77
    grant(other, 9, entry)
    assert give(vcpu, mfn, 7, 9) == 0
    assert host.frames[mfn] == FakeFrame(7, refs=1, flags=1)
    assert (vcpu.domain.tot_pages, other.tot_pages) == (mine - 1, theirs + 1)
    assert host.memory.read(mfn << 12, 8) == b"contents"
    assert host.m2p(mfn) == 77
    _, shared = setup(other.vcpus[0], 1)
    raw = host.memory.read((shared[0] << 12) + 9 * len(bytes(entry)), len(bytes(entry)))
    told = type(entry).from_buffer_copy(raw)
    done = abi.GTF_accept_transfer | abi.GTF_transfer_committed | abi.GTF_transfer_completed
    if isinstance(told, GrantEntryV1):
        assert (told.flags, told.domid, told.frame) == (done, 3, mfn)
    else:
        assert (told.full_page.hdr.flags, told.full_page.hdr.domid, told.full_page.frame) == (done, 3, mfn)
    # The entry has served: it takes no other frame, and what is offered to it is lost.
    second = vcpu.domain.mfns[1]
    assert give(vcpu, second, 7, 9) == abi.GNTST_general_error
    assert host.frames[second].owner == FREE


@pytest.mark.parametrize(
    ("domid", "ref", "status"),
    [
        (99, 9, abi.GNTST_bad_domain),
        (SELF, 9, abi.GNTST_bad_domain),
        (7, 512, abi.GNTST_general_error),
        (7, 10, abi.GNTST_general_error),
    ],
)
def test_a_frame_that_nobody_takes_is_lost(
    vcpu: FakeVcpu, other: FakeDomain, host: FakeHost, domid: int, ref: int, status: int
) -> None:
    mfn, mine, theirs = vcpu.domain.mfns[0], vcpu.domain.tot_pages, other.tot_pages
    grant(other, 10, GrantEntryV1(abi.GTF_accept_transfer, 4, 77))
    assert give(vcpu, mfn, domid, ref) == status
    assert host.frames[mfn].owner == FREE
    assert (vcpu.domain.tot_pages, other.tot_pages) == (mine - 1, theirs)


def test_a_domain_at_its_limit_takes_no_frame(vcpu: FakeVcpu, other: FakeDomain, host: FakeHost) -> None:
    grant(other, 9, GrantEntryV1(abi.GTF_accept_transfer, 3, 77))
    other.max_pages = other.tot_pages
    assert give(vcpu, vcpu.domain.mfns[0], 7, 9) == abi.GNTST_general_error
    assert flags_of(other, 9) == abi.GTF_accept_transfer


def test_frames_that_are_not_transferred(vcpu: FakeVcpu, other: FakeDomain, host: FakeHost) -> None:
    grant(other, 9, GrantEntryV1(abi.GTF_accept_transfer, 3, 77))
    in_use = vcpu.domain.mfns[3]
    host.get_page(in_use, 3)
    with nothing_kept(host):
        for mfn in (in_use, other.mfns[0], 10**9, vcpu.domain.shared_info_mfn):
            assert give(vcpu, mfn, 7, 9) == abi.GNTST_bad_page
    assert flags_of(other, 9) == abi.GTF_accept_transfer


@pytest.mark.parametrize(
    ("operation", "offset", "length", "result"),
    [
        (abi.GNTTAB_CACHE_CLEAN, 0, 4096, 0),
        (abi.GNTTAB_CACHE_CLEAN | abi.GNTTAB_CACHE_INVAL, 16, 4080, 0),
        (abi.GNTTAB_CACHE_INVAL, 0, 16, -EOPNOTSUPP),
        (abi.GNTTAB_CACHE_SOURCE_GREF, 0, 16, -EINVAL),
        (0, 0, 16, 0),
        (4, 0, 16, -EINVAL),
        (4, 0, 0, -EINVAL),
        (abi.GNTTAB_CACHE_CLEAN, 4096, 0, -EINVAL),
        (abi.GNTTAB_CACHE_CLEAN, 1, 4096, -EINVAL),
    ],
)
def test_caches(vcpu: FakeVcpu, operation: int, offset: int, length: int, result: int) -> None:
    request = GnttabCacheFlush(offset=offset, length=length, op=operation)
    request.a.dev_bus_addr = vcpu.domain.mfns[0] << 12
    assert vcpu.call(GRANT_TABLE_OP, abi.GNTTABOP_cache_flush, vcpu.put(request), 1) == result


def test_caches_of_frames_that_are_not_ones_own(vcpu: FakeVcpu, other: FakeDomain, host: FakeHost) -> None:
    for mfn, errno in ((other.mfns[0], EINVAL), (host.nr_frames, EINVAL), (host.m2p_mfn - 1, EPERM)):
        request = GnttabCacheFlush(offset=0, length=16, op=abi.GNTTAB_CACHE_CLEAN)
        request.a.dev_bus_addr = mfn << 12
        assert vcpu.call(GRANT_TABLE_OP, abi.GNTTABOP_cache_flush, vcpu.put(request), 1) == -errno


# --- lists --------------------------------------------------------------------------------------------------------

LISTS = {0: 32, 1: 24, 4: 24, 5: 40, 7: 24, 11: 12}
"""Operations on lists of requests with a status, and a request's size."""


@pytest.mark.parametrize("operation", range(14))
def test_every_operation_answers_as_real_xen(vcpu: FakeVcpu, operation: int) -> None:
    """guests/grants: a bad pointer, no request, a count beyond 2^31."""
    ones = vcpu.put(b"\xff" * 64)
    single = operation in (2, 6, 9)
    none = -EINVAL if single else {3: -ENOSYS, 8: -EINVAL, 10: -ESRCH, 13: -ENOSYS}.get(operation, 0)
    bad = -ENOSYS if operation in (3, 13) else -EFAULT
    assert vcpu.call(GRANT_TABLE_OP, operation, BAD, 1) == bad
    assert vcpu.call(GRANT_TABLE_OP, operation, ones, 0) == none
    assert vcpu.call(GRANT_TABLE_OP, operation, ones, 1 << 31) == -EINVAL
    if single:
        assert vcpu.call(GRANT_TABLE_OP, operation, ones, 2) == -EINVAL
    if operation in LISTS:
        assert vcpu.call(GRANT_TABLE_OP, operation, HYPERVISOR_RANGE, 0) == -EFAULT


def test_upper_bits_are_for_going_on_with_a_flush(vcpu: FakeVcpu) -> None:
    assert vcpu.call(GRANT_TABLE_OP, 1 << 12 | abi.GNTTABOP_copy, BAD, 0) == -EINVAL
    assert vcpu.call(GRANT_TABLE_OP, 1 << 12 | abi.GNTTABOP_cache_flush, BAD, 0) == 0
    assert vcpu.call(GRANT_TABLE_OP, 0xFFFF_FFFF, BAD, 0) == -EINVAL
    assert vcpu.call(GRANT_TABLE_OP, 1 << 32 | 99, BAD, 0) == -ENOSYS


@pytest.mark.parametrize(("operation", "size"), LISTS.items())
def test_requests_before_an_unreadable_one_are_done(vcpu: FakeVcpu, operation: int, size: int) -> None:
    where = vcpu.put(b"\xff" * (3 * size), at_end=True)
    assert vcpu.call(GRANT_TABLE_OP, operation, where, 5) == -EFAULT
    done = [vcpu.copy_from_guest(where + n * size, size) for n in range(3)]
    assert all(request != b"\xff" * size for request in done)


@pytest.mark.parametrize(("operation", "size"), LISTS.items())
def test_long_lists_are_preempted_and_go_on(vcpu: FakeVcpu, operation: int, size: int) -> None:
    count = 2 * BATCH + 1
    where = vcpu.put(b"\xff" * (count * size))
    assert vcpu.call(GRANT_TABLE_OP, operation, where, count) == 0
    assert vcpu.continuations == 2
    for n in range(count):
        assert vcpu.copy_from_guest(where + n * size, size) != b"\xff" * size
