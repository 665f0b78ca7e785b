"""memory_op: a domain's reservation, its memory map, the machine-to-phys table (public/memory.h).

A paravirtual guest deals in machine frames: what decrease_reservation takes and populate_physmap gives are mfns,
and nothing is ever added to a physmap, since the guest has none. The number's upper bits (from 6 on) say with
which extent a preempted call goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paravirt.abi.arch_x86 import ArchSharedInfo
from paravirt.abi.errno import EACCES, EDOM, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM
from paravirt.abi.memory import (
    XENMEM_RDM_ALL,
    XenAddToPhysmap,
    XenAddToPhysmapBatch,
    XenForeignMemoryMap,
    XenMachphysMapping,
    XenMachphysMfnList,
    XENMAPSPACE_gmfn_foreign,
    XENMAPSPACE_gmfn_range,
    XENMEM_access_op,
    XENMEM_acquire_resource,
    XENMEM_add_to_physmap,
    XENMEM_add_to_physmap_batch,
    XENMEM_claim_pages,
    XENMEM_current_reservation,
    XENMEM_decrease_reservation,
    XENMEM_exchange,
    XENMEM_get_pod_target,
    XENMEM_get_sharing_freed_pages,
    XENMEM_get_sharing_shared_pages,
    XENMEM_get_vnumainfo,
    XENMEM_increase_reservation,
    XENMEM_machine_memory_map,
    XENMEM_machphys_compat_mfn_list,
    XENMEM_machphys_mapping,
    XENMEM_machphys_mfn_list,
    XENMEM_maximum_gpfn,
    XENMEM_maximum_ram_page,
    XENMEM_maximum_reservation,
    XENMEM_memory_map,
    XENMEM_populate_physmap,
    XENMEM_remove_from_physmap,
    XENMEM_reserved_device_memory_map,
    XENMEM_set_memory_map,
    XENMEM_set_pod_target,
    XenMemAccessOp,
    XenMemAcquireResource,
    XenMemoryDomain,
    XenMemoryMap,
    XenMemoryReservation,
    XenPodTarget,
    XenRemoveFromPhysmap,
    XenReservedDeviceMemoryMap,
    XenVnumaTopologyInfo,
)
from paravirt.abi.xen import SharedInfo, __HYPERVISOR_memory_op

from .exchange import exchange
from .registry import (
    HypercallError,
    find_domain,
    find_remote,
    find_target,
    hypercall,
    is_guest_address,
)
from .reservation import adjust_reservation
from .state import MemoryRange

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Vcpu

OPERATION_BITS = 6
MACH2PHYS_START = 0xFFFF_8000_0000_0000
MACH2PHYS_END = 0xFFFF_8040_0000_0000
MFNS_PER_FRAME = 512
CHUNK_FRAMES = 512
"""Frames of the machine-to-phys table between two that machphys_mfn_list names: 2 MiB."""
E820_MAX = 1024
E820_ENTRY = 20  # bytes: address and size of 8, type of 4


def _maximum_ram_page(vcpu: Vcpu, start: int, arg: int) -> int:
    return vcpu.domain.host.nr_frames


def _current_reservation(vcpu: Vcpu, start: int, arg: int) -> int:
    return find_target(vcpu, vcpu.read_struct(arg, XenMemoryDomain).domid).tot_pages


def _maximum_reservation(vcpu: Vcpu, start: int, arg: int) -> int:
    return find_target(vcpu, vcpu.read_struct(arg, XenMemoryDomain).domid).max_pages


def _maximum_gpfn(vcpu: Vcpu, start: int, arg: int) -> int:
    """The highest pseudo-physical frame, as the guest itself wrote it into its shared info."""
    domain = find_target(vcpu, vcpu.read_struct(arg, XenMemoryDomain).domid)
    offset = SharedInfo.arch.offset + ArchSharedInfo.max_pfn.offset
    size = ArchSharedInfo.max_pfn.size
    raw = domain.host.memory.read((domain.shared_info_mfn << 12) + offset, size)
    highest = (int.from_bytes(raw, "little") or 1) - 1
    return highest - (1 << 64) if highest >> 63 else highest


def _machphys_mfn_list(vcpu: Vcpu, start: int, arg: int) -> int:
    """The first frame of each 2 MiB of the machine-to-phys table."""
    request = vcpu.read_struct(arg, XenMachphysMfnList)
    host = vcpu.domain.host
    chunks = -(-host.nr_frames // (MFNS_PER_FRAME * CHUNK_FRAMES))
    count = min(request.max_extents, chunks)
    mfns = b"".join((host.m2p_mfn + i * CHUNK_FRAMES).to_bytes(8, "little") for i in range(count))
    vcpu.copy_to_guest(request.extent_start, mfns)
    request.nr_extents = count
    vcpu.write_struct(arg, request)
    return 0


def _machphys_compat_mfn_list(vcpu: Vcpu, start: int, arg: int) -> int:
    raise HypercallError(EOPNOTSUPP)  # there are no 32-bit guests


def _machphys_mapping(vcpu: Vcpu, start: int, arg: int) -> int:
    highest = (MACH2PHYS_END - MACH2PHYS_START) // 8 - 1
    offset = (vcpu.domain.host.m2p_slot - 256) << 39
    start_address, end_address = MACH2PHYS_START + offset, MACH2PHYS_END + offset
    vcpu.write_struct(arg, XenMachphysMapping(v_start=start_address, v_end=end_address, max_mfn=highest))
    return 0


def _memory_map(vcpu: Vcpu, start: int, arg: int) -> int:
    request = vcpu.read_struct(arg, XenMemoryMap)
    ranges = vcpu.domain.state.memory_map
    if not ranges:
        raise HypercallError(ENOSYS)
    request.nr_entries = min(request.nr_entries, len(ranges))
    entries = b"".join(
        entry.address.to_bytes(8, "little") + entry.size.to_bytes(8, "little") + entry.type.to_bytes(4, "little")
        for entry in ranges[: request.nr_entries]
    )
    vcpu.copy_to_guest(request.buffer, entries)
    vcpu.write_struct(arg, request)
    return 0


def _set_memory_map(vcpu: Vcpu, start: int, arg: int) -> int:
    request = vcpu.read_struct(arg, XenForeignMemoryMap)
    if request.map.nr_entries > E820_MAX:
        raise HypercallError(EINVAL)
    domain = find_target(vcpu, request.domid)
    raw = vcpu.copy_from_guest(request.map.buffer, request.map.nr_entries * E820_ENTRY)
    domain.state.memory_map = [
        MemoryRange(
            int.from_bytes(raw[at : at + 8], "little"),
            int.from_bytes(raw[at + 8 : at + 16], "little"),
            int.from_bytes(raw[at + 16 : at + 20], "little"),
        )
        for at in range(0, len(raw), E820_ENTRY)
    ]
    return 0


def _machine_memory_map(vcpu: Vcpu, start: int, arg: int) -> int:
    raise HypercallError(EPERM)


def _pod_target(vcpu: Vcpu, start: int, arg: int) -> int:
    """Populate-on-demand is for a control domain to ask about, and only translated guests have it."""
    find_domain(vcpu, vcpu.read_struct(arg, XenPodTarget).domid)
    raise HypercallError(EINVAL if vcpu.domain.is_privileged else EPERM)


def _sharing_pages(vcpu: Vcpu, start: int, arg: int) -> int:
    return 0  # no frame is ever shared between domains by content


def _add_to_physmap(vcpu: Vcpu, start: int, arg: int) -> int:
    if start > 0xFFFF:
        raise HypercallError(EDOM)
    request = vcpu.read_struct(arg, XenAddToPhysmap)
    if request.space == XENMAPSPACE_gmfn_foreign:
        raise HypercallError(ENOSYS)
    find_domain(vcpu, request.domid)
    raise HypercallError(EACCES)  # a domain with direct paging has no physmap


def _add_to_physmap_batch(vcpu: Vcpu, start: int, arg: int) -> int:
    if start > 0xFFFF:
        raise HypercallError(EDOM)
    request = vcpu.read_struct(arg, XenAddToPhysmapBatch)
    if request.space == XENMAPSPACE_gmfn_range:
        raise HypercallError(EOPNOTSUPP)
    find_domain(vcpu, request.domid)
    raise HypercallError(EACCES)


def _remove_from_physmap(vcpu: Vcpu, start: int, arg: int) -> int:
    find_domain(vcpu, vcpu.read_struct(arg, XenRemoveFromPhysmap).domid)
    raise HypercallError(EACCES)


def _access_op(vcpu: Vcpu, start: int, arg: int) -> int:
    find_remote(vcpu, vcpu.read_struct(arg, XenMemAccessOp).domid)
    raise HypercallError(EINVAL)  # only translated guests have access rights by frame


def _claim_pages(vcpu: Vcpu, start: int, arg: int) -> int:
    request = vcpu.read_struct(arg, XenMemoryReservation)
    if request.extent_start or request.extent_order or request.mem_flags:
        raise HypercallError(EINVAL)
    if request.domid not in vcpu.domain.host.domains:  # DOMID_SELF is none here
        raise HypercallError(EINVAL)
    raise HypercallError(EPERM)


def _get_vnumainfo(vcpu: Vcpu, start: int, arg: int) -> int:
    request = vcpu.read_struct(arg, XenVnumaTopologyInfo)
    if request.pad != 0:
        raise HypercallError(EINVAL)
    find_target(vcpu, request.domid)
    raise HypercallError(EOPNOTSUPP)  # no domain has virtual NUMA nodes


def _reserved_device_memory_map(vcpu: Vcpu, start: int, arg: int) -> int:
    request = vcpu.read_struct(arg, XenReservedDeviceMemoryMap)
    if not is_guest_address(request.buffer):
        raise HypercallError(EFAULT)
    if request.flags & ~XENMEM_RDM_ALL:
        raise HypercallError(EINVAL)
    request.nr_entries = 0  # no device, so nothing is reserved for one
    vcpu.write_struct(arg, request)
    return 0


def _acquire_resource(vcpu: Vcpu, start: int, arg: int) -> int:
    request = vcpu.read_struct(arg, XenMemAcquireResource)
    if request.pad != 0:
        raise HypercallError(EINVAL)
    find_remote(vcpu, request.domid)
    raise HypercallError(EPERM)  # for the domain's device model


@dataclass(frozen=True)
class _Operation:
    """A handler, and what answers a call that is not at its beginning (0: the handler looks at that itself)."""

    run: Callable[[Vcpu, int, int], int]
    at_start: int = 0


_OPERATIONS = {
    XENMEM_increase_reservation: _Operation(
        lambda vcpu, start, arg: adjust_reservation(vcpu, XENMEM_increase_reservation, start, arg)
    ),
    XENMEM_decrease_reservation: _Operation(
        lambda vcpu, start, arg: adjust_reservation(vcpu, XENMEM_decrease_reservation, start, arg)
    ),
    XENMEM_populate_physmap: _Operation(
        lambda vcpu, start, arg: adjust_reservation(vcpu, XENMEM_populate_physmap, start, arg)
    ),
    XENMEM_exchange: _Operation(lambda vcpu, start, arg: exchange(vcpu, arg), EINVAL),
    XENMEM_maximum_ram_page: _Operation(_maximum_ram_page, EINVAL),
    XENMEM_current_reservation: _Operation(_current_reservation, EINVAL),
    XENMEM_maximum_reservation: _Operation(_maximum_reservation, EINVAL),
    XENMEM_maximum_gpfn: _Operation(_maximum_gpfn, EINVAL),
    XENMEM_add_to_physmap: _Operation(_add_to_physmap),
    XENMEM_add_to_physmap_batch: _Operation(_add_to_physmap_batch),
    XENMEM_remove_from_physmap: _Operation(_remove_from_physmap, EINVAL),
    XENMEM_access_op: _Operation(_access_op),
    XENMEM_claim_pages: _Operation(_claim_pages, EINVAL),
    XENMEM_get_vnumainfo: _Operation(_get_vnumainfo, EINVAL),
    XENMEM_reserved_device_memory_map: _Operation(_reserved_device_memory_map, EINVAL),
    XENMEM_acquire_resource: _Operation(_acquire_resource),
    # Those of the architecture do not know about continuing: with other upper bits there is no such operation.
    XENMEM_machphys_mfn_list: _Operation(_machphys_mfn_list, ENOSYS),
    XENMEM_machphys_compat_mfn_list: _Operation(_machphys_compat_mfn_list, ENOSYS),
    XENMEM_machphys_mapping: _Operation(_machphys_mapping, ENOSYS),
    XENMEM_memory_map: _Operation(_memory_map, ENOSYS),
    XENMEM_set_memory_map: _Operation(_set_memory_map, ENOSYS),
    XENMEM_machine_memory_map: _Operation(_machine_memory_map, ENOSYS),
    XENMEM_set_pod_target: _Operation(_pod_target, ENOSYS),
    XENMEM_get_pod_target: _Operation(_pod_target, ENOSYS),
    XENMEM_get_sharing_freed_pages: _Operation(_sharing_pages, ENOSYS),
    XENMEM_get_sharing_shared_pages: _Operation(_sharing_pages, ENOSYS),
}


@hypercall(__HYPERVISOR_memory_op)
def memory_op(vcpu: Vcpu, cmd: int, arg: int, *_: int) -> int:
    """One operation on memory; the three that change the reservation return how many extents are done.

    Raises:
        HypercallError: ENOSYS, no such operation, or one that is not built in (paging, sharing); what the operation
            says.
        HypercallContinuation: there is more to do.
    """
    operation = _OPERATIONS.get(cmd & ((1 << OPERATION_BITS) - 1))
    start = cmd >> OPERATION_BITS
    if operation is None:
        raise HypercallError(ENOSYS)
    if start and operation.at_start:
        raise HypercallError(operation.at_start)
    return operation.run(vcpu, start, arg)
