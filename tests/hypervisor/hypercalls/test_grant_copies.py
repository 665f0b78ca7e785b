"""grant_table_op: copies."""

from __future__ import annotations

import pytest

from paravirt.abi import grant_table as abi
from paravirt.abi.grant_table import (
    GnttabCopy,
    GrantEntryV1,
    GrantEntryV2,
)

from .fakes import L1, SELF, FakeDomain, FakeHost, FakeVcpu, nothing_kept
from .grants import grant, op, set_version, setup

PAGE = bytes(n % 251 for n in range(4096))


@pytest.fixture
def pages(vcpu: FakeVcpu, host: FakeHost) -> tuple[int, int]:
    """Two frames of the caller's: the first is filled."""
    source, dest = vcpu.domain.mfns[:2]
    host.memory.write(source << 12, PAGE)
    return source, dest


End = tuple[int, int, int]  # reference or frame, domain, offset


def copy(vcpu: FakeVcpu, source: End, dest: End, length: int, flags: int = 0) -> int:
    request = GnttabCopy(len=length, flags=flags, status=99)
    for side, (what, domid, offset) in ((request.source, source), (request.dest, dest)):
        side.u.gmfn, side.domid, side.offset = what, domid, offset
    with nothing_kept(vcpu.domain.host):
        (answer,) = op(vcpu, abi.GNTTABOP_copy, request)
    return int(answer.status)


def test_a_frame_to_a_frame(vcpu: FakeVcpu, host: FakeHost, pages: tuple[int, int]) -> None:
    source, dest = pages
    assert copy(vcpu, (source, SELF, 16), (dest, SELF, 100), 50) == 0
    assert host.memory.read((dest << 12) + 100, 50) == PAGE[16:66]
    assert host.memory.read(dest << 12, 100) == bytes(100)
    assert host.memory.read((dest << 12) + 150, 100) == bytes(100)
    assert copy(vcpu, (source, SELF, 0), (dest, SELF, 0), 4096) == 0
    assert host.memory.read(dest << 12, 4096) == PAGE


@pytest.mark.parametrize(
    ("source_offset", "dest_offset", "length", "status"),
    [
        (0, 4090, 10, abi.GNTST_bad_copy_arg),
        (4090, 0, 10, abi.GNTST_bad_copy_arg),
        (0, 4096, 0, abi.GNTST_okay),
        (0, 0, 0, abi.GNTST_okay),
        (0, 0, 4097, abi.GNTST_bad_copy_arg),
        (0xFFFF, 0, 0xFFFF, abi.GNTST_bad_copy_arg),
    ],
)
def test_copies_stay_within_their_pages(
    vcpu: FakeVcpu, pages: tuple[int, int], source_offset: int, dest_offset: int, length: int, status: int
) -> None:
    assert copy(vcpu, (pages[0], SELF, source_offset), (pages[1], SELF, dest_offset), length) == status


def test_frames_that_cannot_be_copied(
    vcpu: FakeVcpu, host: FakeHost, other: FakeDomain, pages: tuple[int, int]
) -> None:
    source, dest = (pages[0], SELF, 0), (pages[1], SELF, 0)
    for none in (10**9, 0, 2**64 - 1, other.mfns[0]):
        assert copy(vcpu, (none, SELF, 0), dest, 8) == abi.GNTST_bad_page
        assert copy(vcpu, source, (none, SELF, 0), 8) == abi.GNTST_bad_page
    for domid in (7, 3, 99):  # by frame number, for nobody but oneself, and that by the name of self
        assert copy(vcpu, (other.mfns[0], domid, 0), dest, 8) == abi.GNTST_permission_denied
        assert copy(vcpu, source, (other.mfns[0], domid, 0), 8) == abi.GNTST_permission_denied
    host.get_page_and_type(pages[1], 3, L1)
    assert copy(vcpu, source, dest, 8) == abi.GNTST_general_error
    assert copy(vcpu, dest, source, 8) == abi.GNTST_okay


FROM, TO = abi.GNTCOPY_source_gref, abi.GNTCOPY_dest_gref


def test_grants_of_another_domain(vcpu: FakeVcpu, host: FakeHost, other: FakeDomain, pages: tuple[int, int]) -> None:
    theirs = other.mfns[2]
    grant(other, 9, GrantEntryV1(abi.GTF_permit_access, 3, theirs))
    grant(other, 10, GrantEntryV1(abi.GTF_permit_access | abi.GTF_readonly, 3, theirs))
    assert copy(vcpu, (pages[0], SELF, 5), (9, 7, 6), 7, TO) == 0
    assert host.memory.read(theirs << 12, 20) == bytes(6) + PAGE[5:12] + bytes(7)
    assert copy(vcpu, (10, 7, 6), (pages[1], SELF, 0), 7, FROM) == 0
    assert host.memory.read(pages[1] << 12, 7) == PAGE[5:12]
    assert copy(vcpu, (10, 7, 0), (9, 7, 100), 50, FROM | TO) == 0
    assert copy(vcpu, (pages[0], SELF, 0), (10, 7, 0), 7, TO) == abi.GNTST_general_error
    # The grants are as they were: no flag of a use remains.
    assert host.memory.read((setup(other.vcpus[0], 1)[1][0] << 12) + 72, 2) == b"\x01\x00"


@pytest.mark.parametrize(
    ("ref", "domid", "status"),
    [
        (9, 99, abi.GNTST_bad_domain),
        (512, 7, abi.GNTST_bad_gntref),
        (2**32 - 1, 7, abi.GNTST_bad_gntref),
        (20, 7, abi.GNTST_general_error),  # empty
        (21, 7, abi.GNTST_general_error),  # for another domain
        (22, 7, abi.GNTST_general_error),  # a transfer
        (23, 7, abi.GNTST_bad_page),  # of a frame that the granter has not
        (24, 7, abi.GNTST_bad_page),  # of no frame
        (25, 7, abi.GNTST_general_error),  # transitive, in version 1
    ],
)
def test_grants_that_grant_nothing(
    vcpu: FakeVcpu, other: FakeDomain, pages: tuple[int, int], ref: int, domid: int, status: int
) -> None:
    access = abi.GTF_permit_access
    grant(other, 21, GrantEntryV1(access, 4, other.mfns[0]))
    grant(other, 22, GrantEntryV1(abi.GTF_accept_transfer, 3, other.mfns[0]))
    grant(other, 23, GrantEntryV1(access, 3, pages[0]))
    grant(other, 24, GrantEntryV1(access, 3, 0xFFFF_FFFF))
    grant(other, 25, GrantEntryV1(abi.GTF_transitive, 3, other.mfns[0]))
    assert copy(vcpu, (ref, domid, 0), (pages[1], SELF, 0), 4, FROM) == status
    assert copy(vcpu, (pages[0], SELF, 0), (ref, domid, 0), 4, TO) == status


def test_a_part_of_a_page(vcpu: FakeVcpu, other: FakeDomain, pages: tuple[int, int]) -> None:
    set_version(other.vcpus[0], 2)
    entry = GrantEntryV2()
    entry.sub_page.hdr.flags, entry.sub_page.hdr.domid = abi.GTF_permit_access | abi.GTF_sub_page, 3
    entry.sub_page.page_off, entry.sub_page.length, entry.sub_page.frame = 100, 50, other.mfns[0]
    grant(other, 9, entry)
    cases = ((100, 50, 0), (120, 30, 0), (99, 1, -1), (100, 51, -1), (150, 1, -1), (4090, 9, -10))
    for offset, length, status in cases:
        assert copy(vcpu, (9, 7, offset), (pages[1], SELF, 0), length, FROM) == status


def transitive(domain: FakeDomain, ref: int, user: int, behind: int, behind_ref: int) -> None:
    entry = GrantEntryV2()
    entry.transitive.hdr.flags, entry.transitive.hdr.domid = abi.GTF_transitive, user
    entry.transitive.trans_domid, entry.transitive.gref = behind, behind_ref
    grant(domain, ref, entry)


def test_a_grant_of_a_grant(vcpu: FakeVcpu, host: FakeHost, other: FakeDomain, pages: tuple[int, int]) -> None:
    third = FakeDomain(host, 8, pages=4)
    host.memory.write(third.mfns[0] << 12, b"third domain")
    grant(third, 5, GrantEntryV1(abi.GTF_permit_access | abi.GTF_readonly, 7, third.mfns[0]))
    set_version(other.vcpus[0], 2)
    transitive(other, 9, 3, 8, 5)
    dest = (pages[1], SELF, 0)
    assert copy(vcpu, (9, 7, 0), dest, 12, FROM) == 0
    assert host.memory.read(pages[1] << 12, 12) == b"third domain"
    assert copy(vcpu, (pages[0], SELF, 0), (9, 7, 0), 12, TO) == abi.GNTST_general_error  # read-only behind it
    transitive(other, 10, 3, 8, 6)
    transitive(other, 11, 3, 99, 5)
    transitive(other, 12, 3, 7, 9)
    for ref in (10, 11, 12):  # no such grant; no such domain; itself
        assert copy(vcpu, (ref, 7, 0), dest, 12, FROM) == abi.GNTST_general_error


def test_a_grant_of_a_grant_of_a_grant_is_none(
    vcpu: FakeVcpu, host: FakeHost, other: FakeDomain, pages: tuple[int, int]
) -> None:
    third = FakeDomain(host, 8, pages=4)
    set_version(third.vcpus[0], 2)
    set_version(other.vcpus[0], 2)
    transitive(third, 5, 7, 3, 1)
    transitive(other, 9, 3, 8, 5)
    assert copy(vcpu, (9, 7, 0), (pages[1], SELF, 0), 12, FROM) == abi.GNTST_general_error
