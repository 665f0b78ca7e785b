"""Domain 0's mappings and copies of grants, and what becomes of them when somebody ends."""

from __future__ import annotations

import ctypes
import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import paravirt
from paravirt import Machine
from paravirt.abi import grant_table as abi
from paravirt.domain0.grants import GrantError, Grants
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.audit import require_clean
from paravirt.hypervisor.hypercalls.grant_frames import grants_of
from paravirt.hypervisor.views import Domain

HELLO = Path(paravirt.__file__).parent / "data" / "hello"
REF = 20
READING, WRITING = abi.GTF_reading, abi.GTF_writing


class Granter:
    """A paused domain that grants frames, as its kernel would by writing into its grant table."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.domain = machine.create(kernel=HELLO, memory=8, name=name, paused=True)
        self.view: Domain = machine.host.domains[self.domain.domid]
        self.frames = [int(mfn) for mfn in self.view.p2m[-20:]]  # not part of the kernel's initial mapping of itself

    def grant(self, ref: int, entry: ctypes.Structure | ctypes.Union) -> None:
        with self.machine.host.lock:
            self.machine.memory.write(grants_of(self.view).entry_at(ref), bytes(entry))

    def grant_frame(self, ref: int, mfn: int, flags: int = abi.GTF_permit_access, domid: int = 0) -> None:
        self.grant(ref, abi.GrantEntryV1(flags, domid, mfn))

    def use(self, ref: int) -> int:
        """GTF_reading and GTF_writing, as the guest sees them."""
        with self.machine.host.lock:
            return grants_of(self.view).read_status(ref)

    def counts(self, mfn: int) -> tuple[int, int]:
        """(references, uses as the type that it has)."""
        with self.machine.host.lock:
            _, _, uses, references, _ = self.machine.host.frame_info(mfn)
        return references, uses


def audit(machine: Machine) -> None:
    with machine.host.lock:
        require_clean(machine.host)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=64) as made:
        yield made
        audit(made)


@pytest.fixture
def granter(machine: Machine) -> Granter:
    return Granter(machine, "granter")


def test_a_mapping_is_a_view_with_everything_held(machine: Machine, granter: Granter) -> None:
    mfn = granter.frames[0]
    granter.grant_frame(REF, mfn)
    before = granter.counts(mfn)
    machine.memory.write(mfn * 4096 + 100, b"from the guest")
    with machine.grants.map(granter.domain.domid, REF) as page:
        assert bytes(page.view[100:114]) == b"from the guest"
        assert page.view.readonly
        assert granter.use(REF) == READING | WRITING
        assert granter.counts(mfn) == (before[0] + 1, before[1] + 1)
        audit(machine)
        page.write(200, b"from domain 0")
        with page.writable() as writable:
            writable[300:303] = b"I/O"
        assert page.read(200, 13) == b"from domain 0"
    assert machine.memory.read(mfn * 4096 + 300, 3) == b"I/O"
    assert granter.use(REF) == 0
    assert granter.counts(mfn) == before
    with pytest.raises(ValueError, match="released"):
        page.view[0]
    for use in (lambda: page.read(0, 1), lambda: page.write(0, b"x")):
        with pytest.raises(HypervisorBug):
            use()


def test_a_read_only_mapping_leaves_the_type_free(machine: Machine, granter: Granter) -> None:
    mfn = granter.frames[0]
    granter.grant_frame(REF, mfn, abi.GTF_permit_access | abi.GTF_readonly)
    with pytest.raises(GrantError) as refused:
        machine.grants.map(granter.domain.domid, REF)
    assert refused.value.status == abi.GNTST_general_error
    before = granter.counts(mfn)
    with machine.grants.map(granter.domain.domid, REF, readonly=True) as page:
        assert granter.use(REF) == READING
        assert granter.counts(mfn) == (before[0] + 1, before[1])
        with pytest.raises(HypervisorBug):
            page.write(0, b"x")
        with pytest.raises(HypervisorBug), page.writable():
            pass


def test_bytes_outside_the_frame_are_nobodys(machine: Machine, granter: Granter) -> None:
    granter.grant_frame(REF, granter.frames[0])
    with machine.grants.map(granter.domain.domid, REF) as page:
        assert page.read(4096, 0) == b""
        for offset, length in ((4095, 2), (-1, 1), (0, 4097)):
            with pytest.raises(HypervisorBug):
                page.read(offset, length)


@pytest.mark.parametrize(
    ("ref", "flags", "domid", "status"),
    [
        (REF, abi.GTF_invalid, 0, abi.GNTST_general_error),
        (REF, abi.GTF_permit_access, 7, abi.GNTST_general_error),
        (REF, abi.GTF_accept_transfer, 0, abi.GNTST_general_error),
        (10**6, abi.GTF_permit_access, 0, abi.GNTST_bad_gntref),
    ],
)
def test_what_is_not_granted(
    machine: Machine, granter: Granter, ref: int, flags: int, domid: int, status: int
) -> None:
    granter.grant_frame(REF, granter.frames[0], flags, domid)
    with pytest.raises(GrantError) as refused:
        machine.grants.map(granter.domain.domid, ref)
    assert refused.value.status == status
    assert granter.use(REF) == 0


def test_all_or_none(machine: Machine, granter: Granter) -> None:
    granter.grant_frame(REF, granter.frames[0])
    with pytest.raises(GrantError) as refused:
        machine.grants.map_all(granter.domain.domid, [REF, REF + 1])
    assert refused.value.status == abi.GNTST_general_error
    assert granter.use(REF) == 0
    with pytest.raises(GrantError) as refused:
        machine.grants.map(99, REF)
    assert refused.value.status == abi.GNTST_bad_domain
    granter.grant_frame(REF + 1, granter.frames[1])
    pages = machine.grants.map_all(granter.domain.domid, [REF, REF + 1])
    assert [page.ref for page in pages] == [REF, REF + 1]
    machine.grants.unmap_all(pages)
    machine.grants.unmap_all(pages)
    assert granter.use(REF) == granter.use(REF + 1) == 0


def test_a_page_table_is_not_mapped_writable(machine: Machine, granter: Granter) -> None:
    with machine.host.lock:
        tables = [mfn for mfn in map(int, granter.view.p2m) if machine.host.frame_info(mfn)[1] == 1]
    granter.grant_frame(REF, tables[0])
    with pytest.raises(GrantError):
        machine.grants.map(granter.domain.domid, REF)
    assert granter.use(REF) == 0
    with machine.grants.map(granter.domain.domid, REF, readonly=True) as page:
        assert len(page.view) == 4096


def test_a_view_in_use_keeps_the_mapping(machine: Machine, granter: Granter) -> None:
    granter.grant_frame(REF, granter.frames[0])
    page = machine.grants.map(granter.domain.domid, REF)
    held = pickle.PickleBuffer(page.view)  # as I/O does meanwhile
    with pytest.raises(HypervisorBug):
        page.unmap()
    assert granter.use(REF) == READING | WRITING
    held.release()
    page.unmap()
    assert granter.use(REF) == 0


def test_copies_in_batches(machine: Machine, granter: Granter) -> None:
    one, two = granter.frames[:2]
    granter.grant_frame(REF, one)
    granter.grant_frame(REF + 1, two, abi.GTF_permit_access | abi.GTF_readonly)
    machine.memory.write(two * 4096 + 10, b"0123456789")
    domid = granter.domain.domid
    before = granter.counts(one), granter.counts(two)
    written = machine.grants.copy_to(
        domid, [(REF, 4090, b"sixsix"), (REF, 4090, b"seven77"), (REF + 1, 0, b"x"), (REF + 2, 0, b"x")]
    )
    assert [error and error.status for error in written] == [
        None,
        abi.GNTST_bad_copy_arg,
        abi.GNTST_general_error,
        abi.GNTST_general_error,
    ]
    read = machine.grants.copy_from(domid, [(REF, 4090, 6), (REF + 1, 12, 3), (10**6, 0, 1)])
    assert read[:2] == [b"sixsix", b"234"]
    assert isinstance(read[2], GrantError)
    assert read[2].status == abi.GNTST_bad_gntref
    assert (granter.counts(one), granter.counts(two)) == before
    assert granter.use(REF) == granter.use(REF + 1) == 0


KINDS = (abi.GTF_invalid, abi.GTF_permit_access, abi.GTF_accept_transfer, abi.GTF_transitive)
BITS = (0, abi.GTF_readonly, READING, WRITING, READING | WRITING, abi.GTF_sub_page)


@pytest.mark.parametrize("domid", [0, 7])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_short_way_of_copies_is_the_long_one(
    machine: Machine, granter: Granter, kind: int, bits: int, domid: int
) -> None:
    """Whatever the entry says and whosever the frame is: the same answer, the same bytes, the same entry afterwards."""
    own, table = granter.frames[0], int(granter.view.p2m[0])
    others = Granter(machine, "another").frames[0]
    for mfn, write, (offset, size) in itertools.product(
        (own, table, others, 0, 0xFFFFFFFF), (False, True), ((0, 4096), (100, 5), (4095, 2), (-1, 1), (7, 0))
    ):
        granter.grant_frame(REF, mfn, kind | bits, domid)
        seen = []
        for short in (True, False):
            granter.grant_frame(REF, mfn, kind | bits, domid)
            machine.memory.write(own << 12, b"\1" * 4096)
            with pytest.MonkeyPatch.context() as patch:
                if not short:
                    patch.setattr(Grants, "_plain_entries", lambda self, domid: lambda ref: None)
                (answer,) = (
                    machine.grants.copy_to(granter.domain.domid, [(REF, offset, b"\2" * size)])
                    if write
                    else machine.grants.copy_from(granter.domain.domid, [(REF, offset, size)])
                )
            entry = machine.memory.read(grants_of(granter.view).entry_at(REF), 8)
            outcome = answer.status if isinstance(answer, GrantError) else answer
            seen.append((outcome, entry, machine.memory.read(own << 12, 4096), granter.counts(own)))
        assert seen[0] == seen[1], (mfn, write, offset, size)


def test_a_grant_that_is_mapped_is_copied_too(machine: Machine, granter: Granter) -> None:
    granter.grant_frame(REF, granter.frames[0])
    with machine.grants.map(granter.domain.domid, REF):
        assert machine.grants.copy_to(granter.domain.domid, [(REF, 5, b"copied")]) == [None]
        assert machine.grants.copy_from(granter.domain.domid, [(REF, 5, 6)]) == [b"copied"]
        assert granter.use(REF) == READING | WRITING
    assert granter.use(REF) == 0


def test_parts_of_frames_are_copied_and_not_mapped(machine: Machine, granter: Granter) -> None:
    with machine.host.lock:
        grants_of(granter.view).set_version(2)
    entry = abi.GrantEntryV2()
    entry.sub_page.hdr.flags = abi.GTF_permit_access | abi.GTF_sub_page
    entry.sub_page.page_off, entry.sub_page.length, entry.sub_page.frame = 100, 50, granter.frames[0]
    granter.grant(REF, entry)
    domid = granter.domain.domid
    with pytest.raises(GrantError):
        machine.grants.map(domid, REF)
    inside, across, before = machine.grants.copy_from(domid, [(REF, 100, 50), (REF, 100, 51), (REF, 99, 1)])
    assert inside == bytes(50)
    assert isinstance(across, GrantError)
    assert isinstance(before, GrantError)


def test_a_grant_of_a_third_domains_grant(machine: Machine, granter: Granter) -> None:
    middle = Granter(machine, "middle")
    with machine.host.lock:
        grants_of(middle.view).set_version(2)
    granter.grant_frame(REF, granter.frames[0], domid=middle.domain.domid)
    entry = abi.GrantEntryV2()
    entry.transitive.hdr.flags = abi.GTF_transitive
    entry.transitive.trans_domid, entry.transitive.gref = granter.domain.domid, REF
    middle.grant(REF, entry)
    before = granter.counts(granter.frames[0])
    assert machine.grants.copy_to(middle.domain.domid, [(REF, 8, b"far")]) == [None]
    assert machine.memory.read(granter.frames[0] * 4096 + 8, 3) == b"far"
    assert granter.counts(granter.frames[0]) == before
    assert granter.use(REF) == middle.use(REF) == 0
    with pytest.raises(GrantError):
        machine.grants.map(middle.domain.domid, REF)


def test_a_granter_that_ends_keeps_mapped_frames_until_they_are_unmapped(machine: Machine, granter: Granter) -> None:
    mfn, domid = granter.frames[0], granter.domain.domid
    granter.grant_frame(REF, mfn)
    granter.grant_frame(REF + 1, granter.frames[1])
    with machine.host.lock:
        free = machine.host.free_frames
        held = len(granter.view.p2m)
    page = machine.grants.map(domid, REF)
    page.write(0, b"still here")
    granter.domain.destroy()
    audit(machine)
    assert domid not in machine.host.domains
    assert domid in machine.host.zombies
    with machine.host.lock:
        assert machine.host.frame_info(mfn)[0] == domid
        assert machine.host.free_frames >= free + held - 1
    # Nothing new of it is to be had, and nobody else gets the frame or the number.
    for ref in (REF, REF + 1):
        with pytest.raises(GrantError):
            machine.grants.map(domid, ref + 100)
    with pytest.raises(GrantError):
        machine.grants.map(domid, REF + 1)
    assert isinstance(machine.grants.copy_from(domid, [(REF, 0, 1)])[0], GrantError)
    another = Granter(machine, "another")
    assert another.domain.domid != domid
    assert mfn not in map(int, another.view.p2m)
    assert page.read(0, 10) == b"still here"
    page.unmap()
    assert domid not in machine.host.zombies
    with machine.host.lock:
        assert machine.host.frame_info(mfn)[0] == 0x7FF4
    audit(machine)


def test_a_frame_of_the_grant_table_itself_can_be_granted(machine: Machine, granter: Granter) -> None:
    with machine.host.lock:
        shared = grants_of(granter.view).shared[0]
    granter.grant_frame(REF, shared)
    page = machine.grants.map(granter.domain.domid, REF)
    audit(machine)
    granter.domain.destroy()
    audit(machine)
    page.unmap()
    assert not machine.host.zombies


def test_a_frame_that_was_given_back_while_mapped_is_scrubbed_before_anybody_gets_it(
    machine: Machine, granter: Granter
) -> None:
    mfn = granter.frames[0]
    granter.grant_frame(REF, mfn)
    page = machine.grants.map(granter.domain.domid, REF)
    page.write(0, b"secret")
    with machine.host.lock:
        assert granter.view.release_page(mfn)
        assert machine.host.frame_info(mfn)[0] == granter.domain.domid
    page.unmap()
    with machine.host.lock:
        assert machine.host.frame_info(mfn)[0] == 0x7FF4
        machine.host.domains[granter.domain.domid].max_pages += 10**6
        got = [granter.view.alloc_extent(0)]
        while got[-1] is not None and got[-1] != mfn:
            got.append(granter.view.alloc_extent(0))
    assert got[-1] == mfn
    assert machine.memory.read(mfn * 4096, 6) == bytes(6)
