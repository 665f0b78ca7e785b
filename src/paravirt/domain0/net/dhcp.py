"""DHCP for guests: each gets the address that its interface has. Free of I/O (RFC 2131, 2132)."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

CLIENT_PORT: Final = 68
SERVER_PORT: Final = 67
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)

_HEADER: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE: Final = b"\x63\x82\x53\x63"
_PAD, _MASK, _ROUTER, _DNS, _HOSTNAME, _DOMAIN, _MTU, _BROADCAST = 0, 1, 3, 6, 12, 15, 26, 28
_REQUESTED, _LEASE, _TYPE, _SERVER, _WANTED, _ROUTES, _END = 50, 51, 53, 54, 55, 121, 255
_SINGLE: Final = b"\xff" * 4
_LEASE_SECONDS: Final = 24 * 3600
_LARGEST_NAME: Final = 63
_SHORTEST: Final = 300


@dataclass(frozen=True)
class Offer:
    """What a client is told.

    Attributes:
        address: its address.
        network: the network that the router is in. An address that is not in it is alone on its link, but for the
            router.
        router: this server, the way to elsewhere, and who answers names.
    """

    address: bytes
    network: ipaddress.IPv4Network
    router: bytes
    domain: str = ""
    hostname: str = ""
    mtu: int = 1500


@dataclass(frozen=True)
class Query:
    """A client's message, as far as it matters."""

    kind: int
    head: tuple[int | bytes, ...]
    client: bytes
    own: bytes
    requested: bytes
    server: bytes
    wanted: bytes


def parse(data: bytes) -> Query | None:
    """A client's message; None: it is none."""
    if len(data) < _HEADER.size:
        return None
    head = _HEADER.unpack_from(data)
    if head[:3] != (1, 1, 6) or head[-1] != _COOKIE:
        return None
    options = _options(data[_HEADER.size :])
    kind = options.get(_TYPE, b"")
    if len(kind) != 1 or kind[0] not in (DISCOVER, REQUEST, INFORM, RELEASE, DECLINE):
        return None
    requested, server, wanted = (options.get(code, b"") for code in (_REQUESTED, _SERVER, _WANTED))
    return Query(kind[0], head, head[11][:6], head[7], requested, server, wanted)


def answer(query: Query, offer: Offer) -> bytes | None:
    """The server's message that answers a client's; None: there is none."""
    if query.kind == DISCOVER:
        return _message(query, OFFER, offer)
    if query.kind == INFORM:
        return _message(query, ACK, offer)
    if query.kind != REQUEST or query.server not in (b"", offer.router):
        return None
    wanted = query.requested or query.own
    return _message(query, ACK if wanted == offer.address else NAK, offer)


def _message(query: Query, kind: int, offer: Offer) -> bytes:
    _, _, _, _, transaction, _, flags, own, _, _, relay, hardware, _, _, _ = query.head
    refused, informed = kind == NAK, query.kind == INFORM
    given = bytes(4) if refused or informed else offer.address
    options = [(_TYPE, bytes([kind])), (_SERVER, offer.router)]
    if not refused:
        options += [
            *_link(query, offer),
            (_ROUTER, offer.router),
            (_DNS, offer.router),
            (_MTU, offer.mtu.to_bytes(2, "big")),
        ]
        options += [(_LEASE, _LEASE_SECONDS.to_bytes(4, "big"))] if not informed else []
        options += [(_DOMAIN, offer.domain.encode())] if offer.domain else []
        options += [(_HOSTNAME, offer.hostname.encode()[:_LARGEST_NAME])] if offer.hostname else []
    data = _HEADER.pack(
        2, 1, 6, 0, transaction, 0, flags, bytes(4) if refused else own, given, offer.router, relay, hardware, b"", b"",
        _COOKIE,
    )  # fmt: skip
    data += b"".join(bytes([code, len(value)]) + value for code, value in options) + bytes([_END])
    return data.ljust(_SHORTEST, b"\0")


def _link(query: Query, offer: Offer) -> list[tuple[int, bytes]]:
    """Who else is on the client's link. For one that is alone with a router of another network, this is said as
    everywhere where guests are routed: by a mask of 32 bits, which clients know to mean that the router is there all
    the same, and by routes (RFC 3442) to those who want them, which say it expressly."""
    network = offer.network
    if ipaddress.IPv4Address(offer.address) in network:
        return [(_MASK, network.netmask.packed), (_BROADCAST, network.broadcast_address.packed)]
    routes = bytes([32]) + offer.router + bytes(4) + bytes([0]) + offer.router
    return [(_MASK, _SINGLE), *([(_ROUTES, routes)] if _ROUTES in query.wanted else [])]


def _options(data: bytes) -> dict[int, bytes]:
    """The options; what is cut off at the end does not count."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            break
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found
