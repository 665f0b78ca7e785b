"""Messages on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.abi.io import xs_wire
from paravirt.domain0.store.wire import Message, Parser, WireError, error_reply, strings

words = st.integers(0, 0xFFFFFFFF)
messages = st.builds(Message, words, words, words, st.binary(max_size=300))


def drain(parser: Parser) -> list[Message]:
    """All messages that are complete."""
    found = []
    while (message := parser.next()) is not None:
        found.append(message)
    return found


@given(st.lists(messages, max_size=6), st.lists(st.integers(1, 400)))
def test_messages_survive_being_cut_anywhere(sent: list[Message], cuts: list[int]) -> None:
    data = b"".join(message.encode() for message in sent)
    parser = Parser()
    received = []
    for cut in [*cuts, len(data)]:
        parser.feed(data[:cut])
        data = data[cut:]
        received += drain(parser)
    assert received == sent
    assert parser.buffered == 0


@given(words, words, words, st.integers(0, 0xFFFFFFFF))
def test_a_length_is_believed_up_to_the_limit(kind: int, request: int, transaction: int, length: int) -> None:
    parser = Parser()
    header = b"".join(word.to_bytes(4, "little") for word in (kind, request, transaction, length))
    parser.feed(header)
    if length > xs_wire.XENSTORE_PAYLOAD_MAX:
        with pytest.raises(WireError, match="4096"):
            parser.next()
    else:
        assert (parser.next() is None) == (length > 0)


@given(st.binary(max_size=2000))
def test_whatever_the_bytes_the_parser_takes_them_or_says_why_not(data: bytes) -> None:
    parser = Parser()
    parser.feed(data)
    try:
        found = drain(parser)
    except WireError:
        return
    assert sum(16 + len(message.payload) for message in found) + parser.buffered == len(data)


def test_an_error_goes_by_its_name() -> None:
    reply = error_reply(Message(xs_wire.XS_READ, 7, 9, b"x\0"), "ENOENT")
    assert reply == Message(xs_wire.XS_ERROR, 7, 9, b"ENOENT\0")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [(b"", []), (b"a", []), (b"\0", [b""]), (b"a\0b\0", [b"a", b"b"]), (b"a\0junk", [b"a"])],
)
def test_strings_end_with_a_nul(payload: bytes, expected: list[bytes]) -> None:
    assert strings(payload) == expected
