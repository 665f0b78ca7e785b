"""DNS for guests: the names of the machine's domains and of the router. Free of I/O (RFC 1035).

Other names are asked of the host's own servers (``outside``).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PORT: Final = 53
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = range(6)

_HEADER: Final = struct.Struct("!HHHHHH")
_A, _PTR, _AAAA, _ANY = 1, 12, 28, 255
_INTERNET: Final = 1
_RESPONSE: Final = 0x8000
_AUTHORITATIVE: Final = 0x0400
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080
_OPCODE: Final = 0x7800
_LARGEST_NAME: Final = 255
_LARGEST_LABEL: Final = 63
_TTL: Final = 10
_POINTER_TO_QUESTION: Final = b"\xc0\x0c"


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        name: in lower case, without a dot at its end.
        end: where the question ends in the query.
    """

    number: int
    flags: int
    name: str
    kind: int
    end: int


class NotAQuery(Exception):
    """It cannot be answered, but with this code if that is a query at all (``number`` is not None)."""

    def __init__(self, code: int, number: int | None = None) -> None:
        super().__init__(f"DNS code {code}")
        self.code, self.number = code, number


def parse(data: bytes) -> Question:
    """A query with one question.

    Raises:
        NotAQuery: it is none.
    """
    if len(data) < _HEADER.size:
        raise NotAQuery(FORMAT_ERROR)
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise NotAQuery(FORMAT_ERROR)
    if flags & _OPCODE:
        raise NotAQuery(NOT_IMPLEMENTED, number)
    if questions != 1 or answers:
        raise NotAQuery(FORMAT_ERROR, number)
    labels, at = [], _HEADER.size
    while True:
        if at >= len(data) or data[at] > _LARGEST_LABEL or at - _HEADER.size > _LARGEST_NAME:
            raise NotAQuery(FORMAT_ERROR, number)
        size, at = data[at], at + 1
        if not size:
            break
        labels.append(data[at : at + size].decode("latin-1").lower())
        at += size
    if at + 4 > len(data):
        raise NotAQuery(FORMAT_ERROR, number)
    kind, group = struct.unpack_from("!HH", data, at)
    if group != _INTERNET:
        raise NotAQuery(NOT_IMPLEMENTED, number)
    return Question(number, flags, ".".join(labels), kind, at + 4)


def failure(number: int, code: int) -> bytes:
    """An answer that says no more than that there is none."""
    return _HEADER.pack(number, _RESPONSE | _RECURSION_AVAILABLE | code, 0, 0, 0, 0)


@dataclass
class Zone:
    """The names that are answered here.

    Attributes:
        domain: what the names end with; without an end they are answered too.
        addresses: an IPv4 address by its name, or None.
        names: the other way.
    """

    domain: str
    addresses: Callable[[str], bytes | None]
    names: Callable[[bytes], str | None]

    def answer(self, query: bytes, question: Question) -> bytes | None:
        """The answer to a query; None: it is somebody else's to know."""
        if question.kind == _PTR and question.name.endswith(".in-addr.arpa"):
            return self._reverse(query, question)
        name, end, domain = question.name.rpartition(f".{self.domain}")
        is_ours = bool(end) and not domain
        plain = name if is_ours else question.name
        if "." in plain:
            return _answer(query, question, NAME_ERROR, None) if is_ours else None
        address = self.addresses(plain) if plain else None
        if address is None:
            return _answer(query, question, NAME_ERROR, None) if is_ours else None
        return _answer(query, question, NO_ERROR, address if question.kind in (_A, _ANY) else None)

    def _reverse(self, query: bytes, question: Question) -> bytes | None:
        words = question.name.removesuffix(".in-addr.arpa").split(".")
        try:
            name = self.names(ipaddress.IPv4Address(".".join(reversed(words))).packed)
        except ValueError:
            return None
        if name is None:
            return None
        labels = [*name.split("."), *self.domain.split(".")]
        data = b"".join(bytes([len(label)]) + label.encode("latin-1") for label in labels) + b"\0"
        return _answer(query, question, NO_ERROR, data)


def _answer(query: bytes, question: Question, code: int, data: bytes | None) -> bytes:
    """An answer; ``data`` is an address (of four bytes) or the name that was asked for."""
    flags = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | question.flags & _RECURSION_DESIRED | code
    head = _HEADER.pack(question.number, flags, 1, 0 if data is None else 1, 0, 0)
    asked = query[_HEADER.size : question.end]
    if data is None:
        return head + asked
    kind = _A if question.kind == _ANY else question.kind
    record = _POINTER_TO_QUESTION + struct.pack("!HHIH", kind, _INTERNET, _TTL, len(data)) + data
    return head + asked + record
