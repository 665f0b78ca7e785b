"""Callback registration.

Public header: ``xen/callback.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, c_uint16, c_uint64

# callback_op: sub-operations.
CALLBACKOP_register = 0
CALLBACKOP_unregister = 1

# CallbackRegister.type.
CALLBACKTYPE_event = 0
CALLBACKTYPE_failsafe = 1
CALLBACKTYPE_syscall = 2
CALLBACKTYPE_sysenter_deprecated = 3
CALLBACKTYPE_nmi = 4
CALLBACKTYPE_sysenter = 5
CALLBACKTYPE_syscall32 = 7

# CallbackRegister.flags.
_CALLBACKF_mask_events = 0
CALLBACKF_mask_events = 1 << _CALLBACKF_mask_events


class CallbackRegister(LittleEndianStructure):
    """CALLBACKOP_register."""

    _fields_ = [
        ("type", c_uint16),
        ("flags", c_uint16),
        ("address", c_uint64),
    ]


class CallbackUnregister(LittleEndianStructure):
    """CALLBACKOP_unregister."""

    _fields_ = [
        ("type", c_uint16),
        ("_unused", c_uint16),
    ]
