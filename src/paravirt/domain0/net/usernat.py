"""The outside by way of the host's sockets: guests reach what the host reaches, and no privilege is needed.

A guest's TCP connection ends here and goes on as one of the host's; UDP and pings go through sockets of the host's
too. All of it runs in Domain 0's thread, and waits for nothing.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Protocol

from paravirt.domain0.net import dns
from paravirt.domain0.net.packet import ICMP, TCP, TCP_ACK, TCP_RST, TCP_SYN, UDP, Packet, icmp, ones_sum, udp
from paravirt.domain0.net.replies import ECHO, ECHO_REPLY
from paravirt.domain0.net.resolver import MOST_QUERIES, Loop, NameStream, Reply, Resolver, first_server
from paravirt.domain0.net.shares import Shares
from paravirt.domain0.net.stream import Stream, StreamKey, segment_of
from paravirt.errors import UserError

MOST_STREAMS: Final = 1024
MOST_SOCKETS: Final = 256
_DESCRIPTORS_FOR_A_STREAM, _DESCRIPTORS_FOR_A_SOCKET, _DESCRIPTORS_FOR_A_QUESTION = 4, 8, 16
"""Of the descriptors that the host lets this process have, one stream for as many, one other socket for as many, and
one question for a name for as many: what else the machine does needs some too."""
MOST_PEERS: Final = 256
TICK: Final = 0.1
_LARGEST: Final = 65535
_IDLE: Final = 120.0
_LOOPBACK: Final = "127.0.0.1"
_BATCH: Final = 32
_CANNOT: Final = (BlockingIOError, ConnectionError)


class Sender(Protocol):
    """The router, as what sends packets from here to the guests."""

    def send_ip(self, data: bytes, *, csum_blank: bool = False, gso_size: int = 0) -> bool:
        """Send a network packet to the interface that has the address."""

    def owner(self, address: bytes) -> Hashable:
        """Who has an address: the same for all addresses of one guest's interface."""


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
    owner: Hashable
    last_used: float
    peers: dict[tuple[str, int], bytes]
    is_forward: bool = False

    def note(self, peer: tuple[str, int], address: bytes) -> None:
        """Know a peer, which the guest sees under an address; of too many the first is forgotten."""
        if len(self.peers) >= MOST_PEERS:
            del self.peers[next(iter(self.peers))]
        self.peers[peer] = address


class UserNat:
    """The host's network, for guests.

    Parameters:
        router: the address of the router.
        host_loopback: the router's address leads to the host's loopback.

    Attributes:
        names: has a DNS query answered that came by TCP to the router's address, from whom it says; None: none are
            taken.
    """

    def __init__(self, loop: Loop, sender: Sender, router: bytes, host_loopback: bool = False) -> None:
        self.loop, self.sender, self.router = loop, sender, router
        self.host_loopback = host_loopback
        self.names: Callable[[bytes, Reply, Hashable], None] | None = None
        self.streams: dict[StreamKey, Stream] = {}
        self._stream_shares = Shares(_at_most(MOST_STREAMS, _DESCRIPTORS_FOR_A_STREAM))
        self._socket_shares = Shares(_at_most(MOST_SOCKETS, _DESCRIPTORS_FOR_A_SOCKET))
        self._datagrams: OrderedDict[tuple[int, bytes, int], _Datagrams] = OrderedDict()
        self._listeners: list[socket.socket] = []
        self._unacknowledged: set[Stream] = set()
        self._is_ticking = False
        self._resolver = Resolver(loop, first_server(), _at_most(MOST_QUERIES, _DESCRIPTORS_FOR_A_QUESTION))
        self._name_streams: set[NameStream] = set()

    # --- from the guests --------------------------------------------------------------------------------------

    def send(self, packet: Packet) -> bool:
        """Take a packet that is addressed to the outside; false: it cannot go there."""
        headers = packet.headers
        if headers.ip_dst == self.router and not self.host_loopback:
            return headers.protocol == TCP and self._tcp(packet, only_known=headers.dport != dns.PORT)
        if headers.protocol == TCP and headers.l4:
            return self._tcp(packet)
        if headers.protocol == UDP and headers.l4:
            return self._udp(packet)
        if headers.protocol == ICMP and headers.l4:
            return self._ping(packet)
        return False

    def resolve(self, query: bytes, answer: Callable[[bytes], None], by_stream: bool, owner: Hashable) -> bool:
        """Have the host's first name server answer somebody's query."""
        return self._resolver.ask(query, answer, by_stream, owner)

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
        owner = self.sender.owner(headers.ip_src)
        if not self._stream_shares.has_room_for(owner):
            return False
        is_for_names = (headers.ip_dst, headers.dport) == (self.router, dns.PORT) and self.names is not None
        peer = self._address(headers.ip_dst), headers.dport
        made = self._to_names(owner) if is_for_names else self._connected(peer)
        if made is None:
            return False
        stream = self._add(key, made, owner)
        stream.connection.asked_by_guest(segment)
        stream.watch()
        return True

    def _connected(self, peer: tuple[str, int]) -> socket.socket | None:
        """A socket that is being connected; None: it cannot be."""
        made = _open(socket.AF_INET, socket.SOCK_STREAM)
        if made is None:
            return None
        try:
            failure = made.connect_ex(peer)
        except OSError:
            failure = errno.EHOSTUNREACH
        if failure in (0, errno.EINPROGRESS):
            return made
        made.close()
        return None

    def _to_names(self, owner: Hashable) -> socket.socket | None:
        """A socket with the router's name service at its other end, which counts among the sockets for datagrams; None:
        there is no room, or the host gives none."""
        names = self.names
        assert names is not None
        self._make_room(owner, time.monotonic())
        if not self._socket_shares.has_room_for(owner):
            return None
        try:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            return None

        def ask(query: bytes, reply: Reply) -> None:
            names(query, reply, owner)

        def gone(stream: NameStream) -> None:
            self._name_streams.discard(stream)
            self._socket_shares.give_back(owner)

        self._name_streams.add(NameStream(self.loop, far, ask, gone))
        self._socket_shares.take(owner)
        return near

    def _add(self, key: StreamKey, made: socket.socket, owner: Hashable) -> Stream:
        stream = self.streams[key] = Stream(self, key, made, owner)
        self._stream_shares.take(owner)
        if not self._is_ticking:
            self._is_ticking = True
            self.loop.call_later(TICK, self._tick)
        return stream

    def forget(self, key: StreamKey) -> None:
        """A stream is closed."""
        stream = self.streams.pop(key, None)
        if stream is not None:
            self._stream_shares.give_back(stream.owner)

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
        if peer not in entry.peers:
            entry.note(peer, address)
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
            owner = self.sender.owner(address)
            self._make_room(owner, now)
            made = _open(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if protocol == ICMP else 0)
            if made is None:
                return None
            entry = self._datagrams[key] = _Datagrams(made, (address, number), owner, now, {})
            self._socket_shares.take(owner)
            self._watch(protocol, entry)
        entry.last_used = now
        self._datagrams.move_to_end(key)
        return entry

    def _make_room(self, owner: Hashable, now: float) -> None:
        """Close the sockets that have been idle for long; and if there are too many, of its owner's or else of all
        those that have been idle longest. Those that were used last are the last ones."""
        for key, entry in list(self._datagrams.items()):
            if not entry.is_forward:
                if now - entry.last_used < _IDLE:
                    break
                self._drop(key)
        if self._socket_shares.has_room_for(owner):
            return
        has_none = not self._socket_shares.of(owner)
        for key, entry in self._datagrams.items():
            if not entry.is_forward and (has_none or entry.owner == owner):
                self._drop(key)
                return

    def _drop(self, key: tuple[int, bytes, int]) -> None:
        entry = self._datagrams.pop(key)
        if not entry.is_forward:
            self._socket_shares.give_back(entry.owner)
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
                entry.note((peer[0], peer[1]), source)
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
            if (UDP, *wanted.guest) in self._datagrams:
                self._drop((UDP, *wanted.guest))
            entry = _Datagrams(made, wanted.guest, None, time.monotonic(), {}, is_forward=True)
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
        owner = self.sender.owner(key.guest)
        if not self._stream_shares.has_room_for(owner):
            made.close()
            return
        stream = self._add(key, made, owner)
        stream.connection.ask_guest(time.monotonic())

    # --- its end ----------------------------------------------------------------------------------------------

    def leave(self, owner: Hashable) -> None:
        """Somebody is gone: what it had with the outside ends, for which others have room then."""
        for stream in list(self.streams.values()):
            if stream.owner == owner:
                stream.connection.abort()
        for key, entry in list(self._datagrams.items()):
            if entry.owner == owner:
                self._drop(key)

    def close(self) -> None:
        """Close every socket."""
        for stream in list(self.streams.values()):
            stream.close()
        for names in list(self._name_streams):
            names.close()
        self._resolver.close()
        for entry in self._datagrams.values():
            self._close(entry.socket)
        for listener in self._listeners:
            self._close(listener)
        self._datagrams.clear()
        self._listeners.clear()

    def _close(self, made: socket.socket) -> None:
        self.loop.unwatch(made.fileno())
        made.close()


def _at_most(number: int, descriptors: int) -> int:
    """So many, or as few as the host's limit of descriptors lets there be, each for so many of them."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return number if limit == resource.RLIM_INFINITY else max(1, min(number, limit // descriptors))


def _open(family: int, kind: int, protocol: int = 0) -> socket.socket | None:
    """A socket that does not wait; None: the host does not give one (pings may need a permission)."""
    try:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    except OSError:
        return None
