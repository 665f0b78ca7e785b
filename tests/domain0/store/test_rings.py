"""Domains that clients of the store's socket introduce and release, on a machine; the guest's end is the test's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paravirt import Domain, Machine
from paravirt.abi.io import xs_wire
from paravirt.abi.io.xs_wire import XenstoreDomainInterface
from paravirt.domain0.ring import STORE_REPLIES, STORE_REQUESTS, ByteRing
from paravirt.domain0.store.wire import Message, Parser

from ...hypervisor.audited import audited
from ...oracle import kernels
from .clients import NAMES

HELLO = kernels.GUESTS.parent / "src/paravirt/data/hello"


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=64) as made, audited(made):
        yield made


class Guest:
    """A domain that is paused for good: its end of the ring is played here."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.domain = machine.create(HELLO, memory=4, paused=True)
        home = f"/local/domain/{self.domain.domid}/store"
        self.port = int(machine.call(lambda: machine.store.get(f"{home}/port")) or b"")
        self._frame = int(machine.call(lambda: machine.store.get(f"{home}/ring-ref")) or b"") * 4096
        self.requests, self.replies = ByteRing(self, STORE_REQUESTS), ByteRing(self, STORE_REPLIES)

    def read(self, offset: int, length: int) -> bytes:
        return self.machine.memory.read(self._frame + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self.machine.memory.write(self._frame + offset, data)

    def indices(self) -> list[int]:
        rings = STORE_REQUESTS, STORE_REPLIES
        return [int.from_bytes(self.read(at, 4)) for ring in rings for at in (ring.consumer, ring.producer)]

    def ask(self, kind: int, payload: bytes, transaction: int = 0) -> list[tuple[str, bytes]]:
        """Send a request, and take all that has come when Domain 0 has looked at it."""
        self.requests.put(Message(kind, 1, transaction, payload).encode())
        return self.taken()

    def taken(self) -> list[tuple[str, bytes]]:
        self.domain.control(lambda view: view.notify(self.port))
        for _ in range(3):  # the event's turn comes after that of the calls before it
            self.machine.call(lambda: None)
        parser = Parser()
        parser.feed(self.replies.take())
        found = []
        while (message := parser.next()) is not None:
            found.append((NAMES[message.type], message.payload))
        return found


class Client:
    """Domain 0's, with the events that it is told."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.connection = machine.call(lambda: machine.store.connect(0))
        self.parser = Parser()

    def ask(self, kind: int, *strings: object) -> list[tuple[str, bytes]]:
        payload = "".join(f"{one}\0" for one in strings).encode()
        self.machine.call(lambda: self.connection.receive(Message(kind, 1, 0, payload).encode()))
        self.parser.feed(self.machine.call(lambda: self.connection.take_output(1 << 20)))
        found = []
        while (message := self.parser.next()) is not None:
            found.append((NAMES[message.type], message.payload))
        return found


WATCH, READ, INTRODUCE, RELEASE = xs_wire.XS_WATCH, xs_wire.XS_READ, xs_wire.XS_INTRODUCE, xs_wire.XS_RELEASE
OK = b"OK\0"


def name_of(domain: Domain) -> tuple[str, bytes]:
    return "READ", domain.name.encode()


def test_released_and_introduced_again(machine: Machine) -> None:
    guest, client = Guest(machine), Client(machine)
    domid = guest.domain.domid
    client.ask(WATCH, "@introduceDomain", "i")
    client.ask(WATCH, "@releaseDomain", "r")
    assert guest.ask(READ, b"name\0") == [name_of(guest.domain)]
    assert guest.ask(WATCH, b"data\0t\0") == [("WATCH", OK), ("WATCH_EVENT", b"data\0t\0")]

    assert client.ask(RELEASE, domid) == [("WATCH_EVENT", b"@releaseDomain\0r\0"), ("RELEASE", OK)]
    assert client.ask(RELEASE, domid) == [("ERROR", b"ENOENT\0")]
    assert guest.ask(READ, b"name\0") == [], "nobody serves its ring"
    assert machine.call(lambda: machine.store.get(f"/local/domain/{domid}/name")) is not None
    assert machine.call(lambda: machine.store.get(f"/local/domain/{domid}/data")) is None, "it was the guest's own"

    port = guest.domain.control(lambda view: view.alloc_unbound(0))
    introduced = client.ask(INTRODUCE, domid, 1, port)
    assert introduced == [("WATCH_EVENT", b"@introduceDomain\0i\0"), ("INTRODUCE", OK)]
    assert guest.indices() == [0] * 4, "what it had asked is forgotten"
    guest.port = port
    # What others permitted to its number they permitted to the domain before.
    assert guest.ask(READ, b"name\0") == [("ERROR", b"EACCES\0")]
    client.ask(xs_wire.XS_SET_PERMS, f"/local/domain/{domid}/name", "n0", f"r{domid}")
    assert guest.ask(READ, b"name\0") == [name_of(guest.domain)]
    guest.domain.destroy()
    assert machine.call(lambda: machine.store.get(f"/local/domain/{domid}")) is None


def test_one_that_is_introduced_already_begins_anew_on_another_channel(machine: Machine) -> None:
    guest, client = Guest(machine), Client(machine)
    client.ask(WATCH, "@introduceDomain", "i")
    guest.ask(WATCH, b"data\0t\0")
    [(_, number)] = guest.ask(xs_wire.XS_TRANSACTION_START, b"\0")
    guest.requests.put(b"half a message")
    port = guest.domain.control(lambda view: view.alloc_unbound(0))
    assert client.ask(INTRODUCE, guest.domain.domid, 1, port) == [("INTRODUCE", OK)]
    before, guest.port = guest.port, port
    assert guest.ask(READ, b"data\0", int(number[:-1])) == [("ERROR", b"ENOENT\0")]
    machine.call(lambda: machine.store.set(f"/local/domain/{guest.domain.domid}/data", "changed"))
    assert guest.taken() == [], "its watches are gone"
    guest.port = before
    assert guest.ask(READ, b"data\0") == [], "the channel is closed"
    guest.port = port
    assert guest.taken() == [("READ", b"changed")]


def test_what_cannot_be_introduced(machine: Machine) -> None:
    guest, client = Guest(machine), Client(machine)
    domid = guest.domain.domid
    refused = [("ERROR", b"EINVAL\0")]
    assert client.ask(INTRODUCE, 77, 1, 1) == refused, "there is no such domain"
    assert client.ask(INTRODUCE, -1, 1, 1) == refused
    assert client.ask(INTRODUCE, 1 << 20, 1, 1) == refused
    client.ask(RELEASE, domid)
    for port in (0, -1, 4000, 1 << 40):
        assert client.ask(INTRODUCE, domid, 1, port) == refused
    assert client.ask(xs_wire.XS_IS_DOMAIN_INTRODUCED, domid) == [("IS_DOMAIN_INTRODUCED", b"F\0")]
    assert client.ask(INTRODUCE, domid, 1, guest.port) == [("INTRODUCE", OK)], "the port waits for Domain 0 again"
    # With a port that is none it stays introduced, and deaf, as with Xen's own daemon.
    assert client.ask(INTRODUCE, domid, 1, 4000) == [("INTRODUCE", OK)]
    assert guest.ask(READ, b"name\0") == []


def test_one_that_is_cut_off_stays_so_until_it_is_released(machine: Machine) -> None:
    bad, good, client = Guest(machine), Guest(machine), Client(machine)
    bad.requests.put(b"\xff" * 16)
    assert bad.taken() == []
    assert int.from_bytes(bad.read(XenstoreDomainInterface.error.offset, 4), "little") == xs_wire.XENSTORE_ERROR_PROTO
    assert good.ask(READ, b"name\0") == [name_of(good.domain)], "others are served"
    domid = bad.domain.domid
    assert client.ask(INTRODUCE, domid, 1, bad.port) == [("INTRODUCE", OK)]
    assert bad.ask(READ, b"data\0") == []
    client.ask(RELEASE, domid)
    assert client.ask(INTRODUCE, domid, 1, bad.port) == [("INTRODUCE", OK)]
    client.ask(xs_wire.XS_SET_PERMS, f"/local/domain/{domid}/name", f"n{domid}")
    assert bad.ask(READ, b"name\0") == [name_of(bad.domain)]
