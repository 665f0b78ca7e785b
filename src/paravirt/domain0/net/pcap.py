"""Captures in the classic pcap format, with times in nanoseconds (draft-ietf-opsawg-pcap)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from paravirt.errors import UserError

_MAGIC: Final = 0xA1B23C4D
_ETHERNET: Final = 1
_SNAPLEN: Final = 0x40000
_BILLION: Final = 1_000_000_000


class Capture:
    """A file that packets are written to, each as soon as it is there.

    Parameters:
        clock: the time of a packet, ns since 1970.

    Raises:
        UserError: the file cannot be made.
    """

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.path = path
        try:
            self._file: BinaryIO = path.open("wb", buffering=0)
        except OSError as error:
            raise UserError(f"The capture {path} cannot be written ({error.strerror}).") from error
        self._file.write(struct.pack("<IHHiIII", _MAGIC, 2, 4, 0, 0, _SNAPLEN, _ETHERNET))

    def write(self, data: bytes) -> None:
        """Add a packet."""
        seconds, ns = divmod(self._clock(), _BILLION)
        kept = data[:_SNAPLEN]
        self._file.write(struct.pack("<IIII", seconds & 0xFFFFFFFF, ns, len(kept), len(data)) + kept)

    def close(self) -> None:
        """End the file."""
        self._file.close()
