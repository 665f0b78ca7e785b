"""A store and its clients, so that ours and Xen's own can be asked the same questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from paravirt.abi.io import xs_wire
from paravirt.domain0.store import Connection, Store
from paravirt.domain0.store.wire import Message, Parser

HOME_OF = "/local/domain/{}".format
_NOT_TYPES = {"XS_DEBUG", "XS_WATCH_PATH", "XS_WATCH_TOKEN", "XS_TYPE_COUNT", "XS_INVALID"}
TYPES = {
    name[3:]: number
    for name, number in vars(xs_wire).items()
    if name.startswith("XS_") and isinstance(number, int) and name not in _NOT_TYPES
}
NAMES = {number: name for name, number in TYPES.items()}


@dataclass(frozen=True)
class Answer:
    """What came back for a request: the reply, and the events before and after it."""

    reply: Message | None
    before: tuple[bytes, ...] = ()
    after: tuple[bytes, ...] = ()


class Asked(Protocol):
    """A store with Domain 0 and any number of guests as clients."""

    domids: list[int]

    def introduce(self, domid: int) -> None:
        """A guest comes."""

    def shut_down(self, domid: int) -> None:
        """A guest has shut down, and is still there."""

    def release(self, domid: int) -> None:
        """A guest is gone."""

    def ask(self, domid: int, kind: int, payload: bytes, transaction: int = 0) -> Answer:
        """Send a request as ``domid`` and take the answer."""

    def events(self, domid: int) -> list[bytes]:
        """The events that a client has not taken yet."""


def sort_answer(messages: list[Message]) -> Answer:
    """Tell the reply from the events around it."""
    reply: Message | None = None
    before: list[bytes] = []
    after: list[bytes] = []
    for message in messages:
        if message.type == xs_wire.XS_WATCH_EVENT:
            (before if reply is None else after).append(message.payload)
        else:
            assert reply is None
            reply = message
    return Answer(reply, tuple(before), tuple(after))


class OurStore:
    """Our store, asked in this process."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store()
        self.domids = [0]
        self._connections = {0: self.store.connect(0)}
        self._parsers = {0: Parser()}
        self._number = 0

    def connection(self, domid: int) -> Connection:
        """A client's connection."""
        return self._connections[domid]

    def introduce(self, domid: int) -> None:
        self._connections[domid] = self.store.connect(domid)
        self._parsers[domid] = Parser()
        self.domids.append(domid)
        self.store.introduce(domid)

    def shut_down(self, domid: int) -> None:
        self.store.shut_down(domid)

    def release(self, domid: int) -> None:
        self.store.release(domid)
        self.domids.remove(domid)

    def ask(self, domid: int, kind: int, payload: bytes, transaction: int = 0) -> Answer:
        self._number += 1
        self._connections[domid].receive(Message(kind, self._number, transaction, payload).encode())
        answer = sort_answer(self._take(domid))
        assert answer.reply is not None
        assert (answer.reply.request_id, answer.reply.transaction_id) == (self._number, transaction)
        return answer

    def events(self, domid: int) -> list[bytes]:
        return [message.payload for message in self._take(domid)]

    def _take(self, domid: int) -> list[Message]:
        parser = self._parsers[domid]
        while data := self._connections[domid].take_output(1000):
            parser.feed(data)
        messages = []
        while (message := parser.next()) is not None:
            messages.append(message)
        assert parser.buffered == 0
        return messages


def give_homes(asked: Asked, *domids: int) -> None:
    """Homes as the toolstack makes them, each with a directory ``data`` that is the guest's own."""
    for domid in domids:
        home = HOME_OF(domid)
        for path, permissions in ((home, f"n0\0r{domid}\0"), (f"{home}/data", f"n{domid}\0")):
            asked.ask(0, xs_wire.XS_MKDIR, path.encode() + b"\0")
            asked.ask(0, xs_wire.XS_SET_PERMS, f"{path}\0{permissions}".encode())
    for domid in asked.domids:
        asked.events(domid)
