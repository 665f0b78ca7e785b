"""Block devices: requests, responses and their segments.

Public header: ``xen/io/blkif.h`` (Xen 4.17), as a 64-bit guest has it ("x86_64-abi").
"""

from ctypes import LittleEndianStructure, c_int16, c_uint8, c_uint16, c_uint32, c_uint64

BLKIF_OP_READ = 0
BLKIF_OP_WRITE = 1
BLKIF_OP_WRITE_BARRIER = 2
BLKIF_OP_FLUSH_DISKCACHE = 3
BLKIF_OP_RESERVED_1 = 4
BLKIF_OP_DISCARD = 5
BLKIF_OP_INDIRECT = 6

BLKIF_MAX_SEGMENTS_PER_REQUEST = 11
BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = 8

# `flag` of a discard.
BLKIF_DISCARD_SECURE = 1

# `status` of a response.
BLKIF_RSP_EOPNOTSUPP = -2
BLKIF_RSP_ERROR = -1
BLKIF_RSP_OKAY = 0

# Bits of the backend's `info` node.
VDISK_CDROM = 0x1
VDISK_REMOVABLE = 0x2
VDISK_READONLY = 0x4


class BlkifRequestSegment(LittleEndianStructure):
    """A part of a granted frame, in sectors of 512 bytes; both ends are included."""

    _fields_ = [
        ("gref", c_uint32),
        ("first_sect", c_uint8),
        ("last_sect", c_uint8),
    ]


class BlkifRequest(LittleEndianStructure):
    """Read, write, barrier or flush."""

    _fields_ = [
        ("operation", c_uint8),
        ("nr_segments", c_uint8),
        ("handle", c_uint16),
        ("id", c_uint64),
        ("sector_number", c_uint64),
        ("seg", BlkifRequestSegment * BLKIF_MAX_SEGMENTS_PER_REQUEST),
    ]


class BlkifRequestDiscard(LittleEndianStructure):
    """What a range of sectors holds does not matter any more."""

    _fields_ = [
        ("operation", c_uint8),
        ("flag", c_uint8),
        ("handle", c_uint16),
        ("id", c_uint64),
        ("sector_number", c_uint64),
        ("nr_sectors", c_uint64),
    ]


class BlkifRequestIndirect(LittleEndianStructure):
    """Read or write whose segments stand in granted frames of their own, 512 in each."""

    _fields_ = [
        ("operation", c_uint8),
        ("indirect_op", c_uint8),
        ("nr_segments", c_uint16),
        ("id", c_uint64),
        ("sector_number", c_uint64),
        ("handle", c_uint16),
        ("indirect_grefs", c_uint32 * BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST),
    ]


class BlkifResponse(LittleEndianStructure):
    """`id` and `operation` are those of the request."""

    _fields_ = [
        ("id", c_uint64),
        ("operation", c_uint8),
        ("status", c_int16),
    ]
