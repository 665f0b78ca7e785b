"""Hypercalls that an unprivileged domain may make only in vain, and numbers behind which there is nothing.

Each answers what Xen 4.17 answers. The requests of control domains (platform_op, sysctl, domctl) are read and
their version is looked at before the caller is: a wrong version is -EACCES, a right one -EPERM.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from paravirt.abi.domctl import (
    XEN_DOMCTL_INTERFACE_VERSION,
    XEN_DOMCTL_assign_device,
    XEN_DOMCTL_createdomain,
    XEN_DOMCTL_deassign_device,
    XEN_DOMCTL_shadow_op,
    XEN_DOMCTL_test_assign_device,
    XEN_DOMCTL_vm_event_op,
)
from paravirt.abi.errno import EACCES, EINVAL, ENODEV, ENOMEM, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from paravirt.abi.platform import XENPF_INTERFACE_VERSION
from paravirt.abi.sysctl import XEN_SYSCTL_INTERFACE_VERSION
from paravirt.abi.xen import (
    DOMID_INVALID,
    DOMID_IO,
    __HYPERVISOR_arch_0,
    __HYPERVISOR_arch_1,
    __HYPERVISOR_arch_2,
    __HYPERVISOR_arch_3,
    __HYPERVISOR_arch_4,
    __HYPERVISOR_arch_5,
    __HYPERVISOR_arch_6,
    __HYPERVISOR_arch_7,
    __HYPERVISOR_argo_op,
    __HYPERVISOR_domctl,
    __HYPERVISOR_hypfs_op,
    __HYPERVISOR_kexec_op,
    __HYPERVISOR_platform_op,
    __HYPERVISOR_sysctl,
    __HYPERVISOR_tmem_op,
    __HYPERVISOR_xenoprof_op,
    __HYPERVISOR_xenpmu_op,
    __HYPERVISOR_xsm_op,
)
from paravirt.abi.xenoprof import (
    XENOPROF_CPU_TYPE_SIZE,
    XENOPROF_disable_virq,
    XENOPROF_enable_virq,
    XENOPROF_get_buffer,
    XENOPROF_init,
    XENOPROF_last_op,
)

from .registry import HypercallError, hypercall, u32

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Vcpu


class _ControlRequest(ctypes.LittleEndianStructure):
    """What platform_op and sysctl read: 136 bytes."""

    _fields_ = [
        ("cmd", ctypes.c_uint32),
        ("interface_version", ctypes.c_uint32),
        ("u", ctypes.c_uint64 * 16),
    ]


class _DomctlRequest(ctypes.LittleEndianStructure):
    """What domctl reads: 144 bytes."""

    _fields_ = [
        ("cmd", ctypes.c_uint32),
        ("interface_version", ctypes.c_uint32),
        ("domid", ctypes.c_uint16),
        ("_pad", ctypes.c_uint16 * 3),
        ("u", ctypes.c_uint64 * 16),
    ]


class _XenoprofInit(ctypes.LittleEndianStructure):
    """XENOPROF_init."""

    _fields_ = [
        ("num_events", ctypes.c_int32),
        ("is_primary", ctypes.c_int32),
        ("cpu_type", ctypes.c_char * XENOPROF_CPU_TYPE_SIZE),
    ]


class _XenoprofGetBuffer(ctypes.LittleEndianStructure):
    """XENOPROF_get_buffer."""

    _fields_ = [
        ("max_samples", ctypes.c_int32),
        ("nbuf", ctypes.c_int32),
        ("bufsize", ctypes.c_int32),
        ("buf_gmaddr", ctypes.c_uint64),
    ]


@hypercall(__HYPERVISOR_platform_op)
def platform_op(vcpu: Vcpu, arg: int, *_: int) -> int:
    """Control of the machine's hardware.

    Raises:
        HypercallError: EFAULT; EACCES, another version of the interface; EPERM.
    """
    if vcpu.read_struct(arg, _ControlRequest).interface_version != XENPF_INTERFACE_VERSION:
        raise HypercallError(EACCES)
    raise HypercallError(EPERM)


@hypercall(__HYPERVISOR_sysctl)
def sysctl(vcpu: Vcpu, arg: int, *_: int) -> int:
    """Control of the hypervisor.

    Raises:
        HypercallError: EFAULT; EACCES, another version of the interface; EPERM.
    """
    if vcpu.read_struct(arg, _ControlRequest).interface_version != XEN_SYSCTL_INTERFACE_VERSION:
        raise HypercallError(EACCES)
    raise HypercallError(EPERM)


@hypercall(__HYPERVISOR_domctl)
def domctl(vcpu: Vcpu, arg: int, *_: int) -> int:
    """Control of a domain.

    Raises:
        HypercallError: EFAULT; EACCES, another version of the interface; ESRCH, no such domain; EPERM.
    """
    request = vcpu.read_struct(arg, _DomctlRequest)
    if request.interface_version != XEN_DOMCTL_INTERFACE_VERSION:
        raise HypercallError(EACCES)
    if not _names_no_domain(request.cmd, request.domid):
        _look_up(vcpu, request.domid)
    raise HypercallError(EPERM)


def _names_no_domain(cmd: int, domid: int) -> bool:
    """Whether an operation's domain is not looked up: it has none, or a stand-in."""
    if cmd == XEN_DOMCTL_createdomain:
        return True
    if cmd in (XEN_DOMCTL_assign_device, XEN_DOMCTL_deassign_device):
        return domid in (DOMID_IO, DOMID_INVALID)
    return cmd in (XEN_DOMCTL_test_assign_device, XEN_DOMCTL_vm_event_op) and domid == DOMID_INVALID


def _look_up(vcpu: Vcpu, domid: int) -> None:
    if domid not in vcpu.domain.host.domains:  # here DOMID_SELF is a number like others
        raise HypercallError(ESRCH)


@hypercall(__HYPERVISOR_arch_1)
def paging_domctl_cont(vcpu: Vcpu, arg: int, *_: int) -> int:
    """Going on with a preempted domctl on shadow page tables; Xen calls itself with it.

    Raises:
        HypercallError: EFAULT; EOPNOTSUPP, it is no such domctl; ESRCH; EPERM.
    """
    request = vcpu.read_struct(arg, _DomctlRequest)
    if request.interface_version != XEN_DOMCTL_INTERFACE_VERSION or request.cmd != XEN_DOMCTL_shadow_op:
        raise HypercallError(EOPNOTSUPP)
    _look_up(vcpu, request.domid)
    raise HypercallError(EPERM)


@hypercall(__HYPERVISOR_xenoprof_op)
def xenoprof_op(vcpu: Vcpu, cmd: int, arg: int, *_: int) -> int:
    """Profiling by sampling: the machine's processors have no counters for it.

    Raises:
        HypercallError: EINVAL, no such operation, or no buffer to be told about; EPERM, the primary profiler's;
            EFAULT; ENODEV, no counters; ENOMEM, no buffer.
    """
    cmd = u32(cmd)
    if cmd > XENOPROF_last_op:
        raise HypercallError(EINVAL)
    if cmd == XENOPROF_init:
        vcpu.read_struct(arg, _XenoprofInit)
        raise HypercallError(ENODEV)
    if cmd == XENOPROF_get_buffer:
        vcpu.read_struct(arg, _XenoprofGetBuffer)
        raise HypercallError(ENOMEM)
    raise HypercallError(EINVAL if cmd in (XENOPROF_enable_virq, XENOPROF_disable_virq) else EPERM)


def _answer_always(number: int, errno: int, what: str) -> None:
    """Register a hypercall whose answer does not depend on its arguments."""

    def refused(vcpu: Vcpu, *_: int) -> int:
        raise HypercallError(errno)

    refused.__doc__ = what
    hypercall(number)(refused)


_answer_always(__HYPERVISOR_kexec_op, EPERM, "Loading another hypervisor: for a privileged domain.")
_answer_always(__HYPERVISOR_hypfs_op, EPERM, "The hypervisor's settings as files: for a privileged domain.")
_answer_always(__HYPERVISOR_arch_0, EPERM, "Machine checks: for a privileged domain.")
_answer_always(__HYPERVISOR_xenpmu_op, EOPNOTSUPP, "Performance counters for guests, which are off by default.")
_answer_always(__HYPERVISOR_xsm_op, ENOSYS, "A security module's operations: there is none.")
_answer_always(__HYPERVISOR_tmem_op, ENOSYS, "Transcendent memory, which Xen 4.17 no longer has.")
_answer_always(__HYPERVISOR_argo_op, ENOSYS, "Messages between domains, which are not built in by default.")
for _number in (
    __HYPERVISOR_arch_2,
    __HYPERVISOR_arch_3,
    __HYPERVISOR_arch_4,
    __HYPERVISOR_arch_5,
    __HYPERVISOR_arch_6,
    __HYPERVISOR_arch_7,
):
    _answer_always(_number, ENOSYS, "A number that x86 does not use.")
