"""Images: each kind against a plain file's bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.block.extents import Extent, ExtentImage
from paravirt.domain0.block.image import Image, Pace, RawImage, split
from paravirt.domain0.block.opening import EmptyImage, open_image
from paravirt.domain0.block.rate import RateLimit
from paravirt.errors import UserError


def read(image: Image, offset: int, length: int) -> bytes:
    data = bytearray(length)
    image.read(offset, [memoryview(data)])
    return bytes(data)


def write(image: Image, offset: int, data: bytes) -> None:
    image.write(offset, [memoryview(data)])


class MemoryImage(Image):
    """An image in memory."""

    readonly = False
    discard_granularity = 512

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.size = len(content)
        self.flushes = 0

    def read(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            assert 0 <= offset <= offset + len(buffer) <= self.size
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)

    def write(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            assert 0 <= offset <= offset + len(buffer) <= self.size
            self.content[offset : offset + len(buffer)] = buffer
            offset += len(buffer)

    def flush(self) -> None:
        self.flushes += 1

    def discard(self, offset: int, length: int) -> None:
        assert 0 <= offset <= offset + length <= self.size
        self.content[offset : offset + length] = bytes(length)

    def close(self) -> None:
        pass


def pattern(length: int) -> bytes:
    return bytes(i * 31 % 253 for i in range(length))


@given(st.lists(st.integers(0, 20), max_size=8), st.data())
def test_buffers_are_split_at_any_place(sizes: list[int], data: st.DataObject) -> None:
    whole = pattern(sum(sizes))
    buffers, at = [], 0
    for size in sizes:
        buffers.append(memoryview(whole)[at : at + size])
        at += size
    lengths = []
    left = len(whole)
    while left:
        lengths.append(data.draw(st.integers(1, left)))
        left -= lengths[-1]
    parts = [b"".join(part) for part in split(buffers, lengths)]
    assert [len(part) for part in parts] == lengths
    assert b"".join(parts) == whole


def test_more_buffers_than_the_host_takes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(1 << 20))
    image = RawImage(path, False)
    data = pattern(512 * 2000)
    image.write(512, [memoryview(data)[at : at + 512] for at in range(0, len(data), 512)])
    buffers = [bytearray(512) for _ in range(2000)]
    image.read(512, [memoryview(buffer) for buffer in buffers])
    assert b"".join(buffers) == data
    assert read(image, 512 + 77, 9999) == data[77 : 77 + 9999]
    image.close()


def test_sparse_files_stay_sparse(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.touch()
    os.truncate(path, 1 << 30)
    image = RawImage(path, False)
    assert image.size == 1 << 30
    write(image, 1 << 29, b"x" * 512)
    assert read(image, (1 << 29) - 512, 1536) == bytes(512) + b"x" * 512 + bytes(512)
    image.flush()
    assert path.stat().st_blocks < 1000
    image.discard(1 << 29, 4096)
    assert read(image, 1 << 29, 512) == bytes(512)
    image.close()


def test_files_that_shrink_read_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(pattern(8192))
    image = RawImage(path, False)
    os.truncate(path, 1000)
    assert read(image, 0, 4096) == pattern(8192)[:1000] + bytes(3096)
    assert not image.read_at_once(0, [memoryview(bytearray(4096))])
    assert image.measure()
    assert image.size == 512
    assert not image.measure()
    image.close()


def test_who_may_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(1024))
    one = RawImage(path, True)
    RawImage(path, True).close()
    with pytest.raises(UserError, match="in use"):
        RawImage(path, False)
    one.close()
    other = RawImage(path, False)
    for readonly in (False, True):
        with pytest.raises(UserError, match="in use"):
            RawImage(path, readonly)
    other.close()


@pytest.mark.parametrize("target", ["nosuch", "."])
def test_what_is_no_image(tmp_path: Path, target: str) -> None:
    with pytest.raises(UserError, match="The disk image"):
        open_image(tmp_path / target)
    with pytest.raises(UserError, match="format"):
        open_image(tmp_path / target, "vmdk")


def test_an_empty_drive() -> None:
    image = open_image("", "empty")
    assert isinstance(image, EmptyImage)
    assert (image.size, image.readonly) == (0, True)


def test_who_was_slow_is_not_tried_for_a_while() -> None:
    now = 100.0
    pace = Pace(lambda: now)

    def use(seconds: float) -> None:
        nonlocal now
        with pace:
            now += seconds

    use(0.0001)
    assert pace.is_quick
    for pause in (0.25, 0.5, 1, 2, 4, 8, 8):
        use(0.003)
        assert not pace.is_quick
        now += pause - 0.001
        assert not pace.is_quick
        now += 0.002
        assert pace.is_quick
    use(0.0001)
    now += 9
    use(0.0001)
    use(0.003)
    now += 0.251
    assert pace.is_quick


# --- virtual block devices -------------------------------------------------------------------------------------

extents = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 60), st.integers(1, 4)), min_size=1, max_size=6
)


@given(extents, st.data())
def test_a_device_of_extents_is_its_extents_one_behind_the_other(
    wanted: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """Reads and writes, at any place and of any length, against a list of what each byte stands for."""
    images = [MemoryImage(pattern(64 * 512)), MemoryImage(pattern(64 * 512)[::-1])]
    disk = ExtentImage([Extent(images[number], start * 512, count * 512) for number, start, count in wanted])
    places = [
        (number, byte)
        for number, start, count in wanted
        for byte in range(start * 512, (start + count) * 512)
    ]
    assert disk.size == len(places)
    for _ in range(data.draw(st.integers(1, 5))):
        offset = data.draw(st.integers(0, disk.size - 1))
        length = data.draw(st.integers(1, disk.size - offset))
        assert read(disk, offset, length) == bytes(
            images[number].content[byte] for number, byte in places[offset : offset + length]
        )
        before = [bytes(image.content) for image in images]
        content = bytes((offset + i) % 256 for i in range(length))
        write(disk, offset, content)
        touched = {}
        for place, value in zip(places[offset : offset + length], content, strict=True):
            touched[place] = value
        for number, image in enumerate(images):
            expected = bytearray(before[number])
            for (which, byte), value in touched.items():
                if which == number:
                    expected[byte] = value
            assert image.content == expected
    disk.flush()
    assert all(image.flushes == (number in {one for one, _, _ in wanted}) for number, image in enumerate(images))


def test_no_offset_leads_beyond_a_devices_extents() -> None:
    image = MemoryImage(bytes(4096))
    disk = ExtentImage([Extent(image, 512, 512), Extent(image, 2048, 512)])
    for offset, length in ((1024, 1), (0, 1025), (512, 513), (-1, 1), (1 << 62, 1)):
        with pytest.raises(OSError):
            list(disk.translate(offset, length))
    for bad in (Extent(image, 0, 0), Extent(image, 100, 512), Extent(image, 3584, 1024), Extent(image, -512, 512)):
        with pytest.raises(UserError):
            ExtentImage([bad])


def test_several_devices_carved_from_one_disk(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(pattern(8192))
    (tmp_path / "one").write_text("# two pieces\ndisk.img 0 4\ndisk.img 12 4\n")
    (tmp_path / "two").write_text("disk.img 4 8\n")
    one, two = open_image(tmp_path / "one", "extents"), open_image(tmp_path / "two", "extents")
    assert (one.size, two.size) == (4096, 4096)
    write(one, 1024, b"1" * 2048)
    write(two, 0, b"2" * 512)
    content = (tmp_path / "disk.img").read_bytes()
    expected = bytearray(pattern(8192))
    expected[1024:2048] = b"1" * 1024
    expected[6144:7168] = b"1" * 1024
    expected[2048:2560] = b"2" * 512
    assert content == expected
    one.close()
    two.close()
    for text in ("disk.img 0", "disk.img 0 17", "nosuch 0 1", "disk.img x 1"):
        (tmp_path / "bad").write_text(text + "\n")
        with pytest.raises(UserError):
            open_image(tmp_path / "bad", "extents")


def test_a_rate_is_kept_in_the_long_run() -> None:
    now = 0.0
    limit = RateLimit(1000, lambda: now)
    taken = 0
    while now < 10:
        if limit.wait() == 0:
            limit.take(300)
            taken += 300
        else:
            now += limit.wait()
    assert 10_000 <= taken <= 10_000 + 100 + 300 + 300
    now += 100
    assert limit.wait() == 0
    limit.take(101)
    assert limit.wait() == pytest.approx(0.001)
