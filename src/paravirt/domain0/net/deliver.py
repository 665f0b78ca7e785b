"""Packets into the buffers of a receive ring (public/io/netif.h). Free of I/O."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from paravirt.abi.io import netif
from paravirt.domain0.net.interface import Interface
from paravirt.domain0.net.offload import can_be_cut, segments, with_checksum
from paravirt.domain0.net.packet import ETH_IP, ETH_IPV6, Malformed, Packet

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


def fitted(packet: Packet, abilities: Abilities) -> Iterator[Packet]:
    """The packet as the frontend can take it, if need be in several, each made when it is asked for; none, if it
    cannot.

    Raises:
        Malformed: its headers are.
    """
    kind = packet.headers.kind
    pieces: Iterable[Packet] = (packet,)
    if packet.gso_size and not (kind in abilities.gso and abilities.scattered and can_be_cut(packet.headers)):
        pieces = segments(packet)
    is_blank = kind in abilities.blank
    for piece in pieces:
        if abilities.scattered or len(piece.data) <= PAGE_SIZE:
            yield piece if is_blank else with_checksum(piece)


class Waiting:
    """What waits for somebody in a place of an interface, as they can take it. Large packets are cut as they are taken:
    however many pieces a sender asks for, no more are made than there is room for.

    Parameters:
        abilities: theirs.
    """

    def __init__(self, interface: Interface, place: int, abilities: Abilities) -> None:
        self._interface, self._place, self._abilities = interface, place, abilities
        self._pieces: Iterator[Packet] = iter(())
        self._first: Packet | None = None

    @property
    def is_empty(self) -> bool:
        """Nothing waits; what somebody has rewritten into nonsense, or they cannot take, waits until it is seen."""
        return self._first is None and not self._interface.waiting_in(self._place)

    def first(self) -> Packet | None:
        """What has waited longest, or None."""
        while self._first is None:
            self._first = next(self._pieces, None)
            if self._first is None:
                if self.is_empty:
                    break
                self._pieces = self._cut(self._interface.take(self._place))
        return self._first

    def drop_first(self) -> None:
        """It is theirs now."""
        self._first = None

    def _cut(self, packet: Packet) -> Iterator[Packet]:
        is_lost = True
        with contextlib.suppress(Malformed):
            for piece in fitted(packet, self._abilities):
                is_lost = False
                yield piece
        self._interface.counters.overrun += is_lost


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
