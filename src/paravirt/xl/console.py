"""The verb console: a domain's console on our terminal, all of it, until Ctrl-] or its end."""

from __future__ import annotations

import os
import select
import socket
import sys
from types import TracebackType
from typing import Any, Final

from paravirt.terminal import ESCAPE, raw, write_all
from paravirt.xl.client import USAGE, Daemon, Options, say

_CHUNK: Final = 1 << 16


def console(options: Options) -> int:
    """``xl console``."""
    kind, number = options.get("t"), options.get("n")
    if kind not in (None, "pv"):
        say(f"xl: a paravirtual guest has no console of type {kind!r}, but 'pv'")
        return USAGE
    if number not in (None, "0"):
        say(f"xl: a domain has one console, 0, and none of number {number!r}")
        return USAGE
    escape = options.get("e")
    with Attached(options.arguments[0], ESCAPE if escape is None else _key(escape)) as attached:
        attached.pass_bytes()
    return 0


def _key(text: str) -> int:
    """The byte of a key written like ^] or x."""
    return ord(text[1]) & 0x1F if len(text) > 1 and text[0] == "^" else ord(text[:1] or "\x1d") & 0xFF


class Attached:
    """A connection to a domain's console. The terminal is raw as long as bytes are passed."""

    def __init__(self, domain: str, escape: int = ESCAPE) -> None:
        daemon = Daemon()
        self.facts: dict[str, Any] = daemon.call("console", domain=domain)
        self._socket: socket.socket = daemon.channel.socket
        self._first = daemon.channel.rest()
        self._escape = escape

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def pass_bytes(self) -> None:
        """Output to standard output, from the first byte on; keys to the guest, if we are on a terminal.

        Without a terminal, standard input is left alone, as Xen's console client leaves it.
        """
        sys.stdout.flush()
        typing = os.isatty(0) and os.isatty(1)
        with raw(0):
            write_all(1, self._first)
            while self._one(typing):
                continue

    def _one(self, typing: bool) -> bool:
        talk = self._socket.fileno()
        readable, _, _ = select.select([talk, 0] if typing else [talk], [], [])
        if talk in readable:
            try:
                data = self._socket.recv(_CHUNK)
            except ConnectionError:
                data = b""
            if not data:
                return False
            write_all(1, data)
        return 0 not in readable or self._type()

    def _type(self) -> bool:
        keys = os.read(0, _CHUNK)
        before, escape, _ = keys.partition(bytes([self._escape]))
        try:
            self._socket.sendall(before)
        except OSError:
            return False
        return bool(keys) and not escape
