"""Undo a compression, whatever it is, without ever growing beyond a limit.

Kernels come compressed in two ways: as the payload inside a bzImage (Linux,
``Documentation/arch/x86/boot.rst``, fields payload_offset and payload_length), and as a plain file in a
compressed wrapping (``vmlinux.gz``). Both are recognised by their first bytes only. Linux's build appends the
unpacked length, four bytes, to every payload that does not carry it itself; so a few bytes behind the end of
a stream are no error.

Everything here reads files that may be damaged or hostile: the only exception that comes out is
:class:`~paravirt.errors.UserError`.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final

import lz4.block
import zstandard

from paravirt.errors import UserError

#: Unpacked bytes that are accepted when the caller names no limit of its own: 512 MiB.
DEFAULT_LIMIT: Final = 512 << 20

#: How much output a decoder may make in one step, and how much of its input a decoder without such a bound
#: sees.
_STEP: Final = 4 << 20
_ZSTD_INPUT_STEP: Final = 1 << 10

#: A decoder may not ask for more memory than this for its dictionary; Linux uses at most 128 MiB.
_MAX_DICTIONARY: Final = 256 << 20

_LZ4_LEGACY_MAGIC: Final = 0x184C2102
_LZ4_LEGACY_BLOCK: Final = 8 << 20


class Format(Enum):
    """A compression that kernels use; the value is its name in messages."""

    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    LZMA = "lzma"
    LZO = "lzo"
    LZ4 = "lz4"
    ZSTD = "zstd"


_MAGICS: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"\x1f\x8b", Format.GZIP),
    (b"BZh", Format.BZIP2),
    (b"\xfd7zXZ\x00", Format.XZ),
    (b"\x5d\x00\x00", Format.LZMA),
    (b"\x89LZO\x00\r\n\x1a\n", Format.LZO),
    (struct.pack("<I", _LZ4_LEGACY_MAGIC), Format.LZ4),
    (b"\x28\xb5\x2f\xfd", Format.ZSTD),
)


class _Damaged(Exception):
    """The stream breaks its format's rules; the text says how."""


def identify(data: bytes | memoryview) -> Format | None:
    """Name the compression that ``data`` begins like, or None."""
    head = bytes(data[:9])
    return next((form for magic, form in _MAGICS if head.startswith(magic)), None)


def decompress(data: bytes | memoryview, *, limit: int = DEFAULT_LIMIT, what: str = "the kernel") -> bytes:
    """Unpack ``data``, which must be in one of the formats of :class:`Format`.

    Args:
        data: one compressed stream; up to a few bytes may follow its end.
        limit: the most bytes to make of it.
        what: the name of the thing in messages, with its article.

    Raises:
        UserError: not a known format, damaged, cut short, or larger than ``limit`` when unpacked.
    """
    form = identify(data)
    if form is None:
        raise UserError(f"{what.capitalize()} is not in a compression that paravirt knows.")
    chunks: list[bytes] = []
    size = 0
    try:
        for chunk in _DECODERS[form](memoryview(data)):
            size += len(chunk)
            if size > limit:
                raise UserError(
                    f"The {form.value} data in {what} unpacks to more than {limit >> 20} MiB, "
                    "which is more than paravirt accepts."
                )
            chunks.append(chunk)
    except (_Damaged, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise UserError(f"The {form.value} data in {what} is damaged: {_one_line(error)}.") from error
    except (zstandard.ZstdError, lz4.block.LZ4BlockError) as error:
        raise UserError(f"The {form.value} data in {what} is damaged: {_one_line(error)}.") from error
    except MemoryError as error:
        raise UserError(f"The {form.value} data in {what} takes too much memory to unpack.") from error
    return b"".join(chunks)


def _one_line(error: Exception) -> str:
    """An error's text as the end of a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _gzip(data: memoryview) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    pending: bytes | memoryview = data
    while not decoder.eof:
        chunk = decoder.decompress(pending, _STEP)
        pending = decoder.unconsumed_tail
        if not chunk and not pending and not decoder.eof:
            raise _Damaged("it ends too early")
        yield chunk


def _stream(decoder: lzma.LZMADecompressor | bz2.BZ2Decompressor, data: memoryview) -> Iterator[bytes]:
    """Drive a decoder that bounds its own output and keeps the input that it has not used."""
    pending: bytes | memoryview = data
    while not decoder.eof:
        chunk = decoder.decompress(pending, _STEP)
        pending = b""
        if not chunk and not decoder.eof:
            raise _Damaged("it ends too early")
        yield chunk


def _bzip2(data: memoryview) -> Iterator[bytes]:
    return _stream(bz2.BZ2Decompressor(), data)


def _xz(data: memoryview) -> Iterator[bytes]:
    return _stream(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY), data)


def _lzma(data: memoryview) -> Iterator[bytes]:
    return _stream(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_DICTIONARY), data)


def _zstd(data: memoryview) -> Iterator[bytes]:
    # A block of four bytes can stand for 128 KiB, and this decoder has no bound on its output: so it gets
    # little input at a time, which bounds a bomb to 32 MiB beyond the limit.
    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_DICTIONARY).decompressobj()
    for start in range(0, len(data), _ZSTD_INPUT_STEP):
        yield decoder.decompress(data[start : start + _ZSTD_INPUT_STEP])
        if decoder.eof:
            return
    raise _Damaged("it ends too early")


def _lz4(data: memoryview) -> Iterator[bytes]:
    """The legacy framing (``lz4 -l``): a magic number, then blocks of up to 8 MiB, each behind its size."""
    at = 4
    while len(data) - at > 4:  # four bytes alone are the unpacked length that Linux's build appends
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if size == _LZ4_LEGACY_MAGIC:
            continue
        if size == 0 or size > len(data) - at:
            raise _Damaged("it ends too early")
        yield lz4.block.decompress(data[at : at + size], uncompressed_size=_LZ4_LEGACY_BLOCK)
        at += size
    if at == 4:
        raise _Damaged("it ends too early")


def _lzo(data: memoryview) -> Iterator[bytes]:
    from paravirt.domain0.builder import lzop

    return lzop.blocks(data)


_DECODERS: Final[dict[Format, Callable[[memoryview], Iterator[bytes]]]] = {
    Format.GZIP: _gzip,
    Format.BZIP2: _bzip2,
    Format.XZ: _xz,
    Format.LZMA: _lzma,
    Format.LZO: _lzo,
    Format.LZ4: _lz4,
    Format.ZSTD: _zstd,
}
