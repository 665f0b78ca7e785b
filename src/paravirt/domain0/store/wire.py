"""Messages: a 16-byte header {type, request id, transaction id, length} and up to 4096 bytes (io/xs_wire.h)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from paravirt.abi.io.xs_wire import XENSTORE_PAYLOAD_MAX, XS_ERROR, XsdSockmsg
from paravirt.domain0.ring import GuestProtocolError

HEADER: Final = struct.Struct("<IIII")
assert HEADER.size == XsdSockmsg.len.offset + XsdSockmsg.len.size


class WireError(GuestProtocolError):
    """Bytes that cannot be a message. Where the next one begins is unknown, so the connection cannot go on."""


class Message(NamedTuple):
    """One request, reply or event."""

    type: int
    request_id: int
    transaction_id: int
    payload: bytes

    def encode(self) -> bytes:
        """The bytes on the wire."""
        kind, request_id, transaction_id, payload = self
        return HEADER.pack(kind, request_id, transaction_id, len(payload)) + payload


def error_reply(request: Message, name: str) -> Message:
    """The refusal of a request, with an error of io/xs_wire.h."""
    return Message(XS_ERROR, request.request_id, request.transaction_id, name.encode() + b"\0")


def strings(payload: bytes) -> list[bytes]:
    """The NUL-terminated strings of a payload. What follows the last NUL is ignored, as xenstored ignores it."""
    return payload.split(b"\0")[:-1]


class Parser:
    """Bytes in, messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self._buffer += data

    def next(self) -> Message | None:
        """The next message, or None while it is not complete.

        Raises:
            WireError: its header announces more than a message can hold.
        """
        buffer = self._buffer
        if len(buffer) < HEADER.size:
            return None
        kind, request_id, transaction_id, length = HEADER.unpack_from(buffer)
        if length > XENSTORE_PAYLOAD_MAX:
            raise WireError(
                f"a message of {length} bytes is announced, but no more than {XENSTORE_PAYLOAD_MAX} are allowed"
            )
        end = HEADER.size + length
        if len(buffer) < end:
            return None
        payload = bytes(buffer[HEADER.size : end])
        del buffer[:end]
        return Message(kind, request_id, transaction_id, payload)

    @property
    def buffered(self) -> int:
        """Bytes that have not become a message yet."""
        return len(self._buffer)
