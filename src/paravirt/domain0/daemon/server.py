"""Takes connections and requests: a thread for each client, so that none waits for another.

A client's fault, or a mistake of ours in an operation, ends that request or that connection and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import traceback
from typing import Any, Final

from paravirt.domain0.console import Console
from paravirt.domain0.daemon import (
    cpupool_operations,
    debug_keys,
    device_operations,
    domain_operations,
    host_operations,
    network_operations,
)
from paravirt.domain0.daemon.protocol import (
    INTERNAL,
    INVALID,
    UNSUPPORTED,
    VERSION,
    Channel,
    ConnectionLost,
    Refusal,
)
from paravirt.domain0.daemon.records import Log
from paravirt.domain0.daemon.requests import OPERATIONS, Daemon, Request
from paravirt.domain0.daemon.wake import Wake
from paravirt.errors import UserError

MAX_CLIENTS: Final = 256
_CHUNK: Final = 1 << 16
_CREDENTIALS: Final = struct.Struct("3i")

__all__ = ["Server"]
# They register themselves.
_OPERATIONS = (
    cpupool_operations, debug_keys, device_operations, domain_operations, host_operations, network_operations,
)  # fmt: skip


class Server:
    """The daemon's socket."""

    def __init__(self, listener: socket.socket, daemon: Daemon, log: Log) -> None:
        self._listener = listener
        self._daemon = daemon
        self._log = log
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._accept, name="clients", daemon=True)

    def start(self) -> None:
        """Take clients from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more clients, and leave those that there are."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join()
        self._listener.close()
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopping:
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if not self._stopping:
                    self._log.write("cannot accept", error=str(error))
                    threading.Event().wait(0.1)  # out of file descriptors, perhaps: not for long
                continue
            with self._lock:
                welcome = len(self._clients) < MAX_CLIENTS and _is_ours(client)
                if welcome:
                    self._clients.add(client)
            if welcome:
                threading.Thread(target=self._attend, args=(client,), name="client", daemon=True).start()
            else:
                client.close()

    def _attend(self, client: socket.socket) -> None:
        channel = Channel(client)
        try:
            while (message := channel.receive()) is not None:
                if not self._serve(channel, message):
                    break
        except ConnectionLost as error:
            self._log.write("client lost", error=str(error))
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()

    def _serve(self, channel: Channel, message: dict[str, Any]) -> bool:
        """One request: false if the connection ends with it."""
        name = message.get("operation")
        request = Request(self._daemon, {}, channel)
        try:
            if message.get("version") != VERSION:
                raise Refusal(UNSUPPORTED, f"The daemon speaks version {VERSION} of the protocol; restart it, or xl.")
            arguments = message.get("arguments", {})
            if not isinstance(name, str) or not isinstance(arguments, dict):
                raise Refusal(INVALID, "That is not a request.")
            request = Request(self._daemon, arguments, channel)
            if name == "console":
                self._console(request)
                return False
            if name not in OPERATIONS:
                raise Refusal(UNSUPPORTED, f"The daemon knows no operation {name!r}.")
            reply = {"result": OPERATIONS[name](request)}
        except Refusal as refusal:
            reply = {"error": str(refusal), "code": refusal.code}
        except UserError as error:
            reply = {"error": str(error), "code": INVALID}
        except ConnectionLost:
            raise
        except Exception as error:  # noqa: BLE001 - shown as our bug, to us and to the client
            trouble = traceback.format_exc()
            self._log.write("defect", operation=name, trouble=trouble)
            reply = {"error": f"This is a defect of paravirt, please report it: {error!r}", "code": INTERNAL}
        try:
            channel.send(reply)
        finally:
            request.afterwards()
        return True

    def _console(self, request: Request) -> None:
        """The reply, then a domain's console from its first byte on, as bytes both ways."""
        name, domid, console = request.domains.console(request.string("domain"))
        channel = request.channel
        channel.send({"result": {"name": name, "domid": domid, "ended": console.closed}})
        console.send(channel.rest())
        connect(channel.socket, console)


def connect(client: socket.socket, console: Console) -> None:
    """Pass bytes between a client and a console until one of them ends. A slow reader holds up nobody else."""
    client.setblocking(False)
    wake = Wake()

    def said(_data: bytes = b"") -> None:
        wake.up()

    console.listen(said, closed=said)
    position, pending = 0, b""
    try:
        while True:
            if not pending:
                pending, position, over = console.since(position, _CHUNK)
                if over and not pending:
                    return
            poll = select.poll()
            poll.register(wake.fd, select.POLLIN)
            poll.register(client, select.POLLIN | (select.POLLOUT if pending else 0))
            events = dict(poll.poll())
            if wake.fd in events:
                wake.heard()
            state = events.get(client.fileno(), 0)
            if state & select.POLLIN:
                typed = client.recv(_CHUNK)
                if not typed:
                    return
                console.send(typed)
            elif state & (select.POLLHUP | select.POLLERR):
                return
            if pending and state & select.POLLOUT:
                pending = pending[client.send(pending) :]
    except OSError:
        return  # the client has gone
    finally:
        console.unlisten(said)
        wake.close()


def _is_ours(client: socket.socket) -> bool:
    """Whether it is the user's own process, or root's."""
    _, uid, _ = _CREDENTIALS.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid in (0, os.getuid())
