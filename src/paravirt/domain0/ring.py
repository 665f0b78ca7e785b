"""Byte rings in a page that a guest shares: the console's and xenstore's (public/io/console.h, io/xs_wire.h).

Both are pairs of rings in one page; an index runs freely over 32 bits and is reduced by the ring's size where a
byte is stored.  The guest can write anything at any time, so each index is read once and checked before use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from paravirt.errors import GuestError


class GuestPage(Protocol):
    """The door to one shared frame.  Each read is one copy of untrusted bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on."""

    def write(self, offset: int, data: bytes) -> None:
        """Store ``data`` at ``offset``."""


class RingError(GuestError):
    """The guest's ring indices make no sense."""


@dataclass(frozen=True)
class RingLayout:
    """Where a ring's buffer and indices are in the page.  ``size`` is a power of two."""

    buffer: int
    size: int
    consumer: int
    producer: int


CONSOLE_IN: Final = RingLayout(0, 1024, 3072, 3076)
CONSOLE_OUT: Final = RingLayout(1024, 2048, 3080, 3084)
STORE_REQUESTS: Final = RingLayout(0, 1024, 2048, 2052)
STORE_REPLIES: Final = RingLayout(1024, 1024, 2056, 2060)


class ByteRing:
    """One direction of a shared ring, from Domain 0's side."""

    def __init__(self, page: GuestPage, layout: RingLayout) -> None:
        self._page = page
        self._layout = layout

    def _indices(self) -> tuple[int, int]:
        layout = self._layout
        consumer = int.from_bytes(self._page.read(layout.consumer, 4), "little")
        producer = int.from_bytes(self._page.read(layout.producer, 4), "little")
        if (producer - consumer) & 0xFFFFFFFF > layout.size:
            raise RingError(f"ring indices {consumer:#x} and {producer:#x} are more than {layout.size} apart")
        return consumer, producer

    def take(self, limit: int | None = None) -> bytes:
        """Take up to ``limit`` bytes that the guest has put in.

        Raises:
            RingError: the indices make no sense.
        """
        consumer, producer = self._indices()
        count = (producer - consumer) & 0xFFFFFFFF
        if limit is not None:
            count = min(count, limit)
        if count == 0:
            return b""
        start = consumer & (self._layout.size - 1)
        first = min(count, self._layout.size - start)
        data = self._page.read(self._layout.buffer + start, first)
        if first < count:
            data += self._page.read(self._layout.buffer, count - first)
        self._page.write(self._layout.consumer, ((consumer + count) & 0xFFFFFFFF).to_bytes(4, "little"))
        return data

    def put(self, data: bytes) -> int:
        """Put in as much of ``data`` as there is room for: the number of bytes.

        Raises:
            RingError: the indices make no sense.
        """
        consumer, producer = self._indices()
        count = min(len(data), self._layout.size - ((producer - consumer) & 0xFFFFFFFF))
        if count == 0:
            return 0
        start = producer & (self._layout.size - 1)
        first = min(count, self._layout.size - start)
        self._page.write(self._layout.buffer + start, data[:first])
        if first < count:
            self._page.write(self._layout.buffer, data[first:count])
        # The bytes are in place before the guest can see that they are there.
        self._page.write(self._layout.producer, ((producer + count) & 0xFFFFFFFF).to_bytes(4, "little"))
        return count
