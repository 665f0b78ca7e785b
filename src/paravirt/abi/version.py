"""Version queries.

Public header: ``xen/version.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, c_char, c_uint32, c_uint64

# xen_version: sub-operations.
XENVER_version = 0
XENVER_extraversion = 1
XENVER_compile_info = 2
XENVER_capabilities = 3
XENVER_changeset = 4
XENVER_platform_parameters = 5
XENVER_get_features = 6
XENVER_pagesize = 7
XENVER_guest_handle = 8
XENVER_commandline = 9
XENVER_build_id = 10

# Lengths of the answers, in bytes.
XEN_EXTRAVERSION_LEN = 16
XEN_CAPABILITIES_INFO_LEN = 1024
XEN_CHANGESET_INFO_LEN = 64


class XenCompileInfo(LittleEndianStructure):
    """XENVER_compile_info."""

    _fields_ = [
        ("compiler", c_char * 64),
        ("compile_by", c_char * 16),
        ("compile_domain", c_char * 32),
        ("compile_date", c_char * 32),
    ]


class XenPlatformParameters(LittleEndianStructure):
    """XENVER_platform_parameters: where the hypervisor's address range begins."""

    _fields_ = [
        ("virt_start", c_uint64),
    ]


class XenFeatureInfo(LittleEndianStructure):
    """XENVER_get_features: 32 feature bits, from bit 32 * submap_idx."""

    _fields_ = [
        ("submap_idx", c_uint32),
        ("submap", c_uint32),
    ]


class XenBuildId(LittleEndianStructure):
    """XENVER_build_id: the head; `len` bytes follow it."""

    _fields_ = [
        ("len", c_uint32),
    ]
