"""A guest's page, and the guest's end of the rings in it."""

from __future__ import annotations

from paravirt.domain0.ring import RingLayout


class Page:
    """One frame. Every access is checked to lie in it, and is written down as (what, offset, length)."""

    def __init__(self) -> None:
        self.bytes = bytearray(4096)
        self.log: list[tuple[str, int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= 4096
        self.log.append(("read", offset, length))
        return bytes(self.bytes[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= offset + len(data) <= 4096
        self.log.append(("write", offset, len(data)))
        self.bytes[offset : offset + len(data)] = data

    def index(self, offset: int) -> int:
        """An index, as the guest reads it."""
        return int.from_bytes(self.bytes[offset : offset + 4], "little")

    def set_index(self, offset: int, value: int) -> None:
        """Set an index, as the guest does."""
        self.bytes[offset : offset + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")


class GuestEnd:
    """The guest's end of a ring, byte by byte."""

    def __init__(self, page: Page, layout: RingLayout) -> None:
        self._page = page
        self._layout = layout

    @property
    def used(self) -> int:
        """Bytes in the ring."""
        page, layout = self._page, self._layout
        return (page.index(layout.producer) - page.index(layout.consumer)) & 0xFFFFFFFF

    def put(self, data: bytes) -> int:
        """Put in what there is room for: how many bytes."""
        page, layout = self._page, self._layout
        count = min(len(data), layout.size - self.used)
        producer = page.index(layout.producer)
        for i in range(count):
            page.bytes[layout.buffer + ((producer + i) & 0xFFFFFFFF) % layout.size] = data[i]
        page.set_index(layout.producer, producer + count)
        return count

    def take(self, limit: int = 4096) -> bytes:
        """Take up to ``limit`` bytes."""
        page, layout = self._page, self._layout
        consumer = page.index(layout.consumer)
        count = min(limit, self.used)
        places = [((consumer + i) & 0xFFFFFFFF) % layout.size for i in range(count)]
        page.set_index(layout.consumer, consumer + count)
        return bytes(page.bytes[layout.buffer + place] for place in places)
