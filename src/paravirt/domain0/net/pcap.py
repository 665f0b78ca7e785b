"""Captures in the classic pcap format, with times in nanoseconds (draft-ietf-opsawg-pcap)."""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from paravirt.errors import UserError

logger = logging.getLogger(__name__)

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
_MAGIC: Final = 0xA1B23C4D
_ETHERNET: Final = 1
_SNAPLEN: Final = 0x40000
_BILLION: Final = 1_000_000_000


class Capture:
    """A file that packets are written to, each as soon as it is there. It may be a pipe that somebody reads: nothing
    waits for a reader, and one that is too slow ends the capture.

    Parameters:
        clock: the time of a packet, ns since 1970.

    Attributes:
        failure: why it has ended early (the disk is full, say), or None. The file has every packet until then.

    Raises:
        UserError: the file cannot be made.
    """

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.path = path
        self.failure: str | None = None
        self._size = 0
        try:
            self._file: BinaryIO = os.fdopen(os.open(path, _FLAGS, 0o666), "wb", buffering=0)
        except OSError as error:
            raise UserError(f"The capture {path} cannot be written ({error.strerror}).") from error
        self._add(struct.pack("<IHHiIII", _MAGIC, 2, 4, 0, 0, _SNAPLEN, _ETHERNET))
        if self.failure is not None:
            raise UserError(f"The capture {path} cannot be written ({self.failure}).")

    def write(self, data: bytes) -> None:
        """Add a packet, unless the capture has ended."""
        seconds, ns = divmod(self._clock(), _BILLION)
        kept = data[:_SNAPLEN]
        self._add(struct.pack("<IIII", seconds & 0xFFFFFFFF, ns, len(kept), len(data)) + kept)

    def close(self) -> None:
        """End the file."""
        self._try(self._file.close)

    def _add(self, record: bytes) -> None:
        """Add the record as a whole, or end the file before it."""
        if self.failure is not None:
            return
        if self._try(lambda: self._write(record)):
            self._size += len(record)
        else:
            self._try(lambda: self._file.truncate(self._size))
            self.close()

    def _write(self, record: bytes) -> None:
        left = memoryview(record)
        while left:
            # A disk that becomes full takes a part, and says why at the next attempt. A full pipe takes nothing.
            taken = self._file.write(left)
            if taken is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            left = left[taken:]

    def _try(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except OSError as error:
            if self.failure is None:
                self.failure = error.strerror
                logger.warning("The capture %s has ended: %s.", self.path, error.strerror)
            return False
        return True
