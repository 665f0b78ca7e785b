import gzip
import lzma
import random
import sys

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.domain0.builder import payload
from paravirt.errors import UserError

from ._kernels import PACKERS, bzimage, lz4_legacy

FORMATS = sorted(PACKERS)


def sample(size: int) -> bytes:
    """Half noise, half repetition, so that every format has matches and literals."""
    noise = random.Random(size).randbytes(size // 2)
    return noise + b"the same again; " * (size // 32)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [1, 4095, 300_000])
def test_every_format_comes_back_with_the_length_behind_it(name: str, size: int) -> None:
    data = sample(size) or b"x"
    packed = PACKERS[name](data)
    form = payload.identify(packed)
    assert form is not None and form.value == name
    assert payload.decompress(packed) == data


def test_lz4_of_several_blocks() -> None:
    data = sample(20 << 20)
    assert payload.decompress(lz4_legacy(data)) == data


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_that_is_cut_short_is_refused(name: str) -> None:
    packed = PACKERS[name](sample(50_000))
    for cut in (12, len(packed) // 2, len(packed) - 40):
        with pytest.raises(UserError, match=f"{name} data in the kernel is damaged"):
            payload.decompress(packed[:cut])


@pytest.mark.parametrize("name", FORMATS)
def test_the_limit_holds_exactly(name: str) -> None:
    data = sample(100_000)
    packed = PACKERS[name](data)
    assert payload.decompress(packed, limit=len(data)) == data
    with pytest.raises(UserError, match="more than paravirt accepts"):
        payload.decompress(packed, limit=len(data) - 1)


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(gzip.compress(bytes(64 << 20), 9), id="gzip"),
        pytest.param(lzma.compress(bytes(64 << 20)), id="xz"),
        pytest.param(zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20)), id="zstd"),
    ],
)
def test_a_bomb_is_given_up_early(bomb: bytes) -> None:
    """Each packs 64 MiB of zeros into a few KiB; what is made of it stays near the limit."""
    assert len(bomb) < 1 << 18
    form = payload.identify(bomb)
    assert form is not None
    made = 0
    with pytest.raises(UserError, match="unpacks to more than 1 MiB"):
        decoder = payload._DECODERS[form]

        def counting(data: memoryview):  # type: ignore[no-untyped-def]
            nonlocal made
            for chunk in decoder(data):
                made += len(chunk)
                yield chunk

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(payload._DECODERS, form, counting)
            payload.decompress(bomb, limit=1 << 20)
    assert made <= 33 << 20


def test_a_dictionary_of_gigabytes_is_refused_before_it_is_made() -> None:
    hungry = b"\x5d" + (0xF0000000).to_bytes(4, "little") + b"\xff" * 8 + bytes(100)
    with pytest.raises(UserError, match=r"lzma data.*[Mm]emory"):
        payload.decompress(hungry)


def test_lzo_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lzallright", None)
    with pytest.raises(UserError, match="'lzallright'"):
        payload.decompress(b"\x89LZO\x00\r\n\x1a\n" + bytes(100))


def lzop(data: bytes, block: int = 256 << 10) -> bytes:
    """A file as ``lzop -9`` makes it for a kernel: Adler-32 of the unpacked blocks, no file name."""
    lzallright = pytest.importorskip("lzallright")
    out = bytearray(b"\x89LZO\x00\r\n\x1a\n")
    out += (0x1040).to_bytes(2, "big") + (0x20A0).to_bytes(2, "big") + (0x0940).to_bytes(2, "big")
    out += bytes((3, 9)) + (1).to_bytes(4, "big") + bytes(12) + b"\0" + b"sum!"
    for at in range(0, len(data), block):
        plain = data[at : at + block]
        packed = lzallright.LZOCompressor().compress(plain)
        packed = packed if len(packed) < len(plain) else plain
        out += len(plain).to_bytes(4, "big") + len(packed).to_bytes(4, "big") + b"adlr" + packed
    return bytes(out) + bytes(4)


def test_lzo_blocks_packed_and_stored() -> None:
    data = sample(600_000) + random.Random(1).randbytes(300_000)
    packed = lzop(data)
    assert payload.decompress(packed) == data
    with pytest.raises(UserError, match="lzo data in the kernel is damaged"):
        payload.decompress(packed[: len(packed) // 2])


def test_what_is_no_compression_is_said_so() -> None:
    assert payload.identify(b"") is None
    assert payload.identify(bzimage(b"x")) is None
    with pytest.raises(UserError, match="not in a compression"):
        payload.decompress(b"plain text")


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([*FORMATS, "lzo"]),
    at=st.integers(0, 5000),
    junk=st.binary(min_size=1, max_size=16),
    cut=st.integers(0, 6000),
)
def test_damage_ends_in_a_user_error_or_the_data(name: str, at: int, junk: bytes, cut: int) -> None:
    data = sample(4096)
    packed = bytearray(PACKERS[name](data) if name != "lzo" else b"\x89LZO\x00\r\n\x1a\n" + data)
    at %= len(packed)
    packed[at : at + len(junk)] = junk
    try:
        payload.decompress(bytes(packed[: max(cut, 16)]), limit=1 << 20)
    except UserError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
