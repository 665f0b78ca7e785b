"""IPv4 packets in fragments: put together before anybody looks at them, and cut again (RFC 791, 3.2). Free of I/O.

What the firewall looks at is the whole packet: of a fragment it could not tell the ports, and of fragments that overlap
it could not tell which bytes the receiver will believe. Those are refused, with all of their packet (as RFC 5722 asks
for in IPv6).
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from paravirt.domain0.net.offload import with_checksum
from paravirt.domain0.net.packet import ETH_IP, IP_FRAGMENT_MASK, IP_MORE_FRAGMENTS, Malformed, Packet, checksum

PATIENCE: Final = 30.0
"""Seconds until a packet whose fragments do not all come is forgotten."""
MOST_BYTES: Final = 1 << 18
"""What fragments from one interface occupy at most while they wait for others; with more, the packet that began first
is forgotten."""
_EACH: Final = 256
"""What a fragment occupies besides its bytes."""
_LARGEST: Final = 0xFFFF
_UNIT: Final = 8

_Key = tuple[bytes, bytes]


@dataclass
class _Partial:
    """A packet of which some fragments have come.

    Attributes:
        since: when the first came.
        starts, ends: where in the payload the fragments that came begin and end, in their order there.
        size: of all of them together.
        total: the payload's length, once the last fragment has come.
        head: everything in front of the first one's payload, once it has come.
        largest: the length of the largest fragment's network packet.
    """

    since: float
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    total: int | None = None
    head: bytes = b""
    csum_blank: bool = False
    largest: int = 0

    @property
    def occupied(self) -> int:
        return self.size + _EACH * len(self.parts)

    @property
    def is_whole(self) -> bool:
        """Nothing is missing: no two overlap, so that only their lengths matter."""
        return self.size == self.total

    def add(self, start: int, part: bytes, is_last: bool) -> None:
        """Note a fragment.

        Raises:
            Malformed: it overlaps another one, or there is something behind the last one.
        """
        end = start + len(part)
        at = bisect(self.starts, start)
        if (at and self.ends[at - 1] > start) or (at < len(self.starts) and self.starts[at] < end):
            raise Malformed("fragments of a packet that overlap")
        self.starts.insert(at, start)
        self.ends.insert(at, end)
        self.parts.insert(at, part)
        self.size += len(part)
        if is_last:
            self.total = end
        if self.total is not None and self.ends[-1] > self.total:
            raise Malformed("fragments of a packet behind its last one")


class Reassembly:
    """The fragments that came from one interface."""

    def __init__(self) -> None:
        self._partial: OrderedDict[_Key, _Partial] = OrderedDict()
        self._occupied = 0

    @property
    def occupied(self) -> int:
        """How many bytes are held."""
        return self._occupied

    def add(self, packet: Packet, now: float) -> Packet | None:
        """The packet that this fragment makes whole at the time ``now``; None: others are missing.

        Raises:
            Malformed: it contradicts others, or itself; those that came are forgotten then.
        """
        while self._partial and now - next(iter(self._partial.values())).since > PATIENCE:
            self._forget(next(iter(self._partial)))
        data, l3 = packet.data, packet.headers.l3
        payload_at, end = l3 + (data[l3] & 15) * 4, l3 + int.from_bytes(data[l3 + 2 : l3 + 4], "big")
        where = int.from_bytes(data[l3 + 6 : l3 + 8], "big")
        start, is_last = (where & IP_FRAGMENT_MASK) * _UNIT, not where & IP_MORE_FRAGMENTS
        part = data[payload_at:end]
        # Who it is from and to, on this link and beyond, its identification and its protocol.
        key = data[:l3] + data[l3 + 12 : l3 + 20], data[l3 + 4 : l3 + 6] + data[l3 + 9 : l3 + 10]
        partial = self._partial.setdefault(key, _Partial(now))
        self._occupied -= partial.occupied
        try:
            if not part or (not is_last and len(part) % _UNIT) or start + end - l3 > _LARGEST:
                raise Malformed(f"a fragment of {len(part)} bytes at {start}")
            partial.add(start, part, is_last)
        except Malformed:
            del self._partial[key]
            raise
        if not start:
            partial.head, partial.csum_blank = data[:payload_at], packet.csum_blank
        partial.largest = max(partial.largest, end - l3)
        if partial.is_whole:
            del self._partial[key]
            return _whole(partial, l3)
        self._occupied += partial.occupied
        while self._occupied > MOST_BYTES:
            self._forget(next(iter(self._partial)))
        return None

    def _forget(self, key: _Key) -> None:
        self._occupied -= self._partial.pop(key).occupied


def _whole(partial: _Partial, l3: int) -> Packet:
    head = bytearray(partial.head)
    payload = b"".join(partial.parts)
    length = len(head) - l3 + len(payload)
    if length > _LARGEST:  # the first one's header is longer than the others'
        raise Malformed(f"fragments of a packet of {length} bytes")
    _set_fragment(head, l3, length, 0)
    return Packet(bytes(head) + payload, partial.csum_blank, fragment_size=partial.largest)


_identifications = itertools.count(1)


def fragments(packet: Packet) -> list[Packet]:
    """A packet in fragments of ``fragment_size`` bytes at most, or as it is, if it is no larger.

    Raises:
        Malformed: it is.
    """
    headers, size, l3 = packet.headers, packet.fragment_size, packet.headers.l3
    end = l3 + int.from_bytes(packet.data[l3 + 2 : l3 + 4], "big")
    if not size or headers.kind != ETH_IP or end - l3 <= size:
        return [packet]
    data = with_checksum(packet).data
    payload_at = l3 + (data[l3] & 15) * 4
    each = max(_UNIT, (size - (payload_at - l3)) // _UNIT * _UNIT)
    head = bytearray(data[:payload_at])
    if not any(head[l3 + 4 : l3 + 6]):  # the router's own packets have none
        struct.pack_into("!H", head, l3 + 4, next(_identifications) & 0xFFFF or 1)
    made = []
    for start in range(payload_at, end, each):
        stop = min(start + each, end)
        more = IP_MORE_FRAGMENTS if stop < end else 0
        _set_fragment(head, l3, payload_at - l3 + stop - start, more | (start - payload_at) // _UNIT)
        made.append(Packet(bytes(head) + data[start:stop]))
    return made


def _set_fragment(head: bytearray, l3: int, length: int, where: int) -> None:
    """Write a length and a place among the fragments into the IPv4 header that ``head`` ends with."""
    struct.pack_into("!H", head, l3 + 2, length)
    struct.pack_into("!H", head, l3 + 6, where)
    struct.pack_into("!H", head, l3 + 10, 0)
    struct.pack_into("!H", head, l3 + 10, checksum(bytes(head[l3:])))
