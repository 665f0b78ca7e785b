"""Byte rings in a page that a guest shares: the console's and xenstore's (public/io/console.h, io/xs_wire.h).

Both are pairs of rings in one page; an index runs freely over 32 bits and is reduced by the ring's size where a
byte is stored. The guest can write anything at any time, so in one pass each index is read once and checked, and
the copies made of it are what the pass works with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from paravirt.abi.io.console import XenconsInterface
from paravirt.abi.io.xs_wire import XENSTORE_RING_SIZE, XenstoreDomainInterface
from paravirt.errors import GuestError

INDEX_MASK: Final = 0xFFFFFFFF


class GuestPage(Protocol):
    """The door to one shared frame. Each read is one copy of untrusted bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on."""

    def write(self, offset: int, data: bytes) -> None:
        """Store ``data`` at ``offset``."""


class GuestProtocolError(GuestError):
    """A guest broke the rules of a device's protocol: the device stops talking to it."""


class RingError(GuestProtocolError):
    """The guest's ring indices make no sense."""


@dataclass(frozen=True)
class RingLayout:
    """Where a ring's buffer and its two 32-bit indices are in the page. ``size`` is a power of two."""

    buffer: int
    size: int
    consumer: int
    producer: int


_CONSOLE: Final = XenconsInterface
_STORE: Final = XenstoreDomainInterface
CONSOLE_IN: Final = RingLayout(_CONSOLE.in_.offset, _CONSOLE.in_.size, _CONSOLE.in_cons.offset, _CONSOLE.in_prod.offset)
CONSOLE_OUT: Final = RingLayout(
    _CONSOLE.out.offset, _CONSOLE.out.size, _CONSOLE.out_cons.offset, _CONSOLE.out_prod.offset
)
STORE_REQUESTS: Final = RingLayout(
    _STORE.req.offset, XENSTORE_RING_SIZE, _STORE.req_cons.offset, _STORE.req_prod.offset
)
STORE_REPLIES: Final = RingLayout(_STORE.rsp.offset, XENSTORE_RING_SIZE, _STORE.rsp_cons.offset, _STORE.rsp_prod.offset)


class ByteRing:
    """One direction of a shared ring, from Domain 0's side.

    Our own index is read from the page too, as Xen's daemons do: a guest that starts again resets both.
    """

    def __init__(self, page: GuestPage, layout: RingLayout) -> None:
        self._page = page
        self._layout = layout

    def take(self, limit: int | None = None) -> bytes:
        """Take up to ``limit`` bytes that the guest has put in.

        Raises:
            RingError: the indices make no sense.
        """
        consumer, count = self._indices()
        if limit is not None:
            count = min(count, limit)
        if count == 0:
            return b""
        layout = self._layout
        start = consumer & (layout.size - 1)
        first = min(count, layout.size - start)
        data = self._page.read(layout.buffer + start, first)
        if first < count:
            data += self._page.read(layout.buffer, count - first)
        self._page.write(layout.consumer, _index(consumer + count))
        return data

    def put(self, data: bytes) -> int:
        """Put in as much of ``data`` as there is room for: the number of bytes.

        Raises:
            RingError: the indices make no sense.
        """
        return self.fill(lambda room: data[:room])

    def fill(self, source: Callable[[int], bytes]) -> int:
        """Put in what ``source`` gives when it is told how much room there is: the number of bytes.

        ``source`` is not called when the ring is full.

        Raises:
            RingError: the indices make no sense.
        """
        consumer, used = self._indices()
        layout = self._layout
        room = layout.size - used
        data = source(room) if room else b""
        if not data:
            return 0
        producer = consumer + used
        start = producer & (layout.size - 1)
        first = min(len(data), layout.size - start)
        self._page.write(layout.buffer + start, data[:first])
        if first < len(data):
            self._page.write(layout.buffer, data[first:])
        # The bytes are in place before the guest can see that they are there.
        self._page.write(layout.producer, _index(producer + len(data)))
        return len(data)

    def _indices(self) -> tuple[int, int]:
        """The consumer's index, and how many bytes there are beyond it."""
        layout = self._layout
        consumer = int.from_bytes(self._page.read(layout.consumer, 4), "little")
        producer = int.from_bytes(self._page.read(layout.producer, 4), "little")
        used = (producer - consumer) & INDEX_MASK
        if used > layout.size:
            raise RingError(
                f"ring indices {consumer:#x} (consumer) and {producer:#x} (producer) are {used} apart, "
                f"but the ring has {layout.size} bytes"
            )
        return consumer, used


def _index(value: int) -> bytes:
    return (value & INDEX_MASK).to_bytes(4, "little")
