"""physdev_op: I/O privilege, and what a domain without devices gets of interrupts (public/physdev.h).

No physical device is ever given to a domain here, and there is no I/O APIC: the answers are those of Xen to an
unprivileged domain without passed-through devices. A sub-operation that needs privilege is refused only after its
argument was read and looked at, as in Xen.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

from paravirt.abi.errno import EINVAL, ENODEV, ENOSPC, ENOSYS, EPERM
from paravirt.abi.physdev import (
    MAP_PIRQ_TYPE_GSI,
    MAP_PIRQ_TYPE_MSI,
    MAP_PIRQ_TYPE_MSI_SEG,
    MAP_PIRQ_TYPE_MULTI_MSI,
    PHYSDEVOP_IRQ_UNMASK_NOTIFY,
    PhysdevApic,
    PhysdevEoi,
    PhysdevGetFreePirq,
    PhysdevIrq,
    PhysdevIrqStatusQuery,
    PhysdevManagePci,
    PhysdevManagePciExt,
    PhysdevMapPirq,
    PhysdevOp,
    PHYSDEVOP_alloc_irq_vector,
    PHYSDEVOP_apic_read,
    PHYSDEVOP_apic_write,
    PHYSDEVOP_dbgp_op,
    PHYSDEVOP_eoi,
    PHYSDEVOP_get_free_pirq,
    PHYSDEVOP_irq_status_query,
    PHYSDEVOP_manage_pci_add,
    PHYSDEVOP_manage_pci_add_ext,
    PHYSDEVOP_manage_pci_remove,
    PHYSDEVOP_map_pirq,
    PHYSDEVOP_pci_device_add,
    PHYSDEVOP_pci_device_remove,
    PHYSDEVOP_pci_mmcfg_reserved,
    PHYSDEVOP_pirq_eoi_gmfn_v1,
    PHYSDEVOP_pirq_eoi_gmfn_v2,
    PHYSDEVOP_prepare_msix,
    PHYSDEVOP_release_msix,
    PHYSDEVOP_restore_msi,
    PHYSDEVOP_restore_msi_ext,
    PHYSDEVOP_set_iobitmap,
    PHYSDEVOP_set_iopl,
    PHYSDEVOP_setup_gsi,
    PHYSDEVOP_unmap_pirq,
    PhysdevPciDevice,
    PhysdevPciDeviceAdd,
    PhysdevPirqEoiGmfn,
    PhysdevRestoreMsi,
    PhysdevSetIobitmap,
    PhysdevSetIopl,
    PhysdevSetupGsi,
    PhysdevUnmapPirq,
    XENIRQSTAT_needs_eoi,
)
from paravirt.abi.xen import __HYPERVISOR_physdev_op, __HYPERVISOR_physdev_op_compat

from .pirqs import NR_GSIS, NR_ISA_IRQS, NR_PIRQS
from .registry import HypercallError, find_domain, hypercall, is_guest_address, u32

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Vcpu

MAX_PORTS = 65536

Operation = Callable[["Vcpu", int], int]


def _set_iopl(vcpu: Vcpu, arg: int) -> int:
    iopl = vcpu.read_struct(arg, PhysdevSetIopl).iopl
    if iopl > 3:
        raise HypercallError(EINVAL)
    vcpu.iopl = iopl
    return 0


def _set_iobitmap(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, PhysdevSetIobitmap)
    if not is_guest_address(request.bitmap) or request.nr_ports > MAX_PORTS:
        raise HypercallError(EINVAL)
    vcpu.set_io_bitmap(request.bitmap, request.nr_ports)
    return 0


def _irq_unmask_notify(vcpu: Vcpu, arg: int) -> int:
    return 0  # no interrupt is bound, so none is masked


def _irq_status_query(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, PhysdevIrqStatusQuery)
    if request.irq >= NR_PIRQS:
        raise HypercallError(EINVAL)
    request.flags = XENIRQSTAT_needs_eoi
    vcpu.write_struct(arg, request)
    return 0


def _eoi(vcpu: Vcpu, arg: int) -> int:
    vcpu.read_struct(arg, PhysdevEoi)
    raise HypercallError(EINVAL)  # whatever its number, the interrupt is not bound


def _pirq_eoi_gmfn(vcpu: Vcpu, arg: int) -> int:
    """A frame in which the hypervisor marks interrupts that need an EOI (none ever does): 0, or a negative error."""
    return vcpu.domain.set_pirq_eoi_map(vcpu.read_struct(arg, PhysdevPirqEoiGmfn).gmfn)


def _get_free_pirq(vcpu: Vcpu, arg: int) -> int:
    """Reserve an interrupt number: from above for messages, among the lines beyond the ISA bus's for others."""
    request = vcpu.read_struct(arg, PhysdevGetFreePirq)
    taken = vcpu.domain.state.pirqs
    lines, messages = range(NR_ISA_IRQS, NR_GSIS), range(NR_PIRQS - 1, NR_ISA_IRQS - 1, -1)
    numbers = lines if request.type == MAP_PIRQ_TYPE_GSI else messages
    for number in numbers:
        if number not in taken:
            taken.add(number)
            request.pirq = number
            vcpu.write_struct(arg, request)
            return 0
    raise HypercallError(ENOSPC)


def _map_pirq(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, PhysdevMapPirq)
    if request.type == MAP_PIRQ_TYPE_MULTI_MSI and request.table_base:
        raise HypercallError(EINVAL)
    if request.type == MAP_PIRQ_TYPE_MSI_SEG:
        request.type = MAP_PIRQ_TYPE_MSI
    vcpu.write_struct(arg, request)
    find_domain(vcpu, request.domid)
    raise HypercallError(EPERM)


def _unmap_pirq(vcpu: Vcpu, arg: int) -> int:
    find_domain(vcpu, vcpu.read_struct(arg, PhysdevUnmapPirq).domid)
    raise HypercallError(EPERM)


def _setup_gsi(vcpu: Vcpu, arg: int) -> int:
    gsi = vcpu.read_struct(arg, PhysdevSetupGsi).gsi
    raise HypercallError(EPERM if 0 <= gsi < NR_GSIS else EINVAL)


def _manage_pci_add_ext(vcpu: Vcpu, arg: int) -> int:
    request = vcpu.read_struct(arg, PhysdevManagePciExt)
    raise HypercallError(EINVAL if request.is_extfn > 1 or request.is_virtfn > 1 else EPERM)


def _refused(errno: int, layout: type[ctypes.Structure] | None = None) -> Operation:
    """A sub-operation that reads its argument, if it has a layout, and then says no."""

    def operation(vcpu: Vcpu, arg: int) -> int:
        if layout is not None:
            vcpu.read_struct(arg, layout)
        raise HypercallError(errno)

    return operation


OPERATIONS: dict[int, Operation] = {
    PHYSDEVOP_IRQ_UNMASK_NOTIFY: _irq_unmask_notify,
    PHYSDEVOP_irq_status_query: _irq_status_query,
    PHYSDEVOP_set_iopl: _set_iopl,
    PHYSDEVOP_set_iobitmap: _set_iobitmap,
    PHYSDEVOP_apic_read: _refused(EPERM, PhysdevApic),
    PHYSDEVOP_apic_write: _refused(EPERM, PhysdevApic),
    PHYSDEVOP_alloc_irq_vector: _refused(EPERM, PhysdevIrq),
    PHYSDEVOP_eoi: _eoi,
    PHYSDEVOP_map_pirq: _map_pirq,
    PHYSDEVOP_unmap_pirq: _unmap_pirq,
    PHYSDEVOP_manage_pci_add: _refused(EPERM, PhysdevManagePci),
    PHYSDEVOP_manage_pci_remove: _refused(EPERM, PhysdevManagePci),
    PHYSDEVOP_pirq_eoi_gmfn_v1: _pirq_eoi_gmfn,
    PHYSDEVOP_pirq_eoi_gmfn_v2: _pirq_eoi_gmfn,
    PHYSDEVOP_restore_msi: _refused(ENODEV, PhysdevRestoreMsi),
    PHYSDEVOP_manage_pci_add_ext: _manage_pci_add_ext,
    PHYSDEVOP_setup_gsi: _setup_gsi,
    PHYSDEVOP_get_free_pirq: _get_free_pirq,
    PHYSDEVOP_pci_mmcfg_reserved: _refused(EPERM),
    PHYSDEVOP_pci_device_add: _refused(EPERM, PhysdevPciDeviceAdd),
    PHYSDEVOP_pci_device_remove: _refused(EPERM, PhysdevPciDevice),
    PHYSDEVOP_restore_msi_ext: _refused(ENODEV, PhysdevPciDevice),
    PHYSDEVOP_dbgp_op: _refused(EPERM),
    PHYSDEVOP_prepare_msix: _refused(EPERM, PhysdevPciDevice),
    PHYSDEVOP_release_msix: _refused(EPERM, PhysdevPciDevice),
}

OLD_OPERATIONS = frozenset(
    {
        PHYSDEVOP_IRQ_UNMASK_NOTIFY,
        PHYSDEVOP_irq_status_query,
        PHYSDEVOP_set_iopl,
        PHYSDEVOP_set_iobitmap,
        PHYSDEVOP_apic_read,
        PHYSDEVOP_apic_write,
        PHYSDEVOP_alloc_irq_vector,
    }
)
"""What the hypercall of before 2006 can do: its argument holds the number and, behind it, the operation's own."""


@hypercall(__HYPERVISOR_physdev_op)
def physdev_op(vcpu: Vcpu, cmd: int, arg: int, *_: int) -> int:
    """One operation on physical devices.

    Raises:
        HypercallError: EFAULT; EINVAL; EPERM, a privileged domain's; ENODEV, there is no device; ENOSPC, no free
            interrupt number; EBUSY, there is an EOI map already; ESRCH; ENOSYS, no such operation.
    """
    operation = OPERATIONS.get(u32(cmd))
    if operation is None:
        raise HypercallError(ENOSYS)
    return operation(vcpu, arg)


@hypercall(__HYPERVISOR_physdev_op_compat)
def physdev_op_compat(vcpu: Vcpu, arg: int, *_: int) -> int:
    """The old form of the call.

    Raises:
        HypercallError: as :func:`physdev_op`.
    """
    cmd = vcpu.read_struct(arg, PhysdevOp).cmd
    if cmd not in OLD_OPERATIONS:
        raise HypercallError(ENOSYS)
    return physdev_op(vcpu, cmd, arg + PhysdevOp.u.offset)
