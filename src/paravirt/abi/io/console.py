"""The console ring.

Public header: ``xen/io/console.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, c_uint8, c_uint32


class XenconsInterface(LittleEndianStructure):
    """The console page: `in_` goes to the guest, `out` comes from it; the indices run free."""

    _fields_ = [
        ("in_", c_uint8 * 1024),
        ("out", c_uint8 * 2048),
        ("in_cons", c_uint32),
        ("in_prod", c_uint32),
        ("out_cons", c_uint32),
        ("out_prod", c_uint32),
    ]
