"""A host that crashes while a frontend writes into a qcow2 image: what was flushed is there, the image is sound.

What lies below the image is a disk of the test's, which the program that serves it (qemu-nbd) reaches over NBD; so the
test sees each write and flush of the program's own, and what a crash would leave of them.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from paravirt.abi.io import blkif
from paravirt.domain0.block.nbd import NbdImage
from paravirt.domain0.block.opening import open_image

from ..devices.frontends import FrontendGuest
from .conftest import MakeDisk
from .fronts import BlockFront
from .test_crashes import FRAMES_OF_EACH, SECTOR, SECTORS, Writer, may_be_found

ROUNDS = 40
CRASHES = 10
SIZE = 4 << 20
LEAKS_ONLY = 3
_READ, _WRITE, _DISCONNECT, _FLUSH = range(4)
_HAS_FLAGS, _SEND_FLUSH = 1, 4
_GO, _ACK, _INFO, _UNSUPPORTED = 7, 1, 3, 1 << 31 | 1


class LowerDisk:
    """A disk that loses power before any access: of what was written since its last flush, any sectors are kept.

    Attributes:
        now, crashes: as those of ``test_crashes.HostDisk``, but with the one disk's content.
    """

    def __init__(self, content: bytes, random: Random) -> None:
        self.now = 0
        self.crashes: list[tuple[int, bytes]] = []
        self._random = random
        self._content = bytearray(content.ljust(SIZE, b"\0"))
        self._durable = bytearray(self._content)
        self._pending: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def tick(self) -> int:
        with self._lock:
            self.now += 1
            return self.now

    def access(self, command: int, offset: int, length: int, data: bytes) -> bytes:
        """What is read."""
        with self._lock:
            if command != _READ and self._random.random() < 0.2:
                self.now += 1
                self.crashes.append((self.now, self._found()))
            if command == _READ:
                return bytes(self._content[offset : offset + length])
            if command == _WRITE:
                assert (offset | length) % SECTOR == 0
                self._content[offset : offset + length] = data
                for at in range(0, length, SECTOR):
                    self._pending[offset + at] = data[at : at + SECTOR]
            else:
                assert command == _FLUSH
                self._durable[:] = self._content
                self._pending.clear()
        return b""

    def _found(self) -> bytes:
        found = bytearray(self._durable)
        for offset in self._random.sample(sorted(self._pending), self._random.randint(0, len(self._pending))):
            found[offset : offset + SECTOR] = self._pending[offset]
        return bytes(found)


def receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        some = connection.recv(length - len(data))
        if not some:
            raise EOFError
        data += some
    return data


def serve(listener: socket.socket, disk: LowerDisk) -> None:
    """One client, from its handshake to its end (doc/proto.md of the NBD project: fixed newstyle, simple replies)."""
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 1))
        receive(connection, 4)
        option = 0
        while option != _GO:
            _, option, length = struct.unpack(">8sII", receive(connection, 16))
            receive(connection, length)
            replies = [(_UNSUPPORTED, b"")]
            if option == _GO:
                replies = [(_INFO, struct.pack(">HQH", 0, SIZE, _HAS_FLAGS | _SEND_FLUSH)), (_ACK, b"")]
            for kind, data in replies:
                connection.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)
        while True:
            _, _, command, handle, offset, length = struct.unpack(">IHH8sQI", receive(connection, 28))
            if command == _DISCONNECT:
                return
            data = disk.access(command, offset, length, receive(connection, length if command == _WRITE else 0))
            connection.sendall(struct.pack(">II8s", 0x67446698, 0, handle) + data)


@contextmanager
def served(disk: LowerDisk, address: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener, disk))
        thread.start()
        yield
        thread.join()


def qemu_img(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not (shutil.which("qemu-nbd") and shutil.which("qemu-img")), reason="no qemu-nbd here")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("has_backing_file", [False, True])
def test_what_was_flushed_survives_a_crash_of_the_host(
    guest: FrontendGuest, make_disk: MakeDisk, tmp_path: Path, has_backing_file: bool, seed: int
) -> None:
    random = Random(seed)
    content = random.randbytes(SECTORS * SECTOR) if has_backing_file else bytes(SECTORS * SECTOR)
    path, base = tmp_path / "disk.qcow2", tmp_path / "base"
    base.write_bytes(content)
    below = ["-b", base, "-F", "raw"] if has_backing_file else []
    made = qemu_img("create", "-f", "qcow2", "-o", "cluster_size=1024", *below, path, SECTORS * SECTOR)
    assert made.returncode == 0, made.stderr
    disk = LowerDisk(path.read_bytes(), Random(seed))
    with served(disk, tmp_path / "nbd"):
        device = make_disk(NbdImage(Path(f"nbd:unix:{tmp_path}/nbd"), "qcow2", False))
        writer = Writer(BlockFront(guest, device, frames=5 * FRAMES_OF_EACH), disk, random, False, content)
        for _ in range(ROUNDS):
            writer.round()
        writer.finish()
        guest.machine.call(device.destroy)
    assert any(one.operation == blkif.BLKIF_OP_FLUSH_DISKCACHE for one in writer.history)
    certain = 0
    for when, image in random.sample(disk.crashes, CRASHES):
        path.write_bytes(image)
        checked = qemu_img("check", "-f", "qcow2", path)
        assert checked.returncode in (0, LEAKS_ONLY), checked.stdout + checked.stderr
        found = bytearray(SECTORS * SECTOR)
        after = open_image(path, "qcow2")
        after.read(0, [memoryview(found)])
        after.close()
        for sector, possible in enumerate(may_be_found(writer.history, when)):
            assert bytes(found[sector * SECTOR : (sector + 1) * SECTOR]) in possible, (sector, when)
            certain += len(possible) == 1
    assert certain > CRASHES * SECTORS // 4  # what could be anything would prove nothing
