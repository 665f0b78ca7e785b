"""The outside by way of the host's sockets: guests reach what the host reaches, and no privilege is needed.

A guest's TCP connection ends here and goes on as one of the host's; UDP and pings go through sockets of the host's
too. All of it runs in Domain 0's thread, and waits for nothing.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from paravirt.domain0.net.packet import ICMP, TCP, TCP_ACK, TCP_RST, TCP_SYN, UDP, Packet, icmp, ones_sum, udp
from paravirt.domain0.net.replies import ECHO, ECHO_REPLY
from paravirt.domain0.net.stream import Stream, StreamKey, segment_of
from paravirt.errors import UserError

MOST_STREAMS: Final = 1024
MOST_SOCKETS: Final = 256
TICK: Final = 0.1
_LARGEST: Final = 65535
_IDLE: Final = 120.0
_LOOPBACK: Final = "127.0.0.1"
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_DNS_PORT: Final = 53
_BATCH: Final = 32
_CANNOT: Final = (BlockingIOError, ConnectionError)


class Loop(Protocol):
    """What waits for the sockets: Domain 0's thread."""

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler`` when ``fd`` is ready."""

    def unwatch(self, fd: int) -> None:
        """Look at it no more."""

    def call_later(self, delay: float, function: Callable[[], None]) -> None:
        """Call ``function`` in ``delay`` seconds."""

    def post(self, function: Callable[[], None]) -> None:
        """Call ``function`` soon."""


class Sender(Protocol):
    """The router, as what sends packets from here to the guests."""

    def send_ip(self, data: bytes, *, csum_blank: bool = False, gso_size: int = 0) -> bool:
        """Send a network packet to the interface that has the address."""


@dataclass(frozen=True)
class Forward:
    """A port of the host's that leads to a guest.

    Attributes:
        protocol: TCP or UDP.
        host: where on the host, as (address, port).
        guest: the guest's (address, port).
    """

    protocol: int
    host: tuple[str, int]
    guest: tuple[bytes, int]


@dataclass
class _Datagrams:
    """A socket that stands for one of a guest's ports (or ping identifiers)."""

    socket: socket.socket
    guest: tuple[bytes, int]
    last_used: float
    peers: dict[tuple[str, int], bytes]
    is_forward: bool = False


class UserNat:
    """The host's network, for guests.

    Parameters:
        router: the address of the router.
        host_loopback: the router's address leads to the host's loopback.
    """

    def __init__(self, loop: Loop, sender: Sender, router: bytes, host_loopback: bool = False) -> None:
        self.loop, self.sender, self.router = loop, sender, router
        self.host_loopback = host_loopback
        self.streams: dict[StreamKey, Stream] = {}
        self._datagrams: OrderedDict[tuple[int, bytes, int], _Datagrams] = OrderedDict()
        self._listeners: list[socket.socket] = []
        self._unacknowledged: set[Stream] = set()
        self._is_ticking = False
        self._server = _first_server()

    # --- from the guests --------------------------------------------------------------------------------------

    def send(self, packet: Packet) -> bool:
        """Take a packet that is addressed to the outside; false: it cannot go there."""
        headers = packet.headers
        if headers.ip_dst == self.router and not self.host_loopback:
            return headers.protocol == TCP and self._tcp(packet, only_known=True)
        if headers.protocol == TCP and headers.l4:
            return self._tcp(packet)
        if headers.protocol == UDP and headers.l4:
            return self._udp(packet)
        if headers.protocol == ICMP and headers.l4:
            return self._ping(packet)
        return False

    def resolve(self, query: bytes, answer: Callable[[bytes], None]) -> bool:
        """Have the host's first name server answer a query."""
        if self._server is None:
            return False
        made = _open(socket.AF_INET, socket.SOCK_DGRAM)
        if made is None:
            return False
        deadline = time.monotonic() + _IDLE

        def ready(_: int) -> None:
            try:
                data = made.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            close()
            if data[:2] == query[:2]:
                answer(data)

        def close() -> None:
            if made.fileno() >= 0:
                self.loop.unwatch(made.fileno())
                made.close()

        try:
            made.connect(self._server)
            made.send(query)
        except OSError:
            made.close()
            return False
        self.loop.watch(made.fileno(), select.POLLIN, ready)
        self.loop.call_later(max(0.0, min(5.0, deadline - time.monotonic())), close)
        return True

    def _address(self, address: bytes) -> str:
        return _LOOPBACK if address == self.router else socket.inet_ntoa(address)

    # --- TCP --------------------------------------------------------------------------------------------------

    def _tcp(self, packet: Packet, only_known: bool = False) -> bool:
        headers = packet.headers
        key = StreamKey(headers.ip_src, headers.sport, headers.ip_dst, headers.dport)
        stream = self.streams.get(key)
        segment = segment_of(packet)
        if stream is not None:
            stream.connection.receive(segment, time.monotonic())
            stream.watch()
            if not self._unacknowledged:
                self.loop.post(self._flush)
            self._unacknowledged.add(stream)
            return True
        if only_known or segment.flags & (TCP_SYN | TCP_ACK | TCP_RST) != TCP_SYN:
            return only_known is False and bool(segment.flags & TCP_RST)
        if len(self.streams) >= MOST_STREAMS:
            return False
        made = _open(socket.AF_INET, socket.SOCK_STREAM)
        if made is None:
            return False
        try:
            failure = made.connect_ex((self._address(headers.ip_dst), headers.dport))
        except OSError:
            failure = errno.EHOSTUNREACH
        if failure not in (0, errno.EINPROGRESS):
            made.close()
            return False
        stream = self._add(key, made)
        stream.connection.asked_by_guest(segment)
        stream.watch()
        return True

    def _add(self, key: StreamKey, made: socket.socket) -> Stream:
        stream = self.streams[key] = Stream(self, key, made)
        if not self._is_ticking:
            self._is_ticking = True
            self.loop.call_later(TICK, self._tick)
        return stream

    def _flush(self) -> None:
        streams, self._unacknowledged = self._unacknowledged, set()
        for stream in streams:
            stream.connection.flush()

    def _tick(self) -> None:
        now = time.monotonic()
        for stream in list(self.streams.values()):
            stream.connection.tick(now)
            stream.watch()
        self._is_ticking = bool(self.streams)
        if self._is_ticking:
            self.loop.call_later(TICK, self._tick)

    # --- UDP and pings ----------------------------------------------------------------------------------------

    def _udp(self, packet: Packet) -> bool:
        headers = packet.headers
        entry = self._socket_for(UDP, headers.ip_src, headers.sport)
        if entry is None:
            return False
        peer = (self._address(headers.ip_dst), headers.dport)
        return self._send(entry, packet.data[headers.payload : headers.end], peer, headers.ip_dst)

    def _ping(self, packet: Packet) -> bool:
        headers = packet.headers
        body = packet.data[headers.l4 : headers.end]
        if headers.icmp_type != ECHO or len(body) < 8 or ones_sum(body):
            return False
        entry = self._socket_for(ICMP, headers.ip_src, int.from_bytes(body[4:6], "big"))
        return entry is not None and self._send(entry, body, (self._address(headers.ip_dst), 0), headers.ip_dst)

    def _send(self, entry: _Datagrams, data: bytes, peer: tuple[str, int], address: bytes) -> bool:
        if len(entry.peers) < MOST_SOCKETS or entry.is_forward:
            entry.peers.setdefault(peer, address)
        try:
            entry.socket.sendto(data, peer)
        except _CANNOT:
            return True  # lost, as on any network
        except OSError:
            return False
        return True

    def _socket_for(self, protocol: int, address: bytes, number: int) -> _Datagrams | None:
        key = (protocol, address, number)
        entry = self._datagrams.get(key)
        now = time.monotonic()
        if entry is None:
            self._make_room(now)
            made = _open(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if protocol == ICMP else 0)
            if made is None:
                return None
            entry = self._datagrams[key] = _Datagrams(made, (address, number), now, {})
            self._watch(protocol, entry)
        entry.last_used = now
        self._datagrams.move_to_end(key)
        return entry

    def _make_room(self, now: float) -> None:
        """Close the sockets that have been idle for long, and the one idle longest if there are too many."""
        for key, entry in list(self._datagrams.items()):
            if len(self._datagrams) < MOST_SOCKETS and now - entry.last_used < _IDLE:
                break
            if not entry.is_forward:
                del self._datagrams[key]
                self._close(entry.socket)

    def _watch(self, protocol: int, entry: _Datagrams) -> None:
        self.loop.watch(entry.socket.fileno(), select.POLLIN, lambda _: self._from_outside(protocol, entry))

    def _from_outside(self, protocol: int, entry: _Datagrams) -> None:
        for _ in range(_BATCH):
            try:
                data, peer = entry.socket.recvfrom(_LARGEST)
            except OSError:  # nothing more, or an error of an earlier packet, which this clears
                return
            address, number = entry.guest
            source = entry.peers.get((peer[0], peer[1] if protocol == UDP else 0))
            if source is None and entry.is_forward:
                source = self.router
                entry.peers = {(peer[0], peer[1]): source, **dict(list(entry.peers.items())[:MOST_SOCKETS])}
            if source is None:
                continue
            if protocol == UDP:
                sport = peer[1]
                self.sender.send_ip(udp(source, address, sport, number, data))
            elif len(data) >= 8 and data[0] == ECHO_REPLY:
                rest = number.to_bytes(2, "big") + data[6:]
                self.sender.send_ip(icmp(source, address, ECHO_REPLY, 0, rest))

    # --- ports of the host's ----------------------------------------------------------------------------------

    def forward(self, wanted: Forward) -> tuple[str, int]:
        """Have a port of the host's lead to a guest: where it is (with the number that was free, if 0 was wanted).

        Raises:
            UserError: the host's port cannot be had.
        """
        kind = socket.SOCK_STREAM if wanted.protocol == TCP else socket.SOCK_DGRAM
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if wanted.protocol == TCP:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(wanted.host)
            if wanted.protocol == TCP:
                made.listen()
        except OSError as error:
            made.close()
            where = ":".join(map(str, wanted.host))
            raise UserError(f"The host's port {where} cannot be had: {error.strerror}.") from error
        if wanted.protocol == TCP:
            self._listeners.append(made)
            self.loop.watch(made.fileno(), select.POLLIN, lambda _: self._accept(made, wanted))
        else:
            entry = _Datagrams(made, wanted.guest, time.monotonic(), {}, is_forward=True)
            self._datagrams[UDP, *wanted.guest] = entry
            self._watch(UDP, entry)
        address, port = made.getsockname()
        return str(address), int(port)

    def _accept(self, listener: socket.socket, wanted: Forward) -> None:
        try:
            made, (_, port) = listener.accept()
        except OSError:
            return
        made.setblocking(False)
        key = StreamKey(*wanted.guest, self.router, port)
        while key in self.streams:
            key = StreamKey(*wanted.guest, self.router, key.port % _LARGEST + 1)
        if len(self.streams) >= MOST_STREAMS:
            made.close()
            return
        stream = self._add(key, made)
        stream.connection.ask_guest(time.monotonic())

    # --- its end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every socket."""
        for stream in list(self.streams.values()):
            stream.close()
        for entry in self._datagrams.values():
            self._close(entry.socket)
        for listener in self._listeners:
            self._close(listener)
        self._datagrams.clear()
        self._listeners.clear()

    def _close(self, made: socket.socket) -> None:
        self.loop.unwatch(made.fileno())
        made.close()


def _open(family: int, kind: int, protocol: int = 0) -> socket.socket | None:
    """A socket that does not wait; None: the host does not give one (pings may need a permission)."""
    try:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    except OSError:
        return None


def _first_server() -> tuple[str, int] | None:
    """The host's first IPv4 name server."""
    try:
        lines = _RESOLV_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and ":" not in words[1]:
            return words[1], _DNS_PORT
    return None
