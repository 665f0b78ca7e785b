"""Requests of a block frontend, checked: free of I/O (public/io/blkif.h, as drivers/block/xen-blkback does it).

A request is a copy of untrusted bytes. What is wrong with one is answered with an error to it alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from paravirt.abi.io.blkif import (
    BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST,
    BLKIF_MAX_SEGMENTS_PER_REQUEST,
    BLKIF_OP_DISCARD,
    BLKIF_OP_FLUSH_DISKCACHE,
    BLKIF_OP_INDIRECT,
    BLKIF_OP_READ,
    BLKIF_OP_WRITE,
    BLKIF_OP_WRITE_BARRIER,
    BLKIF_RSP_EOPNOTSUPP,
    BLKIF_RSP_ERROR,
)

SECTOR: Final = 512
SECTORS_PER_PAGE: Final = 8
SEGMENTS_PER_PAGE: Final = 512
MAX_INDIRECT_SEGMENTS: Final = 256
"""As Linux's backend offers: 1 MiB in a request."""

REQUEST_SIZE: Final = 112
_HEAD: Final = struct.Struct("<BBH4xQQ")
_SEGMENTS: Final = 24
_DISCARD: Final = struct.Struct("<Q")
_INDIRECT_REFS: Final = struct.Struct(f"<{BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST}I")
_INDIRECT_REFS_AT: Final = 28
_SEGMENT: Final = struct.Struct("<IBB2x")
_RESPONSE: Final = struct.Struct("<QBxh4x")


class RequestError(Exception):
    """A request is answered with an error: ``status`` is BLKIF_RSP_*."""

    def __init__(self, why: str, status: int = BLKIF_RSP_ERROR) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True)
class Request:
    """One request.

    Attributes:
        id: the frontend's number for it, which the response repeats.
        operation: BLKIF_OP_*, for an indirect request the one that it stands for; the response repeats it too.
        sector: where on the disk, in the disk's units.
        segments: (reference, first byte, bytes) of the granted frames, in order.
        length: bytes to transfer, or to discard.
        indirect_refs: frames in which the segments stand, which are to be read first; there are
            ``nr_segments`` of them.
    """

    id: int
    operation: int
    sector: int
    segments: list[tuple[int, int, int]] = field(default_factory=list)
    length: int = 0
    indirect_refs: tuple[int, ...] = ()
    nr_segments: int = 0


def parse(data: bytes, unit: int) -> Request:
    """The request in a ring's entry.

    Parameters:
        unit: bytes of a sector of the disk's, in which a discard's length counts.

    Raises:
        RequestError: there is no such operation, or it has not the segments that it needs.
    """
    operation, number, _, id_, sector = _HEAD.unpack_from(data)
    request = Request(id_, operation, sector)
    if operation in (BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER, BLKIF_OP_FLUSH_DISKCACHE):
        if number > BLKIF_MAX_SEGMENTS_PER_REQUEST:
            raise RequestError(f"{number} segments")
        if not number and operation in (BLKIF_OP_READ, BLKIF_OP_WRITE):
            raise RequestError("no segments")
        add_segments(request, data[_SEGMENTS : _SEGMENTS + number * _SEGMENT.size])
    elif operation == BLKIF_OP_DISCARD:
        request.length = _DISCARD.unpack_from(data, _SEGMENTS)[0] * unit
    elif operation == BLKIF_OP_INDIRECT:
        _, request.operation, request.nr_segments, _, _ = _HEAD.unpack_from(data)
        if request.operation not in (BLKIF_OP_READ, BLKIF_OP_WRITE):
            raise RequestError(f"indirect operation {request.operation}")
        if not 0 < request.nr_segments <= MAX_INDIRECT_SEGMENTS:
            raise RequestError(f"{request.nr_segments} indirect segments")
        pages = (request.nr_segments + SEGMENTS_PER_PAGE - 1) // SEGMENTS_PER_PAGE
        request.indirect_refs = _INDIRECT_REFS.unpack_from(data, _INDIRECT_REFS_AT)[:pages]
    else:
        raise RequestError(f"operation {operation}", BLKIF_RSP_EOPNOTSUPP)
    return request


def add_segments(request: Request, data: bytes) -> None:
    """Give a request the segments that ``data`` describes.

    Raises:
        RequestError: one is not a part of a frame.
    """
    segments, total = request.segments, 0
    for ref, first, last in _SEGMENT.iter_unpack(data):
        if not first <= last < SECTORS_PER_PAGE:
            raise RequestError(f"a segment of sectors {first} to {last}")
        length = (last - first + 1) * SECTOR
        segments.append((ref, first * SECTOR, length))
        total += length
    request.length += total


def segments_size(request: Request) -> int:
    """Bytes that a request's indirect segments take."""
    return request.nr_segments * _SEGMENT.size


def response(request_id: int, operation: int, status: int) -> bytes:
    """The bytes of a response."""
    return _RESPONSE.pack(request_id, operation, status)


def head(data: bytes) -> tuple[int, int]:
    """(id, operation) for the response to a request of which nothing else makes sense."""
    operation, indirect, _, id_, _ = _HEAD.unpack_from(data)
    return id_, indirect if operation == BLKIF_OP_INDIRECT else operation
