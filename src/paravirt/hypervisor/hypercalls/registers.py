"""Debug registers and vm_assist: the rare hypercalls about a vcpu's and a domain's modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.abi.errno import EINVAL, ENODEV, ENOSYS
from paravirt.abi.xen import (
    VMASST_CMD_disable,
    VMASST_CMD_enable,
    VMASST_TYPE_4gb_segments,
    VMASST_TYPE_4gb_segments_notify,
    VMASST_TYPE_architectural_iopl,
    VMASST_TYPE_m2p_strict,
    VMASST_TYPE_pae_extended_cr3,
    VMASST_TYPE_runstate_update_flag,
    VMASST_TYPE_writable_pagetables,
    __HYPERVISOR_get_debugreg,
    __HYPERVISOR_set_debugreg,
    __HYPERVISOR_vm_assist,
)

from .registry import HypercallError, hypercall, u32

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Vcpu

VM_ASSISTS = frozenset(
    {
        VMASST_TYPE_4gb_segments,
        VMASST_TYPE_4gb_segments_notify,
        VMASST_TYPE_writable_pagetables,
        VMASST_TYPE_pae_extended_cr3,
        VMASST_TYPE_architectural_iopl,
        VMASST_TYPE_runstate_update_flag,
        VMASST_TYPE_m2p_strict,
    }
)
"""What a 64-bit guest may switch. The first four mean nothing to it; Xen takes them all the same."""


@hypercall(__HYPERVISOR_set_debugreg)
def set_debugreg(vcpu: Vcpu, register: int, value: int, *_: int) -> int:
    """Set a debug register. The compiled core knows what a guest may have in one, for this call and for MOV.

    Raises:
        HypercallError: ENODEV, no such register; EPERM, an address or breakpoint that is not for guests; EINVAL,
            reserved bits.
    """
    return vcpu.set_debugreg(u32(register), value)


@hypercall(__HYPERVISOR_get_debugreg)
def get_debugreg(vcpu: Vcpu, register: int, *_: int) -> int:
    """A debug register's value. (One in the upper half of the address space looks like an error: Xen's does too.)

    Raises:
        HypercallError: ENODEV, no such register.
    """
    value = vcpu.get_debugreg(u32(register))
    if value is None:
        raise HypercallError(ENODEV)
    return value - (1 << 64) if value >> 63 else value


@hypercall(__HYPERVISOR_vm_assist)
def vm_assist(vcpu: Vcpu, cmd: int, type: int, *_: int) -> int:
    """Switch a mode of the domain on or off.

    Raises:
        HypercallError: EINVAL, no such mode for a 64-bit guest; ENOSYS, neither on nor off.
    """
    cmd, type = u32(cmd), u32(type)
    if type not in VM_ASSISTS:
        raise HypercallError(EINVAL)
    if cmd == VMASST_CMD_enable:
        vcpu.domain.vm_assist |= 1 << type
    elif cmd == VMASST_CMD_disable:
        vcpu.domain.vm_assist &= ~(1 << type)
    else:
        raise HypercallError(ENOSYS)
    return 0
