"""Hypercalls that an unprivileged domain makes in vain; the errors are those of real Xen 4.17.7."""

from __future__ import annotations

import struct

import pytest

from paravirt.abi import domctl, platform, sysctl, xenoprof
from paravirt.abi.errno import EACCES, EFAULT, EINVAL, ENODEV, ENOMEM, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from paravirt.abi.xen import DOMID_INVALID, DOMID_IO, HYPERCALLS

from .fakes import BAD, SELF, FakeVcpu

DOMCTL = HYPERCALLS["domctl"]
PAGING_DOMCTL_CONT = HYPERCALLS["arch_1"]
XENOPROF_OP = HYPERCALLS["xenoprof_op"]


@pytest.mark.parametrize(
    ("name", "errno"),
    [
        ("kexec_op", EPERM),
        ("hypfs_op", EPERM),
        ("arch_0", EPERM),
        ("xenpmu_op", EOPNOTSUPP),
        ("xsm_op", ENOSYS),
        ("tmem_op", ENOSYS),
        ("argo_op", ENOSYS),
        *((f"arch_{n}", ENOSYS) for n in range(2, 8)),
    ],
)
@pytest.mark.parametrize("arguments", [(0, 0), (99, BAD), (2**64 - 1, 1)])
def test_always_the_same_answer(vcpu: FakeVcpu, name: str, errno: int, arguments: tuple[int, int]) -> None:
    assert vcpu.call(HYPERCALLS[name], *arguments) == -errno


@pytest.mark.parametrize(
    ("name", "version", "size"),
    [
        ("platform_op", platform.XENPF_INTERFACE_VERSION, 136),
        ("sysctl", sysctl.XEN_SYSCTL_INTERFACE_VERSION, 136),
        ("domctl", domctl.XEN_DOMCTL_INTERFACE_VERSION, 144),
    ],
)
def test_control_requests_are_read_then_their_version_then_the_caller(
    vcpu: FakeVcpu, name: str, version: int, size: int
) -> None:
    number = HYPERCALLS[name]
    head = struct.pack("<IIQ", 3, version, 3)
    assert vcpu.call(number, vcpu.put(head.ljust(size, b"\0"), at_end=True)) == -EPERM
    assert vcpu.call(number, vcpu.put(head.ljust(size - 1, b"\0"), at_end=True)) == -EFAULT
    assert vcpu.call(number, BAD) == -EFAULT
    head = struct.pack("<IIQ", 3, version + 1, 3)
    assert vcpu.call(number, vcpu.put(head.ljust(size, b"\0"))) == -EACCES


def control(
    vcpu: FakeVcpu, operation: int, domid: int, *, version: int = domctl.XEN_DOMCTL_INTERFACE_VERSION
) -> int:
    return vcpu.put(struct.pack("<IIQ", operation, version, domid).ljust(144, b"\0"))


@pytest.mark.parametrize(
    ("operation", "domid", "errno"),
    [
        (domctl.XEN_DOMCTL_getdomaininfo, 3, EPERM),
        (domctl.XEN_DOMCTL_getdomaininfo, 7, EPERM),
        (domctl.XEN_DOMCTL_getdomaininfo, 99, ESRCH),
        (domctl.XEN_DOMCTL_getdomaininfo, SELF, ESRCH),
        (domctl.XEN_DOMCTL_getdomaininfo, DOMID_INVALID, ESRCH),
        (domctl.XEN_DOMCTL_destroydomain, 7, EPERM),
        (domctl.XEN_DOMCTL_createdomain, 99, EPERM),
        (domctl.XEN_DOMCTL_assign_device, DOMID_IO, EPERM),
        (domctl.XEN_DOMCTL_deassign_device, 99, ESRCH),
        (domctl.XEN_DOMCTL_test_assign_device, DOMID_INVALID, EPERM),
        (domctl.XEN_DOMCTL_test_assign_device, DOMID_IO, ESRCH),
        (domctl.XEN_DOMCTL_vm_event_op, DOMID_INVALID, EPERM),
        (9999, 7, EPERM),
        (9999, 99, ESRCH),
    ],
)
def test_a_domctls_domain_is_looked_up_first(vcpu: FakeVcpu, operation: int, domid: int, errno: int) -> None:
    assert vcpu.call(DOMCTL, control(vcpu, operation, domid)) == -errno


def test_going_on_with_a_domctl(vcpu: FakeVcpu) -> None:
    assert vcpu.call(PAGING_DOMCTL_CONT, BAD) == -EFAULT
    request = control(vcpu, domctl.XEN_DOMCTL_getdomaininfo, 3)
    assert vcpu.call(PAGING_DOMCTL_CONT, request) == -EOPNOTSUPP
    other = control(vcpu, domctl.XEN_DOMCTL_shadow_op, 7, version=domctl.XEN_DOMCTL_INTERFACE_VERSION - 1)
    assert vcpu.call(PAGING_DOMCTL_CONT, other) == -EOPNOTSUPP
    assert vcpu.call(PAGING_DOMCTL_CONT, control(vcpu, domctl.XEN_DOMCTL_shadow_op, 99)) == -ESRCH
    assert vcpu.call(PAGING_DOMCTL_CONT, control(vcpu, domctl.XEN_DOMCTL_shadow_op, 7)) == -EPERM


@pytest.mark.parametrize("operation", range(xenoprof.XENOPROF_last_op + 2))
def test_profiling(vcpu: FakeVcpu, operation: int) -> None:
    open_to_all = {
        xenoprof.XENOPROF_init: (-ENODEV, -EFAULT),
        xenoprof.XENOPROF_get_buffer: (-ENOMEM, -EFAULT),
        xenoprof.XENOPROF_enable_virq: (-EINVAL, -EINVAL),
        xenoprof.XENOPROF_disable_virq: (-EINVAL, -EINVAL),
        xenoprof.XENOPROF_last_op + 1: (-EINVAL, -EINVAL),
    }
    good, bad = open_to_all.get(operation, (-EPERM, -EPERM))
    assert vcpu.call(XENOPROF_OP, operation, vcpu.map()) == good
    assert vcpu.call(XENOPROF_OP, operation, BAD) == bad
