"""Packets into the buffers of a receive ring (public/io/netif.h). Free of I/O."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from paravirt.abi.io import netif
from paravirt.domain0.net.offload import can_be_cut, segments, with_checksum
from paravirt.domain0.net.packet import ETH_IP, ETH_IPV6, Packet

PAGE_SIZE: Final = 4096
ENTRY_SIZE: Final = 8
_REQUEST: Final = struct.Struct("<HHI")
_RESPONSE: Final = struct.Struct("<HHHh")
_GSO_EXTRA: Final = struct.Struct("<BBHBBH")
_GSO_TYPES: Final = {ETH_IP: netif.XEN_NETIF_GSO_TYPE_TCPV4, ETH_IPV6: netif.XEN_NETIF_GSO_TYPE_TCPV6}


@dataclass(frozen=True)
class Abilities:
    """What a frontend can take.

    Attributes:
        scattered: packets in several buffers.
        gso: the Ethernet types of which it takes packets larger than the wire.
        blank: the Ethernet types of which it takes packets without checksum.
    """

    scattered: bool
    gso: frozenset[int]
    blank: frozenset[int]


def fitted(packet: Packet, abilities: Abilities) -> list[Packet]:
    """The packet as the frontend can take it, if need be in several; none, if it cannot.

    Raises:
        Malformed: its headers are.
    """
    kind = packet.headers.kind
    pieces = [packet]
    if packet.gso_size and not (kind in abilities.gso and abilities.scattered and can_be_cut(packet.headers)):
        pieces = segments(packet)
    if kind not in abilities.blank:
        pieces = [with_checksum(piece) for piece in pieces]
    return pieces if abilities.scattered else [piece for piece in pieces if len(piece.data) <= PAGE_SIZE]


def slots(packet: Packet) -> int:
    """How many buffers a packet needs."""
    return -(-len(packet.data) // PAGE_SIZE) + bool(packet.gso_size)


def parts(packet: Packet, requests: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
    """What is copied where: (grant reference, offset, bytes) for each of the buffers that carry bytes."""
    references = [_REQUEST.unpack(request)[2] for request in _carriers(packet, requests)]
    data = packet.data
    return [
        (reference, 0, data[at : at + PAGE_SIZE])
        for reference, at in zip(references, range(0, len(data), PAGE_SIZE), strict=True)
    ]


def responses(packet: Packet, requests: Sequence[bytes], is_copied: bool) -> list[bytes]:
    """The responses to the buffers that a packet has used."""
    carriers = _carriers(packet, requests)
    flags = 0
    if packet.csum_blank:
        flags = netif.NETRXF_csum_blank | netif.NETRXF_data_validated
    made = []
    for number, request in enumerate(carriers):
        more = netif.NETRXF_more_data if number + 1 < len(carriers) else 0
        extra = netif.NETRXF_extra_info if packet.gso_size and not number else 0
        size = min(PAGE_SIZE, len(packet.data) - number * PAGE_SIZE)
        status = size if is_copied else netif.NETIF_RSP_ERROR
        made.append(_RESPONSE.pack(_REQUEST.unpack(request)[0], 0, flags | more | extra, status))
        flags = 0
    if packet.gso_size:
        kind = _GSO_TYPES[packet.headers.kind]
        made.insert(1, _GSO_EXTRA.pack(netif.XEN_NETIF_EXTRA_TYPE_GSO, 0, packet.gso_size, kind, 0, 0))
    return made


def _carriers(packet: Packet, requests: Sequence[bytes]) -> list[bytes]:
    """The requests whose buffers carry bytes: the slot of the second one may have extra information instead."""
    return [requests[0], *requests[2:]] if packet.gso_size else list(requests)
