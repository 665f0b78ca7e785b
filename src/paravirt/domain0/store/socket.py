"""The store on a unix socket: for the standard client tools, and for programs of the control domain.

It speaks the same messages as a guest's ring. Whoever may open the socket is Domain 0. Everything happens in Domain 0's
thread: a client gets its turn when its socket is ready, a bounded amount each time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
from pathlib import Path
from typing import Final

from paravirt.domain0.services import Services
from paravirt.domain0.store.server import Connection, Store
from paravirt.domain0.store.wire import WireError

MAX_CLIENTS: Final = 512
CHUNK: Final = 64 << 10
"""Bytes that a client is read from, or sent, in one turn."""

logger = logging.getLogger(__name__)


class StoreSocket:
    """The listening socket and its clients. To be made and closed in Domain 0's thread."""

    def __init__(self, store: Store, services: Services, path: Path) -> None:
        self._store = store
        self._services = services
        self._path = path
        self._clients: set[_Client] = set()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(mask)
        self._listener.listen(64)
        services.watch(self._listener.fileno(), select.POLLIN, self._accept)

    def close(self) -> None:
        """Take no more clients, and leave those that there are."""
        self._services.unwatch(self._listener.fileno())
        self._listener.close()
        for client in list(self._clients):
            client.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                logger.warning("a client of the store cannot be accepted: %s", error)
            return
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        self._clients.add(_Client(connection, self._store.connect(0), self._services, self._clients))


class _Client:
    """One client: bytes in from its socket, bytes out as its socket takes them."""

    def __init__(
        self, connection: socket.socket, store: Connection, services: Services, clients: set[_Client]
    ) -> None:
        self._socket = connection
        self._store = store
        self._services = services
        self._clients = clients
        self._unsent = b""
        store.on_output = self._watch
        self._watch()

    def close(self) -> None:
        """End the connection."""
        self._clients.discard(self)
        self._services.unwatch(self._socket.fileno())
        self._socket.close()
        self._store.close()

    def _watch(self) -> None:
        """Say what we wait for. A client that does not take its replies is not asked for requests."""
        events = 0 if self._store.congested else select.POLLIN
        if self._unsent or self._store.waiting:
            events |= select.POLLOUT
        self._services.watch(self._socket.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & select.POLLIN:
                data = self._socket.recv(CHUNK)
                if not data:
                    self.close()
                    return
                self._store.receive(data)
            elif events & (select.POLLHUP | select.POLLERR):
                self.close()
                return
            self._send()
        except BlockingIOError:
            logger.debug("a client of the store was not ready after all")
        except (WireError, OSError):
            self.close()
            return
        except BaseException:
            self.close()  # whatever it is, it is not to come again and again
            raise
        self._watch()

    def _send(self) -> None:
        """What there is, until the socket takes no more, or enough was sent for one turn."""
        sent = 0
        while sent < CHUNK:
            if not self._unsent:
                self._unsent = self._store.take_output(CHUNK)
            if not self._unsent:
                return
            with contextlib.suppress(BlockingIOError):
                done = self._socket.send(self._unsent)
                self._unsent = self._unsent[done:]
                sent += done
            if self._unsent:
                return
