"""Interfaces of the virtual firewall-router: who is behind each, what waits for it, and what was counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from paravirt.domain0.net.fragments import Reassembly, fragments
from paravirt.domain0.net.offload import size_on_wire
from paravirt.domain0.net.packet import (
    BROADCAST,
    ETH_ARP,
    ETH_IP,
    ETH_IPV6,
    ICMPV6,
    ND_ADVERTISEMENT,
    ND_REDIRECT,
    ND_ROUTER_ADVERTISEMENT,
    UDP,
    Headers,
    Packet,
)
from paravirt.domain0.net.pcap import Capture

QUEUE_BYTES: Final = 1 << 20
"""What waits for an interface at most, in bytes."""

_NOWHERE = bytes(4)
_UNSPECIFIED = bytes(16)
_DHCP_SERVER, _DHCP_CLIENT = 67, 68


class Mode(Enum):
    """How an interface is joined to the others: by the names of Xen's scripts."""

    BRIDGE = "vif-bridge"
    ROUTE = "vif-route"
    NAT = "vif-nat"


@dataclass
class Counters:
    """What an interface did: ``received`` came from behind it, ``sent`` went there."""

    received_packets: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0
    malformed: int = 0
    spoofed: int = 0
    denied: int = 0
    overrun: int = 0


class Backlog:
    """Packets that wait, up to so many bytes; those that are to be cut count with the headers of all their pieces."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packets: deque[Packet] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._packets)

    def add(self, packet: Packet) -> bool:
        """Have a packet wait; false: too much waits already."""
        size = size_on_wire(packet)
        if self._bytes + size > self._limit:
            return False
        self._bytes += size
        self._packets.append(packet)
        return True

    def take(self) -> Packet:
        """The packet that has waited longest."""
        packet = self._packets.popleft()
        self._bytes -= size_on_wire(packet)
        return packet


class Interface:
    """One port of the router, with a guest, the host or a capture behind it.

    Parameters:
        name: as in rules: ``vif3.0``.
        mac: of who is behind it; empty: many may be, and what they send is taken as it comes.
        mode: how it is joined to the others.
        bridge: which interfaces it shares a segment with, if it is bridged.
        addresses: the IPv4 and IPv6 addresses that it sends from.
        may_spoof: it sends from any address.
        wake: called when packets begin to wait for it.

    Attributes:
        groups: the Ethernet groups that it wants; None: all.
        fragments: of packets that came from behind it.
    """

    def __init__(
        self,
        name: str,
        mac: bytes,
        *,
        mode: Mode = Mode.BRIDGE,
        bridge: str = "xenbr0",
        addresses: tuple[bytes, ...] = (),
        may_spoof: bool = False,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.mac = mac
        self.mode = mode
        self.bridge = bridge
        self.addresses = set(addresses)
        self.may_spoof = may_spoof or not mac
        self.wake = wake
        self.is_up = True
        self.groups: set[bytes] | None = None
        self.capture: Capture | None = None
        self.counters = Counters()
        self.fragments = Reassembly()
        self.spread(1, lambda packet: 0)

    @property
    def is_bridged(self) -> bool:
        """It shares a segment with others."""
        return self.mode is Mode.BRIDGE

    def spread(self, count: int, choose: Callable[[Packet], int]) -> None:
        """Have packets wait in so many places, chosen by ``choose``, each for itself: who takes none of those that
        wait in one still gets the others. Together they hold no more than one alone."""
        self._backlogs = [Backlog(QUEUE_BYTES // count) for _ in range(count)]
        self._choose = choose

    @property
    def waiting(self) -> int:
        """How many packets wait for it."""
        return sum(map(len, self._backlogs))

    def waiting_in(self, place: int) -> int:
        """How many packets wait in one place."""
        return len(self._backlogs[place])

    def enqueue(self, packet: Packet) -> bool:
        """Have a packet wait for it, if need be in fragments; false: too much waits already, and what is dropped of it
        is counted.

        Raises:
            Malformed: it is to be cut into fragments, and has not the headers for it.
        """
        if packet.fragment_size and len(packet.data) > packet.fragment_size:
            pieces = fragments(packet)
            return sum(map(self._enqueue, pieces)) == len(pieces)
        return self._enqueue(packet)

    def _enqueue(self, packet: Packet) -> bool:
        backlogs = self._backlogs
        backlog = backlogs[0] if len(backlogs) == 1 else backlogs[self._choose(packet)]
        if not self.is_up or not backlog.add(packet):
            self.counters.overrun += 1
            return False
        if len(backlog) == 1:
            self.wake()
        return True

    def take(self, place: int = 0) -> Packet:
        """Take the packet that has waited longest in a place: it is sent now."""
        packet = self._backlogs[place].take()
        self.counters.sent_packets += 1
        self.counters.sent_bytes += len(packet.data)
        if self.capture is not None:
            self.capture.write(packet.data)
        return packet

    def discard(self) -> None:
        """Drop all that waits: nobody is there any more."""
        self.counters.overrun += self.waiting
        self.spread(1, lambda packet: 0)

    def is_own(self, headers: Headers) -> bool:
        """Whether the packet is from addresses that are the sender's own."""
        if self.may_spoof:
            return True
        if headers.src != self.mac:
            return False
        if headers.kind == ETH_ARP:
            return headers.arp_sender == self.mac and (headers.ip_src in self.addresses or headers.ip_src == _NOWHERE)
        if headers.kind == ETH_IP:
            if headers.ip_src == _NOWHERE:
                return (headers.protocol, headers.sport, headers.dport) == (UDP, _DHCP_CLIENT, _DHCP_SERVER)
            return headers.ip_src in self.addresses
        if headers.kind == ETH_IPV6:
            is_nobody = headers.ip_src == _UNSPECIFIED and headers.protocol == ICMPV6
            return (is_nobody or self._has(headers.ip_src)) and self._may_announce(headers)
        return False

    def _has(self, address: bytes) -> bool:
        """Whether an IPv6 address is its own."""
        return address in self.addresses or address == link_local(self.mac)

    def _may_announce(self, headers: Headers) -> bool:
        """Whether what neighbour discovery says is about the sender itself; a guest is nobody's router."""
        if headers.protocol != ICMPV6:
            return True
        if headers.icmp_type in (ND_ROUTER_ADVERTISEMENT, ND_REDIRECT):
            return False
        if headers.icmp_type == ND_ADVERTISEMENT and not self._has(headers.nd_target):
            return False
        return all(link == self.mac for link in headers.nd_links)

    def wants(self, group: bytes) -> bool:
        """Whether what is sent to an Ethernet group is for it."""
        return self.groups is None or group in self.groups or group == BROADCAST


def link_local(mac: bytes) -> bytes:
    """The IPv6 link-local address made from an Ethernet address (RFC 4291, appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]


@dataclass
class Segment:
    """A bridge: interfaces that see each other's Ethernet packets, and what is known of who is where."""

    name: str
    members: list[Interface] = field(default_factory=list)
    stations: dict[bytes, Interface] = field(default_factory=dict)

    MOST_STATIONS = 1024

    def learn(self, mac: bytes, interface: Interface) -> None:
        """Packets to ``mac`` go to this interface from now on. Too many stations are not learnt: those are flooded."""
        if mac in self.stations or len(self.stations) < self.MOST_STATIONS:
            self.stations[mac] = interface

    def leave(self, interface: Interface) -> None:
        """An interface is no member any more."""
        self.members.remove(interface)
        self.forget(interface)

    def forget(self, interface: Interface, but: bytes = b"") -> None:
        """Know no stations behind an interface any more, ``but`` that of this address."""
        for mac in [mac for mac, where in self.stations.items() if where is interface and mac != but]:
            del self.stations[mac]
