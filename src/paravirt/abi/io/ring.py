"""Shared rings of requests and responses, as block and network devices use them.

Public header: ``xen/io/ring.h`` (Xen 4.17). A ring page is a :class:`SringHeader` and, directly after it, as
many entries as fit, rounded down to a power of two. An entry holds a request or a response, whichever is
longer. The indices run free (32 bits) and are taken modulo the number of entries. A side that published new
entries must notify the other one if the other's event index lies among them.
"""

from ctypes import LittleEndianStructure, c_uint8, c_uint32

# Rings are made of pages of this size, whatever the guest's own page size is.
XEN_PAGE_SHIFT = 12


class SringHeader(LittleEndianStructure):
    """Head of a ring page: both producers' indices, and the index at which each side wants a notification."""

    _fields_ = [
        ("req_prod", c_uint32),
        ("req_event", c_uint32),
        ("rsp_prod", c_uint32),
        ("rsp_event", c_uint32),
        ("pvt", c_uint8 * 4),
        ("pad", c_uint8 * 44),
    ]
