"""GNTTABOP_copy: bytes from one frame to another, each the caller's own or granted to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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


def copy(caller: Domain, request: GnttabCopy) -> int:
    """Carry out one request: its status."""
    from_grant = bool(request.flags & GNTCOPY_source_gref)
    to_grant = bool(request.flags & GNTCOPY_dest_gref)
    try:
        giver = _party(caller, request.source.domid, from_grant)
        taker = _party(caller, request.dest.domid, to_grant)
        with ExitStack() as held:
            source = held.enter_context(_claimed(caller, giver, request.source.u, from_grant, True))
            dest = held.enter_context(_claimed(caller, taker, request.dest.u, to_grant, False))
            owner = caller.host.frame_info(dest.mfn)[0]
            held.enter_context(_written(caller.host, dest.mfn, owner))
            _check(request, source, dest)
            data = caller.host.memory.read((source.mfn << 12) + request.source.offset, request.len)
            caller.host.memory.write((dest.mfn << 12) + request.dest.offset, data)
    except GrantStatus as end:
        return end.status
    return GNTST_okay


def _party(caller: Domain, domid: int, by_grant: bool) -> Domain:
    if domid == DOMID_SELF:
        return caller
    if not by_grant:
        raise GrantStatus(GNTST_permission_denied)
    domain = find_granter(caller.host, domid)
    if domain is None:
        raise GrantStatus(GNTST_bad_domain)
    return domain


@contextmanager
def _claimed(caller: Domain, owner: Domain, where: Any, by_grant: bool, readonly: bool) -> Iterator[Part]:
    """One side's frame, with a reference, and with its grant in use if there is one."""
    if by_grant:
        part = acquire_for_copy(owner, where.ref, caller.domid, readonly)
        try:
            yield part
        finally:
            release_for_copy(owner, where.ref, part, readonly)
        return
    if not owner.host.get_page(where.gmfn, owner.domid):
        raise GrantStatus(GNTST_bad_page)
    try:
        yield Part(where.gmfn, 0, FRAME_SIZE)
    finally:
        owner.host.put_page(where.gmfn)


@contextmanager
def _written(host: Host, mfn: int, owner: int) -> Iterator[None]:
    """A use of a frame as writable memory."""
    if host.get_page_and_type(mfn, owner, FRAME_WRITABLE) != 0:
        raise GrantStatus(GNTST_general_error)
    try:
        yield
    finally:
        host.put_page_and_type(mfn)


def _check(request: GnttabCopy, source: Part, dest: Part) -> None:
    if max(request.source.offset, request.dest.offset) + request.len > FRAME_SIZE:
        raise GrantStatus(GNTST_bad_copy_arg)
    for part, end in ((source, request.source), (dest, request.dest)):
        if end.offset < part.start or end.offset + request.len > part.start + part.length:
            raise GrantStatus(GNTST_general_error)
