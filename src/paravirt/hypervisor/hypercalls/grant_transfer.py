"""GNTTABOP_transfer: a frame, with its contents, goes to a domain that asked for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.abi.grant_table import (
    GNTST_bad_domain,
    GNTST_bad_page,
    GNTST_general_error,
    GNTST_okay,
    GnttabTransfer,
    GTF_accept_transfer,
    GTF_transfer_committed,
    GTF_transfer_completed,
)

from .grant_frames import GrantFrames, grants_of

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain

_TRIES = 5
_FRAME_FIELD = {1: (4, 4), 2: (8, 8)}
"""Where an entry has its frame, and the field's size, in bytes, by version."""


def transfer(caller: Domain, request: GnttabTransfer) -> int:
    """Carry out one request: its status.

    The frame is taken from the caller before anything is known of the receiver: if that does not take it, it is gone.
    """
    host = caller.host
    if not caller.steal_frame(request.mfn):
        return GNTST_bad_page
    receiver = host.domains.get(request.domid)
    status = GNTST_bad_domain if receiver is None else _give(caller, receiver, request)
    if status != GNTST_okay:
        host.put_page(request.mfn)
    return status


def _give(caller: Domain, receiver: Domain, request: GnttabTransfer) -> int:
    if receiver.is_dying or receiver.tot_pages >= receiver.max_pages:
        return GNTST_general_error
    grants, host = grants_of(receiver), receiver.host
    with host.quiesced(receiver):
        if request.ref >= grants.nr_entries or not _commit(receiver, grants, request.ref, caller.domid):
            return GNTST_general_error
        receiver.assign_frame(request.mfn)
        host.set_m2p(request.mfn, grants.read(request.ref).frame)
        address = grants.entry_at(request.ref)
        at, size = _FRAME_FIELD[grants.version]
        host.memory.write(address + at, (request.mfn & ((1 << 8 * size) - 1)).to_bytes(size, "little"))
        host.set_bits(address, GTF_transfer_completed)
    return GNTST_okay


def _commit(receiver: Domain, grants: GrantFrames, ref: int, giver: int) -> bool:
    """Lock the entry to this transfer: false if it does not ask this domain for a frame."""
    host, address = receiver.host, grants.entry_at(ref)
    wanted = GTF_accept_transfer | giver << 16
    return any(
        host.compare_exchange(address, wanted, wanted | GTF_transfer_committed) == wanted for _ in range(_TRIES)
    )
