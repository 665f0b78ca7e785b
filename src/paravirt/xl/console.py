"""The verb console: a domain's console on our terminal, all of it, until Ctrl-] or its end."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

from paravirt.domain0.xlcfg.channels import KIND
from paravirt.errors import UserError
from paravirt.terminal import ESCAPE, raw, write_all
from paravirt.xl.client import USAGE, Daemon, Options, parse_number, say

_CHUNK: Final = 1 << 16


def console(options: Options) -> int:
    """``xl console``."""
    kind, number = options.get("t"), options.get("n")
    if kind not in (None, "pv"):
        say(f"xl: a paravirtual guest has no console of type {kind!r}, but 'pv'")
        return USAGE
    escape = ESCAPE if options.get("e") is None else _key(options.get("e") or "")
    domain = options.arguments[0]
    if parse_number(number or "0") == 0:
        with Attached(domain, escape) as attached:
            attached.pass_bytes()
        return 0
    with _channel_s_terminal(domain, parse_number(number or "")) as terminal:
        pass_bytes(terminal, escape)
    return 0


@contextlib.contextmanager
def _channel_s_terminal(domain: str, number: int) -> Iterator[int]:
    """A descriptor of the terminal that a channel is joined to.

    Raises:
        UserError: there is no such channel, or it has no terminal.
    """
    rows = Daemon().call("devices", domain=domain, kind=KIND)
    tty = next((row["frontend_nodes"].get("tty") for row in rows if row["devid"] == number), None)
    if not tty:
        raise UserError(f"The domain {domain} has no console {number} with a terminal.")
    terminal = os.open(tty, os.O_RDWR | os.O_NOCTTY)
    try:
        yield terminal
    finally:
        os.close(terminal)


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
        pass_bytes(self._socket.fileno(), self._escape, self._first)


def pass_bytes(talk: int, escape: int, first: bytes = b"") -> None:
    """What a descriptor says to standard output, after what it has said ``first``; keys to it, if we are on a
    terminal. Until its end, or the escape key."""
    sys.stdout.flush()
    typing = os.isatty(0) and os.isatty(1)
    with raw(0):
        write_all(1, first)
        while _pass_some(talk, escape, typing):
            continue


def _pass_some(talk: int, escape: int, typing: bool) -> bool:
    readable, _, _ = select.select([talk, 0] if typing else [talk], [], [])
    if talk in readable:
        try:
            data = os.read(talk, _CHUNK)
        except OSError:
            data = b""
        if not data:
            return False
        write_all(1, data)
    return 0 not in readable or _type(talk, escape)


def _type(talk: int, escape: int) -> bool:
    keys = os.read(0, _CHUNK)
    before, escaped, _ = keys.partition(bytes([escape]))
    try:
        write_all(talk, before)
    except OSError:
        return False
    return bool(keys) and not escaped
