"""From a disk's description to its image, by format."""

from __future__ import annotations

import os
from pathlib import Path

from paravirt.domain0.block import nbd
from paravirt.domain0.block.extents import Extent, ExtentImage
from paravirt.domain0.block.image import SECTOR_SIZE, Buffers, Image, RawImage
from paravirt.domain0.block.overlay import OverlayImage, create_overlay
from paravirt.domain0.block.seekable import SeekableImage
from paravirt.errors import UserError


class EmptyImage(Image):
    """A drive without a disk in it."""

    size = 0
    readonly = True

    def read(self, offset: int, buffers: Buffers) -> None:
        """There is nothing to read: the device has no sectors."""

    def write(self, offset: int, buffers: Buffers) -> None:
        """There is nothing to write."""

    def flush(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        """There is nothing to close."""


class CarvedImage(ExtentImage):
    """A disk made of extents that a text file lists, with the images behind it as its own.

    Each line names an image, its first sector and how many, in sectors of 512 bytes; an image's path is relative to
    the list's folder. Several lists may carve one image, as long as they do not share sectors; that is the care of who
    writes them.

    Raises:
        UserError: the list, or an image that it names, cannot be used.
    """

    def __init__(self, path: Path, readonly: bool) -> None:
        self._images: dict[Path, RawImage] = {}
        try:
            super().__init__([self._extent(path, line, readonly) for line in _lines(path)], readonly)
        except UserError:
            self.close()
            raise

    def close(self) -> None:
        """Close the images."""
        for image in self._images.values():
            image.close()

    def _extent(self, path: Path, line: str, readonly: bool) -> Extent:
        name, *numbers = line.rsplit(maxsplit=2)
        if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            raise UserError(f"A line of {str(path)!r} is an image, a sector and a number of sectors, not {line!r}.")
        target = path.parent / name
        if target not in self._images:
            self._images[target] = RawImage(target, readonly, shared=True)
        first, count = map(int, numbers)
        return Extent(self._images[target], first * SECTOR_SIZE, count * SECTOR_SIZE)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The list of extents {str(path)!r} cannot be read: {error}.") from error
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


def new_overlay(path: Path, base: Path, format_: str = "raw") -> None:
    """Make an overlay of an image.

    Raises:
        UserError: the image cannot be opened, or the overlay cannot be made.
    """
    image = open_image(base, format_, True)
    image.close()
    create_overlay(path, base.absolute(), image.size, format_)


def open_image(target: str | os.PathLike[str], format_: str = "raw", readonly: bool = False) -> Image:
    """The image at ``target``.

    Raises:
        UserError: it cannot be opened, or not in this format.
    """
    path = Path(target)
    if format_ == "empty":
        return EmptyImage()
    if format_ == "raw":
        return RawImage(path, readonly)
    if format_ == "extents":
        return CarvedImage(path, readonly)
    if format_ == "overlay":
        return OverlayImage(path, readonly, lambda base, base_format: open_image(base, base_format, True))
    if format_ == "zstd":
        if not readonly:
            raise UserError(f"The disk image {str(path)!r} is compressed, and can only be read (access 'r').")
        return SeekableImage(path)
    if format_ in nbd.FORMATS:
        return nbd.NbdImage(path, format_, readonly)
    raise UserError(f"There is no format of disks {format_!r}.")
