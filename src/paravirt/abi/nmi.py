"""Non-maskable interrupts.

Public header: ``xen/nmi.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, c_uint64

# nmi_op: sub-operations.
XENNMI_register_callback = 0
XENNMI_unregister_callback = 1

# ArchSharedInfo.nmi_reason.
_XEN_NMIREASON_io_error = 0
XEN_NMIREASON_io_error = 1 << _XEN_NMIREASON_io_error
_XEN_NMIREASON_pci_serr = 1
XEN_NMIREASON_pci_serr = 1 << _XEN_NMIREASON_pci_serr
_XEN_NMIREASON_unknown = 2
XEN_NMIREASON_unknown = 1 << _XEN_NMIREASON_unknown


class XennmiCallback(LittleEndianStructure):
    """XENNMI_register_callback."""

    _fields_ = [
        ("handler_address", c_uint64),
        ("pad", c_uint64),
    ]
