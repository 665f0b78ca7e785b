"""What the daemon and its clients say to each other: JSON objects, one a line, over a unix socket.

A request::

    {"version": 1, "operation": "pause", "arguments": {"domain": "guest"}}

A reply, after any number of events of operations that take their time::

    {"event": {"kind": "shutdown", "domid": 3, "code": 0}}
    {"result": ...}       or     {"error": "One sentence.", "code": "not-found"}

A connection takes any number of requests, one after the other. After the reply to ``console`` it carries bytes, the
domain's output one way and what is typed the other.
"""

from __future__ import annotations

import json
import socket
from typing import Any, Final

from paravirt.errors import ParavirtError

VERSION: Final = 1
MAX_LINE: Final = 16 << 20
"""Bytes of a message: a list of very many domains is long."""

INVALID: Final = "invalid"
NOT_FOUND: Final = "not-found"
EXISTS: Final = "exists"
UNSUPPORTED: Final = "unsupported"
INTERNAL: Final = "internal"
"""Codes of errors: the request is wrong; no such domain; there is one already; not in this version; a defect."""


class Refusal(ParavirtError):
    """The daemon does not do what it was asked for; ``code`` is one of those above."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ConnectionLost(ParavirtError):
    """The other side has gone, or says what is no message."""


class Channel:
    """One side of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = bytearray()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message.

        Raises:
            ConnectionLost: nobody takes it.
        """
        try:
            self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other side has nothing more to say.

        Raises:
            ConnectionLost: what came is no message.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                raise ConnectionLost("the line is too long")
            try:
                data = self.socket.recv(1 << 16)
            except OSError as error:
                raise ConnectionLost(str(error)) from error
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except ValueError as error:
            raise ConnectionLost("the line is not JSON") from error
        if not isinstance(message, dict):
            raise ConnectionLost("the line is not a JSON object")
        return message

    def rest(self) -> bytes:
        """Bytes that came behind the last message."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data
