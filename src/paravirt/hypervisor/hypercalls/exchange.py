"""XENMEM_exchange: frames for frames, to get contiguous or low ones.

It works in chunks, the smallest number of extents on which both sides' sizes agree. A chunk is exchanged as a whole
or not at all, and the caller is told how many input extents were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from paravirt.abi.errno import EFAULT, EINVAL, ENOMEM, EPERM
from paravirt.abi.memory import XENMEM_exchange, XenMemoryExchange

from .registry import (
    PREEMPT_AFTER,
    WORK_OF_UNIT,
    HypercallContinuation,
    HypercallError,
    find_target,
    is_guest_address,
)
from .reservation import (
    FRAME_XEN,
    address_bits,
    address_of,
    max_order,
    names_exact_node,
    read_frame,
    write_frame,
)

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Vcpu

WORD = 0xFFFF_FFFF_FFFF_FFFF
FRAME_ALLOCATED = 1  # records.pxd: the owner's allocation holds one reference


@dataclass
class _Progress:
    """What the caller finds in nr_exchanged, whatever the end."""

    nr_exchanged: int


def exchange(vcpu: Vcpu, arg: int) -> int:
    """Exchange all extents: 0.

    Raises:
        HypercallError: EFAULT; EPERM, extents too large, or another domain's; EINVAL, sides that do not match, or an
            input frame that is not the domain's or is in use; ESRCH; ENOMEM, no such frames to be had.
        HypercallContinuation: there are more chunks.
    """
    request = vcpu.read_struct(arg, XenMemoryExchange)
    progress = _Progress(request.nr_exchanged)
    try:
        _exchange(vcpu, arg, request, progress)
    finally:
        done = progress.nr_exchanged.to_bytes(8, "little")
        vcpu.copy_to_guest(arg + XenMemoryExchange.nr_exchanged.offset, done)
    return 0


def _check(vcpu: Vcpu, request: XenMemoryExchange) -> None:
    give, get = request.in_, request.out
    if max(give.extent_order, get.extent_order) > max_order(vcpu.domain):
        raise HypercallError(EPERM)
    if (
        request.nr_exchanged > give.nr_extents
        or give.domid != get.domid
        or WORD >> give.extent_order < give.nr_extents
        or give.nr_extents << give.extent_order != get.nr_extents << get.extent_order
    ):
        raise HypercallError(EINVAL)
    first_out = request.nr_exchanged << give.extent_order >> get.extent_order
    if not is_guest_address(address_of(give.extent_start, request.nr_exchanged)) or not is_guest_address(
        address_of(get.extent_start, first_out)
    ):
        raise HypercallError(EFAULT)
    if not vcpu.domain.is_privileged and names_exact_node(get.mem_flags):
        raise HypercallError(EINVAL)


def _exchange(vcpu: Vcpu, arg: int, request: XenMemoryExchange, progress: _Progress) -> None:
    _check(vcpu, request)
    domain = find_target(vcpu, request.in_.domid)
    ratio = request.out.extent_order - request.in_.extent_order
    ins, outs = 1 << max(ratio, 0), 1 << max(-ratio, 0)  # extents in a chunk
    frames = ins << request.in_.extent_order
    work = 0
    for chunk in range(request.nr_exchanged // ins, request.in_.nr_extents // ins):
        progress.nr_exchanged = chunk * ins
        if work >= PREEMPT_AFTER or (work and domain.host.is_spent):
            raise HypercallContinuation(XENMEM_exchange, arg)
        old = _inputs(vcpu, domain, request, range(chunk * ins, chunk * ins + ins))
        new = _outputs(domain, request, outs)
        for mfn in old:
            domain.release_page(mfn)
        _tell(vcpu, domain, request, chunk * outs, new)
        work += frames
        domain.host.spend(WORK_OF_UNIT * frames)
    progress.nr_exchanged = request.in_.nr_extents


def _inputs(vcpu: Vcpu, domain: Domain, request: XenMemoryExchange, extents: range) -> list[int]:
    """The frames of a chunk's input extents, each of which must be the domain's and not in use."""
    host = domain.host
    found: list[int] = []
    for index in extents:
        first = read_frame(vcpu, request.in_.extent_start, index)
        for mfn in range(first, first + (1 << request.in_.extent_order)):
            if mfn >= host.nr_frames:
                raise HypercallError(EINVAL)
            owner, _, _, refs, flags = host.frame_info(mfn)
            if owner != domain.domid or flags & FRAME_XEN or not flags & FRAME_ALLOCATED or refs != 1:
                raise HypercallError(EINVAL)
            found.append(mfn)
    if len(set(found)) != len(found):
        raise HypercallError(EINVAL)
    return found


def _outputs(domain: Domain, request: XenMemoryExchange, count: int) -> list[int]:
    """New extents: the first frame of each. The input's frames go back right after, so no limit counts."""
    order = request.out.extent_order
    found: list[int] = []
    for _index in range(count):
        mfn = domain.alloc_extent(order, address_bits=address_bits(request.out.mem_flags), beyond_limit=True)
        if mfn is None:
            for first in found:
                for given in range(first, first + (1 << order)):
                    domain.release_page(given)
            raise HypercallError(ENOMEM)
        found.append(mfn)
    return found


def _tell(vcpu: Vcpu, domain: Domain, request: XenMemoryExchange, index: int, extents: list[int]) -> None:
    """Give the new frames their places in the machine-to-phys table, and the caller their numbers.

    A place in the list that cannot be read or written costs the domain the number, not the frames; the chunk then
    counts as failed, after all of it was done.
    """
    order = request.out.extent_order
    failed = False
    for at, mfn in enumerate(extents, index):
        try:
            pfn = read_frame(vcpu, request.out.extent_start, at)
            for offset in range(1 << order):
                domain.host.set_m2p(mfn + offset, pfn + offset)
            write_frame(vcpu, request.out.extent_start, at, mfn)
        except HypercallError:
            failed = True
    if failed:
        raise HypercallError(EFAULT)
