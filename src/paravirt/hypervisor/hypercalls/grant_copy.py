"""GNTTABOP_copy: bytes from one frame to another, each the caller's own or granted to it.

A copy is one step under the machine lock: the entries' reading and writing flags, which last as long as Xen's copy
does, would be set and cleared within it, so they are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from paravirt.abi.grant_table import (
    GNTCOPY_dest_gref,
    GNTCOPY_source_gref,
    GNTST_bad_copy_arg,
    GNTST_bad_domain,
    GNTST_bad_gntref,
    GNTST_bad_page,
    GNTST_general_error,
    GNTST_okay,
    GNTST_permission_denied,
    GnttabCopy,
    GTF_permit_access,
    GTF_readonly,
    GTF_transitive,
)
from paravirt.abi.xen import DOMID_SELF

from .grant_frames import FRAME_SIZE, Entry, grants_of

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Host

FRAME_WRITABLE = 7  # records.pxd: the frame's type while it is written


class GrantStatus(Exception):
    """A request ends with a status, GNTST_*."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class _Side:
    """One side of a copy: whose frame, and the part of it that may be used."""

    owner: Domain
    frame: int
    offset: int
    length: int


def copy(caller: Domain, request: GnttabCopy) -> int:
    """Carry out one request: its status."""
    flags = request.flags
    try:
        sides = [
            _party(caller, side.domid, bool(flags & flag))
            for side, flag in ((request.source, GNTCOPY_source_gref), (request.dest, GNTCOPY_dest_gref))
        ]
        source = _claim(caller, sides[0], request.source, bool(flags & GNTCOPY_source_gref), False)
        dest = _claim(caller, sides[1], request.dest, bool(flags & GNTCOPY_dest_gref), True)
        _transfer(caller.host, request, source, dest)
    except GrantStatus as end:
        return end.status
    return GNTST_okay


def _party(caller: Domain, domid: int, by_grant: bool) -> Domain:
    if domid == DOMID_SELF:
        return caller
    if not by_grant:
        raise GrantStatus(GNTST_permission_denied)
    domain = caller.host.domains.get(domid)
    if domain is None:
        raise GrantStatus(GNTST_bad_domain)
    return domain


def _claim(caller: Domain, owner: Domain, side: object, by_grant: bool, write: bool) -> _Side:
    where = side.u  # type: ignore[attr-defined]
    if by_grant:
        return granted(owner, where.ref, caller.domid, write)
    return _frame(owner, where.gmfn, 0, FRAME_SIZE)


def granted(owner: Domain, ref: int, user: int, write: bool, transitive: bool = True) -> _Side:
    """What the grant ``ref`` of ``owner`` gives to domain number ``user``.

    Raises:
        GrantStatus: GNTST_bad_gntref, no such entry; GNTST_general_error, it grants nothing, or not to that domain,
            or not writing; GNTST_bad_page, the frame is not the granter's.
    """
    grants = grants_of(owner)
    if ref >= grants.nr_entries:
        raise GrantStatus(GNTST_bad_gntref)
    entry: Entry = grants.read(ref)
    if entry.kind not in (GTF_permit_access, GTF_transitive) or entry.domid != user:
        raise GrantStatus(GNTST_general_error)
    if write and entry.flags & GTF_readonly:
        raise GrantStatus(GNTST_general_error)
    if entry.kind == GTF_permit_access:
        return _frame(owner, entry.frame, entry.offset, entry.length)
    # Version 1 has no transitive entries: what looks like one there is nothing.
    if not transitive or grants.version == 1 or entry.trans_domid == owner.domid:
        raise GrantStatus(GNTST_general_error)
    behind = owner.host.domains.get(entry.trans_domid)
    if behind is None:
        raise GrantStatus(GNTST_general_error)
    return granted(behind, entry.trans_ref, owner.domid, write, transitive=False)


def _frame(owner: Domain, mfn: int, offset: int, length: int) -> _Side:
    if mfn >= owner.host.nr_frames or owner.host.frame_info(mfn)[0] != owner.domid:
        raise GrantStatus(GNTST_bad_page)
    return _Side(owner, mfn, offset, length)


def _transfer(host: Host, request: GnttabCopy, source: _Side, dest: _Side) -> None:
    if host.get_page_and_type(dest.frame, dest.owner.domid, FRAME_WRITABLE) != 0:
        raise GrantStatus(GNTST_general_error)
    try:
        for side, end in ((source, request.source), (dest, request.dest)):
            if end.offset + request.len > FRAME_SIZE:
                raise GrantStatus(GNTST_bad_copy_arg)
            if end.offset < side.offset or end.offset + request.len > side.offset + side.length:
                raise GrantStatus(GNTST_general_error)
        data = host.memory.read((source.frame << 12) + request.source.offset, request.len)
        host.memory.write((dest.frame << 12) + request.dest.offset, data)
    finally:
        host.put_page_and_type(dest.frame)
