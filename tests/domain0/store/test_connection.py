"""A connection: what waits, what is bounded, and how it ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.abi.io import xs_wire
from paravirt.domain0.store import Permission, Quotas, Store
from paravirt.domain0.store.server import EVENT_BACKLOG, OUTPUT_BACKLOG, Connection
from paravirt.domain0.store.wire import Message, Parser, WireError

from .clients import NAMES, OurStore, give_homes


def request(kind: int, payload: bytes, number: int = 1, transaction: int = 0) -> bytes:
    return Message(kind, number, transaction, payload).encode()


def take_all(connection: Connection, at_once: int = 1000) -> list[Message]:
    parser = Parser()
    while data := connection.take_output(at_once):
        parser.feed(data)
    found = []
    while (message := parser.next()) is not None:
        found.append(message)
    assert parser.buffered == 0
    return found


@given(st.integers(1, 50))
def test_replies_come_in_order_however_little_is_taken(at_once: int) -> None:
    store = Store()
    store.set("/x", "value", Permission("r", 0))
    connection = store.connect(3)
    connection.receive(b"".join(request(xs_wire.XS_READ, b"/x\0", number) for number in range(20)))
    assert [message.request_id for message in take_all(connection, at_once)] == list(range(20))


def test_a_client_that_does_not_read_is_not_heard() -> None:
    """Its requests wait, and are answered when it reads."""
    store = Store()
    store.set("/x", "v" * 4000, Permission("r", 0))
    connection = store.connect(3)
    count = 100
    connection.receive(b"".join(request(xs_wire.XS_READ, b"/x\0", number) for number in range(count)))
    assert connection.congested
    assert OUTPUT_BACKLOG < connection.waiting < OUTPUT_BACKLOG + 4017
    assert [message.request_id for message in take_all(connection)] == list(range(count))
    assert connection.waiting == 0
    assert not connection.congested


def test_an_event_that_waits_is_not_repeated() -> None:
    store = Store()
    store.set("/x", "", Permission("r", 0))
    connection = store.connect(3)
    connection.receive(request(xs_wire.XS_WATCH, b"/x\0t\0"))
    take_all(connection)
    told: list[int] = []
    connection.on_output = lambda: told.append(1)
    for _ in range(5):
        store.set("/x", "again")
    assert [message.payload for message in take_all(connection)] == [b"/x\0t\0"]
    assert len(told) == 1
    store.set("/x", "and again")
    assert len(told) == 2
    assert len(take_all(connection)) == 1


def test_events_that_nobody_reads_are_given_up_and_made_good_for() -> None:
    store = Store()
    store.set("/x", "", Permission("r", 0))
    connection = store.connect(3)
    connection.receive(request(xs_wire.XS_WATCH, b"/x\0t\0") + request(xs_wire.XS_WATCH, b"/y\0u\0"))
    take_all(connection)
    connection.receive(request(xs_wire.XS_READ, b"/x\0", 77))
    name = "n" * 1000
    for number in range(EVENT_BACKLOG // 1000 + 100):
        store.set(f"/x/{name}{number}", "")
    messages = take_all(connection)
    assert messages[0] == Message(xs_wire.XS_READ, 77, 0, b"")
    assert [message.payload for message in messages[1:]] == [b"/x\0t\0", b"/y\0u\0"]
    store.set("/x", "news")
    assert [message.payload for message in take_all(connection)] == [b"/x\0t\0"]


def test_an_event_that_is_too_long_is_not_sent() -> None:
    store = Store()
    connection = store.connect(0)
    token = b"t" * 4000
    connection.receive(request(xs_wire.XS_WATCH, b"/\0" + token + b"\0"))
    assert len(take_all(connection)) == 2
    store.set("/" + "x" * 200, "")
    assert take_all(connection) == []


def test_a_broken_client_is_cut_off_alone() -> None:
    asked = OurStore()
    asked.introduce(5)
    asked.introduce(7)
    give_homes(asked, 5, 7)
    asked.ask(5, xs_wire.XS_WATCH, b"data\0t\0")
    bad = asked.connection(5)
    with pytest.raises(WireError):
        bad.receive(b"\xff" * 16)
    assert bad.broken is not None
    bad.receive(request(xs_wire.XS_READ, b"data\0"))
    assert bad.take_output(1000) == b""
    assert len(asked.store.watches) == 0
    asked.store.set("/local/domain/5/data", "x")
    assert asked.ask(7, xs_wire.XS_READ, b"data\0").reply == Message(xs_wire.XS_READ, asked._number, 0, b"")


def test_a_bad_request_that_had_to_wait_breaks_the_connection_when_its_turn_comes() -> None:
    store = Store()
    store.set("/x", "v" * 4000, Permission("r", 0))
    connection = store.connect(3)
    connection.receive(request(xs_wire.XS_READ, b"/x\0") * 20 + b"\xff" * 16)
    assert connection.broken is None
    with pytest.raises(WireError):
        while connection.take_output(1000):
            pass
    assert connection.broken is not None


def test_release_leaves_nothing_behind() -> None:
    asked = OurStore(Store(Quotas(nodes=50)))
    for _ in range(3):
        asked.introduce(5)
        give_homes(asked, 5)
        asked.store.belongs(5, "/local/domain/5", "/not/there")
        asked.ask(5, xs_wire.XS_WATCH, b"data\0t\0")
        asked.ask(5, xs_wire.XS_WRITE, b"data/a/b\0x")
        asked.ask(5, xs_wire.XS_TRANSACTION_START, b"\0")
        connection = asked.connection(5)
        asked.release(5)
        assert connection.broken is not None
        assert len(asked.store.watches) == 0
        assert asked.store.directory("/local/domain") == []
        usage = asked.store.tree.usage[5]
        assert (usage.nodes, usage.memory, usage.watches, usage.transactions) == (0, 0, 0, 0)
    assert 5 not in asked.store.introduced


def test_a_client_that_hangs_up_takes_its_watches_with_it() -> None:
    store = Store()
    connections = [store.connect(0) for _ in range(3)]
    for connection in connections:
        connection.receive(request(xs_wire.XS_WATCH, b"/x\0t\0"))
    connections[1].close()
    assert len(store.watches) == 2
    store.set("/x", "")
    assert connections[1].take_output(1000) == b""
    assert b"/x\0t\0" in connections[2].take_output(1000)
    connections[1].receive(request(xs_wire.XS_READ, b"/x\0"))
    assert connections[1].take_output(1000) == b""


def test_the_memory_that_a_guest_may_use_is_bounded() -> None:
    asked = OurStore(Store(Quotas(memory=3000)))
    asked.introduce(5)
    give_homes(asked, 5)
    replies = []
    for number in range(4):
        reply = asked.ask(5, xs_wire.XS_WRITE, b"data/%d\0" % number + b"x" * 1000).reply
        assert reply is not None
        replies.append(reply.payload)
    assert replies == [b"OK\0", b"OK\0", b"ENOMEM\0", b"ENOMEM\0"]
    assert asked.store.tree.usage[5].memory <= 3000
    reply = asked.ask(5, xs_wire.XS_WATCH, b"data\0" + b"t" * 1000 + b"\0").reply
    assert reply is not None
    assert reply.payload == b"ENOMEM\0"
    # What makes less of it is always allowed.
    assert asked.ask(5, xs_wire.XS_WRITE, b"data/0\0small").reply is not None
    assert asked.ask(5, xs_wire.XS_RM, b"data/1\0").reply is not None
    reply = asked.ask(5, xs_wire.XS_WRITE, b"data/2\0" + b"x" * 1000).reply
    assert reply is not None
    assert reply.payload == b"OK\0"


def test_a_transaction_looks_at_a_bounded_number_of_nodes() -> None:
    asked = OurStore(Store(Quotas(transaction_nodes=10)))
    asked.introduce(5)
    give_homes(asked, 5)
    asked.ask(5, xs_wire.XS_TRANSACTION_START, b"\0")
    errors = []
    for number in range(12):
        reply = asked.ask(5, xs_wire.XS_READ, b"data/%d\0" % number, 1).reply
        assert reply is not None
        errors.append(reply.payload)
    assert errors == [b"ENOENT\0"] * 9 + [b"ENOSPC\0"] * 3
    reply = asked.ask(5, xs_wire.XS_TRANSACTION_END, b"T\0", 1).reply
    assert reply is not None
    assert reply.payload == b"ENOMEM\0"


def test_domain_0_may_ask_for_quotas() -> None:
    asked = OurStore()
    asked.introduce(5)
    give_homes(asked, 5)
    reply = asked.ask(0, xs_wire.XS_CONTROL, b"quota\0").reply
    assert reply is not None
    lines = reply.payload.decode().splitlines()
    assert lines[0] == "Quota settings:"
    assert "nodes            :     1000" in lines
    reply = asked.ask(0, xs_wire.XS_CONTROL, b"quota\0005\0").reply
    assert reply is not None
    assert "nodes            :        1" in reply.payload.decode().splitlines()
    for wrong in (b"quota\0009\0", b"nonsense\0", b"quota\0001\0002\0", b""):
        reply = asked.ask(0, xs_wire.XS_CONTROL, wrong).reply
        assert reply is not None
        assert NAMES[reply.type] == "ERROR"


def test_a_domain_is_introduced_through_the_socket_only_if_somebody_does_it() -> None:
    asked = OurStore()
    seen: list[tuple[int, int]] = []
    reply = asked.ask(0, xs_wire.XS_INTRODUCE, b"9\x00100\x003\0").reply
    assert reply is not None
    assert reply.payload == b"EINVAL\0"

    def introduce(domid: int, port: int) -> None:
        seen.append((domid, port))
        asked.store.introduce(domid)

    released: list[int] = []
    asked.store.on_introduce = introduce
    asked.store.on_release = released.append
    for kind in (xs_wire.XS_INTRODUCE, xs_wire.XS_INTRODUCE, xs_wire.XS_RELEASE):
        payload = b"9\x00100\x003\0" if kind == xs_wire.XS_INTRODUCE else b"9\0"
        reply = asked.ask(0, kind, payload).reply
        assert reply is not None
        assert (reply.type, reply.payload) == (kind, b"OK\0")
    assert seen == [(9, 3)] * 2
    assert released == [9]
    assert asked.store.introduced == {0}


payloads = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [b"data", b"data/a", b"/", b"@releaseDomain", b"T", b"n5", b"r7", b"0", b"-1", b"\xff", b"1" * 300]
        ),
        max_size=4,
    ).map(lambda strings: b"".join(one + b"\0" for one in strings)),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 25), payloads, st.integers(0, 3)), max_size=25), st.sampled_from([0, 5]))
def test_every_request_has_one_answer_and_every_error_is_one_of_the_protocol(
    requests: list[tuple[int, bytes, int]], domid: int
) -> None:
    asked = OurStore()
    asked.introduce(5)
    give_homes(asked, 5)
    asked.store.on_introduce = lambda domid, port: asked.store.introduce(domid)
    for kind, payload, transaction in requests:
        if domid not in asked.store.introduced or asked.connection(domid).broken:
            break  # Domain 0 may release domain 5
        reply = asked.ask(domid, kind, payload, transaction).reply
        assert reply is not None
        assert len(reply.payload) <= xs_wire.XENSTORE_PAYLOAD_MAX
        if reply.type == xs_wire.XS_ERROR:
            assert reply.payload[:-1].decode() in xs_wire.XSD_ERRORS
        else:
            assert reply.type == kind
