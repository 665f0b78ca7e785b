"""xen_version: what this hypervisor says it is (public/version.h).

It is Xen 4.17 to its guests, and names itself in the extra version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paravirt.abi.errno import EINVAL, ENOSYS, EPERM
from paravirt.abi.features import (
    XENFEAT_direct_mapped,
    XENFEAT_dom0,
    XENFEAT_gnttab_map_avail_bits,
    XENFEAT_highmem_assist,
    XENFEAT_memory_op_vnode_supported,
    XENFEAT_mmu_pt_update_preserve_ad,
    XENFEAT_pae_pgdir_above_4gb,
)
from paravirt.abi.version import (
    XEN_CAPABILITIES_INFO_LEN,
    XEN_CHANGESET_INFO_LEN,
    XEN_EXTRAVERSION_LEN,
    XenCompileInfo,
    XenFeatureInfo,
    XenPlatformParameters,
    XENVER_build_id,
    XENVER_capabilities,
    XENVER_changeset,
    XENVER_commandline,
    XENVER_compile_info,
    XENVER_extraversion,
    XENVER_get_features,
    XENVER_guest_handle,
    XENVER_pagesize,
    XENVER_platform_parameters,
    XENVER_version,
)
from paravirt.abi.xen import VMASST_TYPE_pae_extended_cr3, __HYPERVISOR_xen_version

from .registry import HypercallError, hypercall, u32

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Vcpu

MAJOR = 4
MINOR = 17
EXTRAVERSION = b".paravirt"
CAPABILITIES = b"xen-3.0-x86_64 "  # each kind of guest is followed by a space, the last one too
CHANGESET = b"unavailable"
VIRT_START = 0xFFFF_8000_0000_0000
PAGE_SIZE = 4096

_ALWAYS = (
    XENFEAT_mmu_pt_update_preserve_ad,
    XENFEAT_highmem_assist,
    XENFEAT_gnttab_map_avail_bits,
    XENFEAT_memory_op_vnode_supported,
    XENFEAT_direct_mapped,
)


def features(domain: Domain) -> int:
    """The feature bits (XENFEAT_*) of a domain."""
    bits = sum(1 << number for number in _ALWAYS)
    if domain.vm_assist >> VMASST_TYPE_pae_extended_cr3 & 1:
        bits |= 1 << XENFEAT_pae_pgdir_above_4gb
    if domain.is_privileged:
        bits |= 1 << XENFEAT_dom0
    return bits


def _extraversion(vcpu: Vcpu, arg: int) -> int:
    vcpu.copy_to_guest(arg, EXTRAVERSION.ljust(XEN_EXTRAVERSION_LEN, b"\0"))
    return 0


def _compile_info(vcpu: Vcpu, arg: int) -> int:
    # Nothing of the host that this was built on: two runs of one version look the same to a guest.
    vcpu.write_struct(arg, XenCompileInfo(compiler=b"Python and Cython", compile_by=b"paravirt"))
    return 0


def _capabilities(vcpu: Vcpu, arg: int) -> int:
    vcpu.copy_to_guest(arg, CAPABILITIES.ljust(XEN_CAPABILITIES_INFO_LEN, b"\0"))
    return 0


def _changeset(vcpu: Vcpu, arg: int) -> int:
    vcpu.copy_to_guest(arg, CHANGESET.ljust(XEN_CHANGESET_INFO_LEN, b"\0"))
    return 0


def _platform_parameters(vcpu: Vcpu, arg: int) -> int:
    vcpu.write_struct(arg, XenPlatformParameters(virt_start=VIRT_START))
    return 0


def _get_features(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, XenFeatureInfo)
    if request.submap_idx != 0:
        raise HypercallError(EINVAL)
    request.submap = features(vcpu.domain)
    vcpu.write_struct(arg, request)
    return 0


def _pagesize(vcpu: Vcpu, arg: int) -> int:
    if arg != 0:
        raise HypercallError(EINVAL)
    return PAGE_SIZE


def _guest_handle(vcpu: Vcpu, arg: int) -> int:
    vcpu.copy_to_guest(arg, vcpu.domain.state.handle)
    return 0


def _commandline(vcpu: Vcpu, arg: int) -> int:
    # The hypervisor's own command line is for a privileged domain; the others get this text.
    vcpu.copy_to_guest(arg, b"\0" if vcpu.domain.is_privileged else b"<denied>\0")
    return 0


def _build_id(vcpu: Vcpu, arg: int) -> int:
    raise HypercallError(EPERM)


_OPERATIONS: dict[int, Callable[[Vcpu, int], int]] = {
    XENVER_version: lambda vcpu, arg: MAJOR << 16 | MINOR,
    XENVER_extraversion: _extraversion,
    XENVER_compile_info: _compile_info,
    XENVER_capabilities: _capabilities,
    XENVER_changeset: _changeset,
    XENVER_platform_parameters: _platform_parameters,
    XENVER_get_features: _get_features,
    XENVER_pagesize: _pagesize,
    XENVER_guest_handle: _guest_handle,
    XENVER_commandline: _commandline,
    XENVER_build_id: _build_id,
}


@hypercall(__HYPERVISOR_xen_version)
def xen_version(vcpu: Vcpu, cmd: int, arg: int, *_: int) -> int:
    """One fact about the hypervisor, written to ``arg`` or returned.

    Raises:
        HypercallError: EFAULT; EINVAL, no such word of feature bits, or a pointer where none belongs; EPERM, a
            privileged domain's; ENOSYS, no such operation.
    """
    operation = _OPERATIONS.get(u32(cmd))
    if operation is None:
        raise HypercallError(ENOSYS)
    return operation(vcpu, arg)
