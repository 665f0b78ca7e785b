"""Where the guest's kernel is entered: trap table, callbacks, NMI handler.

Hypercalls set_trap_table, set_callbacks, callback_op and nmi_op (public/arch-x86/xen.h, callback.h, nmi.h). An
address has to be canonical and may otherwise be anything: a wrong one is found out when it is used.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from paravirt.abi.arch_x86 import FLAT_KERNEL_CS, TrapInfo
from paravirt.abi.callback import (
    CALLBACKF_mask_events,
    CALLBACKOP_register,
    CALLBACKOP_unregister,
    CallbackRegister,
    CALLBACKTYPE_event,
    CALLBACKTYPE_failsafe,
    CALLBACKTYPE_nmi,
    CALLBACKTYPE_syscall,
    CALLBACKTYPE_syscall32,
    CALLBACKTYPE_sysenter,
    CallbackUnregister,
)
from paravirt.abi.errno import EINVAL, ENOSYS
from paravirt.abi.nmi import XENNMI_register_callback, XENNMI_unregister_callback, XennmiCallback
from paravirt.abi.xen import (
    __HYPERVISOR_callback_op,
    __HYPERVISOR_nmi_op,
    __HYPERVISOR_set_callbacks,
    __HYPERVISOR_set_trap_table,
)

from .registry import (
    PREEMPT_AFTER,
    WORK_OF_UNIT,
    HypercallContinuation,
    HypercallError,
    hypercall,
    is_canonical,
    u32,
)

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Vcpu

NR_VECTORS = 256
NMI_VECTOR = 2
TI_MASK_EVENTS = 4  # in trap_info's flags: enter with events masked

_PERMANENT = frozenset(
    {
        CALLBACKTYPE_event,
        CALLBACKTYPE_failsafe,
        CALLBACKTYPE_syscall,
        CALLBACKTYPE_syscall32,
        CALLBACKTYPE_sysenter,
    }
)


@hypercall(__HYPERVISOR_set_trap_table)
def set_trap_table(vcpu: Vcpu, table: int, *_: int) -> int:
    """Set entries of the trap table, up to one whose address is 0; a null pointer removes them all.

    What stands before a bad entry counts.

    Raises:
        HypercallError: EFAULT, the table cannot be read; EINVAL, an address is not canonical.
    """
    if table == 0:
        for vector in range(NR_VECTORS):
            vcpu.set_trap(vector, 0, 0, 0)
        return 0
    for _done in range(PREEMPT_AFTER):
        vcpu.domain.host.spend(WORK_OF_UNIT)
        entry = vcpu.read_struct(table, TrapInfo)
        if entry.address == 0:
            return 0
        if not is_canonical(entry.address):
            raise HypercallError(EINVAL)
        # A guest's code runs in ring 3, whatever privilege level its selector asks for.
        vcpu.set_trap(entry.vector, entry.cs | 3, entry.flags, entry.address)
        table = (table + ctypes.sizeof(TrapInfo)) & 0xFFFF_FFFF_FFFF_FFFF
    raise HypercallContinuation(table)


@hypercall(__HYPERVISOR_set_callbacks)
def set_callbacks(vcpu: Vcpu, event: int, failsafe: int, syscall: int, *_: int) -> int:
    """Set the three oldest callbacks at once. One that is not canonical is left as it was, without a word."""
    for kind, address in (
        (CALLBACKTYPE_event, event),
        (CALLBACKTYPE_failsafe, failsafe),
        (CALLBACKTYPE_syscall, syscall),
    ):
        if is_canonical(address):
            vcpu.set_callback(kind, address, CALLBACKF_mask_events if kind == CALLBACKTYPE_event else 0)
    return 0


@hypercall(__HYPERVISOR_callback_op)
def callback_op(vcpu: Vcpu, cmd: int, arg: int, *_: int) -> int:
    """Register or unregister one callback; only the NMI's can be unregistered.

    Raises:
        HypercallError: EFAULT; EINVAL, an address that is not canonical, or a callback that has to stay; ENOSYS,
            no such operation or type.
    """
    cmd = u32(cmd)
    if cmd == CALLBACKOP_register:
        request = vcpu.read_struct(arg, CallbackRegister)
        _register(vcpu, request.type, request.address, request.flags)
    elif cmd == CALLBACKOP_unregister:
        _unregister(vcpu, vcpu.read_struct(arg, CallbackUnregister).type)
    else:
        raise HypercallError(ENOSYS)
    return 0


def _register(vcpu: Vcpu, kind: int, address: int, flags: int) -> None:
    if not is_canonical(address):
        raise HypercallError(EINVAL)
    if kind == CALLBACKTYPE_nmi:
        _register_nmi(vcpu, address)
    elif kind == CALLBACKTYPE_event:
        vcpu.set_callback(kind, address, CALLBACKF_mask_events)  # an upcall always finds events masked
    elif kind in _PERMANENT:
        vcpu.set_callback(kind, address, flags & CALLBACKF_mask_events)
    else:
        raise HypercallError(ENOSYS)


def _unregister(vcpu: Vcpu, kind: int) -> None:
    if kind in _PERMANENT:
        raise HypercallError(EINVAL)
    if kind != CALLBACKTYPE_nmi:
        raise HypercallError(ENOSYS)
    _unregister_nmi(vcpu)


@hypercall(__HYPERVISOR_nmi_op)
def nmi_op(vcpu: Vcpu, cmd: int, arg: int, *_: int) -> int:
    """Register or unregister the NMI handler, in the way from before callback_op.

    Raises:
        HypercallError: EFAULT; EINVAL, the address is not canonical; ENOSYS, no such operation.
    """
    cmd = u32(cmd)
    if cmd == XENNMI_register_callback:
        address = vcpu.read_struct(arg, XennmiCallback).handler_address
        if not is_canonical(address):
            raise HypercallError(EINVAL)
        _register_nmi(vcpu, address)
    elif cmd == XENNMI_unregister_callback:
        _unregister_nmi(vcpu)
    else:
        raise HypercallError(ENOSYS)
    return 0


def _register_nmi(vcpu: Vcpu, address: int) -> None:
    """The handler of NMIs is entry 2 of the trap table, in Xen and so here."""
    vcpu.set_trap(NMI_VECTOR, FLAT_KERNEL_CS, TI_MASK_EVENTS, address)


def _unregister_nmi(vcpu: Vcpu) -> None:
    vcpu.set_trap(NMI_VECTOR, 0, 0, 0)
