"""hvm_op and dm_op, as a paravirtual guest finds them."""

from __future__ import annotations

import struct

import pytest

from paravirt.abi import hvm_op as abi
from paravirt.abi.errno import E2BIG, EFAULT, EINVAL, ENODATA, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from paravirt.abi.hvm_op import XenHvmParam
from paravirt.abi.hvm_params import HVM_NR_PARAMS
from paravirt.abi.xen import HYPERCALLS

from .fakes import BAD, SELF, FakeVcpu

HVM_OP, DM_OP = HYPERCALLS["hvm_op"], HYPERCALLS["dm_op"]


@pytest.mark.parametrize("operation", [abi.HVMOP_get_param, abi.HVMOP_set_param])
@pytest.mark.parametrize(
    ("domid", "index", "errno"),
    [(SELF, 0, EINVAL), (7, 0, EINVAL), (99, 0, ESRCH), (99, HVM_NR_PARAMS - 1, ESRCH), (99, HVM_NR_PARAMS, EINVAL)],
)
def test_parameters(vcpu: FakeVcpu, operation: int, domid: int, index: int, errno: int) -> None:
    assert vcpu.call(HVM_OP, operation, vcpu.put(XenHvmParam(domid=domid, index=index))) == -errno
    assert vcpu.call(HVM_OP, operation, BAD) == -EFAULT


def test_the_time_is_for_everybody(vcpu: FakeVcpu) -> None:
    where = vcpu.map()
    assert vcpu.call(HVM_OP, abi.HVMOP_get_time, where) == 0
    assert vcpu.numbers(where, 1) == [vcpu.domain.host.time]
    assert vcpu.call(HVM_OP, abi.HVMOP_get_time, BAD) == -EFAULT


@pytest.mark.parametrize(("event", "extra", "result"), [(0xFFF, 28, 0), (0x1000, 0, -EINVAL), (0, 29, -EINVAL)])
def test_trace_records_are_checked_and_dropped(vcpu: FakeVcpu, event: int, extra: int, result: int) -> None:
    record = vcpu.put(struct.pack("<HH28x", event, extra))
    assert vcpu.call(HVM_OP, abi.HVMOP_xentrace, record) == result
    assert vcpu.call(HVM_OP, abi.HVMOP_xentrace, BAD) == -EFAULT


@pytest.mark.parametrize(("domid", "errno"), [(SELF, EINVAL), (7, EPERM), (99, ESRCH)])
def test_types_of_memory(vcpu: FakeVcpu, domid: int, errno: int) -> None:
    assert vcpu.call(HVM_OP, abi.HVMOP_get_mem_type, vcpu.put(struct.pack("<H14x", domid))) == -errno
    assert vcpu.call(HVM_OP, abi.HVMOP_get_mem_type, BAD) == -EFAULT


@pytest.mark.parametrize(("domid", "errno"), [(SELF, EINVAL), (7, EINVAL), (99, ESRCH)])
def test_dying_page_tables(vcpu: FakeVcpu, domid: int, errno: int) -> None:
    assert vcpu.call(HVM_OP, abi.HVMOP_pagetable_dying, vcpu.put(struct.pack("<H14x", domid))) == -errno
    assert vcpu.call(HVM_OP, abi.HVMOP_pagetable_dying, BAD) == -EFAULT


@pytest.mark.parametrize(
    ("operation", "with_null", "with_pointer"),
    [
        (abi.HVMOP_flush_tlbs, -EINVAL, -EINVAL),
        (abi.HVMOP_set_evtchn_upcall_vector, -EINVAL, -EINVAL),
        (abi.HVMOP_guest_request_vm_event, 0, -EINVAL),
        (abi.HVMOP_altp2m, -EOPNOTSUPP, -EOPNOTSUPP),
        (abi.HVMOP_set_mem_access, -ENOSYS, -ENOSYS),
        (abi.HVMOP_get_mem_access, -ENOSYS, -ENOSYS),
        (99, -ENOSYS, -ENOSYS),
        (1 << 32 | abi.HVMOP_get_time, -ENOSYS, -ENOSYS),
    ],
)
def test_other_operations(vcpu: FakeVcpu, operation: int, with_null: int, with_pointer: int) -> None:
    assert vcpu.call(HVM_OP, operation, 0) == with_null
    assert vcpu.call(HVM_OP, operation, BAD) == with_pointer


def test_a_device_models_buffers_come_first(vcpu: FakeVcpu) -> None:
    buffers = vcpu.put(bytes(48), at_end=True)
    assert vcpu.call(DM_OP, SELF, 4, BAD) == -E2BIG
    assert vcpu.call(DM_OP, SELF, 1, BAD) == -EFAULT
    assert vcpu.call(DM_OP, SELF, 0, BAD) == -ENODATA
    assert vcpu.call(DM_OP, SELF, 3, buffers) == -ESRCH
    assert vcpu.call(DM_OP, 3, 3, buffers) == -EPERM
    assert vcpu.call(DM_OP, 7, 1, buffers) == -EINVAL
    assert vcpu.call(DM_OP, 1 << 16 | 7, 1, buffers) == -EINVAL
