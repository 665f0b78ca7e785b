"""Grants between domains on one machine: page-table entries, deaths, and random requests, audited all along."""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from paravirt.abi import grant_table as abi
from paravirt.abi import xen
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.audit import require_clean
from paravirt.hypervisor.hypercalls.direct import hypercall
from paravirt.hypervisor.hypercalls.grant_frames import Active, grants_of
from paravirt.hypervisor.hypercalls.grant_map import unmap_grant
from paravirt.hypervisor.views import Domain, Host
from paravirt.hypervisor.views.domain import MAPPINGS_AT_ONCE
from paravirt.machine.memory import Memory
from paravirt.machine.unicorn.engine import UnicornEngine

EXAMPLES = int(os.environ.get("PARAVIRT_EXAMPLES", "30"))
FRAMES, PAGES, FIXED = 512, 16, 5
WINDOW = 0xFFFF_FFFF_8000_0000
ARGUMENTS = WINDOW + 4 * 4096
FIRST_SLOT, SLOTS = 16, 4
TABLE = 0x67
FREE, XEN = 0x7FF4, 0x7FF2
HOST, DEVICE, READONLY = abi.GNTMAP_host_map, abi.GNTMAP_device_map, abi.GNTMAP_readonly
CALLS = xen.HYPERCALLS
READING, WRITING = abi.GTF_reading, abi.GTF_writing


class World:
    """One machine; tests make their own domains on it."""

    def __init__(self) -> None:
        self.memory = Memory(FRAMES)
        self.engine = UnicornEngine(self.memory.address, self.memory.size, True)
        self.host = Host(self.memory, [self.engine], virtual_clock=True)
        self.domids = itertools.count(1)

    def clear(self) -> None:
        for domain in list(self.host.domains.values()):
            domain.destroy()
        require_clean(self.host)
        assert not self.host.zombies


class Guest:
    """A domain of sixteen pages: four page tables, a page of arguments, and eleven to grant."""

    def __init__(self, world: World, vcpus: int = 1) -> None:
        self.world, self.host, self.memory = world, world.host, world.memory
        self.domid = next(world.domids)
        self.domain: Domain = self.host.create_domain(self.domid, PAGES, vcpus)
        self.mfns = [int(mfn) for mfn in self.domain.p2m]
        l4, l3, l2, self.l1, arguments = self.mfns[:FIXED]
        for mfn, index, value in (
            (l4, 511, l3 << 12 | TABLE),
            (l3, 510, l2 << 12 | TABLE),
            (l2, 0, self.l1 << 12 | TABLE),
            (self.l1, 4, arguments << 12 | TABLE),
        ):
            self.memory.write(mfn * 4096 + index * 8, struct.pack("<Q", value))
        self.domain.pin_l4(0)
        self.domain.set_context(rip=WINDOW, rsp=WINDOW, rsi=0, cr3_pfn=0)
        self.domain.max_pages += 8

    def call(self, number: int, *args: int) -> int:
        return int(hypercall(self.domain.vcpus[0], number, args)[0])

    def put(self, data: bytes) -> int:
        self.memory.write(self.mfns[4] * 4096, data)
        return ARGUMENTS

    def request(self, operation: int, request: ctypes.Structure) -> Any:
        assert self.call(CALLS["grant_table_op"], operation, self.put(bytes(request)), 1) == 0
        return type(request).from_buffer_copy(self.memory.read(self.mfns[4] * 4096, ctypes.sizeof(request)))

    def grant(self, ref: int, to: int, mfn: int, flags: int = abi.GTF_permit_access) -> None:
        self.memory.write(grants_of(self.domain).entry_at(ref), bytes(abi.GrantEntryV1(flags, to, mfn)))

    def flags(self, ref: int) -> int:
        return int.from_bytes(self.memory.read(grants_of(self.domain).entry_at(ref), 2), "little")

    def map(self, owner: int, ref: int, slot: int = 0, flags: int = HOST) -> abi.GnttabMapGrantRef:
        request = abi.GnttabMapGrantRef(self.slot(slot), flags, ref, owner, 99)
        answer: abi.GnttabMapGrantRef = self.request(abi.GNTTABOP_map_grant_ref, request)
        return answer

    def copy_from(self, owner: int, ref: int) -> int:
        """Copy a few bytes of a granted frame into one of the guest's own: the status."""
        request = abi.GnttabCopy(len=16, flags=abi.GNTCOPY_source_gref, status=99)
        request.source.domid, request.source.u.ref = owner, ref
        request.dest.domid, request.dest.u.gmfn = xen.DOMID_SELF, self.mfns[10]
        return int(self.request(abi.GNTTABOP_copy, request).status)

    def unmap(self, handle: int, slot: int | None = 0, bus_address: int = 0) -> int:
        address = 0 if slot is None else self.slot(slot)
        request = abi.GnttabUnmapGrantRef(address, bus_address, handle, 99)
        return int(self.request(abi.GNTTABOP_unmap_grant_ref, request).status)

    @staticmethod
    def slot(number: int) -> int:
        return WINDOW + (FIRST_SLOT + number) * 4096

    def entry(self, slot: int = 0) -> int:
        at = self.l1 * 4096 + (FIRST_SLOT + slot) * 8
        return int(struct.unpack("<Q", self.memory.read(at, 8))[0])

    def set_entry(self, slot: int, value: int) -> int:
        return self.call(CALLS["update_va_mapping"], self.slot(slot), value, 0)

    def pin_l1(self, mfn: int) -> int:
        command = struct.pack("<QQQ", xen.MMUEXT_PIN_L1_TABLE, mfn, 0)
        return self.call(CALLS["mmuext_op"], self.put(command), 1, 0, xen.DOMID_SELF)

    def unpin(self, mfn: int) -> int:
        command = struct.pack("<QQQ", xen.MMUEXT_UNPIN_TABLE, mfn, 0)
        return self.call(CALLS["mmuext_op"], self.put(command), 1, 0, xen.DOMID_SELF)

    def give_back(self, mfn: int) -> int:
        """decrease_reservation: how many extents were."""
        layout = struct.pack("<QQIIHxxxxxxQ", ARGUMENTS + 40, 1, 0, 0, xen.DOMID_SELF, 0) + struct.pack("<Q", mfn)
        return self.call(CALLS["memory_op"], 1, self.put(layout))

    def counts(self, mfn: int) -> tuple[int, int]:
        _, _, uses, references, _ = self.host.frame_info(mfn)
        return references, uses


@pytest.fixture(scope="module")
def machine() -> World:
    return World()


@pytest.fixture
def world(machine: World) -> Iterator[World]:
    yield machine
    machine.clear()


@pytest.fixture
def giver(world: World) -> Guest:
    return Guest(world)


@pytest.fixture
def taker(world: World, giver: Guest) -> Guest:
    return Guest(world)


# --- mappings -----------------------------------------------------------------------------------------------------


def test_a_mapping_holds_the_frame_as_an_entry_does(world: World, giver: Guest, taker: Guest) -> None:
    mfn = giver.mfns[8]
    giver.grant(9, taker.domid, mfn)
    before = giver.counts(mfn)
    writable, readonly = taker.map(giver.domid, 9), taker.map(giver.domid, 9, 1, HOST | READONLY)
    assert (writable.status, readonly.status) == (0, 0)
    assert (writable.dev_bus_addr, readonly.dev_bus_addr) == (mfn << 12, mfn << 12)
    assert taker.entry(0) == mfn << 12 | 0x8010_0000_0000_0067
    assert taker.entry(1) == mfn << 12 | 0x8010_0000_0000_0065
    assert giver.counts(mfn) == (before[0] + 2, before[1] + 1)
    assert giver.flags(9) == abi.GTF_permit_access | READING | WRITING
    require_clean(world.host)
    assert giver.pin_l1(mfn) < 0
    assert taker.unmap(writable.handle, 0) == 0
    assert giver.flags(9) == abi.GTF_permit_access | READING
    assert giver.pin_l1(mfn) == 0  # what is only read may be anything
    assert taker.unmap(readonly.handle, 1) == 0
    assert giver.unpin(mfn) == 0
    assert giver.counts(mfn) == before


def test_no_other_way_makes_such_an_entry(world: World, giver: Guest, taker: Guest) -> None:
    mfn = giver.mfns[8]
    giver.grant(9, taker.domid, mfn)
    handle = taker.map(giver.domid, 9, 0, HOST | READONLY).handle
    entry = taker.entry(0)
    assert taker.set_entry(1, entry) < 0
    assert taker.set_entry(0, entry | 2) < 0
    assert taker.set_entry(0, entry & ~0x20) == 0  # what does not matter may change
    # A table with such an entry that is no table any more cannot become one again.
    table = taker.mfns[9]
    assert taker.pin_l1(table) == 0
    assert taker.unpin(table) == 0
    world.memory.write(table * 4096, struct.pack("<Q", entry))
    assert taker.pin_l1(table) < 0
    assert taker.unmap(handle) == 0
    require_clean(world.host)


def test_an_entry_that_is_overwritten_lets_go_and_leaves_the_grant_in_use(
    world: World, giver: Guest, taker: Guest
) -> None:
    mfn = giver.mfns[8]
    giver.grant(9, taker.domid, mfn)
    before = giver.counts(mfn)
    handle = taker.map(giver.domid, 9).handle
    assert taker.set_entry(0, 0) == 0
    assert giver.counts(mfn) == before
    assert taker.unmap(handle) == abi.GNTST_general_error
    assert giver.flags(9) == abi.GTF_permit_access | READING | WRITING
    require_clean(world.host)
    # The frame may go now, and the grant leads nowhere then, though it counts as in use.
    assert giver.give_back(mfn) == 1
    assert world.host.frame_info(mfn)[0] == FREE
    assert taker.map(giver.domid, 9).status == abi.GNTST_general_error
    require_clean(world.host)
    taker.domain.destroy()
    assert giver.flags(9) == abi.GTF_permit_access


def test_a_frame_that_is_given_back_stays_while_it_is_mapped(world: World, giver: Guest, taker: Guest) -> None:
    mfn = giver.mfns[8]
    giver.grant(9, taker.domid, mfn)
    handle = taker.map(giver.domid, 9).handle
    total = giver.domain.tot_pages
    assert giver.give_back(mfn) == 1
    assert (world.host.frame_info(mfn)[0], giver.domain.tot_pages) == (giver.domid, total)
    assert taker.unmap(handle) == 0
    assert (world.host.frame_info(mfn)[0], giver.domain.tot_pages) == (FREE, total - 1)


def test_the_grant_goes_to_one_domain(world: World, giver: Guest, taker: Guest) -> None:
    third = Guest(world)
    giver.grant(9, taker.domid, giver.mfns[8])
    assert third.map(giver.domid, 9).status == abi.GNTST_general_error
    handle = taker.map(giver.domid, 9).handle
    assert third.unmap(handle) == abi.GNTST_bad_handle
    giver.grant(9, third.domid, giver.mfns[8])  # taken back and granted anew, while it is in use
    assert third.map(giver.domid, 9).status == abi.GNTST_general_error
    assert taker.unmap(handle) == 0
    assert third.map(giver.domid, 9).status == 0


def test_handles_are_used_again_and_good_once(giver: Guest, taker: Guest) -> None:
    giver.grant(9, taker.domid, giver.mfns[8])
    first = taker.map(giver.domid, 9)
    assert taker.unmap(first.handle) == 0
    assert taker.unmap(first.handle) == abi.GNTST_bad_handle
    assert taker.unmap(0xFFFF_FFFF) == abi.GNTST_bad_handle
    seen = set()
    for _ in range(600):
        again = taker.map(giver.domid, 9)
        assert again.status == 0
        seen.add(again.handle)
        assert taker.unmap(again.handle) == 0
    assert max(seen) < 256


def test_a_mapping_in_place_of_ones_own(world: World, giver: Guest, taker: Guest) -> None:
    own, mfn = taker.mfns[8], giver.mfns[8]
    giver.grant(9, taker.domid, mfn)
    before = taker.counts(own)
    assert taker.set_entry(0, own << 12 | 3) == 0
    mapped = taker.map(giver.domid, 9)
    assert mapped.status == 0
    assert taker.counts(own) == before
    assert taker.set_entry(1, own << 12 | 3) == 0
    replace = abi.GnttabUnmapAndReplace(taker.slot(0), taker.slot(1), mapped.handle, 99)
    assert taker.request(abi.GNTTABOP_unmap_and_replace, replace).status == 0
    assert (taker.entry(0) >> 12 & 0xFFFFFF, taker.entry(1)) == (own, 0)
    assert giver.flags(9) == abi.GTF_permit_access
    require_clean(world.host)


# --- ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [HOST, HOST | READONLY, DEVICE, DEVICE | HOST, DEVICE | READONLY])
def test_the_users_end_gives_everything_back(world: World, giver: Guest, taker: Guest, flags: int) -> None:
    mfn = giver.mfns[8]
    giver.grant(9, taker.domid, mfn)
    before = giver.counts(mfn)
    assert taker.map(giver.domid, 9, 0, flags).status == 0
    require_clean(world.host)
    taker.domain.destroy()
    assert giver.counts(mfn) == before
    assert giver.flags(9) == abi.GTF_permit_access
    assert not world.host.zombies


@pytest.mark.parametrize("flags", [HOST, HOST | READONLY, DEVICE, DEVICE | HOST])
def test_the_granters_end_leaves_what_is_mapped(world: World, giver: Guest, taker: Guest, flags: int) -> None:
    mfn = giver.mfns[8]
    world.memory.write(mfn << 12, b"kept")
    giver.grant(9, taker.domid, mfn)
    mapped = taker.map(giver.domid, 9, 0, flags)
    giver.domain.destroy()
    require_clean(world.host)
    assert giver.domid in world.host.zombies
    assert world.memory.read(mfn << 12, 4) == b"kept"
    assert world.host.frame_info(mfn)[0] == giver.domid
    # The mapping's grant is still known, others are not.
    assert taker.map(giver.domid, 10, 1).status == abi.GNTST_bad_page
    again = taker.map(giver.domid, 9, 1, HOST | READONLY)
    assert again.status == 0
    require_clean(world.host)
    assert taker.unmap(again.handle, 1) == 0
    assert taker.unmap(mapped.handle, 0 if flags & HOST else None, mapped.dev_bus_addr if flags & DEVICE else 0) == 0
    assert world.host.frame_info(mfn)[0] == FREE
    assert not world.host.zombies


@pytest.mark.parametrize(("granted", "status"), [(abi.GTF_readonly, abi.GNTST_general_error), (0, 0)])
def test_what_an_ended_domain_granted_to_be_read_stays_so(
    world: World, giver: Guest, taker: Guest, granted: int, status: int
) -> None:
    """Another user may read the same frame, and nobody who could write it is left."""
    giver.grant(9, taker.domid, giver.mfns[8], abi.GTF_permit_access | granted)
    assert taker.map(giver.domid, 9, 0, HOST | READONLY).status == 0
    giver.domain.destroy()
    assert taker.map(giver.domid, 9, 1).status == status
    assert taker.map(giver.domid, 9, 2, HOST | READONLY).status == 0
    require_clean(world.host)


def test_both_end_with_grants_both_ways(world: World, giver: Guest, taker: Guest) -> None:
    for one, other in ((giver, taker), (taker, giver)):
        one.grant(9, other.domid, one.mfns[8])
        assert other.map(one.domid, 9).status == 0
    giver.domain.destroy()
    require_clean(world.host)
    taker.domain.destroy()
    require_clean(world.host)
    assert not world.host.zombies


def test_a_handle_keeps_an_ended_domains_number(world: World, giver: Guest, taker: Guest) -> None:
    giver.grant(9, taker.domid, giver.mfns[8])
    handle = taker.map(giver.domid, 9).handle
    giver.domain.destroy()
    assert taker.set_entry(0, 0) == 0  # the last reference goes, and the handle stays
    world.host.reap()
    assert world.host.frame_info(giver.mfns[8])[0] == FREE
    assert giver.domid in world.host.zombies
    assert taker.unmap(handle) == abi.GNTST_general_error
    taker.domain.destroy()
    world.host.reap()
    assert not world.host.zombies


def test_what_an_ended_domain_granted_and_nobody_used_is_not_used_any_more(
    world: World, giver: Guest, taker: Guest
) -> None:
    for ref in (9, 10):
        giver.grant(ref, taker.domid, giver.mfns[8])
    handle = taker.map(giver.domid, 9).handle
    giver.domain.destroy()
    assert taker.map(giver.domid, 10, 1).status == abi.GNTST_bad_page
    assert taker.copy_from(giver.domid, 9) == abi.GNTST_bad_domain
    assert taker.unmap(handle) == 0
    assert not world.host.zombies


def test_a_frame_that_is_gone_is_not_copied_from(world: World, giver: Guest, taker: Guest) -> None:
    giver.grant(9, taker.domid, giver.mfns[8])
    assert taker.copy_from(giver.domid, 9) == 0
    assert taker.map(giver.domid, 9).status == 0
    assert taker.set_entry(0, 0) == 0
    assert giver.give_back(giver.mfns[8]) == 1
    assert taker.copy_from(giver.domid, 9) == abi.GNTST_bad_domain
    require_clean(world.host)


def test_a_part_that_is_being_copied_is_not_mapped(giver: Guest, taker: Guest) -> None:
    giver.grant(9, taker.domid, giver.mfns[8])
    active = grants_of(giver.domain).active
    active[9] = Active(taker.domid, giver.mfns[8], 0, 100, is_sub_page=True)
    assert taker.map(giver.domid, 9).status == abi.GNTST_general_error
    del active[9]
    assert taker.map(giver.domid, 9).status == 0


def test_a_domain_that_is_ending_gets_no_frame(world: World, giver: Guest, taker: Guest) -> None:
    def give(mfn: int, ref: int) -> int:
        request = abi.GnttabTransfer(mfn, taker.domid, ref, 99)
        return int(giver.request(abi.GNTTABOP_transfer, request).status)

    mfn = giver.mfns[8]
    taker.grant(9, giver.domid, 77, abi.GTF_accept_transfer)
    taker.grant(10, giver.domid, 78, abi.GTF_accept_transfer)
    assert give(mfn, 9) == 0
    assert world.host.frame_info(mfn)[0] == taker.domid
    # Its end begins, and others run before it is over.
    giver.grant(11, taker.domid, giver.mfns[10])
    giver.grant(12, taker.domid, giver.mfns[10])
    for number in range(MAPPINGS_AT_ONCE + 1):
        assert taker.map(giver.domid, 11 + number % 2, flags=DEVICE).status == 0
    assert not taker.domain.destroy_part()
    assert give(giver.mfns[9], 10) == abi.GNTST_general_error
    taker.domain.destroy()
    assert give(giver.mfns[7], 10) == abi.GNTST_bad_domain


def test_a_domain_that_is_ending_makes_no_grant_table(giver: Guest, taker: Guest) -> None:
    for ref in (9, 10):
        giver.grant(ref, taker.domid, giver.mfns[10])
    for number in range(MAPPINGS_AT_ONCE + 1):
        assert taker.map(giver.domid, 9 + number % 2, flags=DEVICE).status == 0
    assert not taker.domain.destroy_part()
    assert taker.domain.state.grants is None
    assert giver.map(taker.domid, 9).status == abi.GNTST_bad_domain
    assert taker.domain.state.grants is None
    taker.domain.destroy()


def test_a_granter_that_the_machine_has_lost_is_our_bug(world: World, giver: Guest, taker: Guest) -> None:
    giver.grant(9, taker.domid, giver.mfns[8])
    handle = taker.map(giver.domid, 9).handle
    giver.domain.destroy()
    lost = world.host.zombies.pop(giver.domid)
    with pytest.raises(HypervisorBug, match="is gone"):
        unmap_grant(taker.domain.vcpus[0], abi.GnttabUnmapGrantRef(taker.slot(0), 0, handle, 0), [])
    world.host.zombies[giver.domid] = lost
    assert taker.unmap(handle) == 0


# --- random requests ----------------------------------------------------------------------------------------------

WHO, REF, SLOT, PAGE = st.integers(0, 2), st.integers(8, 10), st.integers(0, SLOTS - 1), st.integers(FIXED, PAGES - 1)
KINDS = st.sampled_from([HOST, HOST | READONLY, DEVICE, DEVICE | READONLY, DEVICE | HOST, DEVICE | HOST | READONLY, 0])


class Requests(RuleBasedStateMachine):
    """Three domains that grant, map, overwrite, give back, copy, transfer and end."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.guests = [Guest(self.world) for _ in range(3)]

    def teardown(self) -> None:
        self.world.clear()

    @rule(who=WHO, to=WHO, ref=REF, page=PAGE, flags=st.sampled_from([0, 1, 1, 1, 5, 2, 3, 0x101]))
    def grant(self, who: int, to: int, ref: int, page: int, flags: int) -> None:
        guest = self.guests[who]
        # As guests do it: flags for what is in use are kept.
        kept = guest.flags(ref) & (READING | WRITING) if flags & 3 == 1 else 0
        guest.grant(ref, self.guests[to].domid, guest.mfns[page], flags | kept)

    @rule(who=WHO, owner=WHO, ref=REF, slot=SLOT, flags=KINDS)
    def map(self, who: int, owner: int, ref: int, slot: int, flags: int) -> None:
        self.guests[who].map(self.guests[owner].domid, ref, slot, flags)

    @rule(who=WHO, pick=st.integers(0, 10), slot=st.none() | SLOT, device=st.booleans())
    def unmap(self, who: int, pick: int, slot: int | None, device: bool) -> None:
        guest = self.guests[who]
        track = guest.domain.state.maptrack.mappings
        handle = sorted(track)[pick % len(track)] if track else pick
        address = 0
        if device and handle in track:
            owner = self.world.host.find(track[handle].domid)
            assert owner is not None
            address = grants_of(owner).active[track[handle].ref].mfn << 12
        guest.unmap(handle, slot, address)

    @rule(who=WHO, slot=SLOT, page=PAGE, rights=st.sampled_from([0, 1, 3]))
    def set_entry(self, who: int, slot: int, page: int, rights: int) -> None:
        guest = self.guests[who]
        guest.set_entry(slot, guest.mfns[page] << 12 | rights if rights else 0)

    @rule(who=WHO, page=PAGE, on=st.booleans())
    def retype(self, who: int, page: int, on: bool) -> None:
        guest = self.guests[who]
        if on:
            guest.pin_l1(guest.mfns[page])
        else:
            guest.unpin(guest.mfns[page])

    @rule(who=WHO, page=PAGE)
    def give_back(self, who: int, page: int) -> None:
        self.guests[who].give_back(self.guests[who].mfns[page])

    @rule(who=WHO, source=WHO, ref=REF, dest=WHO, to=REF)
    def copy(self, who: int, source: int, ref: int, dest: int, to: int) -> None:
        request = abi.GnttabCopy(len=8, flags=abi.GNTCOPY_source_gref | abi.GNTCOPY_dest_gref)
        request.source.u.ref, request.source.domid = ref, self.guests[source].domid
        request.dest.u.ref, request.dest.domid = to, self.guests[dest].domid
        self.guests[who].request(abi.GNTTABOP_copy, request)

    @rule(who=WHO, page=PAGE, to=WHO, ref=REF)
    def transfer(self, who: int, page: int, to: int, ref: int) -> None:
        request = abi.GnttabTransfer(self.guests[who].mfns[page], self.guests[to].domid, ref)
        self.guests[who].request(abi.GNTTABOP_transfer, request)

    @rule(who=WHO)
    def end(self, who: int) -> None:
        self.guests[who].domain.destroy()
        self.guests[who] = Guest(self.world)

    @invariant()
    def nothing_dangles(self) -> None:
        host = self.world.host
        require_clean(host)
        users = [domain for domain in host.domains.values() if not domain.is_dying]
        for owner in [*users, *host.zombies.values()]:
            if owner.state.grants is None:
                continue
            for ref, active in grants_of(owner).active.items():
                held = [
                    mapping
                    for user in users
                    for mapping in user.state.maptrack.mappings.values()
                    if (mapping.domid, mapping.ref) == (owner.domid, ref) and user.domid == active.domid
                ]
                kinds = sum((mapping.flags & (HOST | DEVICE)).bit_count() for mapping in held)
                assert sum(active.pins) == kinds
                assert active.is_written == any(not mapping.flags & READONLY for mapping in held)


def test_random_requests(machine: World) -> None:
    Requests.world = machine
    run_state_machine_as_test(
        Requests,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            derandomize="PARAVIRT_EXAMPLES" not in os.environ,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
