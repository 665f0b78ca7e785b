"""The lzop file format, in which Linux's build packs LZO kernels.

The framing is read here (facts from Linux's lib/decompress_unlzo.c and lzop's own documentation); the LZO1X
blocks inside are unpacked by the optional library ``lzallright``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from paravirt.errors import UserError

_MAGIC_SIZE: Final = 9
_VERSION_WITH_LEVEL: Final = 0x0940
_F_ADLER32_D: Final = 0x0001
_F_ADLER32_C: Final = 0x0002
_F_CRC32_D: Final = 0x0100
_F_CRC32_C: Final = 0x0200
_F_EXTRA_FIELD: Final = 0x0040
_F_FILTER: Final = 0x0800

#: The format's own bound on a block's unpacked length (lzop: 64 MiB; Linux's decoder: 256 KiB).
_MAX_BLOCK: Final = 64 << 20


class _Reader:
    """Big-endian fields one after the other; ValueError when the data ends."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> memoryview:
        if self._at + size > len(self._data):
            raise ValueError("it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]


def _load_decoder() -> Callable[[bytes, int], bytes]:
    try:
        import lzallright  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UserError(
            "The kernel is packed with LZO, and the optional Python package 'lzallright', which unpacks "
            "that, is not installed: pip install 'paravirt[lzo]'."
        ) from error

    def decode(packed: bytes, size: int) -> bytes:
        try:
            return bytes(lzallright.LZOCompressor.decompress(packed, size))
        except lzallright.LZOError as error:
            raise ValueError(str(error)) from error

    return decode


def blocks(data: memoryview) -> Iterator[bytes]:
    """Unpack a file block by block.

    Raises:
        ValueError: the data breaks the format's rules.
        UserError: the library is missing.
    """
    decode = _load_decoder()
    reader = _Reader(data, _MAGIC_SIZE)
    version = reader.number(2)
    reader.take(4 if version >= _VERSION_WITH_LEVEL else 2)  # version of the library, version to unpack with
    reader.take(2 if version >= _VERSION_WITH_LEVEL else 1)  # method, level
    flags = reader.number(4)
    if flags & _F_FILTER:
        reader.take(4)
    reader.take(12 if version >= _VERSION_WITH_LEVEL else 8)  # mode, time of modification
    reader.take(reader.number(1))  # name
    reader.take(4)  # checksum of the header
    if flags & _F_EXTRA_FIELD:
        reader.take(reader.number(4))
        reader.take(4)
    return _blocks(reader, flags, decode)


def _blocks(reader: _Reader, flags: int, decode: Callable[[bytes, int], bytes]) -> Iterator[bytes]:
    plain_checks = 4 * bool(flags & _F_ADLER32_D) + 4 * bool(flags & _F_CRC32_D)
    packed_checks = 4 * bool(flags & _F_ADLER32_C) + 4 * bool(flags & _F_CRC32_C)
    while (size := reader.number(4)) != 0:
        packed_size = reader.number(4)
        if size > _MAX_BLOCK or packed_size > size:
            raise ValueError("a block has an impossible length")
        reader.take(plain_checks)
        if packed_size < size:
            reader.take(packed_checks)
        block = bytes(reader.take(packed_size))
        if packed_size < size:
            block = decode(block, size)
        if len(block) != size:
            raise ValueError("a block has another length than it says")
        yield block
