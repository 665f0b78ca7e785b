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
    words: dict[int, int] = field(default_factory=dict)
    user: int = 0


@dataclass
class DomainModel:
    """What a domain holds outside page tables."""

    pages: int
    limit: int
    kernel_table: int = 0
    user_table: int = 0
    gdt: list[int] = field(default_factory=list)


def _copy(frame: Frame) -> Frame:
    return replace(frame, words=dict(frame.words))


class Model:
    """All frames of a machine, and its domains by number."""

    def __init__(self, frames: int) -> None:
        self.frames = {mfn: Frame(FREE) for mfn in range(frames)}
        self.domains: dict[int, DomainModel] = {}

    def attempt(self, request: str, *arguments: object) -> bool:
        """Whether a request is carried out; if not, nothing has changed."""
        kept = (
            {mfn: frame if frame.owner == FREE else _copy(frame) for mfn, frame in self.frames.items()},
            copy.deepcopy(self.domains),
        )
        try:
            getattr(self, request)(*arguments)
        except Refused:
            self.frames, self.domains = kept
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
            if isinstance(frame.owner, int) and not frame.hypervisors:
                self.domains[frame.owner].pages -= 1
            given_up = frame.hypervisors and isinstance(frame.owner, int) and frame.owner in self.domains
            self.frames[mfn] = Frame(XEN, refs=1, user=int(frame.owner)) if given_up else Frame(FREE)

    def use(self, mfn: int, type: int) -> None:
        frame = self.frames[mfn]
        if frame.uses and frame.type != type:
            raise Refused
        frame.uses += 1
        if frame.uses == 1:
            frame.type = type
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
        if level > L1:
            self.get_and_use(target, owner, level - 1)
            return
        self.get(target, owner)
        if value & RW:
            self.use(target, WRITABLE)

    def release_entry(self, table: int, level: int, index: int, value: int) -> None:
        if not value & PRESENT or (level == L4 and index in XEN_SLOTS):
            return
        target = (value & ADDRESS) >> 12
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

    def destroy(self, domid: int) -> None:
        """The domain ends: all that it holds goes, and with that all that is its own."""
        domain = self.domains[domid]
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
            if frame.user == domid or (frame.owner == domid and frame.hypervisors):
                self.frames[mfn] = Frame(FREE)  # its page tables are gone: nobody maps it
            elif frame.owner == domid and frame.allocated:
                self.frames[mfn].allocated = False
                self.put(mfn)
        assert not [mfn for mfn, frame in self.frames.items() if frame.owner == domid]
        del self.domains[domid]
