"""Grant tables: sub-operations, entry flags, status codes.

Public header: ``xen/grant_table.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, LittleEndianUnion, c_int16, c_uint16, c_uint32, c_uint64

# grant_table_op: sub-operations.
GNTTABOP_map_grant_ref = 0
GNTTABOP_unmap_grant_ref = 1
GNTTABOP_setup_table = 2
GNTTABOP_dump_table = 3
GNTTABOP_transfer = 4
GNTTABOP_copy = 5
GNTTABOP_query_size = 6
GNTTABOP_unmap_and_replace = 7
GNTTABOP_set_version = 8
GNTTABOP_get_status_frames = 9
GNTTABOP_get_version = 10
GNTTABOP_swap_grant_ref = 11
GNTTABOP_cache_flush = 12

# Entries that the toolstack fills in.
GNTTAB_NR_RESERVED_ENTRIES = 8
GNTTAB_RESERVED_CONSOLE = 0
GNTTAB_RESERVED_XENSTORE = 1

# Entry flags of a GTF_accept_transfer grant.
_GTF_transfer_committed = 2
GTF_transfer_committed = 1 << _GTF_transfer_committed
_GTF_transfer_completed = 3
GTF_transfer_completed = 1 << _GTF_transfer_completed

# Entry flags.
GTF_invalid = 0
GTF_permit_access = 1 << 0
GTF_accept_transfer = 2
GTF_transitive = 3
GTF_type_mask = 3
_GTF_readonly = 2
GTF_readonly = 1 << _GTF_readonly
_GTF_reading = 3
GTF_reading = 1 << _GTF_reading
_GTF_writing = 4
GTF_writing = 1 << _GTF_writing
_GTF_PWT = 5
GTF_PWT = 1 << _GTF_PWT
_GTF_PCD = 6
GTF_PCD = 1 << _GTF_PCD
_GTF_PAT = 7
GTF_PAT = 1 << _GTF_PAT
_GTF_sub_page = 8
GTF_sub_page = 1 << _GTF_sub_page

# MapGrantRef.flags.
_GNTMAP_device_map = 0
GNTMAP_device_map = 1 << _GNTMAP_device_map
_GNTMAP_host_map = 1
GNTMAP_host_map = 1 << _GNTMAP_host_map
_GNTMAP_readonly = 2
GNTMAP_readonly = 1 << _GNTMAP_readonly
_GNTMAP_application_map = 3
GNTMAP_application_map = 1 << _GNTMAP_application_map
_GNTMAP_contains_pte = 4
GNTMAP_contains_pte = 1 << _GNTMAP_contains_pte
_GNTMAP_guest_avail0 = 16
GNTMAP_guest_avail_mask = 0xFFFF0000

# GnttabCopy.flags.
_GNTCOPY_source_gref = 0
GNTCOPY_source_gref = 1 << _GNTCOPY_source_gref
_GNTCOPY_dest_gref = 1
GNTCOPY_dest_gref = 1 << _GNTCOPY_dest_gref

# GnttabCacheFlush.op.
GNTTAB_CACHE_CLEAN = 1 << 0
GNTTAB_CACHE_INVAL = 1 << 1
GNTTAB_CACHE_SOURCE_GREF = 1 << 31

# Status codes, in the `status` field of a request.
GNTST_okay = 0
GNTST_general_error = -1
GNTST_bad_domain = -2
GNTST_bad_gntref = -3
GNTST_bad_handle = -4
GNTST_bad_virt_addr = -5
GNTST_bad_dev_addr = -6
GNTST_no_device_space = -7
GNTST_permission_denied = -8
GNTST_bad_page = -9
GNTST_bad_copy_arg = -10
GNTST_address_too_big = -11
GNTST_eagain = -12
GNTST_no_space = -13


class GrantEntryV1(LittleEndianStructure):
    """A grant in a version 1 table (8 bytes)."""

    _fields_ = [
        ("flags", c_uint16),
        ("domid", c_uint16),
        ("frame", c_uint32),
    ]


class GrantEntryHeader(LittleEndianStructure):
    """The head of a version 2 entry."""

    _fields_ = [
        ("flags", c_uint16),
        ("domid", c_uint16),
    ]


class _FullPage(LittleEndianStructure):
    """A whole frame, or a transfer."""

    _fields_ = [
        ("hdr", GrantEntryHeader),
        ("pad0", c_uint32),
        ("frame", c_uint64),
    ]


class _SubPage(LittleEndianStructure):
    """GTF_sub_page: some bytes of a frame."""

    _fields_ = [
        ("hdr", GrantEntryHeader),
        ("page_off", c_uint16),
        ("length", c_uint16),
        ("frame", c_uint64),
    ]


class _Transitive(LittleEndianStructure):
    """GTF_transitive: a grant that another domain gave."""

    _fields_ = [
        ("hdr", GrantEntryHeader),
        ("trans_domid", c_uint16),
        ("pad0", c_uint16),
        ("gref", c_uint32),
    ]


class GrantEntryV2(LittleEndianUnion):
    """A grant in a version 2 table (16 bytes)."""

    _fields_ = [
        ("hdr", GrantEntryHeader),
        ("full_page", _FullPage),
        ("sub_page", _SubPage),
        ("transitive", _Transitive),
    ]


class GnttabMapGrantRef(LittleEndianStructure):
    """GNTTABOP_map_grant_ref."""

    _fields_ = [
        ("host_addr", c_uint64),
        ("flags", c_uint32),
        ("ref", c_uint32),
        ("dom", c_uint16),
        ("status", c_int16),
        ("handle", c_uint32),
        ("dev_bus_addr", c_uint64),
    ]


class GnttabUnmapGrantRef(LittleEndianStructure):
    """GNTTABOP_unmap_grant_ref."""

    _fields_ = [
        ("host_addr", c_uint64),
        ("dev_bus_addr", c_uint64),
        ("handle", c_uint32),
        ("status", c_int16),
    ]


class GnttabSetupTable(LittleEndianStructure):
    """GNTTABOP_setup_table."""

    _fields_ = [
        ("dom", c_uint16),
        ("nr_frames", c_uint32),
        ("status", c_int16),
        ("frame_list", c_uint64),
    ]


class GnttabDumpTable(LittleEndianStructure):
    """GNTTABOP_dump_table."""

    _fields_ = [
        ("dom", c_uint16),
        ("status", c_int16),
    ]


class GnttabTransfer(LittleEndianStructure):
    """GNTTABOP_transfer."""

    _fields_ = [
        ("mfn", c_uint64),
        ("domid", c_uint16),
        ("ref", c_uint32),
        ("status", c_int16),
    ]


class _CopyFrame(LittleEndianUnion):
    """A grant reference or a frame, by the flags."""

    _fields_ = [
        ("ref", c_uint32),
        ("gmfn", c_uint64),
    ]


class _CopyPtr(LittleEndianStructure):
    """One side of a copy; `offset` in bytes."""

    _fields_ = [
        ("u", _CopyFrame),
        ("domid", c_uint16),
        ("offset", c_uint16),
    ]


class GnttabCopy(LittleEndianStructure):
    """GNTTABOP_copy; `len` in bytes."""

    _fields_ = [
        ("source", _CopyPtr),
        ("dest", _CopyPtr),
        ("len", c_uint16),
        ("flags", c_uint16),
        ("status", c_int16),
    ]


class GnttabQuerySize(LittleEndianStructure):
    """GNTTABOP_query_size."""

    _fields_ = [
        ("dom", c_uint16),
        ("nr_frames", c_uint32),
        ("max_nr_frames", c_uint32),
        ("status", c_int16),
    ]


class GnttabUnmapAndReplace(LittleEndianStructure):
    """GNTTABOP_unmap_and_replace."""

    _fields_ = [
        ("host_addr", c_uint64),
        ("new_addr", c_uint64),
        ("handle", c_uint32),
        ("status", c_int16),
    ]


class GnttabSetVersion(LittleEndianStructure):
    """GNTTABOP_set_version."""

    _fields_ = [
        ("version", c_uint32),
    ]


class GnttabGetStatusFrames(LittleEndianStructure):
    """GNTTABOP_get_status_frames."""

    _fields_ = [
        ("nr_frames", c_uint32),
        ("dom", c_uint16),
        ("status", c_int16),
        ("frame_list", c_uint64),
    ]


class GnttabGetVersion(LittleEndianStructure):
    """GNTTABOP_get_version."""

    _fields_ = [
        ("dom", c_uint16),
        ("pad", c_uint16),
        ("version", c_uint32),
    ]


class GnttabSwapGrantRef(LittleEndianStructure):
    """GNTTABOP_swap_grant_ref."""

    _fields_ = [
        ("ref_a", c_uint32),
        ("ref_b", c_uint32),
        ("status", c_int16),
    ]


class _CacheTarget(LittleEndianUnion):
    """By GNTTAB_CACHE_SOURCE_GREF."""

    _fields_ = [
        ("dev_bus_addr", c_uint64),
        ("ref", c_uint32),
    ]


class GnttabCacheFlush(LittleEndianStructure):
    """GNTTABOP_cache_flush."""

    _fields_ = [
        ("a", _CacheTarget),
        ("offset", c_uint16),
        ("length", c_uint16),
        ("op", c_uint32),
    ]
