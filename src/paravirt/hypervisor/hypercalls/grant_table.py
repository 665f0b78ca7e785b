# cython: language_level=3, annotation_typing=False
"""grant_table_op: a domain's grant table, and the use of others' grants (public/grant_table.h).

Set-up, versions and swaps are here; mappings, copies and transfers have modules of their own.

Requests come as a list; each gets its own status, and the hypercall's result tells only whether the list could be
worked on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paravirt.abi.errno import EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from paravirt.abi.grant_table import (
    GNTTAB_CACHE_CLEAN,
    GNTTAB_CACHE_INVAL,
    GNTST_bad_domain,
    GNTST_bad_gntref,
    GNTST_bad_virt_addr,
    GNTST_eagain,
    GNTST_general_error,
    GNTST_okay,
    GNTST_permission_denied,
    GnttabCacheFlush,
    GnttabCopy,
    GnttabGetStatusFrames,
    GnttabGetVersion,
    GnttabMapGrantRef,
    GNTTABOP_cache_flush,
    GNTTABOP_copy,
    GNTTABOP_get_status_frames,
    GNTTABOP_get_version,
    GNTTABOP_map_grant_ref,
    GNTTABOP_query_size,
    GNTTABOP_set_version,
    GNTTABOP_setup_table,
    GNTTABOP_swap_grant_ref,
    GNTTABOP_transfer,
    GNTTABOP_unmap_and_replace,
    GNTTABOP_unmap_grant_ref,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
    GnttabSwapGrantRef,
    GnttabTransfer,
    GnttabUnmapAndReplace,
    GnttabUnmapGrantRef,
)
from paravirt.abi.xen import __HYPERVISOR_grant_table_op
from paravirt.hypervisor.refusal_report import Answer

from .grant_copy import copy
from .grant_frames import FRAME_SIZE, GrantFrames, grants_of
from .grant_map import Unmapped, complete_unmaps, map_grant, unmap_grant
from .grant_transfer import transfer
from .registry import (
    HypercallContinuation,
    HypercallError,
    find_target,
    hypercall,
    is_guest_address,
    u32,
)

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Vcpu

BATCH = 32
"""Requests of a list that are worked on before the rest of the machine goes on: well under a millisecond's work."""
WORK_OF_REQUEST = 512
"""What each counts, in looks at page-table entries (``Host.spend``): the time of some microseconds."""
COMMAND_BITS = 12
"""Above them the command says where a preempted cache_flush goes on."""
_STATUS_OF = {ESRCH: GNTST_bad_domain, EPERM: GNTST_permission_denied}


def _write_frames(vcpu: Vcpu, address: int, mfns: list[int]) -> int:
    """Store a list of frame numbers in guest memory: the status."""
    status = GNTST_okay
    for index, mfn in enumerate(mfns):
        try:
            vcpu.copy_to_guest(address + 8 * index, mfn.to_bytes(8, "little"))
        except HypercallError:
            status = GNTST_bad_virt_addr
    return status


def _put_status(vcpu: Vcpu, address: int, request: Any) -> None:
    """Write back a request's status and nothing else of it."""
    field = type(request).status
    vcpu.copy_to_guest(address + field.offset, request.status.to_bytes(field.size, "little", signed=True))


def _target_grants(vcpu: Vcpu, domid: int) -> tuple[GrantFrames | None, int]:
    """The grant table of the domain that a request names, or the status that refuses it."""
    try:
        return grants_of(find_target(vcpu, domid)), GNTST_okay
    except HypercallError as error:
        return None, _STATUS_OF.get(error.errno, GNTST_general_error)


def _setup_table(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, GnttabSetupTable)
    if not is_guest_address(request.frame_list):
        raise HypercallError(EFAULT)
    grants, request.status = _target_grants(vcpu, request.dom)
    if grants is not None:
        if request.nr_frames > grants.limit or not grants.grow(request.nr_frames):
            request.status = GNTST_general_error
        else:
            request.status = _write_frames(vcpu, request.frame_list, grants.shared[: request.nr_frames])
    _put_status(vcpu, arg, request)
    return 0


def _query_size(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, GnttabQuerySize)
    grants, request.status = _target_grants(vcpu, request.dom)
    if grants is not None:
        request.nr_frames, request.max_nr_frames = len(grants.shared), grants.limit
    vcpu.write_struct(arg, request)
    return 0


def _get_status_frames(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, GnttabGetStatusFrames)
    grants, request.status = _target_grants(vcpu, request.dom)
    if grants is not None:
        if request.nr_frames > len(grants.status):
            request.status = GNTST_general_error
        else:
            request.status = _write_frames(vcpu, request.frame_list, grants.status[: request.nr_frames])
    _put_status(vcpu, arg, request)
    return 0


def _set_version(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, GnttabSetVersion)
    grants = grants_of(vcpu.domain)
    refusal: HypercallError | None = None
    if request.version not in (1, 2):
        refusal = HypercallError(EINVAL)
    elif request.version > vcpu.domain.state.max_grant_version:
        refusal = HypercallError(ENOSYS)  # as before there were versions
    else:
        try:
            grants.set_version(request.version)
        except HypercallError as error:
            refusal = error
    request.version = grants.version
    vcpu.write_struct(arg, request)
    if refusal is not None:
        raise refusal
    return 0


def _get_version(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, GnttabGetVersion)
    version = grants_of(find_target(vcpu, request.dom)).version
    vcpu.copy_to_guest(arg + GnttabGetVersion.version.offset, version.to_bytes(4, "little"))
    return 0


def _map(vcpu: Vcpu, request: GnttabMapGrantRef) -> int:
    return map_grant(vcpu, request)


def _transfer(vcpu: Vcpu, request: GnttabTransfer) -> int:
    return transfer(vcpu.domain, request)


def _copy(vcpu: Vcpu, request: GnttabCopy) -> int:
    return copy(vcpu.domain, request)


def _swap(vcpu: Vcpu, request: GnttabSwapGrantRef) -> int:
    grants = grants_of(vcpu.domain)
    if max(request.ref_a, request.ref_b) >= grants.nr_entries:
        return GNTST_bad_gntref
    if request.ref_a != request.ref_b:
        if request.ref_a in grants.active or request.ref_b in grants.active:
            return GNTST_eagain
        grants.swap(request.ref_a, request.ref_b)
    return GNTST_okay


def _cache_flush(vcpu: Vcpu, request: GnttabCacheFlush) -> None:
    """Write back and drop a range's cache lines: memory here is coherent, so that only the checks remain.

    Raises:
        HypercallError: EINVAL, also by reference; EPERM, nobody's frame; EOPNOTSUPP, dropping lines unwritten.
    """
    end = request.offset + request.length
    if request.offset >= FRAME_SIZE or end > FRAME_SIZE:
        raise HypercallError(EINVAL)
    if request.op & ~(GNTTAB_CACHE_INVAL | GNTTAB_CACHE_CLEAN):
        raise HypercallError(EINVAL)
    if request.length == 0 or request.op == 0:
        return
    host = vcpu.domain.host
    mfn = request.a.dev_bus_addr >> 12
    if mfn >= host.nr_frames:
        raise HypercallError(EINVAL)
    owner = host.find(host.frame_info(mfn)[0])
    if owner is None:
        raise HypercallError(EPERM)
    if owner is not vcpu.domain and not _is_user(vcpu.domain, owner, mfn):
        raise HypercallError(EINVAL)
    if request.op == GNTTAB_CACHE_INVAL:
        raise HypercallError(EOPNOTSUPP)


def _is_user(user: Domain, owner: Domain, mfn: int) -> bool:
    """Whether a domain uses a frame of another's through a grant."""
    return any(active.domid == user.domid and active.mfn == mfn for active in grants_of(owner).active.values())


@dataclass(frozen=True)
class _List:
    """An operation on a list of requests; ``run`` gives the status, or None if the layout has no place for one.

    ``whole``: the guest gets back all of the request, and not the status alone.
    """

    layout: type[ctypes.Structure]
    run: Callable[[Vcpu, Any], int | None]
    whole: bool = False


_LISTS = {
    GNTTABOP_map_grant_ref: _List(GnttabMapGrantRef, _map, True),
    GNTTABOP_transfer: _List(GnttabTransfer, _transfer),
    GNTTABOP_copy: _List(GnttabCopy, _copy),
    GNTTABOP_swap_grant_ref: _List(GnttabSwapGrantRef, _swap),
    GNTTABOP_cache_flush: _List(GnttabCacheFlush, _cache_flush),
}
_UNMAPS = {
    GNTTABOP_unmap_grant_ref: GnttabUnmapGrantRef,
    GNTTABOP_unmap_and_replace: GnttabUnmapAndReplace,
}
_SINGLE = {
    GNTTABOP_setup_table: _setup_table,
    GNTTABOP_query_size: _query_size,
    GNTTABOP_get_status_frames: _get_status_frames,
}
_COUNTLESS = {
    GNTTABOP_set_version: _set_version,
    GNTTABOP_get_version: _get_version,
}


@hypercall(__HYPERVISOR_grant_table_op)
def grant_table_op(vcpu: Vcpu, cmd: int, arg: int, count: int, *_: int) -> int:
    """One operation on grant tables, for ``count`` requests at ``arg``.

    Raises:
        HypercallError: EINVAL, a count that the operation does not take; EFAULT; ENOSYS, no such operation; what
            set_version, get_version and cache_flush say, whose requests have no status.
        HypercallContinuation: there are more requests.
    """
    cmd, count = u32(cmd), u32(count)
    operation, upper = cmd & ((1 << COMMAND_BITS) - 1), cmd >> COMMAND_BITS
    if count >> 31 or (upper and operation != GNTTABOP_cache_flush):
        raise HypercallError(EINVAL)
    if operation in _LISTS:
        return _run_list(vcpu, cmd, _LISTS[operation], arg, count)
    if operation in _UNMAPS:
        return _run_unmaps(vcpu, cmd, _UNMAPS[operation], arg, count)
    if operation in _SINGLE:
        if count != 1:
            raise HypercallError(EINVAL)
        return _SINGLE[operation](vcpu, arg)
    if operation in _COUNTLESS:
        return _COUNTLESS[operation](vcpu, arg)
    raise HypercallError(ENOSYS)


def _run_list(vcpu: Vcpu, cmd: int, operation: _List, arg: int, count: int) -> int:
    if not is_guest_address(arg):
        raise HypercallError(EFAULT)
    size = ctypes.sizeof(operation.layout)
    vcpu.domain.host.spend(WORK_OF_REQUEST * min(count, BATCH))
    for _done in range(min(count, BATCH)):
        request: Any = vcpu.read_struct(arg, operation.layout)
        status = operation.run(vcpu, request)
        if status:
            vcpu.note_refusal(Answer.STATUS, status, (cmd, arg, 1))
        if status is not None:
            request.status = status
            if operation.whole:
                vcpu.write_struct(arg, request)
            else:
                _put_status(vcpu, arg, request)
        arg += size
    if count > BATCH:
        raise HypercallContinuation(cmd, arg, count - BATCH)
    return 0


def _run_unmaps(vcpu: Vcpu, cmd: int, layout: type[ctypes.Structure], arg: int, count: int) -> int:
    """Unmap a batch, flush once, and give back what was mapped."""
    if not is_guest_address(arg):
        raise HypercallError(EFAULT)
    size = ctypes.sizeof(layout)
    vcpu.domain.host.spend(WORK_OF_REQUEST * min(count, BATCH))
    undone: list[Unmapped] = []
    try:
        for _done in range(min(count, BATCH)):
            request: Any = vcpu.read_struct(arg, layout)
            request.status = unmap_grant(vcpu, request, undone)
            if request.status:
                vcpu.note_refusal(Answer.STATUS, request.status, (cmd, arg, 1))
            _put_status(vcpu, arg, request)
            arg += size
    finally:
        complete_unmaps(vcpu, undone)
    if count > BATCH:
        raise HypercallContinuation(cmd, arg, count - BATCH)
    return 0
