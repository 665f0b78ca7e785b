"""physdev_op and its old form."""

from __future__ import annotations

import pytest

from paravirt.abi import physdev as abi
from paravirt.abi.errno import EBUSY, EFAULT, EINVAL, ENODEV, ENOSPC, ENOSYS, EPERM, ESRCH
from paravirt.abi.physdev import (
    PhysdevGetFreePirq,
    PhysdevIrqStatusQuery,
    PhysdevManagePciExt,
    PhysdevMapPirq,
    PhysdevOp,
    PhysdevPirqEoiGmfn,
    PhysdevSetIobitmap,
    PhysdevSetIopl,
    PhysdevSetupGsi,
    PhysdevUnmapPirq,
)
from paravirt.abi.xen import HYPERCALLS
from paravirt.hypervisor.hypercalls.pirqs import NR_GSIS, NR_PIRQS

from .fakes import BAD, SELF, FakeDomain, FakeHost, FakeVcpu, nothing_kept

PHYSDEV_OP, PHYSDEV_OP_COMPAT = HYPERCALLS["physdev_op"], HYPERCALLS["physdev_op_compat"]

# What real Xen 4.17.7 answers an unprivileged guest: with 64 zeros, and with a pointer to nothing.
REAL_XEN = {
    0: (-ENOSYS, -ENOSYS),
    1: (-ENOSYS, -ENOSYS),
    2: (-ENOSYS, -ENOSYS),
    3: (-ENOSYS, -ENOSYS),
    4: (0, 0),
    5: (0, -EFAULT),
    6: (0, -EFAULT),
    7: (0, -EFAULT),
    8: (-EPERM, -EFAULT),
    9: (-EPERM, -EFAULT),
    10: (-EPERM, -EFAULT),
    11: (-ENOSYS, -ENOSYS),
    12: (-EINVAL, -EFAULT),
    13: (-EPERM, -EFAULT),
    14: (-EPERM, -EFAULT),
    15: (-EPERM, -EFAULT),
    16: (-EPERM, -EFAULT),
    17: (-EINVAL, -EFAULT),
    18: (-ENOSYS, -ENOSYS),
    19: (-ENODEV, -EFAULT),
    20: (-EPERM, -EFAULT),
    21: (-EPERM, -EFAULT),
    22: (-ENOSYS, -ENOSYS),
    23: (0, -EFAULT),
    24: (-EPERM, -EPERM),
    25: (-EPERM, -EFAULT),
    26: (-EPERM, -EFAULT),
    27: (-ENODEV, -EFAULT),
    28: (-EINVAL, -EFAULT),
    29: (-EPERM, -EPERM),
    30: (-EPERM, -EFAULT),
    31: (-EPERM, -EFAULT),
    32: (-ENOSYS, -ENOSYS),
    0xFFFF_FFFF: (-ENOSYS, -ENOSYS),
}


@pytest.fixture(autouse=True)
def domain_0(host: FakeHost) -> FakeDomain:
    return FakeDomain(host, 0, pages=1, is_privileged=True)


@pytest.mark.parametrize("operation", REAL_XEN)
def test_every_operation_answers_as_real_xen(vcpu: FakeVcpu, host: FakeHost, operation: int) -> None:
    zeros, nowhere = REAL_XEN[operation]
    with nothing_kept(host):
        assert vcpu.call(PHYSDEV_OP, operation, vcpu.map()) == zeros
        assert vcpu.call(PHYSDEV_OP, operation, BAD) == nowhere


def test_the_privilege_level_is_0_to_3(vcpu: FakeVcpu) -> None:
    for level in range(4):
        assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_set_iopl, vcpu.put(PhysdevSetIopl(level))) == 0
        assert vcpu.iopl == level
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_set_iopl, vcpu.put(PhysdevSetIopl(4))) == -EINVAL
    assert vcpu.iopl == 3


@pytest.mark.parametrize(
    ("bitmap", "ports", "result"),
    [
        (0x1000, 65536, 0),
        (BAD, 1, 0),  # it is read when a port is used
        (0x1000, 65537, -EINVAL),
        (0xFFFF_8000_0000_0000, 1, -EINVAL),
        (0xFFFF_FFFF_8000_0000, 1, 0),
    ],
)
def test_io_bitmap(vcpu: FakeVcpu, bitmap: int, ports: int, result: int) -> None:
    request = vcpu.put(PhysdevSetIobitmap(bitmap, ports))
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_set_iobitmap, request) == result
    assert vcpu.io_bitmap == ((bitmap, ports) if result == 0 else None)


def test_interrupts_that_exist_need_an_eoi(vcpu: FakeVcpu) -> None:
    request = vcpu.put(PhysdevIrqStatusQuery(NR_PIRQS - 1, 99))
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_irq_status_query, request) == 0
    assert vcpu.read_struct(request, PhysdevIrqStatusQuery).flags == abi.XENIRQSTAT_needs_eoi
    request = vcpu.put(PhysdevIrqStatusQuery(NR_PIRQS, 0))
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_irq_status_query, request) == -EINVAL


def test_free_interrupt_numbers_come_from_above_and_run_out(vcpu: FakeVcpu) -> None:
    got = []
    while True:
        request = vcpu.put(PhysdevGetFreePirq(abi.MAP_PIRQ_TYPE_MSI, 0))
        result = vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_get_free_pirq, request)
        if result:
            break
        got.append(vcpu.read_struct(request, PhysdevGetFreePirq).pirq)
    assert result == -ENOSPC
    assert got == list(range(NR_PIRQS - 1, 15, -1))


def test_lines_beyond_those_of_the_isa_bus_run_out(vcpu: FakeVcpu) -> None:
    for line in range(16, NR_GSIS):
        request = vcpu.put(PhysdevGetFreePirq(abi.MAP_PIRQ_TYPE_GSI, 0))
        assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_get_free_pirq, request) == 0
        assert vcpu.read_struct(request, PhysdevGetFreePirq).pirq == line
    request = vcpu.put(PhysdevGetFreePirq(abi.MAP_PIRQ_TYPE_GSI, 0))
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_get_free_pirq, request) == -ENOSPC


@pytest.mark.parametrize("operation", [abi.PHYSDEVOP_pirq_eoi_gmfn_v1, abi.PHYSDEVOP_pirq_eoi_gmfn_v2])
def test_an_eoi_map_is_a_frame_of_ones_own_and_there_is_one(
    vcpu: FakeVcpu, other: FakeDomain, operation: int
) -> None:
    mfns = vcpu.domain.mfns
    for mfn in (other.mfns[0], 10**9):
        assert vcpu.call(PHYSDEV_OP, operation, vcpu.put(PhysdevPirqEoiGmfn(mfn))) == -EINVAL
    vcpu.domain.host.get_page_and_type(mfns[1], 3, 1)
    assert vcpu.call(PHYSDEV_OP, operation, vcpu.put(PhysdevPirqEoiGmfn(mfns[1]))) == -EINVAL
    assert vcpu.call(PHYSDEV_OP, operation, vcpu.put(PhysdevPirqEoiGmfn(mfns[2]))) == 0
    assert vcpu.domain.pirq_eoi_mfn == mfns[2]
    with nothing_kept(vcpu.domain.host):
        assert vcpu.call(PHYSDEV_OP, operation, vcpu.put(PhysdevPirqEoiGmfn(mfns[3]))) == -EBUSY


@pytest.mark.parametrize(("domid", "errno"), [(SELF, EPERM), (3, EPERM), (0, EPERM), (99, ESRCH)])
def test_interrupts_are_not_mapped(vcpu: FakeVcpu, domid: int, errno: int) -> None:
    request = vcpu.put(PhysdevMapPirq(domid=domid, type=abi.MAP_PIRQ_TYPE_MSI_SEG))
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_map_pirq, request) == -errno
    assert vcpu.read_struct(request, PhysdevMapPirq).type == abi.MAP_PIRQ_TYPE_MSI
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_unmap_pirq, vcpu.put(PhysdevUnmapPirq(domid, 1))) == -errno


def test_interrupt_mappings_are_written_back_whatever_the_answer(vcpu: FakeVcpu) -> None:
    request = vcpu.put(PhysdevMapPirq(domid=99), writable=False)
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_map_pirq, request) == -EFAULT
    request = vcpu.put(PhysdevMapPirq(type=abi.MAP_PIRQ_TYPE_MULTI_MSI, table_base=1))
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_map_pirq, request) == -EINVAL


@pytest.mark.parametrize(("gsi", "errno"), [(0, EPERM), (NR_GSIS - 1, EPERM), (NR_GSIS, EINVAL), (-1, EINVAL)])
def test_lines_are_set_up_by_a_privileged_domain(vcpu: FakeVcpu, gsi: int, errno: int) -> None:
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_setup_gsi, vcpu.put(PhysdevSetupGsi(gsi))) == -errno


@pytest.mark.parametrize(("extended", "virtual", "errno"), [(1, 1, EPERM), (2, 0, EINVAL), (0, 2, EINVAL)])
def test_devices_are_checked_before_they_are_refused(
    vcpu: FakeVcpu, extended: int, virtual: int, errno: int
) -> None:
    request = vcpu.put(PhysdevManagePciExt(is_extfn=extended, is_virtfn=virtual))
    assert vcpu.call(PHYSDEV_OP, abi.PHYSDEVOP_manage_pci_add_ext, request) == -errno


def test_the_old_form_carries_the_operation_in_its_argument(vcpu: FakeVcpu) -> None:
    request = PhysdevOp(abi.PHYSDEVOP_set_iopl)
    request.u.set_iopl.iopl = 2
    assert vcpu.call(PHYSDEV_OP_COMPAT, vcpu.put(request)) == 0
    assert vcpu.iopl == 2
    where = vcpu.put(PhysdevOp(abi.PHYSDEVOP_irq_status_query))
    assert vcpu.call(PHYSDEV_OP_COMPAT, where) == 0
    assert vcpu.read_struct(where, PhysdevOp).u.irq_status_query.flags == abi.XENIRQSTAT_needs_eoi


@pytest.mark.parametrize(
    ("operation", "result"),
    [(4, 0), (8, -EPERM), (9, -EPERM), (10, -EPERM), (11, -ENOSYS), (12, -ENOSYS), (23, -ENOSYS)],
)
def test_what_the_old_form_can_do(vcpu: FakeVcpu, operation: int, result: int) -> None:
    assert vcpu.call(PHYSDEV_OP_COMPAT, vcpu.put(PhysdevOp(operation))) == result
    assert vcpu.call(PHYSDEV_OP_COMPAT, BAD) == -EFAULT
