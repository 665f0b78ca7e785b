"""Random requests of three domains, legal and not, against the model: the same answers and frames, audit clean."""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from paravirt.abi import grant_table as abi
from paravirt.abi import memory as mem
from paravirt.abi import xen
from paravirt.hypervisor.audit import require_clean
from paravirt.hypervisor.hypercalls.direct import hypercall
from paravirt.hypervisor.hypercalls.grant_frames import grants_of
from paravirt.hypervisor.views import Domain, Host
from paravirt.machine.memory import Memory
from paravirt.machine.unicorn.engine import UnicornEngine

from .model import FREE, L4, PRESENT, WRITABLE, XEN, DomainModel, Frame, GrantTable, Mapping, Model, Place

FRAMES = 256
EXAMPLES = int(os.environ.get("PARAVIRT_EXAMPLES", "40"))
PAGES = 20
FIXED = 5  # pfns 0 to 4: the page tables and the page of arguments; the others are what requests are about
WINDOW = 0xFFFF_FFFF_8000_0000
ARGUMENTS = WINDOW + 4 * 4096
PTE_TABLE = 0x67
DOMID_FREE = 0x7FF4

INDICES = st.sampled_from([0, 1, 2, 255, 256, 271, 272, 511])
FLAGS = st.sampled_from([0, 1, 1, 3, 3, 3, 7, 5, 0x67, 0x25, 0x103, 0x9, 0x11, 0x81, 0x83, 0x8000_0000_0000_0003])
DOMAINS = 3
WHO = st.integers(0, DOMAINS - 1)
# A frame by what it is: one of a domain's pages, its shared info, the hypervisor's, none.
PICK = st.tuples(
    st.sampled_from(["own"] * 12 + ["other", "tables", "shared", "xen", "zero", "beyond"]), st.integers(0, PAGES - 1)
)
# Entries of the L1 table of every domain at which grants are mapped, some of them.
SLOTS = st.integers(FIXED, FIXED + 6)
REFS = st.integers(8, 11)
GRANT_FLAGS = st.sampled_from([1, 1, 1, 5, 0, 2, 0x101])
# None that matters, and those that a table's entries must not have at one level or another.
BITS = st.sampled_from([0, 0, 0, 0x8, 0x10, 0x80, 0x100])
PAGE_NUMBERS = st.lists(st.integers(FIXED, PAGES - 1), min_size=1, max_size=3)


class World:
    """One machine for all examples; each has new domains."""

    def __init__(self) -> None:
        self.memory = Memory(FRAMES)
        self.engine = UnicornEngine(self.memory.address, self.memory.size, True)
        self.host = Host(self.memory, [self.engine], virtual_clock=True)
        self.domids = itertools.count(1)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class Sides:
    """A domain, as it is and as the model has it."""

    def __init__(self, world: World, model: Model) -> None:
        self.host = world.host
        self.memory = world.memory
        self.domid = next(world.domids)
        self.domain: Domain = world.host.create_domain(self.domid, PAGES, 1)
        self.mfns = [int(mfn) for mfn in self.domain.p2m]
        self.model = model
        self._build()
        self.vcpu = self.domain.vcpus[0]

    def _build(self) -> None:
        l4, l3, l2, l1, arguments = self.mfns[:FIXED]
        words = {
            l4: {511: l3 << 12 | PTE_TABLE},
            l3: {510: l2 << 12 | PTE_TABLE},
            l2: {0: l1 << 12 | PTE_TABLE},
            l1: {4: arguments << 12 | PTE_TABLE, 3: l1 << 12 | 0x65},
        }
        self.model.domains[self.domid] = DomainModel(PAGES, PAGES, kernel_table=l4)
        for mfn in self.mfns:
            self.model.frames[mfn] = Frame(self.domid, refs=1, allocated=True, words=dict(words.get(mfn, {})))
        self.model.frames[self.domain.shared_info_mfn] = Frame(
            self.domid, WRITABLE, uses=1, refs=1, allocated=True, hypervisors=True
        )
        for mfn, entries in words.items():
            for index, value in entries.items():
                self.memory.write(mfn * 4096 + index * 8, struct.pack("<Q", value))
        self.domain.pin_l4(0)
        self.domain.set_context(rip=WINDOW, rsp=WINDOW, rsi=0, cr3_pfn=0)
        self.model.grants[self.domid] = GrantTable()
        for mfn in grants_of(self.domain).shared:
            self.model.frames[mfn] = Frame(self.domid, WRITABLE, uses=1, refs=1, allocated=True, hypervisors=True)
        self.model.get_and_use(l4, self.domid, L4)
        assert self.model.attempt("pin", self.domid, l4, L4)

    def call(self, number: int, *args: int) -> int:
        return hypercall(self.vcpu, number, args)[0]

    def put(self, data: bytes) -> int:
        """Arguments in the guest's memory: their address."""
        self.memory.write(self.mfns[4] * 4096, data)
        return ARGUMENTS

    def mmuext(self, command: int, one: int, two: int = 0) -> int:
        return self.call(26, self.put(struct.pack("<QQQ", command, one, two)), 1, 0, xen.DOMID_SELF)

    def granting(self, operation: int, request: ctypes.Structure) -> Any:
        """One request about grants: as it came back."""
        assert self.call(20, operation, self.put(bytes(request)), 1) == 0
        return type(request).from_buffer_copy(self.memory.read(self.mfns[4] * 4096, ctypes.sizeof(request)))

    def reservation(self, operation: int, value: int) -> int:
        """One extent of one frame: how many were done."""
        layout = struct.pack("<QQIIHxxxxxxQ", ARGUMENTS + 32, 1, 0, 0, xen.DOMID_SELF, value)
        return self.call(12, operation, self.put(layout))

    def answer(self, offset: int) -> int:
        return int(struct.unpack("<Q", self.memory.read(self.mfns[4] * 4096 + offset, 8))[0])


class Frames(RuleBasedStateMachine):
    """The requests; ``world`` is set by the test."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.host = self.world.host
        self.model = Model(FRAMES)
        for mfn in range(FRAMES):
            owner, _, uses, refs, _ = self.host.frame_info(mfn)
            if owner != DOMID_FREE:
                self.model.frames[mfn] = Frame(XEN, refs=refs, uses=uses)
        self.sides: list[Sides] = [Sides(self.world, self.model) for _ in range(DOMAINS)]
        self.ended: list[int] = []

    def teardown(self) -> None:
        for side in getattr(self, "sides", []):
            if side.domid in self.host.domains:
                side.domain.destroy()
        assert not self.host.zombies
        require_clean(self.host, "at the end")

    def mfn(self, who: int, pick: tuple[str, int]) -> int:
        kind, number = pick
        own, other = self.sides[who], self.sides[(who + 1 + number % 2) % DOMAINS]
        return {
            "own": own.mfns[max(number, FIXED)],
            "tables": own.mfns[number % 4],
            "other": other.mfns[number],
            "shared": own.domain.shared_info_mfn,
            "xen": self.host.m2p_mfn,
            "zero": 0,
            "beyond": FRAMES + number,
        }[kind]

    def value(self, who: int, pick: tuple[str, int], flags: int) -> int:
        return self.mfn(who, pick) << 12 | flags if flags & 1 else flags

    def both(self, done: bool, request: str, *arguments: Any) -> None:
        assert done == self.model.attempt(request, *arguments), f"{request}{arguments}: {'done' if done else 'refused'}"

    # --- page tables ------------------------------------------------------------------------------------------

    @rule(who=WHO, table=PICK, index=INDICES, pick=PICK, flags=FLAGS, keep=st.booleans())
    def mmu_update(
        self, who: int, table: tuple[str, int], index: int, pick: tuple[str, int], flags: int, keep: bool
    ) -> None:
        side, mfn, value = self.sides[who], self.mfn(who, table), self.value(who, pick, flags)
        if any(mfn in other.mfns[:FIXED] for other in self.sides):
            return
        if mfn == side.domain.shared_info_mfn:
            return  # a plain write there is the guest's own affair
        request = struct.pack("<QQ", mfn << 12 | index << 3 | (2 if keep else 0), value)
        rc = side.call(1, side.put(request), 1, 0, xen.DOMID_SELF)
        self.both(rc == 0, "update", side.domid, mfn, index, value)

    @rule(who=WHO, number=SLOTS | st.integers(FIXED, 400), pick=PICK, flags=FLAGS)
    def update_va_mapping(self, who: int, number: int, pick: tuple[str, int], flags: int) -> None:
        side, value = self.sides[who], self.value(who, pick, flags)
        rc = side.call(14, WINDOW + number * 4096, value, 0)
        self.both(rc == 0, "update", side.domid, side.mfns[3], number, value)

    @rule(who=WHO, table=PICK, tables=PAGE_NUMBERS, level=st.integers(1, 4), bit=BITS)
    def prepare_table(self, who: int, table: tuple[str, int], tables: list[int], level: int, bit: int) -> None:
        """Entries that name other pages, the last one with some bit besides, in a frame that is no table yet: then
        pinned."""
        side, mfn = self.sides[who], self.mfn(who, ("own", table[1]))
        frame = self.model.frames[mfn]
        if frame.owner != side.domid or frame.uses:
            return
        for index, number in enumerate(tables):
            flags = PTE_TABLE if level > 1 else PRESENT
            value = side.mfns[number] << 12 | flags | (bit if index == len(tables) - 1 else 0)
            if side.mfns[number] != mfn:
                rc = side.call(1, side.put(struct.pack("<QQ", mfn << 12 | index << 3, value)), 1, 0, xen.DOMID_SELF)
                self.both(rc == 0, "update", side.domid, mfn, index, value)
        self.pin(who, ("own", table[1]), level)

    @rule(who=WHO, table=PICK, level=st.integers(1, 4))
    def pin(self, who: int, table: tuple[str, int], level: int) -> None:
        side, mfn = self.sides[who], self.mfn(who, table)
        rc = side.mmuext(level - 1, mfn)
        self.both(rc == 0, "pin", side.domid, mfn, level)

    @rule(who=WHO, number=st.integers(FIXED, PAGES - 1), below=st.integers(FIXED, PAGES - 1), index=INDICES)
    def make_linear(self, who: int, number: int, below: int, index: int) -> None:
        """An entry that names another table of the same level, or its own table, read-only, where there is a table."""
        side = self.sides[who]
        tables = [mfn for mfn in side.mfns[1:] if 1 < self.model.frames[mfn].type <= L4 and self.model.frames[mfn].uses]
        if side.mfns[number] in tables:
            mfn = side.mfns[number]
            alike = [other for other in tables if self.model.frames[other].type == self.model.frames[mfn].type]
            value = alike[below % len(alike)] << 12 | 0x25
            rc = side.call(1, side.put(struct.pack("<QQ", mfn << 12 | index << 3, value)), 1, 0, xen.DOMID_SELF)
            self.both(rc == 0, "update", side.domid, mfn, index, value)

    @rule(who=WHO, table=PICK)
    def unpin(self, who: int, table: tuple[str, int]) -> None:
        side, mfn = self.sides[who], self.mfn(who, table)
        if mfn == side.mfns[0]:
            return
        self.both(side.mmuext(4, mfn) == 0, "unpin", side.domid, mfn)

    @rule(who=WHO, number=st.integers(FIXED, PAGES - 1))
    def new_baseptr(self, who: int, number: int) -> None:
        """To a table that keeps the page of arguments where it is, and back."""
        side = self.sides[who]
        mfn = side.mfns[number]
        frame = self.model.frames[mfn]
        if frame.owner != side.domid or (frame.uses and frame.type != L4):
            return
        value = side.mfns[1] << 12 | PTE_TABLE
        rc = side.call(1, side.put(struct.pack("<QQ", mfn << 12 | 511 << 3, value)), 1, 0, xen.DOMID_SELF)
        self.both(rc == 0, "update", side.domid, mfn, 511, value)
        if rc != 0:
            return
        self.both(side.mmuext(5, mfn) == 0, "new_baseptr", side.domid, mfn)
        self.both(side.mmuext(5, side.mfns[0]) == 0, "new_baseptr", side.domid, side.mfns[0])

    @rule(who=WHO, table=PICK)
    def new_user_baseptr(self, who: int, table: tuple[str, int]) -> None:
        side, mfn = self.sides[who], self.mfn(who, table)
        self.both(side.mmuext(15, mfn) == 0, "new_user_baseptr", side.domid, mfn)

    # --- other uses -------------------------------------------------------------------------------------------

    @rule(who=WHO, picks=st.lists(PICK, max_size=3))
    def set_gdt(self, who: int, picks: list[tuple[str, int]]) -> None:
        side = self.sides[who]
        mfns = [self.mfn(who, pick) for pick in picks]
        address = side.put(struct.pack(f"<{len(mfns)}Q", *mfns) or b"\0")
        self.both(side.call(2, address, 512 * len(mfns)) == 0, "set_gdt", side.domid, mfns)

    @rule(who=WHO, pick=PICK, index=INDICES, value=st.sampled_from([0, 0x00CFF3000000FFFF]))
    def update_descriptor(self, who: int, pick: tuple[str, int], index: int, value: int) -> None:
        side, mfn = self.sides[who], self.mfn(who, pick)
        if mfn in (side.domain.shared_info_mfn, side.mfns[4]):
            return
        done = side.call(10, mfn << 12 | index << 3, value) == 0
        self.both(done, "descriptor", side.domid, mfn, index, value)

    @rule(who=WHO, pick=PICK, source=PICK, clear=st.booleans())
    def whole_page(self, who: int, pick: tuple[str, int], source: tuple[str, int], clear: bool) -> None:
        side, mfn, other = self.sides[who], self.mfn(who, pick), self.mfn(who, source)
        if side.domain.shared_info_mfn in (mfn, other) or mfn == side.mfns[4]:
            return
        if clear:
            self.both(side.mmuext(16, mfn) == 0, "clear", side.domid, mfn)
        elif other not in side.mfns[:FIXED]:
            self.both(side.mmuext(17, mfn, other) == 0, "copy", side.domid, mfn, other)

    # --- reservations -----------------------------------------------------------------------------------------

    @rule(who=WHO, pick=PICK)
    def decrease(self, who: int, pick: tuple[str, int]) -> None:
        side, mfn = self.sides[who], self.mfn(who, pick)
        if mfn in side.mfns[:FIXED]:
            return
        done = side.reservation(mem.XENMEM_decrease_reservation, mfn)
        assert done in (0, 1)
        self.both(done == 1, "decrease", side.domid, mfn)

    @rule(who=WHO, number=st.integers(FIXED, PAGES - 1), populate=st.booleans())
    def increase(self, who: int, number: int, populate: bool) -> None:
        """In place of a page that is gone."""
        side = self.sides[who]
        operation = mem.XENMEM_populate_physmap if populate else mem.XENMEM_increase_reservation
        done = side.reservation(operation, number) == 1
        self.both(done, "may_increase", side.domid)
        if done:
            mfn = side.answer(32)
            self.model.allocated(side.domid, mfn)
            assert side.memory.read(mfn * 4096, 4096) == bytes(4096)
            self.keep(side, mfn)

    @rule(who=WHO, pick=PICK, number=st.integers(FIXED, PAGES - 1))
    def exchange(self, who: int, pick: tuple[str, int], number: int) -> None:
        side, old = self.sides[who], self.mfn(who, pick)
        half = struct.pack("<QQIIHxxxxxx", ARGUMENTS + 80, 1, 0, 0, xen.DOMID_SELF)
        other = struct.pack("<QQIIHxxxxxx", ARGUMENTS + 88, 1, 0, 0, xen.DOMID_SELF)
        arguments = half + other + bytes(8)
        arguments = arguments.ljust(80, b"\0") + struct.pack("<QQ", old, number)
        done = side.call(12, mem.XENMEM_exchange, side.put(arguments)) == 0
        self.both(done, "may_exchange", side.domid, old)
        if done:
            new = side.answer(88)
            self.model.allocated(side.domid, new)
            assert self.model.attempt("decrease", side.domid, old)
            if old in side.mfns:
                side.mfns[side.mfns.index(old)] = new

    # --- grants ---------------------------------------------------------------------------------------------------

    def granter(self, whose: int) -> int:
        """A domain's number, or that of one that has ended: its frames may still be mapped."""
        if whose < DOMAINS or not self.ended:
            return self.sides[whose % DOMAINS].domid
        return self.ended[-1]

    def place(self, who: int, slot: int, table: tuple[str, int] | None) -> tuple[Place, int]:
        """An entry of the L1 table in use, or of another frame by its machine address: where it is, and that."""
        side = self.sides[who]
        if table is None:
            return (side.mfns[3], slot), WINDOW + slot * 4096
        mfn = self.mfn(who, table)
        return (mfn, slot), mfn << 12 | slot << 3

    @rule(who=WHO, to=WHO, ref=REFS, flags=GRANT_FLAGS, pick=PICK)
    def grant(self, who: int, to: int, ref: int, flags: int, pick: tuple[str, int]) -> None:
        """The guest's own writing."""
        side, mfn, domid = self.sides[who], self.mfn(who, pick), self.sides[to].domid
        self.world.memory.write(
            grants_of(side.domain).entry_at(ref), bytes(abi.GrantEntryV1(flags=flags, domid=domid, frame=mfn))
        )
        self.model.grants[side.domid].entries[ref] = (flags, domid, mfn)

    @rule(who=WHO, whose=st.integers(0, DOMAINS), ref=REFS, slot=SLOTS, table=st.none() | PICK, readonly=st.booleans())
    def map_grant(
        self, who: int, whose: int, ref: int, slot: int, table: tuple[str, int] | None, readonly: bool
    ) -> None:
        side, granter = self.sides[who], self.granter(whose)
        place, address = self.place(who, slot, table)
        if place[0] in side.mfns[:FIXED] and place != (side.mfns[3], slot):
            return
        flags = abi.GNTMAP_host_map | (abi.GNTMAP_readonly if readonly else 0)
        flags |= 0 if table is None else abi.GNTMAP_contains_pte
        answer = side.granting(abi.GNTTABOP_map_grant_ref, abi.GnttabMapGrantRef(address, flags, ref, granter, 99))
        self.both(answer.status == 0, "map_grant", side.domid, granter, ref, place, readonly)
        if answer.status == 0:
            mapping = Mapping(granter, ref, readonly, table is not None)
            self.model.domains[side.domid].mappings[answer.handle] = mapping

    @rule(who=WHO, to=WHO, ref=REFS, number=st.integers(FIXED, PAGES - 1), slot=SLOTS, flags=st.sampled_from([1, 5]))
    def share(self, who: int, to: int, ref: int, number: int, slot: int, flags: int) -> None:
        """A grant of a page, mapped at once as it says."""
        self.grant(who, to, ref, flags, ("own", number))
        self.map_grant(to, who, ref, slot, None, flags == 5)

    @rule(who=WHO, which=st.integers(0, 3), slot=SLOTS, known=st.integers(0, 3), onto=st.none() | SLOTS)
    def unmap_grant(self, who: int, which: int, slot: int, known: int, onto: int | None) -> None:
        """A mapping is taken away, from where it is or not; ``onto``: the entry of another address takes its place."""
        side = self.sides[who]
        mappings = list(self.model.domains[side.domid].mappings.items())
        handle, mapping = mappings[which % len(mappings)] if mappings else (which, Mapping(0, 0, True, False))
        if known and mappings:
            slot = self.slot_of(side, mapping, slot)
        table = None
        if mapping.by_entry:
            table = self.table_of(side, mapping, slot) if known else ("own", FIXED + which)
        place, address = self.place(who, slot, table)
        replacement = None if onto is None else (side.mfns[3], onto)
        if onto is None:
            request: Any = abi.GnttabUnmapGrantRef(address, 0, handle, 99)
            status = side.granting(abi.GNTTABOP_unmap_grant_ref, request).status
        else:
            request = abi.GnttabUnmapAndReplace(address, WINDOW + onto * 4096, handle, 99)
            status = side.granting(abi.GNTTABOP_unmap_and_replace, request).status
        assert (status == 0) == self.model.unmap_grant(side.domid, handle, place, replacement)

    def slot_of(self, side: Sides, mapping: Mapping, otherwise: int) -> int:
        """Where a mapping may be: an index whose entry names its frame."""
        mfn = self.model.grants[mapping.granter].active[mapping.ref].mfn
        table = self.model.frames[side.mfns[3]]
        found = [index for index, value in table.words.items() if index >= FIXED and value & 1 and value >> 12 == mfn]
        return found[0] if found else otherwise

    def table_of(self, side: Sides, mapping: Mapping, slot: int) -> tuple[str, int]:
        """The number of a page with an entry in ``slot`` that names a mapping's frame."""
        mfn = self.model.grants[mapping.granter].active[mapping.ref].mfn
        for number, table in enumerate(side.mfns[FIXED:], FIXED):
            if self.model.frames[table].words.get(slot, 0) >> 12 == mfn:
                return "own", number
        return "own", FIXED

    @rule(who=WHO, to=WHO, ref=REFS, pick=PICK, accepted=st.booleans())
    def transfer(self, who: int, to: int, ref: int, pick: tuple[str, int], accepted: bool) -> None:
        side, taker, mfn = self.sides[who], self.sides[to], self.mfn(who, pick)
        if mfn in side.mfns[:FIXED]:
            return
        if accepted:
            self.grant(to, who, ref, 2, ("zero", 0))
        status = side.granting(abi.GNTTABOP_transfer, abi.GnttabTransfer(mfn, taker.domid, ref, 99)).status
        outcome = self.model.transfer(side.domid, mfn, taker.domid, ref)
        expected = {"done": (0,), "refused": (abi.GNTST_bad_page,), "lost": (abi.GNTST_general_error,)}
        assert status in expected[outcome], outcome
        if outcome == "done":
            self.keep(taker, mfn)

    def keep(self, side: Sides, mfn: int) -> None:
        """A frame that a domain got stands in place of a page of its that is gone."""
        gone = [at for at in range(FIXED, PAGES) if self.model.frames[side.mfns[at]].owner != side.domid]
        if gone:
            side.mfns[gone[0]] = mfn

    # --- the end ------------------------------------------------------------------------------------------------

    @precondition(lambda self: hasattr(self, "sides"))
    @rule(who=WHO, really=st.integers(0, 5))
    def destroy(self, who: int, really: int) -> None:
        """A domain ends; another one takes its place, perhaps in the same frames."""
        if really:
            return
        side = self.sides[who]
        side.domain.destroy()
        self.model.destroy(side.domid)
        self.ended.append(side.domid)
        self.compare()
        self.sides[who] = Sides(self.world, self.model)

    @invariant()
    def compare(self) -> None:
        """The audit is clean, and every frame is what the model says."""
        if not hasattr(self, "sides"):
            return
        require_clean(self.host)
        for mfn, frame in self.model.frames.items():
            owner, type, uses, refs, flags = self.host.frame_info(mfn)
            if frame.owner == XEN:
                continue
            expected = DOMID_FREE if frame.owner == FREE else frame.owner
            assert (owner, uses, refs) == (expected, frame.uses, frame.refs), f"frame {mfn:#x}"
            assert not frame.uses or type == frame.type, f"frame {mfn:#x}"
            assert bool(flags & 2) == frame.pinned, f"frame {mfn:#x}"
        for domid, domain in self.model.domains.items():
            assert self.host.domains[domid].tot_pages == domain.pages


def test_frames_are_as_the_model_says(world: World) -> None:
    class Here(Frames):
        pass

    Here.world = world
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES,
            print_blob=True,
            stateful_step_count=40,
            deadline=None,
            # Of a mutant it is enough to know that it is noticed.
            phases=[Phase.generate] if "PARAVIRT_NO_SHRINK" in os.environ else list(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )
