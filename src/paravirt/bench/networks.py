"""A guest's network: the same program in the same guest, on our backend and router and on QEMU's virtio-net.

The guest reaches a server on the host through its router's address; on our machine also one in another guest.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paravirt.bench.guestprogram import END_LINE, KERNEL_OPTIONS, NETWORK_PORT, Report, parse
from paravirt.domain0.net.options import NetworkOptions
from paravirt.domain0.toolstack import Domain, Machine
from paravirt.domain0.xlcfg.vifs import vif_spec
from paravirt.errors import HypervisorBug, UserError

MEMORY_MIB = 256
TIMEOUT_S = 300
BLOCK = 1 << 16


@dataclass(frozen=True)
class NetworkReport:
    """What the program measured; and what Domain 0's thread took of the host's CPU, in us for each MB."""

    report: Report
    service_us_per_mb: float


class _Client:
    """One connection to the host's server, which does what it is told (``guest/network.c``)."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> None:
        """Until it is closed, or the server is."""
        try:
            while request := self._connection.recv(9, socket.MSG_WAITALL):
                getattr(self, {b"s": "_take", b"r": "_give", b"e": "_echo"}[request[:1]])(
                    int.from_bytes(request[1:], "little")
                )
        except OSError:
            # The guest has ended, or the measurement has.
            return
        finally:
            self._connection.close()

    def _take(self, size: int) -> None:
        while size > 0:
            data = self._connection.recv(min(size, 1 << 20))
            if not data:
                raise ConnectionError
            size -= len(data)
        self._connection.sendall(b"!")

    def _give(self, size: int) -> None:
        block = bytes(BLOCK)
        for _ in range(size // BLOCK):
            self._connection.sendall(block)
        self._connection.sendall(block[: size % BLOCK])

    def _echo(self, size: int) -> None:
        for _ in range(size):
            self._connection.sendall(self._connection.recv(1))


@contextmanager
def host_server() -> Iterator[None]:
    """A server on the host's loopback, which guests reach by their router's address.

    Raises:
        UserError: its port is taken.
    """
    try:
        listening = socket.create_server(("127.0.0.1", NETWORK_PORT))
    except OSError as error:
        raise UserError(f"The host's port {NETWORK_PORT} cannot be listened on: {error.strerror}.") from error
    open_connections: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            open_connections.append(connection)
            threading.Thread(target=_Client(connection).serve, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        # A thread that waits in accept is not woken by close alone.
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        for connection in open_connections:
            connection.close()


def measure(kernel: Path, ramdisk: Path) -> NetworkReport:
    """Boot two Linux guests, and have the ways from one to the other, and to the host, measured."""
    options = NetworkOptions(host_loopback=True)
    with host_server(), Machine(memory=2 * MEMORY_MIB + 64, network=options) as machine:

        def start(name: str, words: str) -> Domain:
            cmdline = f"console=hvc0 {KERNEL_OPTIONS} {words}"
            return machine.create(kernel, ramdisk, cmdline, memory=MEMORY_MIB, name=name, devices=[vif_spec()])

        server = start("server", "pvbench.serve")
        server.console.expect("PVBENCH SERVES ;", TIMEOUT_S)
        (interface,) = machine.call(machine.network.status)
        client = start("client", f"pvbench.peer={interface['addresses'][0]}")
        client.console.expect("PVBENCH BEGINS", TIMEOUT_S)
        before = machine.service_time_ns()
        text = client.console.expect(END_LINE, TIMEOUT_S)
        taken = machine.service_time_ns() - before
        counts = [one for one in machine.call(machine.network.status) if one["name"] != interface["name"]]
        if len(counts) != 1:
            raise HypervisorBug("the guest that measures its network has no interface any more")
        moved = (counts[0]["sent_bytes"] + counts[0]["received_bytes"]) / 1e6
        return NetworkReport(parse(text), taken / 1000 / moved)
