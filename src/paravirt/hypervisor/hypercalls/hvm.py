"""hvm_op and dm_op: for translated guests and their device models, of which there are none.

What Xen answers a paravirtual guest all the same (public/hvm/hvm_op.h, dm_op.h).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from paravirt.abi.errno import E2BIG, EINVAL, ENODATA, ENOSYS, EOPNOTSUPP
from paravirt.abi.hvm_op import (
    HVMOP_altp2m,
    HVMOP_flush_tlbs,
    HVMOP_get_mem_type,
    HVMOP_get_param,
    HVMOP_get_time,
    HVMOP_guest_request_vm_event,
    HVMOP_pagetable_dying,
    HVMOP_set_evtchn_upcall_vector,
    HVMOP_set_param,
    HVMOP_xentrace,
    XenHvmParam,
)
from paravirt.abi.hvm_params import HVM_NR_PARAMS
from paravirt.abi.xen import __HYPERVISOR_dm_op, __HYPERVISOR_hvm_op

from .registry import HypercallError, find_domain, find_remote, find_target, hypercall, u32

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Vcpu

DM_OP_BUFFERS = 3
DM_OP_BUFFER_SIZE = 16  # a pointer, a length and padding
TRACE_RECORD = struct.Struct("<HH28x")
TRACE_EXTRA = 28  # bytes
TRACE_CLASS_SHIFT = 12
MEM_TYPE = struct.Struct("<HHHHQ")
PAGETABLE_DYING = struct.Struct("<HHIQ")


def _param(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, XenHvmParam)
    if request.index >= HVM_NR_PARAMS:
        raise HypercallError(EINVAL)
    find_domain(vcpu, request.domid)
    raise HypercallError(EINVAL)


def _pagetable_dying(vcpu: Vcpu, arg: int) -> int:
    domid, *_ = PAGETABLE_DYING.unpack(vcpu.copy_from_guest(arg, PAGETABLE_DYING.size))
    find_domain(vcpu, domid)
    raise HypercallError(EINVAL)


def _get_mem_type(vcpu: Vcpu, arg: int) -> int:
    domid, *_ = MEM_TYPE.unpack(vcpu.copy_from_guest(arg, MEM_TYPE.size))
    find_target(vcpu, domid)
    raise HypercallError(EINVAL)


def _get_time(vcpu: Vcpu, arg: int) -> int:
    """System time in ns: the one of these operations that every kind of guest may use."""
    vcpu.copy_to_guest(arg, vcpu.domain.host.now().to_bytes(8, "little"))
    return 0


def _xentrace(vcpu: Vcpu, arg: int) -> int:
    """A record for the hypervisor's trace buffer, which is off: it is checked and dropped."""
    event, extra = TRACE_RECORD.unpack(vcpu.copy_from_guest(arg, TRACE_RECORD.size))
    if extra > TRACE_EXTRA or event >> TRACE_CLASS_SHIFT:
        raise HypercallError(EINVAL)
    return 0


def _guest_request_vm_event(vcpu: Vcpu, arg: int) -> int:
    if arg != 0:
        raise HypercallError(EINVAL)
    return 0  # nobody monitors the domain


def _refused(errno: int) -> Callable[[Vcpu, int], int]:
    def operation(vcpu: Vcpu, arg: int) -> int:
        raise HypercallError(errno)

    return operation


OPERATIONS: dict[int, Callable[[Vcpu, int], int]] = {
    HVMOP_set_param: _param,
    HVMOP_get_param: _param,
    HVMOP_flush_tlbs: _refused(EINVAL),
    HVMOP_pagetable_dying: _pagetable_dying,
    HVMOP_get_time: _get_time,
    HVMOP_xentrace: _xentrace,
    HVMOP_get_mem_type: _get_mem_type,
    HVMOP_set_evtchn_upcall_vector: _refused(EINVAL),
    HVMOP_guest_request_vm_event: _guest_request_vm_event,
    HVMOP_altp2m: _refused(EOPNOTSUPP),
}


@hypercall(__HYPERVISOR_hvm_op)
def hvm_op(vcpu: Vcpu, cmd: int, arg: int, *_: int) -> int:
    """One operation of translated guests.

    Raises:
        HypercallError: EINVAL, because the caller is none; before that EFAULT, ESRCH and EPERM, as Xen looks at
            things; EOPNOTSUPP, views of memory; ENOSYS, no such operation.
    """
    operation = OPERATIONS.get(cmd)
    if operation is None:
        raise HypercallError(ENOSYS)
    return operation(vcpu, arg)


@hypercall(__HYPERVISOR_dm_op)
def dm_op(vcpu: Vcpu, domid: int, nr_buffers: int, buffers: int, *_: int) -> int:
    """A device model's operation on its guest: there is none to have a model.

    Raises:
        HypercallError: E2BIG, EFAULT, ENODATA: buffers; ESRCH, EPERM: the domain is missing or the caller; EINVAL.
    """
    nr_buffers = u32(nr_buffers)
    if nr_buffers > DM_OP_BUFFERS:
        raise HypercallError(E2BIG)
    vcpu.copy_from_guest(buffers, nr_buffers * DM_OP_BUFFER_SIZE)
    if nr_buffers == 0:
        raise HypercallError(ENODATA)
    find_remote(vcpu, domid & 0xFFFF)
    raise HypercallError(EINVAL)
