"""Xen's own store daemon, out of Debian's package, on a hypervisor that is only pretended."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from paravirt.abi.io import xs_wire
from paravirt.domain0.ring import STORE_REPLIES, STORE_REQUESTS, ByteRing
from paravirt.domain0.store.wire import Message, Parser
from paravirt.guestkernels import apt
from paravirt.guestkernels.cache import Cache

from .clients import Answer, sort_answer

PACKAGE = "xen-utils-4.17"
PROGRAM = "usr/lib/xen-4.17/bin/xenstored"
LIBRARIES = ("libxenctrl.so.4.17", "libxenevtchn.so.1", "libxengnttab.so.1")
PAGE_SIZE = 4096
PATIENCE = 5.0
_VIRQ, _FIRST_PORT = 1, 1000
_PAUSE = 0.0005


def obtain(report: Callable[[str], None] = lambda text: None, cache: Cache | None = None) -> tuple[Path, str]:
    """The folder with the daemon, from the cache or fetched and built now, and its version.

    Raises:
        UserError: it cannot be fetched here, and why.
    """
    cache = cache or Cache()

    def fill(folder: Path) -> None:
        download = folder / "download"
        download.mkdir()
        package = apt.fetch(PACKAGE, download, cache.root / "apt", report)
        apt.unpack(package, {"xenstored": PROGRAM}, folder)
        shutil.rmtree(download)
        (folder / "xenstored").chmod(0o755)
        (folder / "record.json").write_text(json.dumps({"version": package.version}), encoding="utf-8")

    folder = cache.make("peers/xenstored-4.17", fill)
    version = json.loads((folder / "record.json").read_text(encoding="utf-8"))["version"]
    return folder, version


class _Channel(Protocol):
    def write(self, data: bytes) -> None: ...

    def read(self) -> bytes: ...


class RealStore:
    """A daemon of our own, with Domain 0 on its socket and guests on their rings."""

    def __init__(self, folder: Path) -> None:
        self._dir = Path(tempfile.mkdtemp(prefix="xenstored-"))
        os.mkfifo(self._dir / "events")
        (self._dir / "xsd_port").write_text("9", encoding="ascii")
        (self._dir / "xsd_kva").write_bytes(bytes(PAGE_SIZE))
        (self._dir / "dom-0").write_bytes(b"r")
        stub = Path(__file__).with_name("hypervisor_stub.c")
        library = self._dir / LIBRARIES[0]
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, stub, "-ldl"], check=True)
        for name in LIBRARIES[1:]:
            shutil.copy(library, self._dir / name)
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(self._dir),
            "LD_PRELOAD": str(library),
            "STUB_DIR": str(self._dir),
            "XENSTORED_RUNDIR": str(self._dir),
            "XENSTORED_ROOTDIR": str(self._dir),
        }
        command: list[str | Path] = [folder / "xenstored", "-N", "-F", self._dir / "pid"]
        self._daemon = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        self._events = os.open(self._dir / "events", os.O_RDWR)
        self.domids = [0]
        self._channels: dict[int, _Channel] = {0: _Socket(self._dir / "socket")}
        self._parsers = {0: Parser()}
        self._number = 0

    def __enter__(self) -> RealStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._daemon.kill()
        self._daemon.wait()
        os.close(self._events)
        for channel in self._channels.values():
            channel.close()  # type: ignore[attr-defined]
        shutil.rmtree(self._dir)

    def introduce(self, domid: int) -> None:
        (self._dir / f"dom-{domid}").write_bytes(b"r")
        (self._dir / f"ring-{domid}").write_bytes(bytes(PAGE_SIZE))
        self._channels[domid] = _Ring(self._dir / f"ring-{domid}", lambda: self._kick(_FIRST_PORT + domid))
        self._parsers[domid] = Parser()
        answer = self.ask(0, xs_wire.XS_INTRODUCE, f"{domid}\0001\0001\0".encode(), keep=True)
        assert answer.reply is not None and answer.reply.type == xs_wire.XS_INTRODUCE
        self.domids.append(domid)

    def shut_down(self, domid: int) -> None:
        (self._dir / f"dom-{domid}").write_bytes(b"s")
        self._kick(_VIRQ)

    def release(self, domid: int) -> None:
        (self._dir / f"dom-{domid}").unlink()
        self._kick(_VIRQ)
        self.domids.remove(domid)
        del self._channels[domid]

    def ask(self, domid: int, kind: int, payload: bytes, transaction: int = 0, keep: bool = False) -> Answer:
        self._number += 1
        self._channels[domid].write(Message(kind, self._number, transaction, payload).encode())
        messages = self._until_reply(domid)
        if keep:  # the events are for who asks next
            for message in messages[:-1]:
                self._parsers[domid].feed(message.encode())
            return sort_answer(messages[-1:])
        # What follows the reply at once comes before the reply to a harmless question.
        self._number += 1
        self._channels[domid].write(Message(xs_wire.XS_GET_DOMAIN_PATH, self._number, 0, b"0\0").encode())
        return sort_answer(messages + self._until_reply(domid)[:-1])

    def events(self, domid: int) -> list[bytes]:
        self._number += 1
        self._channels[domid].write(Message(xs_wire.XS_GET_DOMAIN_PATH, self._number, 0, b"0\0").encode())
        return [message.payload for message in self._until_reply(domid)[:-1]]

    def _until_reply(self, domid: int) -> list[Message]:
        parser = self._parsers[domid]
        deadline = time.monotonic() + PATIENCE
        messages = []
        while True:
            while (message := parser.next()) is not None:
                messages.append(message)
                if message.type != xs_wire.XS_WATCH_EVENT and message.request_id == self._number:
                    return messages
            if time.monotonic() > deadline:
                raise TimeoutError(f"xenstored does not answer domain {domid}")
            parser.feed(self._channels[domid].read())

    def _kick(self, port: int) -> None:
        os.write(self._events, struct.pack("<I", port))


class _Socket:
    """Domain 0's connection."""

    def __init__(self, path: Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
        self._socket.settimeout(PATIENCE)

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self) -> bytes:
        return self._socket.recv(65536)

    def close(self) -> None:
        self._socket.close()


class _Ring:
    """A guest's connection, from the guest's side: what it puts in is a request, what it takes a reply."""

    def __init__(self, path: Path, kick: Callable[[], None]) -> None:
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), PAGE_SIZE)
        self._kick = kick
        self._requests = ByteRing(_Page(self._page), STORE_REQUESTS)
        self._replies = ByteRing(_Page(self._page), STORE_REPLIES)
        self._taken = bytearray()

    def write(self, data: bytes) -> None:
        while data:
            count = self._requests.put(data)
            data = data[count:]
            self._kick()
            if not count:
                self._taken += self._replies.take()
                time.sleep(_PAUSE)

    def read(self) -> bytes:
        data = bytes(self._taken) + self._replies.take()
        self._taken.clear()
        if data:
            self._kick()
        else:
            time.sleep(_PAUSE)
        return data

    def close(self) -> None:
        self._page.close()


class _Page:
    def __init__(self, page: mmap.mmap) -> None:
        self._page = page

    def read(self, offset: int, length: int) -> bytes:
        return self._page[offset : offset + length]

    def write(self, offset: int, data: bytes) -> None:
        self._page[offset : offset + len(data)] = data
