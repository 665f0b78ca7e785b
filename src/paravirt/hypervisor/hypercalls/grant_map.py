# cython: language_level=3, annotation_typing=False
"""map_grant_ref, unmap_grant_ref and unmap_and_replace, for a guest that maps into its own page tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.abi.grant_table import (
    GNTMAP_device_map,
    GNTMAP_host_map,
    GNTMAP_readonly,
    GNTST_bad_dev_addr,
    GNTST_bad_domain,
    GNTST_bad_gntref,
    GNTST_bad_handle,
    GNTST_general_error,
    GNTST_no_space,
    GNTST_okay,
    GnttabMapGrantRef,
    GnttabUnmapAndReplace,
    GnttabUnmapGrantRef,
)
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.grant_entries import map_granted, unmap_granted

from .grant_active import GrantStatus, find_granter, kinds, pin_for_mapping, put_frame, take_frame, unpin
from .grant_frames import grants_of
from .maptrack import Mapping

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Vcpu

_BOTH = GNTMAP_device_map | GNTMAP_host_map


class Unmapped:
    """What an unmapping took away: to be given back when translations of it are flushed."""

    def __init__(self, owner: Domain, ref: int, mfn: int, flags: int) -> None:
        self.owner = owner
        self.ref = ref
        self.mfn = mfn
        self.flags = flags


def map_grant(vcpu: Vcpu, request: GnttabMapGrantRef) -> int:
    """Map a grant for the processor, a device, or both: the status; handle and bus address go into the request."""
    flags = request.flags
    if not flags & _BOTH:
        return GNTST_bad_gntref
    owner = find_granter(vcpu.domain.host, request.dom)
    if owner is None:
        return GNTST_bad_domain
    track = vcpu.domain.state.maptrack
    handle = track.take()
    if handle is None:
        return GNTST_no_space
    try:
        mfn = _map(vcpu, owner, request, flags)
    except GrantStatus as end:
        track.give(handle)
        return end.status
    # As the caller named it: DOMID_SELF is no domain here.
    track.mappings[handle] = Mapping(owner.domid, request.ref, flags)
    request.handle, request.dev_bus_addr = handle, mfn << 12
    return GNTST_okay


def _map(vcpu: Vcpu, owner: Domain, request: GnttabMapGrantRef, flags: int) -> int:
    host = owner.host
    readonly = bool(flags & GNTMAP_readonly)
    mfn = pin_for_mapping(owner, request.ref, vcpu.domain.domid, flags).mfn
    wanted = kinds(flags)
    taken = 0
    while taken < len(wanted) and take_frame(host, mfn, owner.domid, readonly):
        taken += 1
    if taken == len(wanted) and (
        not flags & GNTMAP_host_map or map_granted(vcpu, request.host_addr, mfn, flags)
    ):
        return mfn
    for _ in range(taken):
        put_frame(host, mfn, readonly)
    unpin(owner, request.ref, wanted)
    raise GrantStatus(GNTST_general_error)


def unmap_grant(vcpu: Vcpu, request: GnttabUnmapGrantRef | GnttabUnmapAndReplace, undone: list[Unmapped]) -> int:
    """Take a mapping away: the status.  What is left to give back is appended to ``undone``."""
    host, track = vcpu.domain.host, vcpu.domain.state.maptrack
    mapping = track.mappings.get(request.handle)
    if mapping is None:
        return GNTST_bad_handle
    owner = host.find(mapping.domid)
    if owner is None:
        raise HypervisorBug(f"domain {mapping.domid} is gone, and a grant of its is mapped")
    new_address = request.new_addr if isinstance(request, GnttabUnmapAndReplace) else 0
    bus_address = request.dev_bus_addr if isinstance(request, GnttabUnmapGrantRef) else 0
    mfn = grants_of(owner).active[mapping.ref].mfn
    flags, done = mapping.flags, 0
    if bus_address and flags & GNTMAP_device_map and bus_address != mfn << 12:
        return GNTST_bad_dev_addr
    if request.host_addr and flags & GNTMAP_host_map:
        if not unmap_granted(vcpu, request.host_addr, mfn, flags, new_address):
            return GNTST_general_error
        done |= GNTMAP_host_map
    if bus_address and flags & GNTMAP_device_map:
        done |= GNTMAP_device_map
    mapping.flags &= ~done
    if not mapping.flags & _BOTH:
        track.give(request.handle)
    if done:
        undone.append(Unmapped(owner, mapping.ref, mfn, done | flags & GNTMAP_readonly))
    return GNTST_okay


def complete_unmaps(vcpu: Vcpu, undone: list[Unmapped]) -> None:
    """Flush, and give back what unmappings took away."""
    if not undone:
        return
    vcpu.domain.flush_tlb()
    for one in undone:
        if not one.flags & GNTMAP_readonly:
            # The owner's engine did not see what was written through the mapping.
            one.owner.host.invalidate_code(one.mfn << 12, (one.mfn + 1) << 12)
        for _ in kinds(one.flags):
            put_frame(one.owner.host, one.mfn, bool(one.flags & GNTMAP_readonly))
        unpin(one.owner, one.ref, kinds(one.flags))
    undone.clear()
    vcpu.domain.host.reap()
