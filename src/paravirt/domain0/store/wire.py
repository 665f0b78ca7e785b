"""Messages: a 16-byte header {type, request id, transaction id, length} and up to 4096 bytes (io/xs_wire.h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from paravirt.abi.io import xs_wire
from paravirt.errors import GuestError

HEADER: Final = struct.Struct("<IIII")
PAYLOAD_MAX: Final = 4096


class WireError(GuestError):
    """A message that cannot be one; the connection cannot go on."""


@dataclass(frozen=True)
class Message:
    """One request, reply or event."""

    type: int
    request_id: int
    transaction_id: int
    payload: bytes

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return HEADER.pack(self.type, self.request_id, self.transaction_id, len(self.payload)) + self.payload

    def strings(self) -> list[bytes]:
        """The NUL-terminated strings of the payload; what follows the last NUL is the last element."""
        return self.payload.split(b"\0")


def error_reply(request: Message, name: str) -> Message:
    """The refusal of a request."""
    return Message(xs_wire.XS_ERROR, request.request_id, request.transaction_id, name.encode() + b"\0")


class Parser:
    """Bytes in, messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take more bytes; the messages that are complete now.

        Raises:
            WireError: a header announces more than a message can hold.
        """
        self._buffer += data
        messages = []
        while len(self._buffer) >= HEADER.size:
            kind, request_id, transaction_id, length = HEADER.unpack_from(self._buffer)
            if length > PAYLOAD_MAX:
                raise WireError(f"a message of {length} bytes is announced, but {PAYLOAD_MAX} are allowed")
            if len(self._buffer) < HEADER.size + length:
                break
            payload = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            messages.append(Message(kind, request_id, transaction_id, payload))
        return messages
