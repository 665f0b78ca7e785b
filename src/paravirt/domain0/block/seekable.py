"""Compressed images that are only read: zstd data in many frames, with a table of where they are.

The seekable format of zstd (contrib/seekable_format in its source tree): independent frames, each of so many bytes of
the image, and a skippable frame at the end whose table has the sizes of all frames. Any zstd program can unpack it.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path
from typing import Final

import zstandard

from paravirt.domain0.block.image import SECTOR_SIZE, Buffers, Image, open_file
from paravirt.errors import UserError

FRAME_SIZE: Final = 128 << 10
"""Bytes of the image in each frame that we write."""

LARGEST_FRAME: Final = 64 << 20
CACHED_BYTES: Final = 32 << 20

_FOOTER: Final = struct.Struct("<IBI")
_FOOTER_MAGIC: Final = 0x8F92EAB1
_SKIPPABLE: Final = struct.Struct("<II")
_SKIPPABLE_MAGIC: Final = 0x184D2A5E
_HAS_CHECKSUMS: Final = 0x80


def compress(source: Path, target: Path, level: int = 9) -> None:
    """Write ``source`` in compressed form to ``target``.

    Raises:
        UserError: one cannot be read, or the other is there already or cannot be written.
    """
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
    table = bytearray()
    try:
        with source.open("rb") as file, target.open("xb") as out:
            while data := file.read(FRAME_SIZE):
                packed = compressor.compress(data + bytes(-len(data) % SECTOR_SIZE))
                out.write(packed)
                table += struct.pack("<II", len(packed), len(data) + -len(data) % SECTOR_SIZE)
            footer = _FOOTER.pack(len(table) // 8, 0, _FOOTER_MAGIC)
            out.write(_SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(table) + len(footer)) + table + footer)
    except OSError as error:
        raise UserError(f"The image cannot be compressed: {error}.") from error


class SeekableImage(Image):
    """A compressed image; the frames that were used last are kept unpacked.

    Raises:
        UserError: it cannot be opened, or has no table of frames.
    """

    readonly = True

    def __init__(self, path: Path) -> None:
        self._fd = open_file(path, True)
        try:
            packed, unpacked = _read_table(self._fd)
        except (ValueError, struct.error) as error:
            os.close(self._fd)
            raise UserError(f"The file {str(path)!r} is not a seekable zstd file ({error}).") from error
        self._packed = list(accumulate(packed, initial=0))
        self._starts = list(accumulate(unpacked, initial=0))
        self.size = self._starts[-1] // SECTOR_SIZE * SECTOR_SIZE
        self._frames: OrderedDict[int, bytes] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()

    def read(self, offset: int, buffers: Buffers) -> None:
        """Unpack what is needed."""
        for buffer in buffers:
            done = 0
            while done < len(buffer):
                number = bisect_right(self._starts, offset) - 1
                frame = self._frame(number)
                inside = offset - self._starts[number]
                piece = frame[inside : inside + len(buffer) - done]
                buffer[done : done + len(piece)] = piece
                done += len(piece)
                offset += len(piece)

    def write(self, offset: int, buffers: Buffers) -> None:
        """Nothing can be written."""
        raise OSError(errno.EROFS, "the image is compressed")

    def flush(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
        self._frames.clear()

    def _frame(self, number: int) -> bytes:
        with self._lock:
            if number in self._frames:
                self._frames.move_to_end(number)
                return self._frames[number]
        start, end = self._packed[number : number + 2]
        size = self._starts[number + 1] - self._starts[number]
        try:
            data = zstandard.ZstdDecompressor().decompress(os.pread(self._fd, end - start, start), size)
        except zstandard.ZstdError as error:
            raise OSError(errno.EIO, f"a frame cannot be unpacked: {error}") from error
        if len(data) != size:
            raise OSError(errno.EIO, "a frame is not as long as the table says")
        with self._lock:
            if number not in self._frames:
                self._frames[number] = data
                self._cached += len(data)
            while self._cached > CACHED_BYTES and len(self._frames) > 1:
                self._cached -= len(self._frames.popitem(last=False)[1])
        return data


def _read_table(fd: int) -> tuple[list[int], list[int]]:
    """Bytes of each frame, packed and unpacked.

    Raises:
        ValueError: there is none, or it makes no sense.
    """
    size = os.fstat(fd).st_size
    frames, flags, magic = _FOOTER.unpack(os.pread(fd, _FOOTER.size, max(0, size - _FOOTER.size)))
    if magic != _FOOTER_MAGIC:
        raise ValueError("it has no table of frames")
    entry = struct.Struct("<III" if flags & _HAS_CHECKSUMS else "<II")
    length = frames * entry.size + _FOOTER.size
    start = size - length
    if start < _SKIPPABLE.size:
        raise ValueError("its table is longer than the file")
    if _SKIPPABLE.unpack(os.pread(fd, _SKIPPABLE.size, start - _SKIPPABLE.size)) != (_SKIPPABLE_MAGIC, length):
        raise ValueError("its table has no beginning")
    entries = list(entry.iter_unpack(os.pread(fd, frames * entry.size, start)))
    packed, unpacked = [one[0] for one in entries], [one[1] for one in entries]
    if sum(packed) != start - _SKIPPABLE.size or any(not 0 < one <= LARGEST_FRAME for one in unpacked):
        raise ValueError("its table does not fit the frames")
    return packed, unpacked
