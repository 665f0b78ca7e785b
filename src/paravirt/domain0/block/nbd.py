"""Images of QEMU's formats, through qemu-nbd: a program that serves them on a socket.

The protocol is that of NBD (doc/proto.md of its project), simple replies, fixed newstyle. The program ends with the
image. Requests of several threads share the connection, one at a time.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from paravirt.domain0.block.image import SECTOR_SIZE, Buffers, Image, length_of
from paravirt.errors import UserError

FORMATS: Final = ("qcow", "qcow2", "vhd", "qed")
PROGRAM: Final = "qemu-nbd"
PATIENCE: Final = 20.0
"""Seconds until the program has to answer."""

_QEMU_NAMES: Final = {"vhd": "vpc"}
_GREETING: Final = struct.Struct(">8s8sH")
_OPTION: Final = struct.Struct(">8sII")
_OPTION_REPLY: Final = struct.Struct(">QIII")
_REQUEST: Final = struct.Struct(">IHHQQI")
_REPLY: Final = struct.Struct(">IIQ")
_MAGIC, _OPTION_MAGIC = b"NBDMAGIC", b"IHAVEOPT"
_OPTION_REPLY_MAGIC: Final = 0x3E889045565A9
_REQUEST_MAGIC, _REPLY_MAGIC = 0x25609513, 0x67446698
_OPT_GO, _REP_ACK, _REP_INFO = 7, 1, 3
_FIXED_NEWSTYLE = 1
_CMD_READ, _CMD_WRITE, _CMD_DISC, _CMD_FLUSH, _CMD_TRIM = range(5)
_HAS_FLAGS, _READ_ONLY, _SEND_FLUSH, _SEND_TRIM = 1, 2, 4, 32
_LARGEST: Final = 1 << 20


class NbdImage(Image):
    """An image behind a program of its own.

    Raises:
        UserError: there is no such program here, or it cannot open the image.
    """

    def __init__(self, path: Path, format_: str, readonly: bool) -> None:
        if shutil.which(PROGRAM) is None:
            raise UserError(
                f"Disks of the format {format_!r} need the program {PROGRAM}, which is not here (Debian: qemu-utils)."
            )
        self._folder = tempfile.TemporaryDirectory(prefix="paravirt-nbd-")
        self._lock = threading.Lock()
        address = str(Path(self._folder.name, "socket"))
        command = [PROGRAM, "-f", _QEMU_NAMES.get(format_, format_), "-k", address, "--discard=unmap"]
        command += ["-r"] if readonly else []
        self._program = subprocess.Popen(
            [*command, str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            self._socket = self._connect(address, path)
            with contextlib.ExitStack() as on_failure:
                on_failure.callback(self._socket.close)
                self.size, flags = self._go()
                on_failure.pop_all()
        except (OSError, struct.error, ValueError) as error:
            self._end()
            raise UserError(f"The disk image {str(path)!r} cannot be served by {PROGRAM}: {error}.") from error
        except BaseException:
            self._end()
            raise
        self.readonly = readonly or bool(flags & _READ_ONLY)
        self.discard_granularity = 65536 if flags & _SEND_TRIM and not self.readonly else 0
        self._flushes = bool(flags & _SEND_FLUSH)

    def read(self, offset: int, buffers: Buffers) -> None:
        """Fill the buffers."""
        for buffer in buffers:
            for at in range(0, len(buffer), _LARGEST):
                piece = buffer[at : at + _LARGEST]
                self._ask(_CMD_READ, offset + at, len(piece), into=piece)
            offset += len(buffer)

    def write(self, offset: int, buffers: Buffers) -> None:
        """Store the buffers."""
        if length_of(buffers) <= _LARGEST:
            self._ask(_CMD_WRITE, offset, length_of(buffers), buffers)
            return
        for buffer in buffers:
            for at in range(0, len(buffer), _LARGEST):
                piece = buffer[at : at + _LARGEST]
                self._ask(_CMD_WRITE, offset + at, len(piece), [piece])
            offset += len(buffer)

    def flush(self) -> None:
        """Have the program flush."""
        if self._flushes:
            self._ask(_CMD_FLUSH, 0, 0)

    def discard(self, offset: int, length: int) -> None:
        """Have the program discard."""
        most = (1 << 31) // SECTOR_SIZE * SECTOR_SIZE
        for at in range(0, length, most):
            self._ask(_CMD_TRIM, offset + at, min(most, length - at))

    def close(self) -> None:
        """End the program; what was written is in the image then."""
        with contextlib.suppress(OSError), self._lock:
            self._socket.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _CMD_DISC, 0, 0, 0))
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._program.wait(PATIENCE)
        self._end()

    def _ask(self, command: int, offset: int, length: int, data: Buffers = (), into: memoryview | None = None) -> None:
        with self._lock:
            self._socket.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, command, 0, offset, length))
            for buffer in data:
                self._socket.sendall(buffer)
            magic, error, _ = _REPLY.unpack(self._receive(_REPLY.size))
            if magic != _REPLY_MAGIC:
                raise OSError(errno.EIO, f"{PROGRAM} said what is no reply")
            if error:
                raise OSError(errno.EIO, f"{PROGRAM} says error {error}")
            if into is not None:
                self._receive_into(into)

    def _connect(self, address: str, path: Path) -> socket.socket:
        deadline = time.monotonic() + PATIENCE
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(address)
            except OSError:
                connection.close()
            else:
                return connection
            if self._program.poll() is not None or time.monotonic() > deadline:
                self._program.kill()
                said = self._program.communicate()[1].decode(errors="replace").strip().splitlines()
                raise UserError(f"The disk image {str(path)!r} cannot be opened: {said[-1] if said else PROGRAM}.")
            time.sleep(0.01)

    def _go(self) -> tuple[int, int]:
        """Shake hands: size of the image, and what can be done with it."""
        magic, option_magic, flags = _GREETING.unpack(self._receive(_GREETING.size))
        if magic != _MAGIC or option_magic != _OPTION_MAGIC or not flags & _FIXED_NEWSTYLE:
            raise ValueError("it speaks another protocol")
        wanted = struct.pack(">IH", 0, 0)
        self._socket.sendall(struct.pack(">I", _FIXED_NEWSTYLE))
        self._socket.sendall(_OPTION.pack(_OPTION_MAGIC, _OPT_GO, len(wanted)) + wanted)
        size = offered = 0
        while True:
            magic, _, kind, length = _OPTION_REPLY.unpack(self._receive(_OPTION_REPLY.size))
            data = self._receive(length) if length <= _LARGEST else b""
            if magic != _OPTION_REPLY_MAGIC or kind not in (_REP_ACK, _REP_INFO):
                raise ValueError("it refuses to serve")
            if kind == _REP_ACK:
                return size // SECTOR_SIZE * SECTOR_SIZE, offered
            if int.from_bytes(data[:2], "big") == 0:
                size, offered = struct.unpack(">QH", data[2:12])

    def _receive(self, length: int) -> bytes:
        data = bytearray(length)
        self._receive_into(memoryview(data))
        return bytes(data)

    def _receive_into(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            count = self._socket.recv_into(view[done:])
            if count == 0:
                raise OSError(errno.EIO, f"{PROGRAM} has ended")
            done += count

    def _end(self) -> None:
        if self._program.poll() is None:
            self._program.kill()
        if self._program.stderr is not None:
            self._program.stderr.close()
        self._program.wait()
        self._folder.cleanup()
