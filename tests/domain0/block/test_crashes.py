"""A host that crashes while a frontend writes: what was flushed is there, and each sector is whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import pytest

from paravirt.abi.io import blkif
from paravirt.domain0.block import image as image_module
from paravirt.domain0.block.image import Image, RawImage
from paravirt.domain0.block.opening import new_overlay, open_image

from ..devices.frontends import FrontendGuest
from .conftest import MakeDisk
from .fronts import BlockFront, discard, rw

SECTOR = 512
SECTORS = 128
ROUNDS = 60
FRAMES_OF_EACH = 3
ALWAYS = -1
NEVER = 1 << 60
WRITES = (blkif.BLKIF_OP_WRITE, blkif.BLKIF_OP_WRITE_BARRIER, blkif.BLKIF_OP_DISCARD)
FLUSHES = (blkif.BLKIF_OP_FLUSH_DISKCACHE, blkif.BLKIF_OP_WRITE_BARRIER)


class HostDisk:
    """The host's disk under the files of a folder: of what was written since a file's last fdatasync, a crash keeps
    any sectors.  One is looked at before every few accesses; the host itself goes on.

    Attributes:
        now: counts what happens, here and in the frontend.
        crashes: (when, the files as they would be found).
    """

    def __init__(self, folder: Path, random: Random) -> None:
        self.now = 0
        self.crashes: list[tuple[int, dict[str, bytes]]] = []
        self._random = random
        self._durable = {path.name: bytearray(path.read_bytes()) for path in folder.iterdir()}
        self._pending: dict[str, dict[int, bytes]] = {name: {} for name in self._durable}
        self._folder = folder
        self._lock = threading.Lock()
        self._pwritev, self._fdatasync = os.pwritev, os.fdatasync

    def tick(self) -> int:
        with self._lock:
            self.now += 1
            return self.now

    def _name(self, fd: int) -> str | None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        return path.name if path.parent == self._folder else None

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return self.pwritev(fd, [data], offset)

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        name = self._name(fd)
        if name is None:
            return self._pwritev(fd, buffers, offset)
        with self._lock:
            self._perhaps_crash()
            data = b"".join(buffers)
            assert (offset | len(data)) % SECTOR == 0
            for at in range(0, len(data), SECTOR):
                self._pending[name][offset + at] = data[at : at + SECTOR]
            return self._pwritev(fd, [data], offset)

    def punch_hole(self, fd: int, offset: int, length: int) -> None:
        self.pwritev(fd, [bytes(length)], offset)

    def fdatasync(self, fd: int) -> None:
        name = self._name(fd)
        with self._lock:
            self._perhaps_crash()
            if name is None:
                self._fdatasync(fd)
                return
            for offset, data in self._pending[name].items():
                self._durable[name][offset : offset + SECTOR] = data
            self._pending[name].clear()
            self._perhaps_crash()

    def _perhaps_crash(self) -> None:
        if self._random.random() < 0.3:
            self.now += 1
            self.crashes.append((self.now, {name: self._found(name) for name in self._durable}))

    def _found(self, name: str) -> bytes:
        found, pending = bytearray(self._durable[name]), self._pending[name]
        for offset in self._random.sample(sorted(pending), self._random.randint(0, len(pending))):
            found[offset : offset + SECTOR] = pending[offset]
        return bytes(found)


@dataclass
class Sent:
    """A request: its data, by sector, and when it was sent and seen to be done."""

    operation: int
    content: dict[int, bytes]
    sent: int
    done: int = NEVER

    def is_kept_by(self, flush: Sent) -> bool:
        """Whether it survives any crash after that flush is done; a barrier's, also what was sent before it."""
        if flush.operation == blkif.BLKIF_OP_WRITE_BARRIER:
            return self.sent <= flush.sent
        return self.done < flush.sent


def may_be_found(history: Sequence[Sent], when: int) -> list[set[bytes]]:
    """What each sector may hold after a crash: anything that nothing later, which was flushed, has replaced."""
    flushes = [one for one in history if one.operation in FLUSHES and one.done < when]
    writes: list[list[Sent]] = [[] for _ in range(SECTORS)]
    kept_since = [ALWAYS] * SECTORS
    for one in history:
        is_kept = any(one.is_kept_by(flush) for flush in flushes)
        for sector in one.content if one.sent < when else ():
            writes[sector].append(one)
            if is_kept:
                kept_since[sector] = one.sent
    return [
        {one.content[sector] for one in writes[sector] if one.done >= kept_since[sector]} for sector in range(SECTORS)
    ]


class Ticking(Protocol):
    """What crashes now and then, and counts what happens."""

    def tick(self) -> int: ...


class Writer:
    """A frontend that sends what comes into its mind, some of it at a time."""

    def __init__(self, front: BlockFront, disk: Ticking, random: Random, can_discard: bool, content: bytes) -> None:
        self.front, self.disk, self.random = front, disk, random
        initial = {number: content[number * SECTOR : (number + 1) * SECTOR] for number in range(SECTORS)}
        self.history = [Sent(blkif.BLKIF_OP_WRITE, initial, ALWAYS, ALWAYS)]
        self._under_way: dict[int, Sent] = {}
        self._choices = [blkif.BLKIF_OP_WRITE] * 6 + list(FLUSHES)
        if can_discard:
            self._choices.append(blkif.BLKIF_OP_DISCARD)

    def round(self) -> None:
        requests = [self._request(place) for place in range(len(self._under_way), self.random.randint(1, 5))]
        self.front.queue.send(requests)
        if self.random.random() < 0.6 or len(self._under_way) >= 5:
            self.finish()

    def finish(self) -> None:
        answers = self.front.queue.answers(len(self._under_way))
        now = self.disk.tick()
        for id_, one in self._under_way.items():
            assert answers[id_] == (one.operation, blkif.BLKIF_RSP_OKAY)
            one.done = now
        self._under_way.clear()

    def _request(self, place: int) -> bytes:
        operation, content = self.random.choice(self._choices), {}
        first = self.random.randrange(SECTORS)
        count = self.random.randint(1, min(FRAMES_OF_EACH * 8, SECTORS - first))
        if operation in WRITES:
            for number in range(first, first + count):
                is_gone = operation == blkif.BLKIF_OP_DISCARD
                content[number] = bytes(SECTOR) if is_gone else self.random.randbytes(8) * (SECTOR // 8)
        one = Sent(operation, content, self.disk.tick())
        self.history.append(one)
        self._under_way[place] = one
        if operation == blkif.BLKIF_OP_DISCARD:
            return discard(place, first, count)
        if operation == blkif.BLKIF_OP_FLUSH_DISKCACHE:
            return rw(operation, place, 0)
        return rw(operation, place, first, self._segments(place, b"".join(content.values())))

    def _segments(self, place: int, data: bytes) -> list[tuple[int, int, int]]:
        segments = []
        for at in range(0, len(data), 4096):
            piece, number = data[at : at + 4096], place * FRAMES_OF_EACH + at // 4096
            self.front.frames[number].write(0, piece)
            segments.append((self.front.refs[number], 0, len(piece) // SECTOR - 1))
        return segments


def raw(folder: Path, content: bytes) -> Callable[[], Image]:
    (folder / "disk").write_bytes(content)
    return lambda: open_image(folder / "disk")


def extents(folder: Path, content: bytes) -> Callable[[], Image]:
    """The first part is behind the second one, and the rest in another file."""
    part = 40 * SECTOR
    (folder / "one").write_bytes(content[part : 2 * part] + bytes(SECTOR) + content[:part])
    (folder / "other").write_bytes(content[2 * part :])
    (folder / "list").write_text(f"one 41 40\none 0 40\nother 0 {SECTORS - 80}\n")
    return lambda: open_image(folder / "list", "extents")


def overlay(folder: Path, content: bytes) -> Callable[[], Image]:
    (folder / "base").write_bytes(content)
    new_overlay(folder / "over", folder / "base")
    return lambda: open_image(folder / "over", "overlay")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [raw, extents, overlay])
def test_what_was_flushed_survives_a_crash_of_the_host(
    guest: FrontendGuest,
    make_disk: MakeDisk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[Path, bytes], Callable[[], Image]],
    seed: int,
) -> None:
    """Writes, flushes, barriers and discards, several at a time, through the ring; the host may crash before any of
    its accesses."""
    random = Random(seed)
    folder = tmp_path / "host"
    folder.mkdir()
    content = random.randbytes(SECTORS * SECTOR)
    opened = kind(folder, content)
    disk = HostDisk(folder, Random(seed))
    for name in ("pwrite", "pwritev", "fdatasync"):
        monkeypatch.setattr(os, name, getattr(disk, name))
    monkeypatch.setattr(image_module, "punch_hole", disk.punch_hole)
    if seed % 2:  # all by the threads for I/O
        monkeypatch.setattr(RawImage, "write_at_once", lambda *_: False)
    device = make_disk(opened())
    front = BlockFront(guest, device, frames=5 * FRAMES_OF_EACH)
    writer = Writer(front, disk, random, device.image.discard_granularity > 0, content)
    for _ in range(ROUNDS):
        writer.round()
    writer.finish()
    guest.machine.call(device.destroy)
    monkeypatch.undo()
    certain = 0
    for when, files in disk.crashes:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        found = bytearray(SECTORS * SECTOR)
        after = opened()
        after.read(0, [memoryview(found)])
        after.close()
        for sector, possible in enumerate(may_be_found(writer.history, when)):
            assert bytes(found[sector * SECTOR : (sector + 1) * SECTOR]) in possible, (sector, when)
            certain += len(possible) == 1
    assert len(disk.crashes) > 20
    assert certain > 20 * SECTORS // 4  # what could be anything would prove nothing
