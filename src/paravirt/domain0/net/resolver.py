"""Names that the host's own server knows, and guests that ask by TCP.

Queries and answers go through as they are: by UDP for who asked by UDP, and by TCP for who asked by TCP, as a guest
does about an answer that was cut short (RFC 7766). All of it runs in Domain 0's thread, and waits for nothing.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Final, Protocol

from paravirt.domain0.net import dns
from paravirt.domain0.net.shares import Shares

MOST_QUERIES: Final = 64
"""So many are asked at a time, each guest's only a share of them; more are answered with a failure."""
PATIENCE: Final = 5.0
"""Seconds for an answer."""
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_LARGEST: Final = 65535
_LENGTH: Final = 2
_MOST_UNSENT: Final = 1 << 18
_MOST_OPEN: Final = 16
"""Questions of one connection that are worked at, at a time."""

Reply = Callable[[bytes], None]


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


class Resolver:
    """The host's first IPv4 name server, as it was when this was made.

    Parameters:
        most: questions that it is asked at a time.
    """

    def __init__(self, loop: Loop, server: tuple[str, int] | None, most: int = MOST_QUERIES) -> None:
        self._loop, self._server = loop, server
        self._asked: set[_Question] = set()
        self._shares = Shares(most)

    def ask(self, query: bytes, answer: Reply, by_stream: bool, owner: Hashable) -> bool:
        """Have somebody's query answered, later, if need be with a failure; false: there is nobody to ask, or too much
        to do."""
        if self._server is None or not self._shares.has_room_for(owner):
            return False
        kind = socket.SOCK_STREAM if by_stream else socket.SOCK_DGRAM
        try:
            made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:
            return False

        def gone(question: _Question) -> None:
            self._asked.remove(question)
            self._shares.give_back(owner)

        self._asked.add(_Question(self._loop, made, query, answer, gone))
        self._shares.take(owner)
        made.connect_ex(self._server)
        return True

    def close(self) -> None:
        """Nobody is answered any more."""
        for question in list(self._asked):
            question.close()


class _Question:
    """A query on its way, on a socket of its own. What goes wrong with the socket is seen when it is used."""

    def __init__(
        self, loop: Loop, made: socket.socket, query: bytes, answer: Reply, gone: Callable[[_Question], None]
    ) -> None:
        self._loop, self._socket, self._query, self._answer, self._gone = loop, made, query, answer, gone
        self._is_stream = made.type == socket.SOCK_STREAM
        self._received = b""
        loop.watch(made.fileno(), select.POLLOUT, self._ready_to_send)
        loop.call_later(PATIENCE, lambda: self._end(b""))

    def _ready_to_send(self, _: int) -> None:
        length = len(self._query).to_bytes(_LENGTH, "big") if self._is_stream else b""
        try:
            # The buffer of a socket that nothing was sent on has room for any query.
            self._socket.sendall(length + self._query)
        except OSError:
            self._end(b"")
            return
        self._loop.watch(self._socket.fileno(), select.POLLIN, self._ready)

    def _ready(self, _: int) -> None:
        try:
            data = self._socket.recv(_LARGEST + _LENGTH)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not self._is_stream or not data:
            self._end(data)
            return
        self._received += data
        if len(self._received) >= _LENGTH + int.from_bytes(self._received[:_LENGTH], "big"):
            self._end(self._received[_LENGTH:])

    def _end(self, data: bytes) -> None:
        """Answer with what came, unless it has come to an end already."""
        if self._socket.fileno() < 0:
            return
        self.close()
        number = self._query[:2]
        is_answer = data[:2] == number
        self._answer(data if is_answer else dns.failure(int.from_bytes(number, "big"), dns.SERVER_FAILURE))

    def close(self) -> None:
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._gone(self)


class NameStream:
    """The router's end of a guest's TCP connection to its name service: each message behind its length.

    Parameters:
        made: the stream; it is this one's to close.
        ask: has a query answered, now or later.
        gone: called when it has been closed.
    """

    def __init__(
        self,
        loop: Loop,
        made: socket.socket,
        ask: Callable[[bytes, Reply], None],
        gone: Callable[[NameStream], None],
    ) -> None:
        self._loop, self._socket, self._ask, self._gone = loop, made, ask, gone
        self._received, self._unsent = bytearray(), bytearray()
        self._open_questions = 0
        self._has_ended = self._is_working = self._goes_on = False
        self._watch()

    def close(self) -> None:
        """Nothing is answered any more."""
        if self._socket.fileno() >= 0:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._received.clear()
            self._gone(self)

    @property
    def _may_ask(self) -> bool:
        return self._open_questions < _MOST_OPEN and len(self._unsent) < _MOST_UNSENT

    def _watch(self) -> None:
        if self._socket.fileno() < 0:
            return
        if self._has_ended and not (self._unsent or self._open_questions or self._goes_on):
            self.close()
            return
        takes = self._may_ask and not (self._has_ended or self._goes_on)
        events = (select.POLLIN if takes else 0) | (select.POLLOUT if self._unsent else 0)
        self._loop.watch(self._socket.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & select.POLLOUT:
                del self._unsent[: self._socket.send(self._unsent)]
            elif events & select.POLLIN:
                data = self._socket.recv(_LARGEST)
                self._has_ended = not data
                self._received += data
            else:  # the guest's end is gone, and nobody reads what is answered
                self.close()
        except BlockingIOError:
            return
        except OSError:
            self.close()
        self._work()

    def _work(self) -> None:
        """Have questions answered that are there as a whole, some at a time; others have their turn before the rest."""
        self._is_working = True
        asked = 0
        while asked < _MOST_OPEN and self._may_ask and (query := self._next_query()) is not None:
            asked += 1
            self._open_questions += 1
            self._ask(query, self._answer)
        self._is_working = False
        if asked == _MOST_OPEN and not self._goes_on:
            self._goes_on = True
            self._loop.post(self._go_on)
        self._watch()

    def _go_on(self) -> None:
        self._goes_on = False
        self._work()

    def _next_query(self) -> bytes | None:
        """The next question, if it is there as a whole."""
        received = self._received
        end = _LENGTH + int.from_bytes(received[:_LENGTH], "big")
        if len(received) < end:
            return None
        query = bytes(received[_LENGTH:end])
        del received[:end]
        return query

    def _answer(self, answer: bytes) -> None:
        """An answer has come; an empty one: there is none."""
        self._open_questions -= 1
        if answer:
            self._unsent += len(answer).to_bytes(_LENGTH, "big") + answer
        if not self._is_working:
            self._work()


def first_server() -> tuple[str, int] | None:
    """The host's first IPv4 name server."""
    try:
        lines = _RESOLV_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and ":" not in words[1]:
            return words[1], dns.PORT
    return None
