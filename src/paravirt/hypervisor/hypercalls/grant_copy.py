# cython: language_level=3, annotation_typing=False
"""GNTTABOP_copy: bytes from one frame to another, each the caller's own or granted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paravirt.abi.grant_table import (
    GNTCOPY_dest_gref,
    GNTCOPY_source_gref,
    GNTST_bad_copy_arg,
    GNTST_bad_domain,
    GNTST_bad_page,
    GNTST_general_error,
    GNTST_okay,
    GNTST_permission_denied,
    GnttabCopy,
)
from paravirt.abi.xen import DOMID_SELF

from .grant_active import FRAME_WRITABLE, GrantStatus, Part, acquire_for_copy, find_granter, release_for_copy
from .grant_frames import FRAME_SIZE

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Host


class _End:
    """One side of a request: a grant of ``domain``'s, or a frame of its."""

    def __init__(self, domain: Domain, by_grant: bool, where: int, offset: int) -> None:
        self.domain = domain
        self.by_grant = by_grant
        self.where = where
        self.offset = offset


def copy(caller: Domain, request: GnttabCopy) -> int:
    """Carry out one request: its status."""
    flags, length = request.flags, request.len
    try:
        giver = _end(caller, request.source, flags & GNTCOPY_source_gref != 0)
        taker = _end(caller, request.dest, flags & GNTCOPY_dest_gref != 0)
        source = _claim(caller, giver, True)
        try:
            dest = _claim(caller, taker, False)
            try:
                _copy_parts(caller.host, giver.offset, source, taker.offset, dest, length)
            finally:
                _release(taker, dest, False)
        finally:
            _release(giver, source, True)
    except GrantStatus as end:
        return end.status
    return GNTST_okay


def _end(caller: Domain, side: Any, by_grant: bool) -> _End:
    domid, where = side.domid, side.u
    if domid == DOMID_SELF:
        domain = caller
    elif not by_grant:
        raise GrantStatus(GNTST_permission_denied)
    else:
        found = find_granter(caller.host, domid)
        if found is None:
            raise GrantStatus(GNTST_bad_domain)
        domain = found
    return _End(domain, by_grant, where.ref if by_grant else where.gmfn, side.offset)


def _claim(caller: Domain, end: _End, readonly: bool) -> Part:
    """One side's frame, with a reference, and with its grant in use if there is one: until :func:`_release`."""
    domain = end.domain
    if end.by_grant:
        return acquire_for_copy(domain, end.where, caller.domid, readonly)
    if not domain.host.get_page(end.where, domain.domid):
        raise GrantStatus(GNTST_bad_page)
    return Part(end.where, 0, FRAME_SIZE)


def _release(end: _End, part: Part, readonly: bool) -> None:
    if end.by_grant:
        release_for_copy(end.domain, end.where, part, readonly)
    else:
        end.domain.host.put_page(part.mfn)


def _copy_parts(host: Host, at: int, source: Part, to: int, dest: Part, length: int) -> None:
    """See that the bytes are within both parts, and copy them into a frame that is in use as writable memory."""
    mfn = dest.mfn
    if host.get_page_and_type(mfn, host.owner_of(mfn), FRAME_WRITABLE) != 0:
        raise GrantStatus(GNTST_general_error)
    try:
        if max(at, to) + length > FRAME_SIZE:
            raise GrantStatus(GNTST_bad_copy_arg)
        for part, offset in ((source, at), (dest, to)):
            if offset < part.start or offset + length > part.start + part.length:
                raise GrantStatus(GNTST_general_error)
        host.copy_memory((mfn << 12) + to, (source.mfn << 12) + at, length)
    finally:
        host.put_page_and_type(mfn)
