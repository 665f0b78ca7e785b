"""increase_reservation, decrease_reservation and populate_physmap: frames given to a domain and taken back.

The three report refusals by how far they came, never by an error: a call that can do nothing answers 0, or the
extent that it was to go on with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.abi.memory import (
    XENMEM_decrease_reservation,
    XENMEM_increase_reservation,
    XENMEMF_exact_node_request,
    XENMEMF_populate_on_demand,
    XENMEMF_vnode,
    XenMemoryReservation,
)
from paravirt.hypervisor.refusal_report import Answer

from .registry import (
    PREEMPT_AFTER,
    WORK_OF_UNIT,
    HypercallContinuation,
    HypercallError,
    find_target,
    is_guest_address,
)

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Vcpu

DOMU_MAX_ORDER = 9
"""The largest extent for an unprivileged domain: 2 MiB."""
PRIVILEGED_MAX_ORDER = 18
FRAME_XEN = 8  # records.pxd: the frame is the hypervisor's own
PAGE_SHIFT = 12
MAX_EXTENTS = 0xFFFF_FFFF >> 6  # beyond, the extent to go on with could not be told
NO_NODE = 0xFF


def max_order(domain: Domain) -> int:
    """The order of the largest extent that a domain may ask for."""
    return PRIVILEGED_MAX_ORDER if domain.is_privileged else DOMU_MAX_ORDER


def address_bits(mem_flags: int) -> int:
    """How many bits of machine address the caller can use; 0: it did not say."""
    return mem_flags & 0xFF


def names_exact_node(mem_flags: int) -> bool:
    """Whether memory of one node and no other is asked for, which an unprivileged domain may not."""
    node = ((mem_flags >> 8) - 1) & 0xFF
    return node != NO_NODE and bool(mem_flags & XENMEMF_exact_node_request)


def address_of(start: int, index: int) -> int:
    """Where entry ``index`` of a list of 64-bit numbers is."""
    return (start + 8 * index) & 0xFFFF_FFFF_FFFF_FFFF


def read_frame(vcpu: Vcpu, start: int, index: int) -> int:
    """Entry ``index`` of a list of frame numbers in guest memory.

    Raises:
        HypercallError: EFAULT.
    """
    return int.from_bytes(vcpu.copy_from_guest(address_of(start, index), 8), "little")


def write_frame(vcpu: Vcpu, start: int, index: int, mfn: int) -> None:
    """Set entry ``index`` of a list of frame numbers in guest memory.

    Raises:
        HypercallError: EFAULT.
    """
    vcpu.copy_to_guest(address_of(start, index), mfn.to_bytes(8, "little"))


def adjust_reservation(vcpu: Vcpu, operation: int, start: int, arg: int) -> int:
    """Carry out one of the three from extent ``start`` on: how many extents are done.

    Raises:
        HypercallContinuation: that many, but not all; it was time to let others run.
    """
    try:
        request = vcpu.read_struct(arg, XenMemoryReservation)
        if request.nr_extents > MAX_EXTENTS or start >= request.nr_extents:
            return start
        domain = find_target(vcpu, request.domid)
    except HypercallError:
        return start
    if not _flags_are_good(vcpu, request.mem_flags) or request.extent_order > max_order(vcpu.domain):
        return start
    # increase_reservation may do without a list; the caller then does not learn the frames' numbers.
    needs_list = operation != XENMEM_increase_reservation or request.extent_start
    if needs_list and not is_guest_address(address_of(request.extent_start, start)):
        return start
    work = 0
    for index in range(start, request.nr_extents):
        if work >= PREEMPT_AFTER or (work and domain.host.is_spent):
            raise HypercallContinuation(operation | index << 6, arg)
        try:
            if operation == XENMEM_increase_reservation:
                done = _increase(vcpu, domain, request, index)
            elif operation == XENMEM_decrease_reservation:
                done = _decrease(vcpu, domain, request, index)
            else:
                done = _populate(vcpu, domain, request, index)
        except HypercallError:
            return index
        if not done:
            return index
        work += 1 << request.extent_order
        domain.host.spend(WORK_OF_UNIT << request.extent_order)
    return int(request.nr_extents)


def _flags_are_good(vcpu: Vcpu, mem_flags: int) -> bool:
    bits = address_bits(mem_flags)
    if bits and bits <= PAGE_SHIFT:
        return False
    # Virtual nodes mean nothing to a domain without virtual NUMA; Xen lets their numbers pass.
    return bool(mem_flags & XENMEMF_vnode) or vcpu.domain.is_privileged or not names_exact_node(mem_flags)


def _increase(vcpu: Vcpu, domain: Domain, request: XenMemoryReservation, index: int) -> bool:
    mfn = domain.alloc_extent(request.extent_order, address_bits=address_bits(request.mem_flags))
    if mfn is None:
        return False
    if request.extent_start:
        write_frame(vcpu, request.extent_start, index, mfn)
    return True


def _populate(vcpu: Vcpu, domain: Domain, request: XenMemoryReservation, index: int) -> bool:
    pfn = read_frame(vcpu, request.extent_start, index)
    if request.mem_flags & XENMEMF_populate_on_demand:
        return False  # nobody may do that to himself, and no domain here is translated
    mfn = domain.alloc_extent(request.extent_order, address_bits=address_bits(request.mem_flags))
    if mfn is None:
        return False
    for offset in range(1 << request.extent_order):
        domain.host.set_m2p(mfn + offset, pfn + offset)
    write_frame(vcpu, request.extent_start, index, mfn)
    return True


def _decrease(vcpu: Vcpu, domain: Domain, request: XenMemoryReservation, index: int) -> bool:
    first = read_frame(vcpu, request.extent_start, index)
    for mfn in range(first, first + (1 << request.extent_order)):
        if not remove_frame(domain, mfn):
            arguments = (XENMEM_decrease_reservation, address_of(request.extent_start, index))
            vcpu.note_refusal(Answer.COUNT, index, arguments, mfn)
            return False
    return True


def remove_frame(domain: Domain, mfn: int) -> bool:
    """Take a frame from a domain: false if it is not the domain's to give.

    A frame that is still mapped or a page table stays until its last use ends; giving it again does nothing then.
    Of a frame that the hypervisor shares with the domain (shared info, grant table) the share goes, and the
    hypervisor keeps the frame.
    """
    host = domain.host
    if mfn >= host.nr_frames or host.frame_info(mfn)[0] != domain.domid:
        return False
    domain.release_page(mfn)
    return True
