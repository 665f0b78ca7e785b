# cython: language_level=3, annotation_typing=False
"""Grants in use: they are acquired, which the entry's flags then say, and given back.

A use goes by what the entry was when the first use began.  GTF_reading and GTF_writing tell the granter that its
frame is in use; they are set together with the last look at the entry, in one step, so that a guest which takes its
grant back with a locked instruction has either prevented the use or sees it.  Where the engine's locked instructions
are not atomic for us, the granter is kept out of guest code meanwhile.

Behaviour: Xen 4.17, common/grant_table.c.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from paravirt.abi.grant_table import (
    GNTMAP_device_map,
    GNTMAP_host_map,
    GNTMAP_readonly,
    GNTST_bad_domain,
    GNTST_bad_gntref,
    GNTST_bad_page,
    GNTST_general_error,
    GTF_permit_access,
    GTF_reading,
    GTF_readonly,
    GTF_sub_page,
    GTF_transitive,
    GTF_type_mask,
    GTF_writing,
)

from .grant_frames import (
    DEVICE_READ,
    DEVICE_WRITE,
    FRAME_SIZE,
    HOST_READ,
    HOST_WRITE,
    Active,
    GrantFrames,
    grants_of,
)

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Host

FRAME_WRITABLE: Final = 7  # records.pxd: the frame's type while it is written
_TRIES: Final = 5
_PLAIN: Final = (GTF_permit_access,)
_PLAIN_OR_TRANSITIVE: Final = (GTF_permit_access, GTF_transitive)
_PIN_LIMIT: Final = 0x80
"""A kind of use that is counted up to here refuses more."""


class GrantStatus(Exception):
    """A request ends with a status, GNTST_*."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Part:
    """The part of a frame that a copy may use; a reference to the frame is held."""

    def __init__(self, mfn: int, start: int, length: int) -> None:
        self.mfn = mfn
        self.start = start
        self.length = length


def find_granter(host: Host, domid: int) -> Domain | None:
    """The domain whose grant a request names; one that has ended counts while others have its frames mapped."""
    domain = host.find(domid)
    return None if domain is not None and domain.is_dying and domain.state.grants is None else domain


_READ_KINDS: Final = ((), (DEVICE_READ,), (HOST_READ,), (DEVICE_READ, HOST_READ))
_WRITE_KINDS: Final = ((), (DEVICE_WRITE,), (HOST_WRITE,), (DEVICE_WRITE, HOST_WRITE))


def kinds(flags: int) -> tuple[int, ...]:
    """The kinds of use that a mapping's GNTMAP_* flags stand for."""
    wanted = flags & (GNTMAP_device_map | GNTMAP_host_map)
    return _READ_KINDS[wanted] if flags & GNTMAP_readonly else _WRITE_KINDS[wanted]


def take_frame(host: Host, mfn: int, domid: int, readonly: bool) -> bool:
    """Take a reference to a domain's frame, and a use as writable memory unless it is only read: false if not to be
    had."""
    if readonly:
        return host.get_page(mfn, domid)
    return host.get_page_and_type(mfn, domid, FRAME_WRITABLE) == 0


def put_frame(host: Host, mfn: int, readonly: bool) -> None:
    """Give it back."""
    if readonly:
        host.put_page(mfn)
    else:
        host.put_page_and_type(mfn)


def _set_status(owner: Domain, grants: GrantFrames, ref: int, user: int, readonly: bool, is_mapping: bool) -> None:
    """See that the entry allows a use, and have it say that it is in use.

    Raises:
        GrantStatus: GNTST_general_error.
    """
    pinned = ref in grants.active
    mask = GTF_type_mask | (GTF_sub_page if is_mapping else 0)
    good = _PLAIN if is_mapping or grants.version == 1 else _PLAIN_OR_TRANSITIVE
    wanted = GTF_reading if readonly else GTF_reading | GTF_writing
    host, address = owner.host, grants.entry_at(ref)
    for _ in range(_TRIES):
        word = host.read_number(address, 4)
        flags, domid = word & 0xFFFF, word >> 16
        if not pinned and (flags & mask not in good or domid != user):
            raise GrantStatus(GNTST_general_error)
        if not readonly and flags & GTF_readonly:
            raise GrantStatus(GNTST_general_error)
        if grants.version == 1:
            if host.compare_exchange(address, word, word | wanted) == word:
                return
        else:
            # The status is a word of its own: set it first, then see whether the entry is still the same.
            host.set_bits(grants.status_at(ref), wanted)
            if host.read_number(address, 4) == word:
                return
            _clear_unused(owner, grants, ref, readonly)
    raise GrantStatus(GNTST_general_error)


def _clear_unused(owner: Domain, grants: GrantFrames, ref: int, readonly: bool) -> None:
    """A use ended, or came to nothing: the flags for which there is no use any more go."""
    active = grants.active.get(ref)
    used = active is not None and active.is_used
    written = active is not None and active.is_written
    bits = (0 if used else GTF_reading) | (0 if readonly or written else GTF_writing)
    if active is not None and not used:
        del grants.active[ref]
    if bits and not grants.is_closed:
        owner.host.clear_bits(grants.status_at(ref), bits)


def pin_for_mapping(owner: Domain, ref: int, user: int, flags: int) -> Active:
    """Begin a mapping's use of a grant; GNTMAP_* ``flags`` say which.

    Raises:
        GrantStatus: GNTST_bad_gntref, GNTST_general_error, GNTST_bad_page.
    """
    grants, host = grants_of(owner), owner.host
    readonly = bool(flags & GNTMAP_readonly)
    if ref >= grants.nr_entries:
        raise GrantStatus(GNTST_bad_gntref)
    with host.quiesced(owner):
        active = grants.active.get(ref)
        _check_active(active, user, kinds(flags))
        if active is not None and active.is_sub_page:
            raise GrantStatus(GNTST_general_error)
        if grants.is_closed and active is None:
            raise GrantStatus(GNTST_bad_page)
        if active is None or not (readonly or active.is_written):
            if not grants.is_closed:
                _set_status(owner, grants, ref, user, readonly, True)
            elif active is not None and active.is_readonly:
                raise GrantStatus(GNTST_general_error)
            if active is None:
                mfn = grants.frame_at(ref)
                if not host.get_page(mfn, owner.domid):
                    _clear_unused(owner, grants, ref, readonly)
                    raise GrantStatus(GNTST_bad_page)
                host.put_page(mfn)  # the mapping takes its own
                active = grants.active[ref] = Active(user, mfn)
        for kind in kinds(flags):
            active.pins[kind] += 1
    return active


def _check_active(active: Active | None, user: int, wanted: tuple[int, ...]) -> None:
    if active is None:
        return
    if active.domid != user:
        raise GrantStatus(GNTST_general_error)
    for kind in wanted:
        if active.pins[kind] >= _PIN_LIMIT:
            raise GrantStatus(GNTST_general_error)


def unpin(owner: Domain, ref: int, wanted: tuple[int, ...]) -> None:
    """A use of a grant, of some kinds, has ended."""
    grants = grants_of(owner)
    with owner.host.quiesced(owner):
        active = grants.active[ref]
        for kind in wanted:
            active.pins[kind] -= 1
        # Kinds of one use are all for reading, or all for writing.
        _clear_unused(owner, grants, ref, wanted[0] in (HOST_READ, DEVICE_READ))


def acquire_for_copy(owner: Domain, ref: int, user: int, readonly: bool, may_lead_on: bool = True) -> Part:
    """Begin a copy's use of a grant, with a reference to the frame.

    Args:
        may_lead_on: a transitive grant may stand there.

    Raises:
        GrantStatus: GNTST_bad_gntref, GNTST_general_error, GNTST_bad_page, GNTST_bad_domain.
    """
    grants, host = grants_of(owner), owner.host
    kind = HOST_READ if readonly else HOST_WRITE
    if ref >= grants.nr_entries:
        raise GrantStatus(GNTST_bad_gntref)
    with host.quiesced(owner):
        active = grants.active.get(ref)
        _check_active(active, user, (kind,))
        if grants.is_closed:
            raise GrantStatus(GNTST_bad_domain)
        if active is None or not (readonly or active.is_written):
            _set_status(owner, grants, ref, user, readonly, False)
        try:
            active, part = _copy_frame(owner, grants, ref, active, user, readonly, may_lead_on)
        except GrantStatus:
            _clear_unused(owner, grants, ref, readonly)
            raise
        grants.active[ref] = active
        active.pins[kind] += 1
    return part


def _copy_frame(
    owner: Domain,
    grants: GrantFrames,
    ref: int,
    active: Active | None,
    user: int,
    readonly: bool,
    may_lead_on: bool,
) -> tuple[Active, Part]:
    host = owner.host
    if active is not None:
        # What became of the entry since does not matter, as long as the frame is there.
        if not host.get_page(active.mfn, owner.domid):
            raise GrantStatus(GNTST_bad_domain)
        return active, Part(active.mfn, active.start, active.length)
    entry = grants.read(ref)
    if grants.version == 2 and entry.kind == GTF_transitive:
        behind = find_granter(host, entry.trans_domid)
        if not may_lead_on or entry.trans_domid == owner.domid or behind is None:
            raise GrantStatus(GNTST_general_error)
        part = acquire_for_copy(behind, entry.trans_ref, owner.domid, readonly, False)
        return Active(user, part.mfn, part.start, part.length, True, (behind, entry.trans_ref)), part
    if not host.get_page(entry.frame, owner.domid):
        raise GrantStatus(GNTST_bad_page)
    is_sub_page = (entry.offset, entry.length) != (0, FRAME_SIZE)
    is_sub_page = is_sub_page or (grants.version == 2 and bool(entry.flags & GTF_sub_page))
    active = Active(user, entry.frame, entry.offset, entry.length, is_sub_page)
    return active, Part(entry.frame, entry.offset, entry.length)


def release_for_copy(owner: Domain, ref: int, part: Part, readonly: bool) -> None:
    """End what :func:`acquire_for_copy` began."""
    owner.host.put_page(part.mfn)
    while True:
        behind = grants_of(owner).active[ref].behind
        unpin(owner, ref, (HOST_READ if readonly else HOST_WRITE,))
        if behind is None:
            return
        owner, ref = behind


def release_mappings(domain: Domain, most: int) -> bool:
    """A domain ends: give back at most so many of its mappings of others' grants.  Whether none is left.

    Its page tables hold what their entries map, and give it back with themselves; device mappings do so here.
    """
    host, track = domain.host, domain.state.maptrack
    for handle in list(islice(track.mappings, most)):
        mapping = track.mappings[handle]
        owner = host.find(mapping.domid)
        if owner is not None:
            mfn = grants_of(owner).active[mapping.ref].mfn
            if mapping.flags & GNTMAP_device_map:
                put_frame(host, mfn, bool(mapping.flags & GNTMAP_readonly))
            unpin(owner, mapping.ref, kinds(mapping.flags))
        track.give(handle)
    return not track.mappings
