"""Network interfaces: requests and responses of the transmit and receive rings.

Public header: ``xen/io/netif.h`` (Xen 4.17). The control ring is not here: it is offered by no backend of ours.
"""

from ctypes import LittleEndianStructure, Union, c_int16, c_uint8, c_uint16, c_uint32

XEN_NETIF_NR_SLOTS_MIN = 18
XEN_NETIF_MAX_TX_SIZE = 0xFFFF

# `flags` of a transmit request.
NETTXF_csum_blank = 1 << 0
NETTXF_data_validated = 1 << 1
NETTXF_more_data = 1 << 2
NETTXF_extra_info = 1 << 3

# `type` of an extra slot.
XEN_NETIF_EXTRA_TYPE_NONE = 0
XEN_NETIF_EXTRA_TYPE_GSO = 1
XEN_NETIF_EXTRA_TYPE_MCAST_ADD = 2
XEN_NETIF_EXTRA_TYPE_MCAST_DEL = 3
XEN_NETIF_EXTRA_TYPE_HASH = 4
XEN_NETIF_EXTRA_TYPE_MAX = 5

# `flags` of an extra slot.
XEN_NETIF_EXTRA_FLAG_MORE = 1 << 0

XEN_NETIF_GSO_TYPE_NONE = 0
XEN_NETIF_GSO_TYPE_TCPV4 = 1
XEN_NETIF_GSO_TYPE_TCPV6 = 2

# `flags` of a receive response.
NETRXF_data_validated = 1 << 0
NETRXF_csum_blank = 1 << 1
NETRXF_more_data = 1 << 2
NETRXF_extra_info = 1 << 3
NETRXF_gso_prefix = 1 << 4

# `status` of a response.
NETIF_RSP_DROPPED = -2
NETIF_RSP_ERROR = -1
NETIF_RSP_OKAY = 0
# No response: the slot held extra information.
NETIF_RSP_NULL = 1


class NetifTxRequest(LittleEndianStructure):
    """A part of a packet that the guest sends; in the first one `size` is that of the whole packet."""

    _fields_ = [
        ("gref", c_uint32),
        ("offset", c_uint16),
        ("flags", c_uint16),
        ("id", c_uint16),
        ("size", c_uint16),
    ]


class _Gso(LittleEndianStructure):
    _fields_ = [("size", c_uint16), ("type", c_uint8), ("pad", c_uint8), ("features", c_uint16)]


class _Mcast(LittleEndianStructure):
    _fields_ = [("addr", c_uint8 * 6)]


class _Hash(LittleEndianStructure):
    _fields_ = [("type", c_uint8), ("algorithm", c_uint8), ("value", c_uint8 * 4)]


class _Extra(Union):
    _fields_ = [("gso", _Gso), ("mcast", _Mcast), ("hash", _Hash), ("pad", c_uint16 * 3)]


class NetifExtraInfo(LittleEndianStructure):
    """A slot that says more about the packet than its first one has room for."""

    _fields_ = [("type", c_uint8), ("flags", c_uint8), ("u", _Extra)]


class NetifTxResponse(LittleEndianStructure):
    """How sending went."""

    _fields_ = [("id", c_uint16), ("status", c_int16)]


class NetifRxRequest(LittleEndianStructure):
    """A buffer that the guest offers for what it receives."""

    _fields_ = [("id", c_uint16), ("pad", c_uint16), ("gref", c_uint32)]


class NetifRxResponse(LittleEndianStructure):
    """A received part of a packet; `status` is its length, if not an error."""

    _fields_ = [("id", c_uint16), ("offset", c_uint16), ("flags", c_uint16), ("status", c_int16)]
