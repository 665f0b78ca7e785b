"""Virtual block devices: extents of other images, one behind the other.

As in the paper (section 3.3.6 of "Xen and the Art of Virtualization"): Domain 0 makes a device of a list of extents,
and what its guest names as (device, offset) is translated to ranges of the images behind. Several devices may be
carved from one disk; no offset leads beyond a device's own extents.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paravirt.domain0.block.image import SECTOR_SIZE, Buffers, Image, length_of, split
from paravirt.errors import UserError


@dataclass(frozen=True)
class Extent:
    """``length`` bytes of ``image`` from byte ``offset`` on."""

    image: Image
    offset: int
    length: int


class ExtentImage(Image):
    """A disk made of extents. Closing it leaves the images behind open: others may be using them.

    Raises:
        UserError: an extent is empty, not of whole sectors, or beyond its image's end.
    """

    def __init__(self, extents: Sequence[Extent], readonly: bool = False) -> None:
        for extent in extents:
            if extent.length <= 0 or extent.offset < 0 or (extent.offset | extent.length) % SECTOR_SIZE:
                raise UserError(f"An extent is of whole sectors of {SECTOR_SIZE} bytes, not {_text(extent)}.")
            if extent.offset + extent.length > extent.image.size:
                raise UserError(
                    f"An extent of {_text(extent)} is beyond the end of its disk, which has {extent.image.size} bytes."
                )
        self._extents = list(extents)
        self._starts: list[int] = []
        self.size = 0
        for extent in extents:
            self._starts.append(self.size)
            self.size += extent.length
        self.readonly = readonly or any(extent.image.readonly for extent in extents)
        if not self.readonly:
            self.discard_granularity = max((extent.image.discard_granularity for extent in extents), default=0)

    def read(self, offset: int, buffers: Buffers) -> None:
        """Fill the buffers."""
        for image, start, part in self._parts(offset, buffers):
            image.read(start, part)

    def write(self, offset: int, buffers: Buffers) -> None:
        """Store the buffers."""
        for image, start, part in self._parts(offset, buffers):
            image.write(start, part)

    def flush(self) -> None:
        """Flush every image behind."""
        for image in {id(extent.image): extent.image for extent in self._extents}.values():
            image.flush()

    def discard(self, offset: int, length: int) -> None:
        """Discard in the images behind."""
        for image, start, count in self.translate(offset, length):
            image.discard(start, count)

    def close(self) -> None:
        """Nothing is to be given back."""

    def translate(self, offset: int, length: int) -> Iterator[tuple[Image, int, int]]:
        """Where ``length`` bytes at ``offset`` are: (image, offset, length), in order.

        Raises:
            OSError: not all of them are the device's.
        """
        if not 0 <= offset <= offset + length <= self.size:
            raise OSError(errno.EIO, f"bytes {offset} to {offset + length} of a device with {self.size}")
        index = bisect_right(self._starts, offset) - 1
        while length:
            extent = self._extents[index]
            inside = offset - self._starts[index]
            count = min(length, extent.length - inside)
            yield extent.image, extent.offset + inside, count
            offset += count
            length -= count
            index += 1

    def _parts(self, offset: int, buffers: Buffers) -> Iterator[tuple[Image, int, list[memoryview]]]:
        places = list(self.translate(offset, length_of(buffers)))
        parts = split(buffers, [count for _, _, count in places])
        for (image, start, _), part in zip(places, parts, strict=True):
            yield image, start, part


def _text(extent: Extent) -> str:
    return f"{extent.length} bytes at {extent.offset}"
