"""Overlays and compressed images: against plain bytes, and after crashes of the host."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paravirt.domain0.block.opening import new_overlay, open_image
from paravirt.domain0.block.overlay import BLOCK, OverlayImage
from paravirt.domain0.block.seekable import FRAME_SIZE, compress
from paravirt.errors import UserError

from ...patience import PATIENCE
from .test_images import pattern, read, write

SIZE = 10 * BLOCK + 1024
extents = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 3 * BLOCK))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.img"
    path.write_bytes(pattern(SIZE))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.sampled_from("rwfo"), extents), max_size=20), st.randoms(use_true_random=False))
def test_an_overlay_is_its_base_with_changes(
    tmp_path: Path, base: Path, steps: list[tuple[str, tuple[int, int]]], random: Random
) -> None:
    path = tmp_path / "over"
    path.unlink(missing_ok=True)
    new_overlay(path, base)
    content = bytearray(pattern(SIZE))
    image = open_image(path, "overlay")
    for what, (offset, length) in steps:
        length = min(length, SIZE - offset)
        if what == "r":
            assert read(image, offset, length) == content[offset : offset + length]
        elif what == "w":
            data = random.randbytes(length)
            half = length // 2
            image.write(offset, [memoryview(data)[:half], memoryview(data)[half:]])
            content[offset : offset + length] = data
        elif what == "f":
            image.flush()
        else:
            image.close()
            image = open_image(path, "overlay")
    assert read(image, 0, SIZE) == content
    image.close()
    assert base.read_bytes() == pattern(SIZE)


def test_many_share_one_base(tmp_path: Path, base: Path) -> None:
    images = []
    for number in range(3):
        new_overlay(tmp_path / f"over{number}", base)
        images.append(open_image(tmp_path / f"over{number}", "overlay"))
    for number, image in enumerate(images):
        write(image, 0, bytes([number]) * BLOCK)
    for number, image in enumerate(images):
        assert read(image, 0, BLOCK + 10) == bytes([number]) * BLOCK + pattern(SIZE)[BLOCK : BLOCK + 10]
        image.close()
    new_overlay(tmp_path / "above", tmp_path / "over2", "overlay")
    above = open_image(tmp_path / "above", "overlay")
    write(above, 100, b"x")
    assert read(above, 99, 3) == b"\2x\2"
    above.close()


def is_own(path: Path, block: int) -> bool:
    """What the overlay's file says of a block, to whom opens it after a crash."""
    bits_at = int.from_bytes(path.read_bytes()[32:40], "little")
    return bool(path.read_bytes()[bits_at + block // 8] >> block % 8 & 1)


def test_a_flush_ends_no_sooner_than_one_that_does_its_work(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two queues of a guest's flush at a time: what was written before both is kept when either has ended."""
    path = tmp_path / "over"
    new_overlay(path, base)
    image = open_image(path, "overlay")
    write(image, 3 * BLOCK, b"x")
    begun, go_on, fdatasync = threading.Event(), threading.Event(), os.fdatasync

    def slow_at_first(fd: int) -> None:
        if not begun.is_set():
            begun.set()
            go_on.wait(PATIENCE)
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", slow_at_first)
    seen: list[bool] = []

    def flush() -> None:
        image.flush()
        seen.append(is_own(path, 3))

    threads = [threading.Thread(target=flush) for _ in range(2)]
    threads[0].start()
    assert begun.wait(PATIENCE)
    threads[1].start()
    threads[1].join(0.2)  # it may end, but only with its work done
    go_on.set()
    for thread in threads:
        thread.join()
    assert seen == [True, True]
    image.close()


def test_an_overlay_that_cannot_be_flushed_at_its_end_is_closed(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "over"
    new_overlay(path, base)
    image = open_image(path, "overlay")
    write(image, 0, b"x")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", full)
        with pytest.raises(OSError, match="no room"):
            image.close()
    open_image(path, "overlay").close()  # nobody holds it, nor its base
    open_image(base, "raw").close()


class Crash(Exception):
    """The host goes down."""


class Disk:
    """The host's disk under a file: of what was written since the last fdatasync, a crash keeps any part."""

    def __init__(self, path: Path, random: Random) -> None:
        self.path, self.random = path, random
        self.durable = bytearray(path.read_bytes())
        self.pending: list[tuple[int, bytes]] = []
        self.left = random.randrange(60)

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self.step()
        self.pending.append((offset, bytes(data)))
        return os.pwrite(fd, data, offset)

    def pwritev(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return self.pwrite(fd, b"".join(buffers), offset)

    def fdatasync(self, fd: int) -> None:
        self.step()
        for offset, data in self.pending:
            self.durable[offset : offset + len(data)] = data
        self.pending.clear()

    def crash(self) -> None:
        """Any sectors of what is pending, in any order, and nothing else."""
        sectors = [
            (offset + at, data[at : at + 512]) for offset, data in self.pending for at in range(0, len(data), 512)
        ]
        for offset, data in self.random.sample(sectors, self.random.randint(0, len(sectors))):
            self.durable[offset : offset + len(data)] = data
        self.path.write_bytes(self.durable)


@pytest.mark.parametrize("seed", range(60))
def test_what_was_flushed_survives_a_crash_at_any_point(
    tmp_path: Path, base: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sector is afterwards what it was at the last flush, or what some later write made of it."""
    random = Random(seed)
    path = tmp_path / "over"
    new_overlay(path, base)
    image = open_image(path, "overlay")
    assert isinstance(image, OverlayImage)
    disk = Disk(path, random)
    monkeypatch.setattr(os, "pwrite", disk.pwrite)
    monkeypatch.setattr(os, "pwritev", disk.pwritev)
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    content = pattern(SIZE)
    possible = [{content[at : at + 512]} for at in range(0, SIZE, 512)]
    latest = [content[at : at + 512] for at in range(0, SIZE, 512)]
    flushes = 0
    try:
        while True:
            if random.random() < 0.25:
                image.flush()
                possible = [{sector} for sector in latest]
                flushes += 1
            else:
                first = random.randrange(len(latest))
                count = random.randint(1, min(12, len(latest) - first))
                data = random.randbytes(count * 512)
                for number in range(count):
                    latest[first + number] = data[number * 512 : (number + 1) * 512]
                    possible[first + number].add(latest[first + number])
                write(image, first * 512, data)
    except Crash:
        monkeypatch.undo()
    os.close(image._fd)
    disk.crash()
    after = open_image(path, "overlay")
    content = read(after, 0, SIZE)
    for number, sectors in enumerate(possible):
        assert content[number * 512 : (number + 1) * 512] in sectors, (number, flushes)
    after.close()


def test_what_is_no_overlay(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserError, match="not an overlay"):
        open_image(base, "overlay")
    new_overlay(tmp_path / "over", base)
    with pytest.raises(UserError, match="cannot be made"):
        new_overlay(tmp_path / "over", base)
    with base.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(UserError, match="has others now"):
        open_image(tmp_path / "over", "overlay")
    base.unlink()
    with pytest.raises(UserError, match="cannot be opened"):
        open_image(tmp_path / "over", "overlay")


# --- compressed ------------------------------------------------------------------------------------------------


def test_a_compressed_image(tmp_path: Path) -> None:
    data = pattern(5 * FRAME_SIZE + 1000)
    (tmp_path / "raw").write_bytes(data)
    compress(tmp_path / "raw", tmp_path / "packed")
    padded = data + bytes(-len(data) % 512)
    unpacked = zstandard.ZstdDecompressor().stream_reader((tmp_path / "packed").open("rb"), read_across_frames=True)
    with unpacked as stream:
        assert stream.read() == padded
    image = open_image(tmp_path / "packed", "zstd", readonly=True)
    assert image.size == len(padded)
    for offset, length in ((0, 512), (FRAME_SIZE - 1, 2), (0, len(padded)), (3 * FRAME_SIZE + 7, 2 * FRAME_SIZE)):
        length = min(length, len(padded) - offset)
        assert read(image, offset, length) == padded[offset : offset + length]
    with pytest.raises(OSError):
        write(image, 0, bytes(512))
    image.close()
    with pytest.raises(UserError, match="only be read"):
        open_image(tmp_path / "packed", "zstd")
    new_overlay(tmp_path / "over", tmp_path / "packed", "zstd")
    above = open_image(tmp_path / "over", "overlay")
    write(above, FRAME_SIZE - 10, b"y" * 20)
    assert read(above, FRAME_SIZE - 11, 22) == padded[FRAME_SIZE - 11 : FRAME_SIZE - 10] + b"y" * 20 + padded[
        FRAME_SIZE + 10 : FRAME_SIZE + 11
    ]
    above.close()


def test_compressed_data_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(Random(1).randbytes(3 * FRAME_SIZE))
    compress(tmp_path / "raw", tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    bad = tmp_path / "bad"
    for damaged in (b"", good[:-1], good[:20], good[:-9] + struct.pack("<IBI", 1 << 30, 0, 0x8F92EAB1), good[10:]):
        bad.write_bytes(damaged)
        with pytest.raises(UserError, match="not a seekable"):
            open_image(bad, "zstd", readonly=True)
    bad.write_bytes(good[:100] + bytes(50000) + good[50100:])
    image = open_image(bad, "zstd", readonly=True)
    with pytest.raises(OSError):
        read(image, 0, 512)
    assert read(image, 2 * FRAME_SIZE, 512) == (tmp_path / "raw").read_bytes()[2 * FRAME_SIZE :][:512]
    image.close()


# --- QEMU's formats --------------------------------------------------------------------------------------------


def test_without_the_program_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="need the program qemu-nbd"):
        open_image(tmp_path / "x", "qcow2")


@pytest.mark.skipif(not (shutil.which("qemu-nbd") and shutil.which("qemu-img")), reason="QEMU's tools are not here")
def test_qcow2_with_a_backing_file(tmp_path: Path, base: Path) -> None:
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path, str(SIZE)], check=True)
    image = open_image(path, "qcow2")
    assert image.size == SIZE
    content = bytearray(pattern(SIZE))
    assert read(image, 512, 20000) == content[512:20512]
    image.write(1024, [memoryview(b"a" * 512), memoryview(b"b" * 4096)])
    content[1024:5632] = b"a" * 512 + b"b" * 4096
    image.flush()
    image.discard(8192, 4096)
    assert read(image, 0, 8192) == content[:8192]
    image.close()
    assert base.read_bytes() == pattern(SIZE)
    again = open_image(path, "qcow2", readonly=True)
    assert read(again, 0, 8192) == content[:8192]
    with pytest.raises(OSError):
        write(again, 0, bytes(512))
    assert read(again, 0, 512) == content[:512]
    again.close()
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(UserError, match="cannot be"):
        open_image(tmp_path / "junk", "qcow2")
