"""The audit: every reference of every frame, recounted from the roots, and compared with the frame table.

The frame table (frames.py) is kept up to date by adding and subtracting.  Here the same numbers come from what there
is at one moment: page tables in memory, the tables that vcpus run on, pins, descriptor tables, registered areas,
event arrays, grant frames and mappings, the allocation itself.  None of the code that it checks is called, nor are its
definitions used: formats and rules are written down a second time, on purpose.

What must hold (the paper, section 3.3.3):

* a frame's references, and its uses under its type, are as many as can be found, and each use is under that type:
  hence no frame is mapped writable while it is a page table or a descriptor table;
* a page table maps frames of its owner's, or frames that were granted to it;
* entries have no bit that a guest may not set, and the hypervisor's slots show what they must;
* what a processor can reach from a page table in use are validated tables of the right level;
* a descriptor table holds descriptors that a guest may have;
* a free frame has no use, no type, and no place in the machine-to-phys table;
* the totals (free frames, each domain's frames) are right.

Call it with the machine lock held; guests may go on running.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from paravirt.abi.xen import DOMID_INVALID, DOMID_IO, DOMID_XEN
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.audit_report import AuditReport, Finding, describe_entry, describe_flags, owner_name, type_name
from paravirt.hypervisor.audit_roots import Roots, collect

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Host

Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

# Types and flags of the frame table.
NONE, L1, L4, SEGDESC, WRITABLE = 0, 1, 4, 5, 7
TYPES = (1, 2, 3, 4, SEGDESC, WRITABLE)
ALLOCATED, PINNED, VALIDATED, XEN, READONLY, PARTIAL, PARTIAL_SET, KEPT = 1, 2, 4, 8, 16, 32, 64, 128

# Page-table entries.
PRESENT, RW, USER, ACCESSED_DIRTY = 1, 2, 4, 0x60
MFN_BITS = 0x000F_FFFF_FFFF_F000
FORBIDDEN = {1: 0x98, 2: 0x198, 3: 0x198, 4: 0x198}
FIRST_XEN_SLOT, PAST_XEN_SLOTS = 256, 272
M2P_ENTRY = 0x65
NO_PFN = 0xFFFF_FFFF_FFFF_FFFF
REFERERS_SHOWN = 12
FINDINGS_PER_RULE = 20


@dataclass(frozen=True)
class Uses:
    """Many references of one kind: frames, the type that each is used as (0: none), and from where.

    ``sources``, ``indices`` and ``values`` are the table, the number and the contents of a page-table entry.
    """

    label: str
    mfns: Numbers
    types: Numbers
    sources: Numbers | None = None
    indices: Numbers | None = None
    values: Words | None = None

    def lines(self, mfn: int, level_of: npt.NDArray[np.uint8]) -> Iterable[str]:
        """The references to one frame, in words."""
        for at in np.flatnonzero(self.mfns == mfn):
            used_as = f" (as {type_name(int(self.types[at]))})" if self.types[at] else ""
            if self.sources is None or self.indices is None or self.values is None:
                yield self.label + used_as
                continue
            table = int(self.sources[at])
            yield (
                f"{type_name(int(level_of[table]))} {table:#x}, entry {int(self.indices[at])}: "
                f"{describe_entry(int(self.values[at]))}{used_as}"
            )


@dataclass
class _Audit:
    """One audit in progress."""

    roots: Roots
    frames: npt.NDArray[np.void]
    words: npt.NDArray[np.uint64]
    findings: list[Finding] = field(default_factory=list)
    uses: list[Uses] = field(default_factory=list)
    _suppressed: dict[str, int] = field(default_factory=dict)

    @property
    def nr_frames(self) -> int:
        return len(self.frames)

    # --- findings -------------------------------------------------------------------------------------------

    def find(self, rule: str, text: str, mfn: int | None = None) -> None:
        """Something is wrong; of each rule's breaches the first are described."""
        count = self._suppressed[rule] = self._suppressed.get(rule, 0) + 1
        if count <= FINDINGS_PER_RULE:
            details = () if mfn is None else tuple(self._details(mfn))
            self.findings.append(Finding(rule, text, mfn, details))

    def describe(self, mfn: int) -> str:
        """A frame's record in words."""
        frame = self.frames[mfn]
        return (
            f"frame {mfn:#x}: {owner_name(int(frame['owner']))}, {type_name(int(frame['type']))}, "
            f"{int(frame['type_refs'])} type references, {int(frame['refs'])} references, "
            f"{describe_flags(int(frame['flags']))}"
        )

    def _details(self, mfn: int) -> Iterable[str]:
        yield self.describe(mfn)
        shown = 0
        for uses in self.uses:
            for line in uses.lines(mfn, self.frames["type"]):
                shown += 1
                if shown > REFERERS_SHOWN:
                    yield "  ... and more"
                    return
                yield "  held by " + line
        if shown == 0:
            yield "  held by nothing that was found"

    # --- counting ---------------------------------------------------------------------------------------------

    def count(self, label: str, mfns: Iterable[int], type: int = 0) -> None:
        """References from outside page tables."""
        numbers = np.fromiter(mfns, dtype=np.int64)
        for mfn in numbers[(numbers < 0) | (numbers >= self.nr_frames)]:
            self.find("roots", f"{label} is frame {int(mfn):#x}, which does not exist")
        numbers = numbers[(numbers >= 0) & (numbers < self.nr_frames)]
        if len(numbers):
            self.uses.append(Uses(label, numbers, np.full(len(numbers), type)))

    def count_roots(self) -> None:
        """What domains and vcpus hold, and what the frame table itself says is held."""
        flags = self.frames["flags"]
        owned = self.frames["owner"] != DOMID_INVALID
        self.count("its allocation", np.flatnonzero((flags & ALLOCATED) != 0))
        pinned = np.flatnonzero((flags & PINNED) != 0)
        for type in range(L1, L4 + 1):
            self.count("a pin", pinned[self.frames["type"][pinned] == type], type)
        for mfn in pinned[~np.isin(self.frames["type"][pinned], (1, 2, 3, 4))]:
            self.find("pins", "a frame that is no page table is pinned", int(mfn))
        shared = owned & ((flags & KEPT) != 0) & ((flags & READONLY) == 0)
        # The hypervisor writes these itself: one use each, without a reference.
        self.shared = np.flatnonzero(shared)
        # Frame 0 stands for what is not memory.
        self.count("the machine", [0])
        for root in self.roots.frames:
            self.count(root.label, root.mfns, root.type)

    def count_tables(self) -> None:
        """What the entries of page tables hold."""
        types, flags, uses = self.frames["type"], self.frames["flags"], self.frames["type_refs"]
        for level in range(L1, L4 + 1):
            is_table = (types == level) & (uses > 0)
            whole = np.flatnonzero(is_table & ((flags & VALIDATED) != 0))
            self._count_entries(level, whole, None)
            part = np.flatnonzero(is_table & ((flags & PARTIAL) != 0))
            if len(part):
                self._count_entries(level, part, self.frames["nr_validated"][part])
                self._count_part_way(level, part)
        stray = ((types >= L1) & (types <= L4) & ((flags & VALIDATED) != 0) & (uses == 0)).nonzero()[0]
        for mfn in stray:
            self.find("tables", "a page table counts as validated without any use", int(mfn))

    def _count_part_way(self, level: int, tables: Numbers) -> None:
        """A table part way holds itself, and perhaps one more entry's frame, whose use is that frame's own."""
        self.count("being part way", tables, level)
        at = tables[(self.frames["flags"][tables] & PARTIAL_SET) != 0]
        entries = self.words[at, self.frames["nr_validated"][at].astype(np.int64)]
        self.count("a table part way", ((entries & np.uint64(MFN_BITS)) >> np.uint64(12)).astype(np.int64))

    def _count_entries(self, level: int, tables: Numbers, limits: Numbers | None) -> None:
        if not len(tables):
            return
        entries = self.words[tables]
        present = (entries & np.uint64(PRESENT)) != 0
        if level == L4:
            present[:, FIRST_XEN_SLOT:PAST_XEN_SLOTS] = False
        if limits is not None:
            present &= np.arange(512)[None, :] < limits[:, None]
        rows, indices = present.nonzero()
        values = entries[rows, indices]
        sources = tables[rows]
        targets = ((values & np.uint64(MFN_BITS)) >> np.uint64(12)).astype(np.int64)
        self._check_bits(level, sources, indices, values)
        exists = targets < self.nr_frames
        for at in np.flatnonzero(~exists):
            self.find(
                "entries",
                f"entry {int(indices[at])} names a frame that does not exist: {describe_entry(int(values[at]))}",
                int(sources[at]),
            )
        sources, indices, values, targets = (part[exists] for part in (sources, indices, values, targets))
        used_as = self._used_as(level, sources, indices, values, targets)
        held = used_as >= 0
        self.uses.append(
            Uses("an entry", targets[held], used_as[held], sources[held], indices[held], values[held])
        )
        self._check_owners(level, sources[held], indices[held], values[held], targets[held])

    def _used_as(
        self, level: int, sources: Numbers, indices: Numbers, values: Words, targets: Numbers
    ) -> Numbers:
        """The type that each entry needs of its frame; -1: it holds nothing (a table that maps itself)."""
        writable = (values & np.uint64(RW)) != 0
        if level == L1:
            return np.where(writable, WRITABLE, NONE)
        linear = (self.frames["type"][targets] == level) & (self.frames["type_refs"][targets] > 0)
        for at in np.flatnonzero(linear & writable):
            self.find(
                "linear",
                f"entry {int(indices[at])} maps a table of its own level writable: {describe_entry(int(values[at]))}",
                int(sources[at]),
            )
        used_as = np.where(linear, level, level - 1)
        return np.where(targets == sources, -1, used_as)

    def _check_bits(self, level: int, sources: Numbers, indices: Numbers, values: Words) -> None:
        bad = ((values & np.uint64(FORBIDDEN[level])) != 0) | ((values & np.uint64(USER)) == 0)
        for at in np.flatnonzero(bad):
            self.find(
                "entries",
                f"entry {int(indices[at])} has bits that it must not have, or not those that it must: "
                f"{describe_entry(int(values[at]))}",
                int(sources[at]),
            )

    def _check_owners(
        self, level: int, sources: Numbers, indices: Numbers, values: Words, targets: Numbers
    ) -> None:
        """A page table names its owner's frames; an L1 table also those that were granted."""
        owners = self.frames["owner"]
        foreign = np.flatnonzero(owners[sources] != owners[targets])
        for at in foreign:
            mapper, value = int(owners[sources[at]]), int(values[at])
            if level == L1 and self.roots.is_granted(mapper, int(targets[at]), bool(value & RW)):
                continue
            self.find(
                "owners",
                f"entry {int(indices[at])} of a table of domain {mapper} maps a frame of "
                f"{owner_name(int(owners[targets[at]]))} without a grant: {describe_entry(value)}",
                int(targets[at]),
            )
        if level == L1:
            hidden = (self.frames["flags"][targets] & (XEN | READONLY)) == XEN | READONLY
            for at in np.flatnonzero(hidden & ((values & np.uint64(RW)) != 0)):
                self.find("read-only", "a frame that guests may only read is mapped writable", int(targets[at]))

    # --- comparing ----------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """The frame table against what was found."""
        size = self.nr_frames
        mfns = np.concatenate([uses.mfns for uses in self.uses])
        types = np.concatenate([uses.types for uses in self.uses])
        references = np.bincount(mfns, minlength=size)
        own_type = np.zeros(size, dtype=np.int64)
        for type in TYPES:
            found = np.bincount(mfns[types == type], minlength=size)
            if type == WRITABLE:
                found[self.shared] += 1
            is_type = self.frames["type"] == type
            for mfn in np.flatnonzero((found > 0) & ~is_type):
                self.find("types", f"used {int(found[mfn])} times as {type_name(type)}, which it is not", int(mfn))
            own_type += np.where(is_type, found, 0)
        for mfn in np.flatnonzero(references != self.frames["refs"]):
            self.find("references", f"{int(references[mfn])} references were found", int(mfn))
        for mfn in np.flatnonzero(own_type != self.frames["type_refs"]):
            self.find("type references", f"{int(own_type[mfn])} uses under its type were found", int(mfn))

    def check_free(self) -> None:
        """Free frames are nobody's in every respect."""
        frames = self.frames
        free = frames["owner"] == DOMID_INVALID
        used = (frames["refs"] != 0) | (frames["type_refs"] != 0) | (frames["type"] != 0) | (frames["flags"] != 0)
        for mfn in np.flatnonzero(free & used):
            self.find("free frames", "a free frame is in use", int(mfn))
        unused = ~free & (frames["refs"] == 0)
        for mfn in np.flatnonzero(unused):
            self.find("free frames", "a frame without references still has an owner", int(mfn))
        count = int(free.sum())
        if count != self.roots.free_frames:
            self.find("totals", f"{self.roots.free_frames} frames are said to be free, and {count} are")
        m2p = self.m2p
        hypervisors = frames["owner"] == DOMID_XEN
        for mfn in np.flatnonzero((free | hypervisors) & (m2p != np.uint64(NO_PFN))):
            self.find("machine-to-phys", f"a frame that is no domain's is pfn {int(m2p[mfn]):#x}", int(mfn))

    @property
    def m2p(self) -> Words:
        """The machine-to-phys table."""
        first = self.roots.m2p_mfn
        last = first + -(-self.nr_frames // 512)
        table: Words = self.words[first:last].reshape(-1)[: self.nr_frames]
        return table

    def check_m2p_tables(self) -> None:
        """The tables behind slot 256 show the machine-to-phys table, read-only, and nothing else."""
        count = -(-self.nr_frames // 512)
        seen: list[int] = []
        for l2_entry in self.words[self.roots.m2p_l3_mfn][:1]:
            for l1_entry in self.words[int(l2_entry & np.uint64(MFN_BITS)) >> 12]:
                if int(l1_entry) & PRESENT:
                    table = self.words[(int(l1_entry) & MFN_BITS) >> 12]
                    seen += [int(entry) for entry in table if int(entry) & PRESENT]
        if any(entry & RW for entry in seen):
            self.find("machine-to-phys", "a guest can write to the machine-to-phys table", self.roots.m2p_l3_mfn)
        if [(entry & MFN_BITS) >> 12 for entry in seen] != list(range(self.roots.m2p_mfn, self.roots.m2p_mfn + count)):
            self.find("machine-to-phys", "slot 256 shows other frames than the table", self.roots.m2p_l3_mfn)
        if self.words[self.roots.m2p_l3_mfn][1:].any():
            self.find("machine-to-phys", "slot 256 shows more than the table", self.roots.m2p_l3_mfn)

    def check_slots(self) -> None:
        """The hypervisor's slots of every L4: the machine-to-phys table or, as the guest asked, not; the engine's."""
        frames = self.frames
        tables = np.flatnonzero(
            (frames["type"] == L4) & (frames["type_refs"] > 0) & ((frames["flags"] & VALIDATED) != 0)
        )
        shown = np.uint64(self.roots.m2p_l3_mfn << 12 | M2P_ENTRY)
        ignored = ~np.uint64(ACCESSED_DIRTY)
        slots = self.words[tables][:, FIRST_XEN_SLOT:PAST_XEN_SLOTS]
        expected = np.array(self.roots.reserved_l4, dtype=np.uint64)
        of_kernel = np.array(self.roots.kernel_l4, dtype=np.uint64)
        bad = ((slots & ignored) != (expected & ignored)) & ((slots & ignored) != (of_kernel & ignored))
        m2p = slots[:, self.roots.m2p_slot - FIRST_XEN_SLOT]
        bad[:, self.roots.m2p_slot - FIRST_XEN_SLOT] = (m2p != 0) & ((m2p & ignored) != (shown & ignored))
        for mfn in tables[bad.any(axis=1)]:
            self.find("reserved slots", "slots 256 to 271 hold something else than the hypervisor put there", int(mfn))
        for label, mfn, cr3 in self.roots.processor_tables:
            if cr3 != mfn << 12:
                self.find("processor", f"{label} is {mfn:#x}, but the processor was told {cr3:#x}", mfn)

    def check_reach(self) -> None:
        """Follow the tables in use as a processor does: each must be a validated table of its level."""
        level_of = np.where(
            ((self.frames["flags"] & VALIDATED) != 0) & (self.frames["type_refs"] > 0), self.frames["type"], 0
        )
        tables = np.unique(np.array([mfn for _, mfn, _ in self.roots.processor_tables], dtype=np.int64))
        for level in range(L4, 0, -1):
            # A linear map stands in a table for one of the level below: what is under it was or will be seen.
            wrong = tables[level_of[tables] != level]
            for mfn in wrong[level_of[wrong] < level]:
                self.find("reach", f"a processor can reach it as {type_name(level)}", int(mfn))
            tables = tables[level_of[tables] == level]
            entries = self.words[tables]
            present = (entries & np.uint64(PRESENT)) != 0
            if level == L4:
                present[:, FIRST_XEN_SLOT:PAST_XEN_SLOTS] = False
            if level == L1:
                break
            below = (entries[present] & np.uint64(MFN_BITS)) >> np.uint64(12)
            tables = np.unique(below[below < self.nr_frames].astype(np.int64))

    def check_descriptors(self) -> None:
        """Descriptor tables in use: code and data of ring 3, call gates that nobody can use, what is absent, and the
        reserved type 0, which is the second half of a call gate."""
        frames = self.frames
        tables = np.flatnonzero((frames["type"] == SEGDESC) & (frames["type_refs"] > 0))
        high = (self.words[tables] >> np.uint64(32)).astype(np.uint32)
        present = (high & 0x8000) != 0
        level = (high >> 13) & 3
        code_or_data = (high & 0x1000) != 0
        kind = high & 0xF00
        good = ~present | (code_or_data & (level == 3))
        good |= ~code_or_data & ((kind == 0) | ((kind == 0xC00) & (level == 0)))
        for row, index in zip(*(~good).nonzero(), strict=True):
            value = int(self.words[tables[row]][index])
            self.find("descriptors", f"descriptor {int(index)} is {value:016x}", int(tables[row]))

    def check_totals(self) -> None:
        """Each domain's number of frames, and that nobody else owns any."""
        owners = self.frames["owner"]
        plain = (self.frames["flags"] & XEN) == 0
        for domid, total in self.roots.totals.items():
            found = int(((owners == domid) & plain).sum())
            if found != total:
                self.find("totals", f"domain {domid} is said to have {total} frames, and has {found}")
        known = [*self.roots.totals, DOMID_IO, DOMID_XEN, DOMID_INVALID]
        for mfn in np.flatnonzero(~np.isin(owners, known)):
            if not self.roots.is_mapped_by_anybody(int(mfn)):
                self.find("owners", "its owner does not exist any more, and nobody has it mapped", int(mfn))


def audit(host: Host) -> AuditReport:
    """Recount everything; the caller holds the machine lock."""
    roots = collect(host)
    memory: Any = host.memory.view(0, host.nr_frames).view(np.uint64).reshape(-1, 512)
    work = _Audit(roots, roots.frame_table.copy(), memory)
    work.count_roots()
    work.count_tables()
    work.compare()
    work.check_free()
    work.check_m2p_tables()
    work.check_slots()
    work.check_reach()
    work.check_descriptors()
    work.check_totals()
    references = sum(len(uses.mfns) for uses in work.uses)
    return AuditReport(tuple(work.findings), dict(work._suppressed), work.nr_frames, references)


def require_clean(host: Host, occasion: str = "") -> AuditReport:
    """The same, for tests and for whoever would rather stop than go on.

    Raises:
        HypervisorBug: the frame table is wrong; the message is the report.
    """
    report = audit(host)
    if not report.clean:
        raise HypervisorBug(f"the audit{' ' + occasion if occasion else ''} found mistakes\n{report}")
    return report
