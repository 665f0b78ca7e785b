"""Physical-device operations.

Public header: ``xen/physdev.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, LittleEndianUnion, c_int32, c_uint8, c_uint16, c_uint32, c_uint64

# physdev_op: sub-operations.
PHYSDEVOP_eoi = 12
PHYSDEVOP_pirq_eoi_gmfn_v1 = 17
PHYSDEVOP_pirq_eoi_gmfn_v2 = 28
PHYSDEVOP_irq_status_query = 5
PHYSDEVOP_set_iopl = 6
PHYSDEVOP_set_iobitmap = 7
PHYSDEVOP_apic_read = 8
PHYSDEVOP_apic_write = 9
PHYSDEVOP_alloc_irq_vector = 10
PHYSDEVOP_free_irq_vector = 11
PHYSDEVOP_map_pirq = 13
PHYSDEVOP_unmap_pirq = 14
PHYSDEVOP_manage_pci_add = 15
PHYSDEVOP_manage_pci_remove = 16
PHYSDEVOP_restore_msi = 19
PHYSDEVOP_manage_pci_add_ext = 20
PHYSDEVOP_setup_gsi = 21
PHYSDEVOP_get_free_pirq = 23
PHYSDEVOP_pci_mmcfg_reserved = 24
PHYSDEVOP_pci_device_add = 25
PHYSDEVOP_pci_device_remove = 26
PHYSDEVOP_restore_msi_ext = 27
PHYSDEVOP_prepare_msix = 30
PHYSDEVOP_release_msix = 31
PHYSDEVOP_dbgp_op = 29
PHYSDEVOP_pirq_eoi_gmfn = 28

# PhysdevIrqStatusQuery.flags.
_XENIRQSTAT_needs_eoi = 0
XENIRQSTAT_needs_eoi = 1 << _XENIRQSTAT_needs_eoi
_XENIRQSTAT_shared = 1
XENIRQSTAT_shared = 1 << _XENIRQSTAT_shared

# PhysdevMapPirq.type.
MAP_PIRQ_TYPE_MSI = 0x0
MAP_PIRQ_TYPE_GSI = 0x1
MAP_PIRQ_TYPE_UNKNOWN = 0x2
MAP_PIRQ_TYPE_MSI_SEG = 0x3
MAP_PIRQ_TYPE_MULTI_MSI = 0x4

# PCI device flags.
XEN_PCI_MMCFG_RESERVED = 0x1
XEN_PCI_DEV_EXTFN = 0x1
XEN_PCI_DEV_VIRTFN = 0x2
XEN_PCI_DEV_PXM = 0x4

# PHYSDEVOP_dbgp_op: operations and buses.
PHYSDEVOP_DBGP_RESET_PREPARE = 1
PHYSDEVOP_DBGP_RESET_DONE = 2
PHYSDEVOP_DBGP_BUS_UNKNOWN = 0
PHYSDEVOP_DBGP_BUS_PCI = 1

# Legacy names, kept by the header for old guests.
PHYSDEVOP_IRQ_UNMASK_NOTIFY = 4


class PhysdevEoi(LittleEndianStructure):
    """PHYSDEVOP_eoi."""

    _fields_ = [
        ("irq", c_uint32),
    ]


class PhysdevPirqEoiGmfn(LittleEndianStructure):
    """PHYSDEVOP_pirq_eoi_gmfn_v1 and _v2."""

    _fields_ = [
        ("gmfn", c_uint64),
    ]


class PhysdevIrqStatusQuery(LittleEndianStructure):
    """PHYSDEVOP_irq_status_query."""

    _fields_ = [
        ("irq", c_uint32),
        ("flags", c_uint32),
    ]


class PhysdevSetIopl(LittleEndianStructure):
    """PHYSDEVOP_set_iopl."""

    _fields_ = [
        ("iopl", c_uint32),
    ]


class PhysdevSetIobitmap(LittleEndianStructure):
    """PHYSDEVOP_set_iobitmap; `bitmap` is a guest address."""

    _fields_ = [
        ("bitmap", c_uint64),
        ("nr_ports", c_uint32),
    ]


class PhysdevApic(LittleEndianStructure):
    """PHYSDEVOP_apic_read and PHYSDEVOP_apic_write."""

    _fields_ = [
        ("apic_physbase", c_uint64),
        ("reg", c_uint32),
        ("value", c_uint32),
    ]


class PhysdevIrq(LittleEndianStructure):
    """PHYSDEVOP_alloc_irq_vector and PHYSDEVOP_free_irq_vector."""

    _fields_ = [
        ("irq", c_uint32),
        ("vector", c_uint32),
    ]


class PhysdevMapPirq(LittleEndianStructure):
    """PHYSDEVOP_map_pirq."""

    _fields_ = [
        ("domid", c_uint16),
        ("type", c_int32),
        ("index", c_int32),
        ("pirq", c_int32),
        ("bus", c_int32),
        ("devfn", c_int32),
        ("entry_nr", c_int32),
        ("table_base", c_uint64),
    ]


class PhysdevUnmapPirq(LittleEndianStructure):
    """PHYSDEVOP_unmap_pirq."""

    _fields_ = [
        ("domid", c_uint16),
        ("pirq", c_int32),
    ]


class PhysdevManagePci(LittleEndianStructure):
    """PHYSDEVOP_manage_pci_add and PHYSDEVOP_manage_pci_remove."""

    _fields_ = [
        ("bus", c_uint8),
        ("devfn", c_uint8),
    ]


class PhysdevRestoreMsi(LittleEndianStructure):
    """PHYSDEVOP_restore_msi."""

    _fields_ = [
        ("bus", c_uint8),
        ("devfn", c_uint8),
    ]


class _PhysicalFunction(LittleEndianStructure):
    """The physical function of a virtual one."""

    _fields_ = [
        ("bus", c_uint8),
        ("devfn", c_uint8),
    ]


class PhysdevManagePciExt(LittleEndianStructure):
    """PHYSDEVOP_manage_pci_add_ext."""

    _fields_ = [
        ("bus", c_uint8),
        ("devfn", c_uint8),
        ("is_extfn", c_uint32),
        ("is_virtfn", c_uint32),
        ("physfn", _PhysicalFunction),
    ]


class _PhysdevOpArg(LittleEndianUnion):
    """By command."""

    _fields_ = [
        ("irq_status_query", PhysdevIrqStatusQuery),
        ("set_iopl", PhysdevSetIopl),
        ("set_iobitmap", PhysdevSetIobitmap),
        ("apic_op", PhysdevApic),
        ("irq_op", PhysdevIrq),
    ]


class PhysdevOp(LittleEndianStructure):
    """Argument of the old hypercall physdev_op_compat."""

    _fields_ = [
        ("cmd", c_uint32),
        ("u", _PhysdevOpArg),
    ]


class PhysdevSetupGsi(LittleEndianStructure):
    """PHYSDEVOP_setup_gsi."""

    _fields_ = [
        ("gsi", c_int32),
        ("triggering", c_uint8),
        ("polarity", c_uint8),
    ]


class PhysdevGetFreePirq(LittleEndianStructure):
    """PHYSDEVOP_get_free_pirq."""

    _fields_ = [
        ("type", c_int32),
        ("pirq", c_uint32),
    ]


class PhysdevPciMmcfgReserved(LittleEndianStructure):
    """PHYSDEVOP_pci_mmcfg_reserved."""

    _fields_ = [
        ("address", c_uint64),
        ("segment", c_uint16),
        ("start_bus", c_uint8),
        ("end_bus", c_uint8),
        ("flags", c_uint32),
    ]


class PhysdevPciDeviceAdd(LittleEndianStructure):
    """PHYSDEVOP_pci_device_add: the head; optional words follow it."""

    _fields_ = [
        ("seg", c_uint16),
        ("bus", c_uint8),
        ("devfn", c_uint8),
        ("flags", c_uint32),
        ("physfn", _PhysicalFunction),
    ]


class PhysdevPciDevice(LittleEndianStructure):
    """A PCI function."""

    _fields_ = [
        ("seg", c_uint16),
        ("bus", c_uint8),
        ("devfn", c_uint8),
    ]


class _DbgpDevice(LittleEndianUnion):
    """By bus."""

    _fields_ = [
        ("pci", PhysdevPciDevice),
    ]


class PhysdevDbgpOp(LittleEndianStructure):
    """PHYSDEVOP_dbgp_op."""

    _fields_ = [
        ("op", c_uint8),
        ("bus", c_uint8),
        ("u", _DbgpDevice),
    ]
