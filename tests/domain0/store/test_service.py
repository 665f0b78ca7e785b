"""The store on a guest's ring."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from paravirt.abi.io import xs_wire
from paravirt.domain0.ring import STORE_REPLIES, STORE_REQUESTS
from paravirt.domain0.store import Permission, Store, StoreService
from paravirt.domain0.store.wire import Message, Parser

from .._pages import GuestEnd, Page

ERROR_FIELD = 2072
"""Where the page tells the guest what it did wrong (io/xs_wire.h)."""


class Guest:
    """A guest with its page, and Domain 0's thread, which does what it was asked to do later."""

    def __init__(self, store: Store, domid: int = 5, later: bool = True) -> None:
        self.page = Page()
        self.requests = GuestEnd(self.page, STORE_REQUESTS)
        self.replies = GuestEnd(self.page, STORE_REPLIES)
        self.connection = store.connect(domid)
        self.notified = 0
        self.waiting: deque[Callable[[], None]] = deque()
        self.service = StoreService(self.page, self.connection, self.notify, self.waiting.append if later else None)
        self.connection.on_output = lambda: self.waiting.append(self.service.on_event)
        self.parser = Parser()

    def notify(self) -> None:
        self.notified += 1

    def run(self) -> None:
        """Let Domain 0 do what is due."""
        self.service.on_event()
        while self.waiting:
            self.waiting.popleft()()

    def messages(self) -> list[Message]:
        """Take what has come."""
        self.parser.feed(self.replies.take())
        found = []
        while (message := self.parser.next()) is not None:
            found.append(message)
        return found


def read(number: int, path: bytes = b"/x\0") -> bytes:
    return Message(xs_wire.XS_READ, number, 0, path).encode()


def readable(value: str) -> Store:
    store = Store()
    store.set("/x", value, Permission("r", 0))
    return store


def test_request_and_reply() -> None:
    guest = Guest(readable("value"))
    guest.requests.put(read(7))
    guest.run()
    assert guest.messages() == [Message(xs_wire.XS_READ, 7, 0, b"value")]
    assert guest.requests.used == 0
    assert guest.notified == 1
    guest.run()
    assert guest.notified == 1


def test_a_request_may_come_in_pieces() -> None:
    guest = Guest(readable("value"))
    for byte in read(7):
        guest.requests.put(bytes([byte]))
        guest.run()
    assert guest.messages() == [Message(xs_wire.XS_READ, 7, 0, b"value")]


def test_a_reply_that_is_longer_than_the_ring_comes_in_pieces() -> None:
    guest = Guest(readable("v" * 4000))
    guest.requests.put(read(7))
    pieces = 0
    found: list[Message] = []
    while not found:
        guest.run()
        assert guest.replies.used <= 1024
        pieces += 1
        found = guest.messages()
    assert found == [Message(xs_wire.XS_READ, 7, 0, b"v" * 4000)]
    assert pieces == 4


def test_a_guest_that_does_not_read_fills_its_rings_and_nothing_else() -> None:
    guest = Guest(readable("v" * 4000))
    sent = 0
    for number in range(1000):
        if guest.requests.put(read(number)) == len(read(0)):
            sent += 1
        else:
            break
        guest.run()
    assert guest.connection.congested
    assert guest.requests.used > 900
    assert guest.connection.waiting < 80_000
    assert sent < 200


def test_a_watch_wakes_the_guest() -> None:
    store = readable("")
    guest = Guest(store)
    guest.requests.put(Message(xs_wire.XS_WATCH, 1, 0, b"/x\0t\0").encode())
    guest.run()
    assert [message.payload for message in guest.messages()] == [b"OK\0", b"/x\0t\0"]
    before = guest.notified
    store.set("/x", "new")
    assert guest.waiting
    guest.run()
    assert guest.notified == before + 1
    assert [message.payload for message in guest.messages()] == [b"/x\0t\0"]


def test_a_guest_that_never_stops_is_served_in_turns() -> None:
    """Whoever fills the ring as fast as it is emptied does not keep Domain 0 to itself."""
    guest = Guest(readable(""))
    taken = 0

    class Flood(Page):
        def write(self, offset: int, data: bytes) -> None:
            nonlocal taken
            super().write(offset, data)
            if offset == STORE_REQUESTS.consumer:
                taken += 1
                guest.requests.put(read(taken) * 50)
                guest.replies.take()

    flood = Flood()
    guest.page = flood
    guest.requests, guest.replies = GuestEnd(flood, STORE_REQUESTS), GuestEnd(flood, STORE_REPLIES)
    later: list[Callable[[], None]] = []
    service = StoreService(flood, guest.connection, guest.notify, later.append)
    guest.requests.put(read(0))
    service.on_event()
    assert later == [service.on_event]
    assert taken == 64
    service.on_event()
    assert taken == 128


def test_indices_that_lie_end_the_service_of_this_guest() -> None:
    store = readable("value")
    bad, good = Guest(store, 5), Guest(store, 7)
    for guest in (bad, good):
        guest.requests.put(Message(xs_wire.XS_WATCH, 1, 0, b"/x\0t\0").encode())
        guest.run()
        guest.messages()
    bad.page.set_index(STORE_REQUESTS.producer, bad.page.index(STORE_REQUESTS.consumer) + 1025)
    bad.run()
    assert bad.service.fault is not None
    assert "1025 apart" in bad.service.fault
    assert bad.page.index(ERROR_FIELD) == xs_wire.XENSTORE_ERROR_RINGIDX
    bad.page.set_index(STORE_REQUESTS.producer, bad.page.index(STORE_REQUESTS.consumer))
    bad.requests.put(read(9))
    store.set("/x", "new")
    bad.run()
    assert bad.messages() == []
    good.requests.put(read(3))
    good.run()
    assert [message.payload for message in good.messages()] == [b"/x\0t\0", b"new"]


def test_the_replies_indices_may_lie_too() -> None:
    guest = Guest(readable("value"))
    guest.page.set_index(STORE_REPLIES.consumer, 5)
    guest.requests.put(read(1))
    guest.run()
    assert guest.page.index(ERROR_FIELD) == xs_wire.XENSTORE_ERROR_RINGIDX
    assert guest.connection.broken is not None


def test_a_message_that_cannot_be_ends_the_service() -> None:
    guest = Guest(readable("value"))
    guest.requests.put(b"\x02\0\0\0" + bytes(8) + (4097).to_bytes(4, "little"))
    before = guest.notified
    guest.run()
    assert guest.page.index(ERROR_FIELD) == xs_wire.XENSTORE_ERROR_PROTO
    assert guest.service.fault is not None
    assert "4097" in guest.service.fault
    assert guest.notified == before + 1


@given(st.lists(st.tuples(st.sampled_from(["bytes", "index", "take", "run"]), st.binary(max_size=300))))
def test_no_guest_can_do_more_than_end_its_own_service(steps: list[tuple[str, bytes]]) -> None:
    guest = Guest(readable("value"))
    places = [STORE_REQUESTS.consumer, STORE_REQUESTS.producer, STORE_REPLIES.consumer, STORE_REPLIES.producer]
    for what, data in steps:
        if what == "bytes":
            if guest.requests.used <= 1024:
                guest.requests.put(data)
        elif what == "index" and len(data) >= 5:
            guest.page.set_index(places[data[0] % 4], int.from_bytes(data[1:5], "little"))
        elif what == "take" and guest.replies.used <= 1024:
            guest.replies.take()
        guest.run()
    assert (guest.service.fault is None) == (guest.page.index(ERROR_FIELD) == 0)
