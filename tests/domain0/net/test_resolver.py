"""Names by TCP and UDP: what the router answers itself, and what goes on to the host's server."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.net import dns, resolver
from paravirt.domain0.net.replies import tcp_packet
from paravirt.domain0.net.resolver import MOST_QUERIES, NameStream, Reply, Resolver
from paravirt.domain0.net.stream import segment_of
from paravirt.domain0.net.tcp import Connection, State
from paravirt.domain0.net.usernat import UserNat

from ...patience import PATIENCE
from .outside import GUEST, ROUTER, Guest, Loop, to_nat


def question(number: int, name: str = "example.org") -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def framed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def messages_of(stream: bytes) -> list[bytes]:
    found = []
    while stream:
        size = int.from_bytes(stream[:2], "big")
        assert len(stream) >= 2 + size, "the stream ends in a message"
        found.append(stream[2 : 2 + size])
        stream = stream[2 + size :]
    return found


# --- the host's server --------------------------------------------------------------------------------------------


def both_kinds() -> tuple[socket.socket, socket.socket]:
    """Sockets for TCP and UDP with the same number: one that neither has in use."""
    while True:
        listener, datagrams = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
        try:
            datagrams.bind(listener.getsockname())
            return listener, datagrams
        except OSError:
            listener.close()
            datagrams.close()


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """A name server: what it is asked it says again, cut short by UDP and at length by TCP."""
    listener, datagrams = both_kinds()
    with listener, datagrams:
        address: tuple[str, int] = listener.getsockname()

        def by_udp() -> None:
            while (message := datagrams.recvfrom(600))[0]:
                datagrams.sendto(message[0][:2] + b"cut", message[1])

        def by_tcp() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    size = int.from_bytes(connection.recv(2, socket.MSG_WAITALL), "big")
                    query = connection.recv(size, socket.MSG_WAITALL)
                    if not query:
                        return
                    answer = framed(query[:2] + bytes(5000))
                    connection.sendall(answer[:1000])
                    connection.sendall(answer[1000:])

        threads = [threading.Thread(target=by_udp), threading.Thread(target=by_tcp)]
        for thread in threads:
            thread.start()
        try:
            yield address
        finally:
            datagrams.sendto(b"", address)
            socket.create_connection(address).close()
            for thread in threads:
                thread.join(PATIENCE)


@pytest.mark.parametrize(("by_stream", "rest"), [(False, b"cut"), (True, bytes(5000))])
def test_the_hosts_server_is_asked_as_the_guest_asks(
    server: tuple[str, int], by_stream: bool, rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "PATIENCE", PATIENCE)
    loop, answers = Loop(), list[bytes]()
    asked = Resolver(loop, server)
    for number in range(5):
        assert asked.ask(question(number), answers.append, by_stream, None)
    loop.until(lambda: len(answers) == 5)
    assert sorted(answers) == [number.to_bytes(2, "big") + rest for number in range(5)]
    assert not loop.handlers


@pytest.mark.parametrize("by_stream", [False, True])
def test_a_server_that_is_not_there_is_a_failure(by_stream: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    loop, answers = Loop(), list[bytes]()
    assert Resolver(loop, address).ask(question(7), answers.append, by_stream, None)
    loop.until(lambda: answers)
    assert answers == [dns.failure(7, dns.SERVER_FAILURE)] and not loop.handlers
    assert not Resolver(loop, None).ask(question(7), answers.append, by_stream, None)


def test_a_server_that_says_nothing_is_a_failure_and_is_not_asked_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "PATIENCE", 0.0)
    loop, answers = Loop(), list[bytes]()
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        asked = Resolver(loop, silent.getsockname())
        taken = [asked.ask(question(number), answers.append, False, number) for number in range(MOST_QUERIES + 3)]
        assert taken == [True] * MOST_QUERIES + [False] * 3
        loop.until(lambda: len(answers) == MOST_QUERIES)
        assert {answer[2:] for answer in answers} == {dns.failure(0, dns.SERVER_FAILURE)[2:]} and not loop.handlers
        assert asked.ask(question(1), answers.append, False, None)
        asked.close()
        assert not loop.handlers


# --- the router's end of a stream ---------------------------------------------------------------------------------


class Names:
    """A name service that answers some questions at once, and others later."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def __call__(self, query: bytes, reply: Reply) -> None:
        if query[:1] < b"\x80":
            reply(query[::-1])
        else:
            self.later.append(lambda: reply(query[::-1]))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=60), st.lists(st.integers(1, 400), max_size=30))
def test_every_question_of_a_stream_is_answered(queries: list[bytes], cuts: list[int]) -> None:
    loop, names, gone = Loop(), Names(), list[NameStream]()
    near, far = socket.socketpair()
    far.setblocking(False)
    with near:
        NameStream(loop, far, names, gone.append)
        data, received = framed(*queries), b""
        for cut in [*cuts, len(data)]:
            near.sendall(data[:cut])
            data = data[cut:]
        near.shutdown(socket.SHUT_WR)
        near.setblocking(False)
        deadline = time.monotonic() + PATIENCE
        while not gone:
            assert time.monotonic() < deadline
            handled = iter([False, True])
            loop.until(lambda: next(handled) or gone)  # noqa: B023
            while names.later:
                names.later.pop()()
        while chunk := near.recv(1 << 16):
            received += chunk
    assert sorted(messages_of(received)) == sorted(query[::-1] for query in queries)
    assert not loop.handlers


@pytest.mark.parametrize("query", [b"", b"x"])
def test_questions_without_end_are_answered_some_at_a_time(query: bytes) -> None:
    """What a guest can send at once would keep Domain 0 busy for long."""
    loop, gone, asked = Loop(), list[NameStream](), list[bytes]()
    near, far = socket.socketpair()
    far.setblocking(False)

    def ask(query: bytes, reply: Reply) -> None:
        asked.append(query)
        reply(query)

    NameStream(loop, far, ask, gone.append)
    with near:
        near.sendall(framed(*[query] * 1000))
        ((_, handler),) = loop.handlers.values()
        handler(select.POLLIN)
        assert 0 < len(asked) <= 64
        loop.until(lambda: len(asked) == 1000)
        near.setblocking(False)
        near.shutdown(socket.SHUT_WR)
        loop.until(lambda: gone)
    assert not loop.handlers


def test_who_has_left_is_asked_for_nothing() -> None:
    """An answer that comes too late begins no other question."""
    loop, names, gone = Loop(), Names(), list[NameStream]()
    near, far = socket.socketpair()
    far.setblocking(False)
    stream = NameStream(loop, far, names, gone.append)
    with near:
        near.sendall(framed(*[b"\x80"] * 40))
        loop.until(lambda: names.later)
    stream.close()
    later, names.later = names.later, []
    for answer in later:
        answer()
    assert later and not names.later and not loop.calls


@given(st.binary(max_size=2000))
def test_whatever_bytes_end_a_stream(data: bytes) -> None:
    loop, gone = Loop(), list[NameStream]()
    near, far = socket.socketpair()
    far.setblocking(False)
    NameStream(loop, far, lambda query, reply: reply(b""), gone.append)
    with near:
        near.sendall(data)
    loop.until(lambda: gone)
    assert not loop.handlers


class GuestStream:
    """A guest's end of a TCP connection to the router's name service, and what is relayed to it."""

    def __init__(self, loop: Loop, nat: UserNat) -> None:
        self.loop, self.nat = loop, nat
        self.received = b""
        self.ended: bool | None = None
        self.connection = Connection(self, 1000)
        loop.post(lambda: self.connection.ask_guest(0.0))

    def emit(self, flags: int, sequence: int, acknowledged: int, window: int, options: bytes, payload: bytes) -> None:
        segment = tcp_packet(
            GUEST, ROUTER, 1234, dns.PORT, sequence, acknowledged, flags, window, options, payload=payload
        )
        self.nat.send(to_nat(segment))

    def deliver(self, data: bytes) -> int:
        self.received += data
        return len(data)

    def finish(self) -> None:
        self.connection.stream_ended(0.0)

    def gone(self, is_broken: bool) -> None:
        self.ended = is_broken

    def send_ip(self, data: bytes, *, csum_blank: bool = False, gso_size: int = 0) -> bool:
        self.loop.post(lambda: self._receive(data))
        return True

    def _receive(self, data: bytes) -> None:
        self.connection.receive(segment_of(to_nat(data)), 0.0)
        self.connection.flush()


@pytest.mark.parametrize("host_loopback", [False, True])
def test_a_guest_asks_by_tcp(host_loopback: bool) -> None:
    """Whatever else the router's address leads to."""
    loop, sender = Loop(), Guest()
    nat = UserNat(loop, sender, ROUTER, host_loopback)
    nat.names = lambda query, reply, owner: reply(query[:2] + bytes(20_000))
    guest = GuestStream(loop, nat)
    sender.send_ip = guest.send_ip  # type: ignore[method-assign]
    loop.until(lambda: guest.connection.state is State.OPEN)
    guest.connection.send(framed(question(1), question(2)), 0.0)
    loop.until(lambda: len(guest.received) == 2 * 20_004)
    assert messages_of(guest.received) == [number.to_bytes(2, "big") + bytes(20_000) for number in (1, 2)]
    guest.connection.stream_ended(0.0)
    loop.until(lambda: not nat.streams and not nat._name_streams)
    nat.close()
    assert guest.ended is False and not loop.handlers
