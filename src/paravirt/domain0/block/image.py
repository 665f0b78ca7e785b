"""What a disk's bytes are read from and written to.

Images are called from several threads at a time, each with other bytes, and may wait for the host's disk. They raise
OSError, which the guest sees as an I/O error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from paravirt.errors import UserError

SECTOR_SIZE: Final = 512
"""The unit of a disk's size; its sectors, as the guest sees them, may be larger."""

MAX_BUFFERS: Final = 1024
"""The host takes no more in one call (IOV_MAX)."""

FALLOC_KEEP_SIZE: Final = 1
FALLOC_PUNCH_HOLE: Final = 2

Buffers = Sequence[memoryview]


class Image(ABC):
    """A disk's content.

    Attributes:
        size: bytes, a multiple of 512.
        readonly: it cannot be written.
        discard_granularity: bytes that can be discarded at least; 0: none can.
        direct_fd: a file or block device that holds the disk's bytes and nothing else, which may be read and written
            without asking; -1: there is none.
    """

    size: int
    readonly: bool
    discard_granularity: int = 0
    direct_fd: int = -1

    @abstractmethod
    def read(self, offset: int, buffers: Buffers) -> None:
        """Fill the buffers with what stands at ``offset`` and behind."""

    @abstractmethod
    def write(self, offset: int, buffers: Buffers) -> None:
        """Store what the buffers hold at ``offset``."""

    @abstractmethod
    def flush(self) -> None:
        """Everything that was written before this call survives a crash of the host when it returns."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the image holds of the host; what was written stays written."""

    def read_at_once(self, offset: int, buffers: Buffers) -> bool:
        """Like :meth:`read`, if that needs no waiting: whether it was done."""
        return False

    def write_at_once(self, offset: int, buffers: Buffers) -> bool:
        """Like :meth:`write`, if that will hardly take long: whether it was done."""
        return False

    @property
    def is_quick(self) -> bool:
        """Whether writes to :attr:`direct_fd` hardly take long at present."""
        return False

    def was_slow(self) -> None:  # noqa: B027 - nothing is to be done where nobody writes so
        """One did."""

    def discard(self, offset: int, length: int) -> None:
        """What stands there does not matter any more; it reads as zeros or as before."""
        raise OSError(errno.EOPNOTSUPP, "nothing can be discarded here")

    def measure(self) -> bool:
        """Look whether the image has become larger or smaller: whether :attr:`size` changed."""
        return False


def length_of(buffers: Buffers) -> int:
    """Bytes in all buffers together."""
    return sum(map(len, buffers))


def split(buffers: Buffers, lengths: Sequence[int]) -> Iterator[list[memoryview]]:
    """The buffers' bytes in parts of these lengths, which are not more than there are."""
    queue = list(buffers)
    queue.reverse()
    for length in lengths:
        part = []
        while length:
            buffer = queue.pop()
            if len(buffer) > length:
                queue.append(buffer[length:])
                buffer = buffer[:length]
            part.append(buffer)
            length -= len(buffer)
        yield part


def read_file(fd: int, offset: int, buffers: Buffers) -> None:
    """Fill the buffers from a file; what is beyond its end reads as zeros."""
    for start in range(0, len(buffers), MAX_BUFFERS):
        some = list(buffers[start : start + MAX_BUFFERS])
        while some:
            count = os.preadv(fd, some, offset)
            if count == 0:
                for buffer in some:
                    buffer[:] = bytes(len(buffer))
                break
            offset += count
            some = _behind(some, count)


def write_file(fd: int, offset: int, buffers: Buffers) -> None:
    """Store the buffers in a file."""
    for start in range(0, len(buffers), MAX_BUFFERS):
        some = list(buffers[start : start + MAX_BUFFERS])
        while some:
            count = os.pwritev(fd, some, offset)
            offset += count
            some = _behind(some, count)


def _behind(buffers: Sequence[memoryview], count: int) -> list[memoryview]:
    """What is left of the buffers behind their first ``count`` bytes."""
    left = list(buffers)
    while left and count >= len(left[0]):
        count -= len(left.pop(0))
    if count:
        left[0] = left[0][count:]
    return left


def open_file(path: Path, readonly: bool, shared: bool = False) -> int:
    """A descriptor of an image's file or block device. Nobody else writes it, unless it is ``shared``.

    Raises:
        UserError: it cannot be opened, is something else, or is in use.
    """
    try:
        fd = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"The disk image {str(path)!r} cannot be opened: {error.strerror}.") from error
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        os.close(fd)
        raise UserError(f"The disk image {str(path)!r} is neither a file nor a block device.")
    if not shared:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if readonly else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise UserError(
                f"The disk image {str(path)!r} is in use by another disk; "
                "several may share it if they only read it."
            ) from error
    return fd


def size_of(fd: int) -> int:
    """Bytes in a file or block device, in whole sectors."""
    information = os.fstat(fd)
    size = os.lseek(fd, 0, os.SEEK_END) if stat.S_ISBLK(information.st_mode) else information.st_size
    return size // SECTOR_SIZE * SECTOR_SIZE


class Pace:
    """Whether something that is quick as a rule is so at present.  A slow time is followed by a pause before it is
    tried again, which doubles as long as it stays slow.
    """

    SLOW: Final = 0.002
    FIRST_PAUSE: Final = 0.25
    LONGEST_PAUSE: Final = 8.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = self.FIRST_PAUSE
        self._paused_until = self._began = clock()

    @property
    def is_quick(self) -> bool:
        """Whether to try."""
        return self._clock() >= self._paused_until

    def was_slow(self) -> None:
        """Pause."""
        self._paused_until = self._clock() + self._pause
        self._pause = min(2 * self._pause, self.LONGEST_PAUSE)

    def __enter__(self) -> None:
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        now = self._clock()
        if now - self._began > self.SLOW:
            self.was_slow()
        elif now - self._paused_until > self._pause:
            self._pause = self.FIRST_PAUSE


class RawImage(Image):
    """A file or block device that holds the disk's bytes and nothing else. Holes read as zeros.

    Raises:
        UserError: it cannot be opened, or is in use.
    """

    def __init__(self, path: Path, readonly: bool, shared: bool = False) -> None:
        self._fd = open_file(path, readonly, shared)
        self.size = size_of(self._fd)
        self.readonly = readonly
        self.discard_granularity = 0 if readonly else 4096
        self.direct_fd = self._fd
        self._pace = Pace()

    def read(self, offset: int, buffers: Buffers) -> None:
        """Fill the buffers."""
        read_file(self._fd, offset, buffers)

    def read_at_once(self, offset: int, buffers: Buffers) -> bool:
        """Fill the buffers if all of it is in the host's page cache."""
        try:
            return os.preadv(self._fd, buffers[:MAX_BUFFERS], offset, os.RWF_NOWAIT) == length_of(buffers)
        except OSError:  # it would wait, or the file system cannot tell: the usual way says what is wrong, if anything
            return False

    def write(self, offset: int, buffers: Buffers) -> None:
        """Store the buffers."""
        write_file(self._fd, offset, buffers)

    def write_at_once(self, offset: int, buffers: Buffers) -> bool:
        """Store the buffers, unless such a call took long lately: the host's page cache takes them as a rule.

        Where a file system can say beforehand whether it would wait (RWF_NOWAIT), it can for reads only.
        """
        if not self.is_quick or len(buffers) > MAX_BUFFERS:
            return False
        with self._pace:
            return os.pwritev(self._fd, buffers, offset) == length_of(buffers)

    @property
    def is_quick(self) -> bool:
        """Whether none took long lately."""
        return self._pace.is_quick

    def was_slow(self) -> None:
        """One did."""
        self._pace.was_slow()

    def flush(self) -> None:
        """Have the host's disk keep what was written."""
        os.fdatasync(self._fd)

    def discard(self, offset: int, length: int) -> None:
        """Make a hole, where the file system can."""
        punch_hole(self._fd, offset, length)

    def measure(self) -> bool:
        """Look at the file's size."""
        before, self.size = self.size, size_of(self._fd)
        return self.size != before

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


@functools.cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.fallocate.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
    return library


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give a file's blocks back; they read as zeros then. Where that is not possible, nothing happens."""
    code = _libc().fallocate(fd, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, offset, length)
    if code and (number := ctypes.get_errno()) not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(number, os.strerror(number))
