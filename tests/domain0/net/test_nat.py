"""The way outside: TCP relayed without losing a byte, whatever the network loses; UDP; and what is refused."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.domain0.net.options import parse_forward
from paravirt.domain0.net.packet import (
    TCP_ACK,
    TCP_FIN,
    TCP_RST,
    TCP_SYN,
    UDP,
    Malformed,
    Packet,
    ethernet,
    parse,
    udp,
)
from paravirt.domain0.net.replies import tcp_packet
from paravirt.domain0.net.tcp import MASK, RECEIVE_LIMIT, Connection, Segment, State
from paravirt.domain0.net.usernat import Forward, UserNat
from paravirt.errors import UserError

from ...patience import PATIENCE
from .outside import GUEST, ROUTER, Guest, Loop, to_nat


class Pipe:
    """Both sides of a relay: a guest that is another such relay's mirror, and a stream of bytes."""

    def __init__(self) -> None:
        self.sent: list[Segment] = []
        self.stream = bytearray()
        self.finished = False
        self.ended: bool | None = None
        self.takes = 1 << 30

    def emit(self, flags: int, sequence: int, acknowledged: int, window: int, options: bytes, payload: bytes) -> None:
        self.sent.append(Segment(sequence, acknowledged, flags, window, options, payload))

    def deliver(self, data: bytes) -> int:
        taken = min(self.takes, len(data))
        self.stream += data[:taken]
        return taken

    def finish(self) -> None:
        self.finished = True

    def gone(self, is_broken: bool) -> None:
        self.ended = is_broken


def pair(sequence: int) -> tuple[Connection, Pipe, Connection, Pipe]:
    """Two relays, the second in the place of a guest's TCP that was asked."""
    asking, asked = Pipe(), Pipe()
    one, two = Connection(asking, sequence), Connection(asked, sequence ^ MASK)
    one.ask_guest(0.0)
    two.asked_by_guest(asking.sent.pop())
    two.stream_opened(0.0)
    return one, asking, two, asked


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, MASK), st.binary(max_size=200), st.integers(1, 3000), st.binary(max_size=50),
    st.sets(st.integers(0, 60), max_size=10), st.integers(1, 100_000),
)  # fmt: skip
def test_every_byte_arrives_once_and_in_order(
    sequence: int, seed: bytes, repeat: int, answer: bytes, lost: set[int], takes: int
) -> None:
    """Ten losses at most: a connection gives up after as many timeouts in a row."""
    one, asking, two, asked = pair(sequence)
    question = seed * repeat
    asked.takes = max(takes, len(question) // 1000)  # in fewer rounds than there are
    number = count()
    now = 0.0
    fed = 0
    ended = False
    for _ in range(3000):
        now += 0.05
        for source, target, back in ((asking, two, one), (asked, one, two)):
            segments, source.sent = source.sent, []
            for segment in segments:
                if next(number) not in lost:
                    target.receive(segment, now)
            target.flush()
            back.flush()
        if one.state is State.OPEN and one.room and fed < len(question):
            part = question[fed : fed + one.room]
            fed += len(part)
            one.send(part, now)
        elif one.state is State.OPEN and fed == len(question) and not ended:
            one.stream_ended(now)
            ended = True
        if asked.finished and not two._is_ending:
            two.send(answer, now)
            two.stream_ended(now)
        two.stream_takes()
        one.tick(now)
        two.tick(now)
        if State.ENDED in (one.state, two.state) and not (asking.sent or asked.sent):
            break
    assert bytes(asked.stream) == question and bytes(asking.stream) == answer
    assert asking.finished and asked.finished


def test_who_reads_late_keeps_the_connection() -> None:
    """A guest that has no room says so whenever it is asked, for as long as it likes; one that says nothing is gone."""
    one, asking, two, asked = pair(7)
    for segment in asked.sent:
        one.receive(segment, 0.0)
    asking.sent.clear()
    closed = Segment(two._next, one._next, TCP_ACK, 0, b"", b"")
    one.receive(closed, 0.0)
    one.send(b"data", 0.0)
    now = 0.0
    for _ in range(200):
        now += 10.0
        one.tick(now)
        if asking.sent:
            asking.sent.clear()
            one.receive(closed, now)
    assert one.state is State.OPEN
    asking.sent.clear()
    one.receive(Segment(closed.sequence, closed.acknowledged, TCP_ACK, 100, b"", b""), now)
    for _ in range(20):
        now += 30.0
        one.tick(now)
    assert any(segment.payload == b"data" for segment in asking.sent)
    assert asking.ended


@given(st.lists(st.tuples(
    st.integers(0, MASK), st.integers(0, MASK), st.integers(0, 255), st.integers(0, 0xFFFF), st.binary(max_size=20),
    st.binary(max_size=40), st.booleans()), max_size=30))  # fmt: skip
def test_no_segment_harms_a_connection(segments: list[tuple[int, int, int, int, bytes, bytes, bool]]) -> None:
    one, asking, two, _ = pair(7)
    two.receive(asking.sent.pop() if asking.sent else Segment(8, 0, TCP_ACK, 9, b"", b""), 0.0)
    for number, (sequence, acknowledged, flags, window, options, payload, is_near) in enumerate(segments):
        if is_near:
            sequence, acknowledged = (8 + sequence % 50) & MASK, ((7 ^ MASK) + acknowledged % 50) & MASK
        for connection in (one, two):
            connection.receive(Segment(sequence, acknowledged, flags, window, options, payload), float(number))
            connection.flush()
            connection.tick(float(number))
            assert 0 <= connection._own_window() <= RECEIVE_LIMIT


# --- with sockets -------------------------------------------------------------------------------------------------


@pytest.fixture
def parts() -> Iterator[tuple[Loop, Guest, UserNat]]:
    loop, guest = Loop(), Guest()
    nat = UserNat(loop, guest, ROUTER, host_loopback=True)
    yield loop, guest, nat
    nat.close()
    assert not loop.handlers


def flags(guest: Guest) -> list[int]:
    return [packet.headers.tcp_flags for packet in guest.packets]


def test_a_connection_to_the_host(parts: tuple[Loop, Guest, UserNat]) -> None:
    loop, guest, nat = parts
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(connection.recv(100)[::-1])

        thread = threading.Thread(target=serve)
        thread.start()
        assert nat.send(to_nat(tcp_packet(GUEST, ROUTER, 5, port, 100, 0, TCP_SYN, 65535)))
        loop.until(lambda: guest.packets)
        assert set(flags(guest)) == {TCP_SYN | TCP_ACK}, "once, or again to a guest that stood still"
        (stream,) = nat.streams.values()
        assert stream._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "nothing is held back on the way"
        start = int.from_bytes(guest.packets[0].data[38:42], "big") + 1 & MASK
        nat.send(to_nat(tcp_packet(GUEST, ROUTER, 5, port, 101, start, TCP_ACK, 65535, payload=b"stressed")))
        loop.until(lambda: any(packet.data.endswith(b"desserts") for packet in guest.packets))
        thread.join(PATIENCE)
        loop.until(lambda: flags(guest)[-1] & TCP_FIN)
        nat.send(to_nat(tcp_packet(GUEST, ROUTER, 5, port, 109, start + 9 & MASK, TCP_ACK | TCP_FIN, 65535)))
        loop.until(lambda: not nat.streams)


def test_a_connection_that_is_refused_is_reset(parts: tuple[Loop, Guest, UserNat]) -> None:
    loop, guest, nat = parts
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    taken = nat.send(to_nat(tcp_packet(GUEST, ROUTER, 5, port, 100, 0, TCP_SYN, 65535)))
    if taken:
        loop.until(lambda: guest.packets)
        assert flags(guest)[-1] & TCP_RST
    loop.until(lambda: not nat.streams)


def test_datagrams_there_and_back_and_none_from_strangers(parts: tuple[Loop, Guest, UserNat]) -> None:
    loop, guest, nat = parts
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        server.bind(("127.0.0.1", 0))
        assert nat.send(to_nat(udp(GUEST, ROUTER, 6, server.getsockname()[1], b"ping")))
        data, peer = server.recvfrom(100)
        assert data == b"ping"
        stranger.sendto(b"evil", ("127.0.0.1", peer[1]))
        server.sendto(b"pong", ("127.0.0.1", peer[1]))
        loop.until(lambda: guest.packets)
        (packet,) = guest.packets
        headers = packet.headers
        assert packet.data.endswith(b"pong") and (headers.ip_src, headers.dport) == (ROUTER, 6)


def test_the_hosts_loopback_is_not_outside() -> None:
    nat = UserNat(Loop(), Guest(), ROUTER)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not nat.send(to_nat(tcp_packet(GUEST, ROUTER, 5, port, 100, 0, TCP_SYN, 65535)))
        assert not nat.send(to_nat(udp(GUEST, ROUTER, 6, port, b"ping")))


@given(st.binary(max_size=120), st.sampled_from([1, 6, 17]))
def test_whatever_bytes_do_no_harm(payload: bytes, protocol: int) -> None:
    from paravirt.domain0.net.packet import ipv4

    data = ethernet(bytes(6), bytes(6), 0x0800, ipv4(GUEST, ROUTER, protocol, payload))
    nat = UserNat(Loop(), Guest(), ROUTER)
    try:
        parse(data)
    except Malformed:
        return
    assert nat.send(Packet(data)) is False


def test_forwarded_ports() -> None:
    assert parse_forward("udp:0.0.0.0:53:10.0.2.2:5353") == Forward(UDP, ("0.0.0.0", 53), (GUEST, 5353))
    assert parse_forward("80:10.0.2.2:8080").host == ("127.0.0.1", 80)
    for text in ("", "80", "80:x:80", "99999:10.0.2.2:80", "80:10.0.2.2:0", "sctp:80:10.0.2.2:80"):
        with pytest.raises(UserError, match="forwarded port"):
            parse_forward(text)
