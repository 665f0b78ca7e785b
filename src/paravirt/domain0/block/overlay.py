"""Copy-on-write overlays: what a guest changes of an image that many share.

The file is sparse: a header, a bit for each block of 4096 bytes that is the overlay's own, and the blocks, at the
place of their number. All other blocks are the base's, which is never written.

    0                    the header: magic, version, size of the disk, offset of the bits, offset of the blocks, base
    bits                 bit 0 of byte 0: block 0
    blocks               block 0, block 1, ...

A crash of the host loses nothing that was flushed: blocks reach the disk before their bits do. Blocks that were
written since, and whose bits were not, are the base's again.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from paravirt.domain0.block.image import Buffers, Image, length_of, open_file, read_file, split, write_file
from paravirt.errors import UserError

MAGIC: Final = b"paravirt overlay"
VERSION: Final = 1
BLOCK: Final = 4096
OpenBase = Callable[[Path, str], Image]

_HEADER: Final = struct.Struct("<16sIIQQQ")
"""Magic, version, length of the base's path, size of the disk, offset of the bits, offset of the blocks."""


def create_overlay(path: Path, base: Path, size: int, format_: str) -> None:
    """Make an overlay that has nothing of its own yet.

    Parameters:
        base: the image below; a relative path is one of the overlay's folder.
        size: bytes of the disk, as the base has them.
        format_: the base's format.

    Raises:
        UserError: the file is there already, or cannot be made.
    """
    name = f"{format_}:{base}".encode()
    bits_at = -(-(_HEADER.size + len(name)) // BLOCK) * BLOCK
    blocks = -(-size // BLOCK)
    blocks_at = bits_at + -(-blocks // (8 * BLOCK)) * BLOCK
    header = _HEADER.pack(MAGIC, VERSION, len(name), size, bits_at, blocks_at)
    try:
        with path.open("xb") as file:
            file.write(header + name)
            file.truncate(blocks_at + blocks * BLOCK)
    except OSError as error:
        raise UserError(f"The overlay {str(path)!r} cannot be made: {error.strerror}.") from error


class OverlayImage(Image):
    """An overlay, and the image below it as its own.

    Parameters:
        open_base: opens the image below for reading, given path and format.

    Raises:
        UserError: it cannot be opened, is no overlay, or its base is not what it was.
    """

    discard_granularity = 0

    def __init__(self, path: Path, readonly: bool, open_base: OpenBase) -> None:
        self.readonly = readonly
        self._fd = open_file(path, readonly)
        try:
            format_, base, self.size, self._bits_at, self._blocks_at = _read_header(self._fd, path)
            self._bits = bytearray(os.pread(self._fd, self._blocks_at - self._bits_at, self._bits_at))
            self._base = open_base(path.parent / base, format_)
        except BaseException:
            os.close(self._fd)
            raise
        self._dirty: set[int] = set()
        self._changes = threading.Lock()
        self._flushing = threading.Lock()
        if self._base.size != self.size:
            self.close()
            raise UserError(f"The image below the overlay {str(path)!r} had {self.size} bytes, and has others now.")

    def read(self, offset: int, buffers: Buffers) -> None:
        """Fill the buffers, from the overlay and from below."""
        for own, start, part in self._runs(offset, buffers):
            if own:
                read_file(self._fd, self._blocks_at + start, part)
            else:
                self._base.read(start, part)

    def write(self, offset: int, buffers: Buffers) -> None:
        """Store the buffers in the overlay; of blocks that are written in part, the rest is copied from below."""
        end = offset + length_of(buffers)
        first, last = offset // BLOCK, (end - 1) // BLOCK
        with self._changes:
            if offset % BLOCK:
                self._copy_up(first)
            if end % BLOCK and not self._is_own(last):
                self._copy_up(last)
            write_file(self._fd, self._blocks_at + offset, buffers)
            for block in range(first, last + 1):
                self._own(block)

    def flush(self) -> None:
        """Blocks first, then the bits that say that they are there; one flush at a time, since each does the work of
        those that come after it."""
        with self._flushing:
            with self._changes:
                dirty, self._dirty = self._dirty, set()
                pages = [(page, bytes(self._bits[page * BLOCK : (page + 1) * BLOCK])) for page in sorted(dirty)]
            try:
                os.fdatasync(self._fd)
                for page, data in pages:
                    os.pwrite(self._fd, data, self._bits_at + page * BLOCK)
                if pages:
                    os.fdatasync(self._fd)
            except OSError:
                with self._changes:
                    self._dirty |= dirty
                raise

    def close(self) -> None:
        """Keep all that was written, and close both files.

        Raises:
            OSError: it cannot be kept; they are closed all the same.
        """
        try:
            if not self.readonly:
                self.flush()
        finally:
            os.close(self._fd)
            self._base.close()

    def _is_own(self, block: int) -> bool:
        return bool(self._bits[block >> 3] >> (block & 7) & 1)

    def _own(self, block: int) -> None:
        if not self._is_own(block):
            self._bits[block >> 3] |= 1 << (block & 7)
            self._dirty.add((block >> 3) // BLOCK)

    def _copy_up(self, block: int) -> None:
        if self._is_own(block):
            return
        data = bytearray(min(BLOCK, self.size - block * BLOCK))
        self._base.read(block * BLOCK, [memoryview(data)])
        write_file(self._fd, self._blocks_at + block * BLOCK, [memoryview(data)])
        self._own(block)

    def _runs(self, offset: int, buffers: Buffers) -> Iterator[tuple[bool, int, list[memoryview]]]:
        """The bytes in runs that are all the overlay's, or all the base's."""
        end = offset + length_of(buffers)
        runs: list[tuple[bool, int, int]] = []
        while offset < end:
            own = self._is_own(offset // BLOCK)
            stop = min(end, (offset // BLOCK + 1) * BLOCK)
            if runs and runs[-1][0] == own:
                runs[-1] = own, runs[-1][1], stop - runs[-1][1]
            else:
                runs.append((own, offset, stop - offset))
            offset = stop
        for (own, start, _), part in zip(runs, split(buffers, [run[2] for run in runs]), strict=True):
            yield own, start, part


def _read_header(fd: int, path: Path) -> tuple[str, str, int, int, int]:
    """(format of the base, its path, size, offset of the bits, offset of the blocks)."""
    data = os.pread(fd, BLOCK, 0)
    if len(data) >= _HEADER.size:
        magic, version, length, size, bits_at, blocks_at = _HEADER.unpack_from(data)
        name = data[_HEADER.size : _HEADER.size + length]
        if magic == MAGIC and version == VERSION and b":" in name and (blocks_at - bits_at) * 8 * BLOCK >= size:
            format_, _, base = name.decode("utf-8", "surrogateescape").partition(":")
            return format_, base, size, bits_at, blocks_at
    raise UserError(f"The file {str(path)!r} is not an overlay.")
