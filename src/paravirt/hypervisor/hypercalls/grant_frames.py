# cython: language_level=3, annotation_typing=False
"""The frames of one domain's grant table, and the entries in them (public/grant_table.h).

Shared frames hold the entries that the guest writes: 8 bytes each in version 1, 16 in version 2. Status frames,
which version 2 alone has, hold 16 bits for each entry, which the hypervisor writes. All are frames of the
hypervisor's that the guest may map. What a guest writes there is read once, and trusted for nothing.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, NamedTuple

from paravirt.abi.errno import EBUSY, ENOMEM, ERANGE
from paravirt.abi.grant_table import (
    GNTTAB_NR_RESERVED_ENTRIES,
    GrantEntryV1,
    GrantEntryV2,
    GTF_permit_access,
    GTF_reading,
    GTF_readonly,
    GTF_sub_page,
    GTF_transitive,
    GTF_type_mask,
    GTF_writing,
)
from paravirt.errors import UserError

from .registry import HypercallError

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain

FRAME_SIZE: Final = 4096
STATUS_SIZE: Final = 2
ENTRY_SIZE: Final = {1: ctypes.sizeof(GrantEntryV1), 2: ctypes.sizeof(GrantEntryV2)}
_IN_USE: Final = GTF_reading | GTF_writing


# Kinds of use, which are counted apart.
HOST_WRITE, HOST_READ, DEVICE_WRITE, DEVICE_READ = range(4)


class Entry(NamedTuple):
    """One grant, as it was at one moment, whatever the version.

    Attributes:
        flags: GTF_*; those of the status frame are not in it.
        domid: who may use it.
        frame: the granted frame.
        offset, length: the part of it that is granted, in bytes.
        trans_domid, trans_ref: for a transitive grant, whose grant stands behind it.
    """

    flags: int
    domid: int
    frame: int
    offset: int = 0
    length: int = FRAME_SIZE
    trans_domid: int = 0
    trans_ref: int = 0

    @property
    def kind(self) -> int:
        """GTF_invalid, GTF_permit_access, GTF_accept_transfer or GTF_transitive."""
        return self.flags & GTF_type_mask


class Active:
    """A grant in use: what it gave when its use began, whatever the guest has made of the entry since.

    Attributes:
        domid: who uses it.
        mfn: the frame.
        start, length: the part of it that is granted, in bytes.
        is_sub_page: it is a part, or transitive; such a grant is not mapped.
        behind: for a transitive grant, whose grant stands behind it, and which.
        is_readonly: once its domain has ended, whether it may not be mapped to be written.
        pins: how many uses of each kind there are: HOST_WRITE, ... DEVICE_READ.
    """

    def __init__(
        self,
        domid: int,
        mfn: int,
        start: int = 0,
        length: int = FRAME_SIZE,
        is_sub_page: bool = False,
        behind: tuple[Domain, int] | None = None,
    ) -> None:
        self.domid = domid
        self.mfn = mfn
        self.start = start
        self.length = length
        self.is_sub_page = is_sub_page
        self.behind = behind
        self.is_readonly = False
        self.pins = [0, 0, 0, 0]

    @property
    def is_written(self) -> bool:
        """Whether some use of it may write."""
        return bool(self.pins[HOST_WRITE] or self.pins[DEVICE_WRITE])

    @property
    def is_used(self) -> bool:
        """Whether there is any use of it."""
        return any(self.pins)


class GrantFrames:
    """A domain's grant table; it has one frame from its beginning.

    Attributes:
        version: 1 or 2.
        shared, status: its frames.
        active: grants in use, by reference.
        is_closed: its domain has ended, and the frames are gone; only what is active can still be given back.

    Raises:
        HypercallError: ENOMEM, the machine has no frame for it.
    """

    def __init__(self, domain: Domain, limit: int) -> None:
        self._domain = domain
        self._host = domain.host
        self._memory = domain.host.memory
        self.limit = limit
        self.version = domain.grant_version
        self.shared: list[int] = []
        self.status: list[int] = []
        self.active: dict[int, Active] = {}
        self.is_closed = False
        if not self.grow(1):
            raise HypercallError(ENOMEM)

    @property
    def nr_entries(self) -> int:
        """References below this one exist."""
        return len(self.shared) * FRAME_SIZE // ENTRY_SIZE[self.version]

    def grow(self, frames: int) -> bool:
        """Have at least ``frames`` shared frames, and the status frames for them. False: no memory; no change."""
        frames = max(frames, len(self.shared))
        new = frames - len(self.shared)
        new_status = _status_frames(frames) - len(self.status) if self.version == 2 else 0
        made = self._share(new + new_status)
        if made is None:
            return False
        self.shared += made[:new]
        self.status += made[new:]
        return True

    def _share(self, count: int) -> list[int] | None:
        """``count`` frames more that the guest may map; None: there is no memory for them."""
        made: list[int] = []
        try:
            while len(made) < count:
                made.append(self._domain.share_frame())
        except UserError:
            self._unshare(made)
            return None
        return made

    def _unshare(self, frames: list[int]) -> None:
        for mfn in frames:
            self._domain.unshare_frame(mfn)

    def close(self) -> None:
        """The domain ends, and its frames with it: of grants in use it is kept what they allow."""
        for ref, active in self.active.items():
            active.is_readonly = bool(self.read(ref).flags & GTF_readonly)
        self.is_closed = True

    def set_version(self, version: int) -> None:
        """Change to version 1 or 2; all entries go, except the first eight, which are the toolstack's.

        Raises:
            HypercallError: EBUSY, a grant other than those eight is in use, or the guest still has a status frame
                mapped; ENOMEM, no status frames; ERANGE, a reserved entry cannot be said in version 1.
        """
        if version == self.version:
            return
        if any(ref >= GNTTAB_NR_RESERVED_ENTRIES for ref in self.active):
            raise HypercallError(EBUSY)
        if version == 2:
            kept = [self.read(ref) for ref in range(GNTTAB_NR_RESERVED_ENTRIES)]
            made = self._share(_status_frames(len(self.shared)))
            if made is None:
                raise HypercallError(ENOMEM)
            self.status = made
        else:
            kept = [self._fit_for_version_1(ref) for ref in range(GNTTAB_NR_RESERVED_ENTRIES)]
            if any(self._domain.host.frame_info(mfn)[3] > 1 for mfn in self.status):
                raise HypercallError(EBUSY)
            self._unshare(self.status)
            self.status = []
        for mfn in self.shared:
            self._memory.clear(mfn)
        self.version = self._domain.grant_version = version
        for ref, entry in enumerate(kept):
            self.write_reserved(ref, entry)

    def _fit_for_version_1(self, ref: int) -> Entry:
        entry = self.read(ref)
        if entry.kind == GTF_transitive or (entry.kind == GTF_permit_access and entry.frame >> 32):
            raise HypercallError(ERANGE)
        if entry.kind != GTF_permit_access:
            return Entry(0, 0, 0)
        return Entry(entry.flags | self.read_status(ref), entry.domid, entry.frame)

    def write_reserved(self, ref: int, entry: Entry) -> None:
        """Store an entry below GNTTAB_NR_RESERVED_ENTRIES, which are the toolstack's."""
        if self.version == 1:
            layout = GrantEntryV1(flags=entry.flags, domid=entry.domid, frame=entry.frame)
            self._memory.write(self.entry_at(ref), bytes(layout))
            return
        wide = GrantEntryV2()
        wide.full_page.hdr.flags = entry.flags & ~_IN_USE
        wide.full_page.hdr.domid = entry.domid
        wide.full_page.frame = entry.frame
        self._memory.write(self.entry_at(ref), bytes(wide))
        self._memory.write(self.status_at(ref), (entry.flags & _IN_USE).to_bytes(STATUS_SIZE, "little"))

    def entry_at(self, ref: int) -> int:
        """The machine address of an entry that exists."""
        at = ref * ENTRY_SIZE[self.version]
        mfn = self.shared[at >> 12]
        return (mfn << 12) + (at & 0xFFF)

    def status_at(self, ref: int) -> int:
        """The machine address of the word with an entry's GTF_reading and GTF_writing."""
        if self.version == 1:
            return self.entry_at(ref)
        at = ref * STATUS_SIZE
        mfn = self.status[at >> 12]
        return (mfn << 12) + (at & 0xFFF)

    def read(self, ref: int) -> Entry:
        """A copy of the entry of a reference below :attr:`nr_entries`, each field of which is read once."""
        read, at = self._host.read_number, self.entry_at(ref)
        word = read(at, 4)
        flags, domid = word & 0xFFFF, word >> 16
        if self.version == 1:
            return Entry(flags, domid, read(at + 4, 4))
        if flags & GTF_type_mask == GTF_transitive:
            return Entry(flags, domid, 0, trans_domid=read(at + 4, 2), trans_ref=read(at + 8, 4))
        frame = read(at + 8, 8)
        if flags & GTF_sub_page:
            return Entry(flags, domid, frame, read(at + 4, 2), read(at + 6, 2))
        return Entry(flags, domid, frame)

    def frame_at(self, ref: int) -> int:
        """The frame that an entry names which is neither for a transfer nor transitive."""
        at = self.entry_at(ref)
        return self._host.read_number(at + 4, 4) if self.version == 1 else self._host.read_number(at + 8, 8)

    def read_status(self, ref: int) -> int:
        """GTF_reading and GTF_writing of an entry."""
        return self._host.read_number(self.status_at(ref), STATUS_SIZE) & _IN_USE

    def swap(self, one: int, other: int) -> None:
        """Exchange two entries that exist, with their status."""
        size = ENTRY_SIZE[self.version]
        self._swap(self.entry_at(one), self.entry_at(other), size)
        if self.version == 2:
            self._swap(self.status_at(one), self.status_at(other), STATUS_SIZE)

    def _swap(self, one: int, other: int, size: int) -> None:
        first, second = self._memory.read(one, size), self._memory.read(other, size)
        self._memory.write(one, second)
        self._memory.write(other, first)


def _status_frames(shared_frames: int) -> int:
    """How many status frames belong to so many shared frames of version 2."""
    return -(-shared_frames * FRAME_SIZE // ENTRY_SIZE[2] * STATUS_SIZE // FRAME_SIZE)


def grants_of(domain: Domain) -> GrantFrames:
    """A domain's grant table, which is made when it is first asked for.

    Raises:
        HypercallError: ENOMEM, the machine has no frame for it.
    """
    state = domain.state
    if state.grants is None:
        state.grants = GrantFrames(domain, state.max_grant_frames)
    return state.grants
