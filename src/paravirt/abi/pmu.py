"""Performance counters for guests.

Public header: ``xen/pmu.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, c_uint32, c_uint64

# xenpmu_op: sub-operations.
XENPMU_mode_get = 0
XENPMU_mode_set = 1
XENPMU_feature_get = 2
XENPMU_feature_set = 3
XENPMU_init = 4
XENPMU_finish = 5
XENPMU_lvtpc_set = 6
XENPMU_flush = 7

# XenPmuParams.version.
XENPMU_VER_MAJ = 0
XENPMU_VER_MIN = 1

# XenPmuParams.val of XENPMU_mode_set.
XENPMU_MODE_OFF = 0
XENPMU_MODE_SELF = 1 << 0
XENPMU_MODE_HV = 1 << 1
XENPMU_MODE_ALL = 1 << 2

# XenPmuParams.val of XENPMU_feature_set.
XENPMU_FEATURE_INTEL_BTS = 1 << 0
XENPMU_FEATURE_IPC_ONLY = 1 << 1
XENPMU_FEATURE_ARCH_ONLY = 1 << 2


class _XenPmuVersion(LittleEndianStructure):
    """Interface version."""

    _fields_ = [
        ("maj", c_uint32),
        ("min", c_uint32),
    ]


class XenPmuParams(LittleEndianStructure):
    """Argument of xenpmu_op."""

    _fields_ = [
        ("version", _XenPmuVersion),
        ("val", c_uint64),
        ("vcpu", c_uint32),
        ("pad", c_uint32),
    ]
