"""The host's ends of channels: a pseudo terminal, or a unix socket that serves one client at a time.

All of it runs in Domain 0's thread.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from paravirt.domain0.channels.stream import OUTPUT_LIMIT, Stream
from paravirt.domain0.pseudoterminal import PseudoTerminal
from paravirt.domain0.services import Services
from paravirt.errors import UserError


class HostEnd(ABC):
    """Where a channel's bytes go to and come from.

    Attributes:
        on_ready: called when there is something for the guest, or room for its output again.
        tty: the terminal's name; empty, if it is none.
    """

    tty = ""

    def __init__(self) -> None:
        self.on_ready: Callable[[], None] = lambda: None

    @property
    @abstractmethod
    def room(self) -> int:
        """How many bytes of the guest's it takes now."""

    @abstractmethod
    def put(self, data: bytes) -> None:
        """Bytes from the guest."""

    @property
    @abstractmethod
    def typed(self) -> bytes:
        """Bytes for the guest that it has not taken yet."""

    @abstractmethod
    def take(self, count: int) -> None:
        """The guest has taken so many of them."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back to the host."""


class TerminalEnd(HostEnd):
    """A pseudo terminal. Who opens it late finds the last of what was said: a guest does not wait for readers."""

    def __init__(self, services: Services) -> None:
        super().__init__()
        self._terminal = PseudoTerminal()
        self.tty = self._terminal.path
        # Our own hold on the far end keeps it from ever ending.
        self._stream = Stream(services, self._terminal.near, lambda: self.on_ready(), lambda: None)

    @property
    def room(self) -> int:
        """All that there is."""
        return OUTPUT_LIMIT

    def put(self, data: bytes) -> None:
        """Show it."""
        self._stream.put(data)
        self._stream.drop_output(OUTPUT_LIMIT)

    @property
    def typed(self) -> bytes:
        """What was typed."""
        return bytes(self._stream.typed)

    def take(self, count: int) -> None:
        """The guest has read so much of it."""
        self._stream.take(count)

    def close(self) -> None:
        """Close the terminal."""
        self._stream.close()
        self._terminal.close()


class SocketEnd(HostEnd):
    """A listening unix socket. While there is no client, what the guest says is lost, as with QEMU; a client that
    does not read holds the guest's writer up.

    Raises:
        UserError: the socket cannot be made, or another program listens there.
    """

    def __init__(self, services: Services, path: Path) -> None:
        super().__init__()
        self._services = services
        self._path = path
        self._client: socket.socket | None = None
        self._left = b""  # of a client that has gone; the next one comes when the guest has taken it
        self._stream: Stream | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            _make_room(path)
            self._listener.bind(str(path))
            self._listener.listen(16)
        except OSError as error:
            self._listener.close()
            raise UserError(f"The channel's socket {path} cannot be made: {error.strerror or error}.") from error
        finally:
            os.umask(mask)
        self._listen()

    @property
    def room(self) -> int:
        """As much as the client does not have to read before."""
        return OUTPUT_LIMIT if self._stream is None else self._stream.room

    def put(self, data: bytes) -> None:
        """Send it, if somebody is there."""
        if self._stream is not None:
            self._stream.put(data)

    @property
    def typed(self) -> bytes:
        """What the client has sent."""
        return self._left if self._stream is None else bytes(self._stream.typed)

    def take(self, count: int) -> None:
        """The guest has read so much of it."""
        if self._stream is not None:
            self._stream.take(count)
        elif self._left:
            self._left = self._left[count:]
            if not self._left:
                self._listen()

    def close(self) -> None:
        """End the connection, and remove the socket."""
        self._hang_up()
        self._services.unwatch(self._listener.fileno())
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _listen(self) -> None:
        self._services.watch(self._listener.fileno(), select.POLLIN, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return  # it went away again
        client.setblocking(False)
        self._services.unwatch(self._listener.fileno())  # the next one waits for the end of this one
        self._client = client
        self._stream = Stream(self._services, client.fileno(), lambda: self.on_ready(), self._next)

    def _next(self) -> None:
        self._left = self.typed
        self._hang_up()
        if not self._left:
            self._listen()
        self.on_ready()

    def _hang_up(self) -> None:
        if self._client is not None and self._stream is not None:
            self._stream.close()
            self._client.close()
            self._client = self._stream = None


def _make_room(path: Path) -> None:
    """Remove a socket that nobody listens to any more."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
