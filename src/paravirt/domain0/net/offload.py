"""What a sender left to others: checksums filled in, and packets larger than the wire cut. Free of I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from paravirt.domain0.net.packet import (
    ETH_IP,
    ETH_IPV6,
    TCP,
    TCP_CWR,
    TCP_FIN,
    TCP_PSH,
    Headers,
    Packet,
    checksum,
    checksum_at,
    pseudo_sum,
)

_TCP_HEADERS: Final = 54
"""Bytes of Ethernet's, IPv4's and TCP's headers, without options."""


def with_checksum(packet: Packet) -> Packet:
    """The packet with its transport checksum complete.

    Raises:
        Malformed: its headers are.
    """
    if not packet.csum_blank:
        return packet
    headers = packet.headers
    at = checksum_at(headers)
    if not at:
        return Packet(packet.data)
    data = packet.data
    body = data[headers.l4 : at] + b"\0\0" + data[at + 2 : headers.end]
    total = checksum(body, pseudo_sum(headers, len(body)))
    return Packet(data[:at] + total.to_bytes(2, "big") + data[at + 2 :], False, packet.gso_size, headers)


def can_be_cut(headers: Headers) -> bool:
    """Whether the packet is one whose payload can be spread over several."""
    return headers.protocol == TCP and bool(headers.l4) and headers.kind in (ETH_IP, ETH_IPV6)


def segments(packet: Packet) -> Iterator[Packet]:
    """Packets of ``gso_size`` bytes of payload at most, in place of one large one; their checksums stay blank.

    Each is made when it is asked for: a sender may want a packet cut into very many, as Linux's backend lets it.

    Raises:
        Malformed: its headers are.
    """
    size, headers = packet.gso_size, packet.headers
    if not size or not can_be_cut(headers) or headers.end - headers.payload <= size:
        yield Packet(packet.data, packet.csum_blank, 0, packet._headers)
        return
    data, l4 = packet.data, headers.l4
    sequence = int.from_bytes(data[l4 + 4 : l4 + 8], "big")
    for number, start in enumerate(range(headers.payload, headers.end, size)):
        payload = data[start : min(start + size, headers.end)]
        head = bytearray(data[: headers.payload])
        struct.pack_into("!I", head, l4 + 4, (sequence + start - headers.payload) & 0xFFFFFFFF)
        if number:
            head[l4 + 13] &= ~TCP_CWR & 0xFF
        if start + size < headers.end:
            head[l4 + 13] &= ~(TCP_FIN | TCP_PSH) & 0xFF
        _set_length(head, headers, len(payload), number)
        struct.pack_into("!H", head, l4 + 16, pseudo_sum(headers, headers.payload - l4 + len(payload)))
        yield Packet(bytes(head) + payload, csum_blank=True)


def size_on_wire(packet: Packet) -> int:
    """About how many bytes the packet is when it has been cut: each piece has headers."""
    size = len(packet.data)
    return size + size // packet.gso_size * _TCP_HEADERS if packet.gso_size else size


def _set_length(head: bytearray, headers: Headers, payload: int, number: int) -> None:
    """Write the network header's length, and what else differs between the pieces, into it."""
    l3 = headers.l3
    if headers.kind == ETH_IPV6:
        struct.pack_into("!H", head, l3 + 4, headers.payload - l3 - 40 + payload)
        return
    identification = int.from_bytes(head[l3 + 4 : l3 + 6], "big") + number
    struct.pack_into("!HH", head, l3 + 2, headers.payload - l3 + payload, identification & 0xFFFF)
    struct.pack_into("!H", head, l3 + 10, 0)
    ip_header = bytes(head[l3 : l3 + (head[l3] & 15) * 4])
    struct.pack_into("!H", head, l3 + 10, checksum(ip_header))
