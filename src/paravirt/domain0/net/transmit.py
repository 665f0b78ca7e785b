"""Packets out of the requests of a transmit ring (public/io/netif.h). Free of I/O.

What is wrong with a packet alone fails that packet; what leaves unclear where the next one begins, or no kernel does
by accident, is a :class:`GuestProtocolError`, and ends the connection. The limits are those of Linux's backend.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from paravirt.abi.io import netif
from paravirt.domain0.devices.ring import BackRing
from paravirt.domain0.net.packet import ETH_HEADER
from paravirt.domain0.ring import GuestProtocolError

PAGE_SIZE: Final = 4096
MOST_SLOTS: Final = netif.XEN_NETIF_NR_SLOTS_MIN
FATAL_SLOTS: Final = 20
"""With more, the frontend is not talked to any more."""

_REQUEST: Final = struct.Struct("<IHHHH")
_EXTRA: Final = struct.Struct("<BB6s")
_GSO: Final = struct.Struct("<HBBH")
ENTRY_SIZE: Final = _REQUEST.size


@dataclass(slots=True)
class Transmitted:
    """A packet that the guest sends.

    Attributes:
        answers: for each slot, the identifier to answer with, or None for one with extra information.
        parts: where its bytes are: (grant reference, offset, length).
        size: of all of it.
        group: an Ethernet group that is joined (True) or left (False); there is no packet then.
        is_bad: it cannot be sent.
    """

    answers: list[int | None] = field(default_factory=list)
    parts: list[tuple[int, int, int]] = field(default_factory=list)
    size: int = 0
    csum_blank: bool = False
    gso_size: int = 0
    group: tuple[bytes, bool] | None = None
    is_bad: bool = False

    def responses(self, is_sent: bool) -> list[bytes]:
        """The responses to its slots."""
        status = netif.NETIF_RSP_OKAY if is_sent else netif.NETIF_RSP_ERROR
        return [
            struct.pack("<Hh", 0, netif.NETIF_RSP_NULL) if number is None else struct.pack("<Hh", number, status)
            for number in self.answers
        ]


class Requests:
    """The requests of a ring, one by one, taken from it in batches."""

    def __init__(self, ring: BackRing, batch: int = 64) -> None:
        self._ring, self._batch = ring, batch
        self._taken: deque[bytes] = deque()

    @property
    def is_empty(self) -> bool:
        """There is none.

        Raises:
            RingError: the indices make no sense.
        """
        if not self._taken:
            self._taken.extend(self._ring.take(self._batch))
        return not self._taken

    def next(self) -> bytes:
        """The next one.

        Raises:
            GuestProtocolError: a packet ends before its last slot; or the indices make no sense.
        """
        if self.is_empty:
            raise GuestProtocolError("a packet that is sent goes on where the ring ends")
        return self._taken.popleft()


def next_packet(fetch: Callable[[], bytes]) -> Transmitted:
    """The packet that begins with the next request.

    Raises:
        GuestProtocolError: its slots make no sense.
    """
    packet = Transmitted()
    reference, offset, flags, number, size = _REQUEST.unpack(fetch())
    packet.answers.append(number)
    packet.size = size
    packet.csum_blank = bool(flags & netif.NETTXF_csum_blank)
    if flags & netif.NETTXF_extra_info:
        _extras(packet, fetch)
    parts = [(reference, offset, size)]
    left = size
    while flags & netif.NETTXF_more_data:
        reference, offset, flags, number, part = _REQUEST.unpack(fetch())
        packet.answers.append(number)
        if len(parts) >= FATAL_SLOTS:
            raise GuestProtocolError(f"a packet that is sent has more than {FATAL_SLOTS} slots")
        # The first slot has the size of the whole, and its own part of that is what the others leave.
        if part > left:
            packet.is_bad = True
            left = 0
        else:
            left -= part
        parts.append((reference, offset, part))
    parts[0] = (parts[0][0], parts[0][1], left)
    if packet.group is None:
        for _, offset, part in parts:
            if offset + part > PAGE_SIZE:
                raise GuestProtocolError(f"{part} bytes that are sent begin at {offset} of a page")
        packet.is_bad = packet.is_bad or packet.size < ETH_HEADER or len(parts) > MOST_SLOTS
    packet.parts = [part for part in parts if part[2]]
    return packet


def _extras(packet: Transmitted, fetch: Callable[[], bytes]) -> None:
    """Read the slots with extra information: each kind of it is there once at most."""
    seen = set()
    more = True
    while more:
        kind, flags, data = _EXTRA.unpack_from(fetch())
        packet.answers.append(None)
        more = bool(flags & netif.XEN_NETIF_EXTRA_FLAG_MORE)
        if not netif.XEN_NETIF_EXTRA_TYPE_NONE < kind < netif.XEN_NETIF_EXTRA_TYPE_MAX or kind in seen:
            raise GuestProtocolError(f"a packet that is sent has extra information of the kind {kind}")
        seen.add(kind)
        if kind == netif.XEN_NETIF_EXTRA_TYPE_GSO:
            gso_size, gso_type, _, _ = _GSO.unpack(data)
            if gso_type not in (netif.XEN_NETIF_GSO_TYPE_TCPV4, netif.XEN_NETIF_GSO_TYPE_TCPV6) or not gso_size:
                raise GuestProtocolError(f"a packet is to be cut at {gso_size} bytes, as of kind {gso_type}")
            packet.gso_size = gso_size
        elif kind == netif.XEN_NETIF_EXTRA_TYPE_MCAST_ADD:
            packet.group = data, True
        elif kind == netif.XEN_NETIF_EXTRA_TYPE_MCAST_DEL:
            packet.group = data, False
