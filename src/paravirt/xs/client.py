"""A client of xenstore's socket (docs/misc/xenstore.txt in Xen's tree), for one thread.

with XenStore() as store:
    print(store.read("/local/domain/1/name"))
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from paravirt.abi.io import xs_wire
from paravirt.domain0.daemon.paths import places
from paravirt.domain0.store.wire import Message, Parser, WireError
from paravirt.errors import ParavirtError, UserError

PATH_VARIABLE: Final = "XENSTORED_PATH"
FOLDER_VARIABLE: Final = "XENSTORED_RUNDIR"
"""The environment variables by which Xen's own clients find the socket: itself, or its folder."""

_CHUNK: Final = 64 << 10


class StoreRefusal(ParavirtError):
    """The store refuses a request; ``name`` is the error's (ENOENT, EACCES, ...)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def socket_path() -> Path:
    """Where the store listens: as the environment says, else that of the user's daemon."""
    if path := os.environ.get(PATH_VARIABLE):
        return Path(path)
    if folder := os.environ.get(FOLDER_VARIABLE):
        return Path(folder) / "socket"
    return places().xenstore


class XenStore:
    """A connection.

    Parameters:
        path: the socket; by default that of :func:`socket_path`.

    Raises:
        UserError: nobody listens there.
    """

    def __init__(self, path: Path | None = None) -> None:
        where = path or socket_path()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(where))
        except OSError as error:
            self._socket.close()
            raise UserError(f"There is no xenstore at {where}: {error.strerror}.") from error
        self._parser = Parser()
        self._events: deque[tuple[bytes, bytes]] = deque()
        self._number = 0
        self._transaction = 0

    def __enter__(self) -> XenStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    # --- nodes ------------------------------------------------------------------------------------------------
    # Each of these raises StoreRefusal when the store refuses.

    def read(self, path: str) -> bytes:
        """A node's value."""
        return self._ask(xs_wire.XS_READ, _text(path))

    def write(self, path: str, value: bytes) -> None:
        """Give a node a value; it is made if need be."""
        self._ask(xs_wire.XS_WRITE, _text(path) + value)

    def make_directory(self, path: str) -> None:
        """Make a node, without a value, if there is none."""
        self._ask(xs_wire.XS_MKDIR, _text(path))

    def remove(self, path: str) -> None:
        """Remove a node and all below it."""
        self._ask(xs_wire.XS_RM, _text(path))

    def directory(self, path: str) -> list[str]:
        """The names of a node's children."""
        try:
            payload = self._ask(xs_wire.XS_DIRECTORY, _text(path))
        except StoreRefusal as refusal:
            if refusal.name != "E2BIG":
                raise
            payload = self._list_in_parts(path)
        return [name.decode("utf-8", "surrogateescape") for name in payload.split(b"\0")[:-1]]

    def _list_in_parts(self, path: str) -> bytes:
        """A directory that is too long for one message; from the start again if it changes meanwhile."""
        found, generation = b"", b""
        while True:
            part = self._ask(xs_wire.XS_DIRECTORY_PART, _text(path) + b"%d\0" % len(found))
            now, _, names = part.partition(b"\0")
            if found and now != generation:
                found = b""
                continue
            generation = now
            if names.endswith(b"\0\0") or names == b"\0":
                return found + names[:-1]
            found += names

    def permissions(self, path: str) -> list[str]:
        """A node's permissions, like n0 and r1."""
        return [entry.decode() for entry in self._ask(xs_wire.XS_GET_PERMS, _text(path)).split(b"\0")[:-1]]

    def set_permissions(self, path: str, permissions: Iterable[str]) -> None:
        """Set a node's permissions."""
        self._ask(xs_wire.XS_SET_PERMS, _text(path) + b"".join(map(_text, permissions)))

    def exists(self, path: str) -> bool:
        """Whether there is such a node."""
        try:
            self.read(path)
        except StoreRefusal as refusal:
            if refusal.name != "ENOENT":
                raise
            return False
        return True

    # --- watches and transactions -----------------------------------------------------------------------------

    def watch(self, path: str, token: str) -> None:
        """Have :meth:`next_event` tell of changes at and below a path, and of it once at first."""
        self._ask(xs_wire.XS_WATCH, _text(path) + _text(token))

    def unwatch(self, path: str, token: str) -> None:
        """Take a watch back."""
        self._ask(xs_wire.XS_UNWATCH, _text(path) + _text(token))

    def next_event(self) -> tuple[str, str]:
        """The path and the token of the next event; waits for it."""
        while not self._events:
            self._take(self._receive())
        path, token = self._events.popleft()
        return path.decode("utf-8", "surrogateescape"), token.decode("utf-8", "surrogateescape")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all requests in it at once, or none of them: StoreRefusal EAGAIN if others came in between."""
        self._transaction = int(self._ask(xs_wire.XS_TRANSACTION_START, b"\0").rstrip(b"\0"))
        try:
            yield
        except BaseException:
            self._end_transaction(b"F\0")
            raise
        self._end_transaction(b"T\0")

    def _end_transaction(self, how: bytes) -> None:
        try:
            self._ask(xs_wire.XS_TRANSACTION_END, how)
        finally:
            self._transaction = 0

    # --- messages ---------------------------------------------------------------------------------------------

    def _ask(self, kind: int, payload: bytes) -> bytes:
        self._number += 1
        request = Message(kind, self._number & 0xFFFFFFFF, self._transaction, payload)
        try:
            self._socket.sendall(request.encode())
        except OSError as error:
            raise UserError(f"The store has gone ({error.strerror}).") from error
        while True:
            reply = self._receive()
            if not self._take(reply):
                break
        if reply.type == xs_wire.XS_ERROR:
            raise StoreRefusal(reply.payload.rstrip(b"\0").decode())
        return reply.payload

    def _take(self, message: Message) -> bool:
        """Keep an event: whether it is one."""
        if message.type != xs_wire.XS_WATCH_EVENT:
            return False
        path, token, *_ = [*message.payload.split(b"\0"), b"", b""]
        self._events.append((path, token))
        return True

    def _receive(self) -> Message:
        try:
            while (message := self._parser.next()) is None:
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise UserError("The store has gone.")
                self._parser.feed(data)
        except (OSError, WireError) as error:
            raise UserError(f"The store has gone ({error}).") from error
        return message


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"
