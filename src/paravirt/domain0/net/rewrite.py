"""Rewriting of addresses and ports, and the connections for which the answers are rewritten back. Free of I/O.

Checksums are adjusted, not made anew (RFC 1624): a packet that was damaged stays recognisable as such.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from paravirt.domain0.net.packet import ETH_IP, ICMP, TCP, UDP, Packet, ones_sum
from paravirt.domain0.net.shares import Shares

_LIMIT: Final = 4096
_FIRST_PORT: Final = 32768
_ICMP_ECHOES: Final = (0, 8)


@dataclass(frozen=True)
class Flow:
    """A conversation as its packets have it. For ICMP echoes the identifier stands for both ports."""

    protocol: int
    src: bytes
    sport: int
    dst: bytes
    dport: int

    @property
    def reverse(self) -> Flow:
        """As the answers have it."""
        return Flow(self.protocol, self.dst, self.dport, self.src, self.sport)


def flow_of(packet: Packet) -> Flow | None:
    """The conversation that a packet belongs to; None: of a kind that is not followed.

    Raises:
        Malformed: the packet is.
    """
    headers = packet.headers
    if headers.kind != ETH_IP or not headers.l4:
        return None
    if headers.protocol in (TCP, UDP):
        return Flow(headers.protocol, headers.ip_src, headers.sport, headers.ip_dst, headers.dport)
    if headers.protocol == ICMP and headers.icmp_type in _ICMP_ECHOES and headers.end - headers.l4 >= 8:
        number = int.from_bytes(packet.data[headers.l4 + 4 : headers.l4 + 6], "big")
        return Flow(ICMP, headers.ip_src, number, headers.ip_dst, number)
    return None


def rewritten(packet: Packet, flow: Flow) -> Packet:
    """The packet with another conversation's addresses and ports.

    Raises:
        Malformed: the packet is.
    """
    headers = packet.headers
    data = bytearray(packet.data)
    l3, l4 = headers.l3, headers.l4
    old_addresses = bytes(data[l3 + 12 : l3 + 20])
    new_addresses = flow.src + flow.dst
    data[l3 + 12 : l3 + 20] = new_addresses
    _adjust(data, l3 + 10, old_addresses, new_addresses)
    if headers.protocol == ICMP:
        old, new = bytes(data[l4 + 4 : l4 + 6]), flow.sport.to_bytes(2, "big")
        data[l4 + 4 : l4 + 6] = new
        _adjust(data, l4 + 2, old, new)
        return packet.changed(bytes(data))
    old_ports, new_ports = bytes(data[l4 : l4 + 4]), flow.sport.to_bytes(2, "big") + flow.dport.to_bytes(2, "big")
    data[l4 : l4 + 4] = new_ports
    at = l4 + (16 if headers.protocol == TCP else 6)
    if packet.csum_blank:
        # The sum over the pseudo header is there as it is, not its complement; and the ports are not in it.
        total = int.from_bytes(data[at : at + 2], "big") + ones_sum(new_addresses) - ones_sum(old_addresses)
        data[at : at + 2] = (total % 0xFFFF).to_bytes(2, "big")
    elif headers.protocol == TCP or data[at : at + 2] != b"\0\0":
        _adjust(data, at, old_addresses + old_ports, new_addresses + new_ports)
    return packet.changed(bytes(data))


def _adjust(data: bytearray, at: int, old: bytes, new: bytes) -> None:
    """Adjust the checksum at ``at`` for bytes that were changed."""
    total = 0xFFFF - int.from_bytes(data[at : at + 2], "big")
    total += ones_sum(new) - ones_sum(old)
    data[at : at + 2] = (0xFFFF - total % 0xFFFF).to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class _Conversation:
    """One that is rewritten: what the packets of who began it are like, before and after."""

    owner: Hashable
    old: Flow
    new: Flow


class Connections:
    """The conversations whose packets are rewritten, both ways. Who begins more than his share of them
    (:class:`Shares`) has the one forgotten that he has not used for longest."""

    def __init__(self) -> None:
        self._flows: dict[Flow, _Conversation] = {}
        self._of: dict[Hashable, OrderedDict[Flow, None]] = {}
        self._shares = Shares(_LIMIT)
        self._next_port = _FIRST_PORT

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    @property
    def is_empty(self) -> bool:
        """There are none."""
        return not self._flows

    def find(self, flow: Flow) -> Flow | None:
        """What a conversation's packets are rewritten to."""
        found = self._flows.get(flow)
        if found is None:
            return None
        self._of[found.owner].move_to_end(found.old)
        return found.new if flow == found.old else found.old.reverse

    def open(self, flow: Flow, src: bytes | None, dst: tuple[bytes, int] | None, owner: Hashable) -> Flow:
        """Remember a conversation that somebody begins: its source becomes ``src``, with another port if need be, or
        its destination ``dst`` (port 0: as it is)."""
        to = dst or (flow.dst, flow.dport)
        dport = to[1] if to[1] and flow.protocol != ICMP else flow.dport
        if not self._shares.has_room_for(owner):
            # Who has none is let in when there is no room at all, in place of one of who has most.
            self._forget_first(owner if owner in self._of else max(self._of, key=lambda one: len(self._of[one])))
        new = self._with_free_port(Flow(flow.protocol, src or flow.src, flow.sport, to[0], dport))
        self._flows[flow] = self._flows[new.reverse] = _Conversation(owner, flow, new)
        self._of.setdefault(owner, OrderedDict())[flow] = None
        self._shares.take(owner)
        return new

    def forget(self, owner: Hashable) -> None:
        """Somebody is gone, and what he began."""
        while owner in self._of:
            self._forget_first(owner)

    def _forget_first(self, owner: Hashable) -> None:
        old, _ = self._of[owner].popitem(last=False)
        if not self._of[owner]:
            del self._of[owner]
        self._flows.pop(self._flows.pop(old).new.reverse, None)
        self._shares.give_back(owner)

    def _with_free_port(self, flow: Flow) -> Flow:
        """The same from the port that was free longest, if its own is taken."""
        while flow.reverse in self._flows:
            port = self._next_port
            self._next_port = port + 1 if port < 0xFFFF else _FIRST_PORT
            dport = port if flow.protocol == ICMP else flow.dport
            flow = Flow(flow.protocol, flow.src, port, flow.dst, dport)
        return flow
