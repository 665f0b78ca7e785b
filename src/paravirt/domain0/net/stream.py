"""One of the guests' TCP connections, joined to a socket of the host's."""

from __future__ import annotations

import secrets
import select
import socket
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, NamedTuple

from paravirt.domain0.net.packet import Packet
from paravirt.domain0.net.replies import tcp_packet
from paravirt.domain0.net.tcp import Connection, Segment, State

if TYPE_CHECKING:
    from paravirt.domain0.net.usernat import UserNat

_READ: Final = 1 << 16
_FAILED: Final = select.POLLERR | select.POLLNVAL


class StreamKey(NamedTuple):
    """Whose connection it is: the guest's address and port, and those that it sees at the other end."""

    guest: bytes
    guest_port: int
    peer: bytes
    port: int


def segment_of(packet: Packet) -> Segment:
    """The TCP segment in a packet.

    Raises:
        Malformed: the packet is.
    """
    headers, data = packet.headers, packet.data
    at = headers.l4
    return Segment(
        int.from_bytes(data[at + 4 : at + 8], "big"),
        int.from_bytes(data[at + 8 : at + 12], "big"),
        headers.tcp_flags,
        int.from_bytes(data[at + 14 : at + 16], "big"),
        data[at + 20 : headers.payload],
        data[headers.payload : headers.end],
    )


class Stream:
    """A connection and its socket (``tcp.Side``).

    Attributes:
        owner: whose share of all connections it counts in.
    """

    def __init__(self, nat: UserNat, key: StreamKey, made: socket.socket, owner: Hashable) -> None:
        self.owner = owner
        self._nat, self._key, self._socket = nat, key, made
        # What the guest sends goes on at once: it decides itself what is worth a segment.
        if made.family != socket.AF_UNIX:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = made.fileno()
        self._events = 0
        self._input_ended = False
        self.connection = Connection(self, secrets.randbits(32))

    def watch(self) -> None:
        """Wait for what can be done next."""
        connection = self.connection
        if self._fd < 0:
            return
        events = 0
        if connection.state is State.WAITING or connection.wants_stream:
            events |= select.POLLOUT
        if connection.state is State.OPEN and not self._input_ended and connection.room:
            events |= select.POLLIN
        if events != self._events:
            self._events = events
            if events:
                self._nat.loop.watch(self._fd, events, self._ready)
            else:
                self._nat.loop.unwatch(self._fd)

    def _ready(self, events: int) -> None:
        connection = self.connection
        if connection.state is State.WAITING:
            if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                connection.abort()
                return
            connection.stream_opened(time.monotonic())
        elif events & _FAILED:
            connection.abort()
            return
        else:
            if events & select.POLLOUT:
                connection.stream_takes()
            if events & (select.POLLIN | select.POLLHUP):
                self._read()
        self.watch()

    def _read(self) -> None:
        connection = self.connection
        room = connection.room
        if not room or self._input_ended or connection.state is not State.OPEN:
            return
        try:
            data = self._socket.recv(min(room, _READ))
        except BlockingIOError:
            return
        except OSError:
            connection.abort()
            return
        if data:
            connection.send(data, time.monotonic())
        else:
            self._input_ended = True
            connection.stream_ended(time.monotonic())

    # --- what its connection calls ----------------------------------------------------------------------------

    def emit(self, flags: int, sequence: int, acknowledged: int, window: int, options: bytes, payload: bytes) -> None:
        """Send the guest a segment."""
        key, mss = self._key, self.connection.mss
        data = tcp_packet(
            key.peer, key.guest, key.port, key.guest_port, sequence, acknowledged, flags, window, options, payload,
            csum_blank=True,
        )  # fmt: skip
        self._nat.sender.send_ip(data, csum_blank=True, gso_size=mss if len(payload) > mss else 0)

    def deliver(self, data: bytes) -> int:
        """Give the socket bytes."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            self._nat.loop.post(self.watch)
            return 0
        except OSError:
            self._nat.loop.post(self.connection.abort)
            return len(data)

    def finish(self) -> None:
        """The guest sends nothing any more."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._nat.loop.post(self.connection.abort)

    def gone(self, is_broken: bool) -> None:
        """The connection has ended."""
        if is_broken and self._fd >= 0:
            # The other end is to see a reset as well.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self) -> None:
        """Give the socket back."""
        if self._fd >= 0:
            self._nat.loop.unwatch(self._fd)
            self._fd = -1
            self._socket.close()
            self._nat.forget(self._key)
