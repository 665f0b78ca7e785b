"""A slow, simple model of frames: the paper's section 3.3.3 and Xen's rules, and nothing of how they are kept.

A frame has one owner, and while it is used as something it is nothing else. A page table holds a use of each frame
that its entries name. A request is carried out as a whole, or refused without a trace: the model works on a copy of
itself and throws that away on refusal.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

L1, L4, SEGMENT, WRITABLE = 1, 4, 5, 7
PRESENT, RW = 1, 2
PERMIT_ACCESS, ACCEPT_TRANSFER, READONLY, TRANSFERRED = 1, 2, 4, 0xC
KIND = 0x103  # of a grant: its type, and whether it is of a part of a page
ADDRESS = 0x000F_FFFF_FFFF_F000
FORBIDDEN = {1: 0x98, 2: 0x198, 3: 0x198, 4: 0x198}
XEN_SLOTS = range(256, 272)
# What a change may do to a present entry without a use being taken or given back: all but these bits.
MEANT = ADDRESS | 0x9B
FREE, NO_MEMORY, XEN = "free", "no memory", "xen"


class Refused(Exception):
    """The request is not carried out."""


@dataclass
class Frame:
    """One frame.

    Attributes:
        uses: how many, under ``type``; the type means nothing without any.
        refs: references of every kind, the uses among them.
        linear: entries that name tables of its own level; below 0: entries of others that name it so.
        words: what is in it; what is not there is 0.
        user: for the hypervisor's frame of which a domain gave up its share, that domain.
    """

    owner: int | str
    type: int = 0
    uses: int = 0
    refs: int = 0
    pinned: bool = False
    allocated: bool = False
    hypervisors: bool = False
    linear: int = 0
    words: dict[int, int] = field(default_factory=dict)
    user: int = 0


@dataclass
class Active:
    """A grant in use: by whom, what it gave when that began, and how many mappings there are of either kind."""

    domid: int
    mfn: int
    reads: int = 0
    writes: int = 0


@dataclass
class GrantTable:
    """A domain's grants, which outlive it while they are in use: entries are (flags, to whom, frame)."""

    entries: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    active: dict[int, Active] = field(default_factory=dict)
    closed: bool = False


@dataclass(frozen=True)
class Mapping:
    """A domain's mapping of another's grant; ``by_entry``: its place was named by the entry's machine address."""

    granter: int
    ref: int
    readonly: bool
    by_entry: bool


Place = tuple[int, int]
"""An L1 table, or what should be one, and an index in it."""


@dataclass
class DomainModel:
    """What a domain holds outside page tables."""

    pages: int
    limit: int
    kernel_table: int = 0
    user_table: int = 0
    gdt: list[int] = field(default_factory=list)
    mappings: dict[int, Mapping] = field(default_factory=dict)


def _copy(frame: Frame) -> Frame:
    return replace(frame, words=dict(frame.words))


class Model:
    """All frames of a machine, and its domains by number."""

    def __init__(self, frames: int) -> None:
        self.frames = {mfn: Frame(FREE) for mfn in range(frames)}
        self.domains: dict[int, DomainModel] = {}
        self.grants: dict[int, GrantTable] = {}

    def attempt(self, request: str, *arguments: object) -> bool:
        """Whether a request is carried out; if not, nothing has changed."""
        kept = (
            {mfn: frame if frame.owner == FREE else _copy(frame) for mfn, frame in self.frames.items()},
            copy.deepcopy(self.domains),
            copy.deepcopy(self.grants),
        )
        try:
            getattr(self, request)(*arguments)
        except Refused:
            self.frames, self.domains, self.grants = kept
            return False
        return True

    # --- references and uses ----------------------------------------------------------------------------------

    def get(self, mfn: int, domid: int) -> Frame:
        frame = self.frames.get(mfn)
        if frame is None or frame.owner != domid or frame.refs == 0:
            raise Refused
        frame.refs += 1
        return frame

    def put(self, mfn: int) -> None:
        frame = self.frames[mfn]
        frame.refs -= 1
        assert frame.refs >= 0
        if frame.refs == 0:
            if frame.owner in self.domains and not frame.hypervisors:
                self.domains[int(frame.owner)].pages -= 1
            given_up = frame.hypervisors and isinstance(frame.owner, int) and frame.owner in self.domains
            self.frames[mfn] = Frame(XEN, refs=1, user=int(frame.owner)) if given_up else Frame(FREE)

    def use(self, mfn: int, type: int) -> None:
        frame = self.frames[mfn]
        if frame.uses and frame.type != type:
            raise Refused
        frame.uses += 1
        if frame.uses == 1:
            frame.type = type
            frame.linear = 0
            if type <= L4:
                for index in sorted(frame.words):
                    self.hold_entry(mfn, type, index)

    def drop(self, mfn: int) -> None:
        frame = self.frames[mfn]
        frame.uses -= 1
        assert frame.uses >= 0
        if frame.uses == 0 and frame.type <= L4:
            for index in sorted(frame.words):
                self.release_entry(mfn, frame.type, index, frame.words[index])

    def get_and_use(self, mfn: int, domid: int, type: int) -> None:
        self.get(mfn, domid)
        self.use(mfn, type)

    def drop_and_put(self, mfn: int) -> None:
        self.drop(mfn)
        self.put(mfn)

    # --- entries ------------------------------------------------------------------------------------------------

    def hold_entry(self, table: int, level: int, index: int) -> None:
        value = self.frames[table].words[index]
        owner = self.frames[table].owner
        assert isinstance(owner, int)
        if not value & PRESENT or (level == L4 and index in XEN_SLOTS):
            return
        if value & FORBIDDEN[level]:
            raise Refused
        target = (value & ADDRESS) >> 12
        if level > L1 and self.is_used_as(target, level):
            self.hold_linear(table, value)
            return
        if level > L1:
            self.get_and_use(target, owner, level - 1)
            return
        self.get(target, owner)
        if value & RW:
            self.use(target, WRITABLE)

    def is_used_as(self, mfn: int, type: int) -> bool:
        frame = self.frames.get(mfn)
        return frame is not None and frame.uses > 0 and frame.type == type

    def hold_linear(self, table: int, value: int) -> None:
        """An entry that names a table of its own table's level: read-only, and one step deep."""
        above, target = self.frames[table], (value & ADDRESS) >> 12
        if value & RW:
            raise Refused
        if target == table:
            return
        assert isinstance(above.owner, int)
        frame = self.get(target, above.owner)
        if above.linear < 0 or frame.linear > 0:
            raise Refused
        above.linear += 1
        frame.linear -= 1
        frame.uses += 1

    def release_entry(self, table: int, level: int, index: int, value: int) -> None:
        if not value & PRESENT or (level == L4 and index in XEN_SLOTS):
            return
        target = (value & ADDRESS) >> 12
        if level > L1 and target == table:
            return
        if level > L1 and self.frames[target].type == level:
            self.frames[table].linear -= 1
            self.frames[target].linear += 1
        if level > L1 or value & RW:
            self.drop(target)
        self.put(target)

    # --- requests -------------------------------------------------------------------------------------------------

    def update(self, domid: int, mfn: int, index: int, value: int) -> None:
        """mmu_update: a word of a page table, or of a plain frame."""
        frame = self.get(mfn, domid)
        if not frame.uses or frame.type > L4:
            self.use(mfn, WRITABLE)
            frame.words[index] = value
            self.drop(mfn)
        else:
            level, old = frame.type, frame.words.get(index, 0)
            if level == L4 and index in XEN_SLOTS:
                raise Refused
            frame.words[index] = value
            alike = value & old & PRESENT and not (value ^ old) & MEANT
            if alike and value & FORBIDDEN[level]:
                raise Refused
            if not alike:
                self.hold_entry(mfn, level, index)
                self.release_entry(mfn, level, index, old)
        self.put(mfn)

    def pin(self, domid: int, mfn: int, level: int) -> None:
        self.get_and_use(mfn, domid, level)
        if self.frames[mfn].pinned:
            raise Refused
        self.frames[mfn].pinned = True

    def unpin(self, domid: int, mfn: int) -> None:
        frame = self.get(mfn, domid)
        if not frame.pinned:
            raise Refused
        frame.pinned = False
        self.drop_and_put(mfn)
        self.put(mfn)

    def new_baseptr(self, domid: int, mfn: int) -> None:
        domain = self.domains[domid]
        if mfn != domain.kernel_table:
            self.get_and_use(mfn, domid, L4)
            domain.kernel_table, old = mfn, domain.kernel_table
            self.drop_and_put(old)

    def new_user_baseptr(self, domid: int, mfn: int) -> None:
        domain = self.domains[domid]
        if mfn != domain.user_table:
            if mfn:
                self.get_and_use(mfn, domid, L4)
            domain.user_table, old = mfn, domain.user_table
            if old:
                self.drop_and_put(old)

    def set_gdt(self, domid: int, mfns: list[int]) -> None:
        domain = self.domains[domid]
        for mfn in mfns:
            self.get_and_use(mfn, domid, SEGMENT)
        for mfn in domain.gdt:
            self.drop_and_put(mfn)
        domain.gdt = list(mfns)

    def descriptor(self, domid: int, mfn: int, index: int, value: int) -> None:
        """update_descriptor, for one that a guest may have."""
        frame = self.get(mfn, domid)
        self.use(mfn, SEGMENT if frame.uses and frame.type == SEGMENT else WRITABLE)
        frame.words[index] = value
        self.drop(mfn)
        self.put(mfn)

    def clear(self, domid: int, mfn: int) -> None:
        self.get_and_use(mfn, domid, WRITABLE)
        self.frames[mfn].words.clear()
        self.drop_and_put(mfn)

    def copy(self, domid: int, to: int, source: int) -> None:
        self.get(source, domid)
        self.get_and_use(to, domid, WRITABLE)
        self.frames[to].words = dict(self.frames[source].words)
        self.drop_and_put(to)
        self.put(source)

    def decrease(self, domid: int, mfn: int) -> None:
        """The domain gives a frame back; the frame stays as long as it is used."""
        frame = self.frames.get(mfn)
        if frame is None or frame.owner != domid:
            raise Refused
        if frame.allocated:
            frame.allocated = False
            self.put(mfn)

    def may_increase(self, domid: int) -> None:
        if self.domains[domid].pages >= self.domains[domid].limit:
            raise Refused

    def may_exchange(self, domid: int, mfn: int) -> None:
        frame = self.frames.get(mfn)
        if frame is None or frame.owner != domid or frame.hypervisors or not frame.allocated or frame.refs != 1:
            raise Refused

    def allocated(self, domid: int, mfn: int) -> None:
        """The machine chose this frame for the domain: it has to be a free one."""
        assert self.frames[mfn].owner == FREE, f"frame {mfn:#x} is not free"
        self.frames[mfn] = Frame(domid, refs=1, allocated=True)
        self.domains[domid].pages += 1

    # --- grants -----------------------------------------------------------------------------------------------------

    def is_l1(self, domid: int, place: Place) -> bool:
        return self.is_used_as(place[0], L1) and self.frames[place[0]].owner == domid

    def map_grant(self, domid: int, granter: int, ref: int, place: Place, readonly: bool) -> None:
        """map_grant_ref, for the processor."""
        table = self.grants.get(granter, GrantTable(closed=True))
        flags, to, mfn = table.entries.get(ref, (0, 0, 0))
        active = table.active.get(ref)
        if active is None:
            if table.closed or flags & KIND != PERMIT_ACCESS or to != domid:
                raise Refused
            active = table.active[ref] = Active(domid, mfn)
        if active.domid != domid or (flags & READONLY and not readonly and not active.writes):
            raise Refused
        self.get(active.mfn, granter)
        if readonly:
            active.reads += 1
        else:
            active.writes += 1
            self.use(active.mfn, WRITABLE)
        if not self.is_l1(domid, place):
            raise Refused
        words = self.frames[place[0]].words
        old, words[place[1]] = words.get(place[1], 0), active.mfn << 12 | (PRESENT if readonly else PRESENT | RW)
        self.release_entry(place[0], L1, place[1], old)

    def unmap_grant(self, domid: int, handle: int, place: Place, replacement: Place | None) -> bool:
        """unmap_grant_ref, or unmap_and_replace: whether it was carried out.

        An entry that was to take the mapping's place is gone also when there is no such mapping there.
        """
        mapping = self.domains[domid].mappings.get(handle)
        if mapping is None or (replacement and (mapping.by_entry or not self.is_l1(domid, replacement))):
            return False
        active = self.grants[mapping.granter].active[mapping.ref]
        moved = self.frames[replacement[0]].words.pop(replacement[1], 0) if replacement else 0
        found = self.frames[place[0]].words.get(place[1], 0) if self.is_l1(domid, place) else 0
        wanted = active.mfn << 12 | (PRESENT if mapping.readonly else PRESENT | RW)
        if (found ^ wanted) & (ADDRESS | PRESENT | RW):
            self.release_entry(0, L1, 0, moved)
            return False
        self.frames[place[0]].words[place[1]] = moved
        self.release_entry(0, L1, 0, wanted)
        self.unpin_grant(mapping)
        del self.domains[domid].mappings[handle]
        return True

    def unpin_grant(self, mapping: Mapping) -> None:
        """One use of a grant ends."""
        table = self.grants[mapping.granter]
        active = table.active[mapping.ref]
        if mapping.readonly:
            active.reads -= 1
        else:
            active.writes -= 1
        if not active.reads and not active.writes:
            del table.active[mapping.ref]

    def transfer(self, domid: int, mfn: int, receiver: int, ref: int) -> str:
        """A frame in no use is given away: done; lost, if nobody takes it; or refused."""
        frame, taker = self.frames.get(mfn), self.domains.get(receiver)
        if frame is None or frame.owner != domid or frame.hypervisors or not frame.allocated or frame.refs != 1:
            return "refused"
        self.domains[domid].pages -= 1
        if (
            taker is None
            or taker.pages >= taker.limit
            or self.grants[receiver].entries.get(ref, (0, 0, 0))[:2] != (ACCEPT_TRANSFER, domid)
        ):
            self.frames[mfn] = Frame(FREE)
            return "lost"
        taker.pages += 1
        frame.owner = receiver
        self.grants[receiver].entries[ref] = (ACCEPT_TRANSFER | TRANSFERRED, domid, mfn)
        return "done"

    # --- the end ----------------------------------------------------------------------------------------------------

    def destroy(self, domid: int) -> None:
        """The domain ends: all that it holds goes, and with that all that is its own and that nobody else maps."""
        domain = self.domains.pop(domid)
        self.grants[domid].closed = True
        for mapping in domain.mappings.values():
            self.unpin_grant(mapping)
        for table in (domain.kernel_table, domain.user_table):
            if table:
                self.drop_and_put(table)
        for mfn in domain.gdt:
            self.drop_and_put(mfn)
        for mfn, frame in list(self.frames.items()):
            if frame.owner == domid and frame.pinned:
                frame.pinned = False
                self.drop_and_put(mfn)
        for mfn, frame in list(self.frames.items()):
            if frame.user == domid:
                self.frames[mfn] = Frame(FREE)  # its page tables are gone: nobody maps it
            elif frame.owner == domid:
                if frame.hypervisors:
                    self.drop(mfn)
                if frame.allocated:
                    frame.allocated = False
                    self.put(mfn)
