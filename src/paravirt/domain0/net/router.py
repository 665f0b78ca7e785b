"""The virtual firewall-router: every packet of every interface goes through it. Free of I/O.

Interfaces in bridge mode with the same bridge share a segment, as behind a switch that learns. The router itself is a
station of every segment, and the only neighbour of an interface in route or NAT mode: what is sent to it goes on
by the table of addresses, or to the outside.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Protocol

from paravirt.domain0.net.interface import Interface, Mode, Segment
from paravirt.domain0.net.packet import ETH_IP, MTU, TCP, Headers, Malformed, Packet, checksum, ip_text, mac_text
from paravirt.domain0.net.replies import TIME_EXCEEDED, UNREACHABLE, icmp_error, tcp_reset
from paravirt.domain0.net.rewrite import Connections, flow_of, rewritten
from paravirt.domain0.net.rules import Action, Rule, Rules
from paravirt.errors import UserError

logger = logging.getLogger(__name__)
OWN_NAME: Final = "router"
"""What rules call the router itself, as where packets come from and go to."""
_LOG_LINES: Final = 1000
_MOST_HOSTS: Final = 4096
_PROHIBITED, _HOST_UNREACHABLE = 13, 1
_BROADCAST_ADDRESS: Final = b"\xff" * 4


class Station(Protocol):
    """The router as one that packets are addressed to."""

    mac: bytes
    address: bytes

    def receive(self, interface: Interface, packet: Packet) -> None:
        """A packet to the router's own addresses, or to everybody."""

    def outside(self, interface: Interface, packet: Packet) -> bool:
        """A packet to an address that no interface has; false: there is no way."""


@dataclass(frozen=True)
class Neighbour:
    """Where an address is."""

    interface: Interface
    mac: bytes


class Router:
    """The router of one machine.

    Parameters:
        clock: the time in seconds, by which fragments are waited for.

    Attributes:
        rules: the firewall's.
        log: the last lines that rules have logged.
    """

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self.interfaces: dict[str, Interface] = {}
        self.rules = Rules()
        self.connections = Connections()
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        self.hosts: dict[bytes, Neighbour] = {}
        self._segments: dict[str, Segment] = {}
        self._station: Station | None = None

    def serve_as(self, station: Station) -> None:
        """Have packets to the router itself answered."""
        self._station = station

    def attach(self, interface: Interface) -> None:
        """Join an interface.

        Raises:
            UserError: there is one of its name, or with its addresses.
        """
        if interface.name in self.interfaces or interface.name == OWN_NAME:
            raise UserError(f"There is a network interface {interface.name} already.")
        own = () if self._station is None else (self._station.address,)
        for address in interface.addresses:
            if address in self.hosts or address in own:
                raise UserError(f"Another network interface has the address {ip_text(address)}.")
        if interface.mac and any(other.mac == interface.mac for other in self._neighbours(interface)):
            raise UserError(f"Another network interface of its bridge has the address {mac_text(interface.mac)}.")
        self.interfaces[interface.name] = interface
        for address in interface.addresses:
            self.hosts[address] = Neighbour(interface, interface.mac)
        if interface.is_bridged:
            segment = self._segments.setdefault(interface.bridge, Segment(interface.bridge))
            segment.members.append(interface)
            if interface.mac:
                segment.learn(interface.mac, interface)

    def let_spoof(self, interface: Interface, allowed: bool) -> None:
        """Have who is behind an interface send from any address, or only from its own."""
        interface.may_spoof = allowed or not interface.mac
        if not interface.may_spoof:
            own = interface.addresses
            self.hosts = {
                address: where
                for address, where in self.hosts.items()
                if where.interface is not interface or address in own
            }
            segment = self._segments.get(interface.bridge) if interface.is_bridged else None
            if segment is not None:
                segment.forget(interface, interface.mac)

    def detach(self, interface: Interface) -> None:
        """An interface goes, and what waits for it."""
        del self.interfaces[interface.name]
        interface.discard()
        self.connections.forget(interface)
        if interface.is_bridged:
            segment = self._segments[interface.bridge]
            segment.leave(interface)
            if not segment.members:
                del self._segments[segment.name]
        self.hosts = {address: where for address, where in self.hosts.items() if where.interface is not interface}

    def receive(self, interface: Interface, packet: Packet) -> None:
        """A packet came from behind an interface: check it, and send it where it is to go."""
        counters = interface.counters
        counters.received_packets += 1
        counters.received_bytes += len(packet.data)
        if interface.capture is not None:
            interface.capture.write(packet.data)
        try:
            headers = packet.headers
            if not interface.is_own(headers):
                counters.spoofed += 1
                return
            if interface.may_spoof:
                self._learn_address(interface, headers)
            whole: Packet | None = packet
            if headers.is_fragment and headers.kind == ETH_IP:
                whole = interface.fragments.add(packet, self._clock())
            if whole is not None:
                self._filter(interface, whole)
        except Malformed:
            counters.malformed += 1

    def send(self, interface: Interface, packet: Packet, incoming: str = OWN_NAME) -> None:
        """Send a packet to who is behind an interface, if the rules about outgoing packets let it."""
        if self.rules.has_outgoing:
            rule = self.rules.decide(
                packet.headers, incoming, interface.name, lambda rule: self._in_passing(rule, incoming, packet)
            )
            if rule is not None and rule.action is not Action.ACCEPT:
                self._refuse(rule, self.interfaces.get(incoming), packet)
                return
        interface.enqueue(packet)

    def send_ip(self, data: bytes, *, csum_blank: bool = False, gso_size: int = 0) -> bool:
        """Send a network packet from the router itself, by the table of addresses; false: nobody has the address."""
        neighbour = self.hosts.get(data[16:20])
        if neighbour is None or self._station is None:
            return False
        frame = neighbour.mac + self._station.mac + b"\x08\x00" + data
        self.send(neighbour.interface, Packet(frame, csum_blank, gso_size, fragment_size=0 if gso_size else MTU))
        return True

    def owner(self, address: bytes) -> Hashable:
        """Who has an address: the interface; of nobody's address, the address itself."""
        neighbour = self.hosts.get(address)
        return neighbour.interface if neighbour else address

    def segment_of(self, interface: Interface) -> list[Interface]:
        """The other interfaces of its bridge."""
        return [other for other in self._neighbours(interface) if other is not interface]

    # --- on the way -------------------------------------------------------------------------------------------

    def _neighbours(self, interface: Interface) -> list[Interface]:
        segment = self._segments.get(interface.bridge) if interface.is_bridged else None
        return segment.members if segment else []

    def _learn_address(self, interface: Interface, headers: Headers) -> None:
        """Who sends what it likes has the addresses that it sends from, unless they are somebody's."""
        source = headers.ip_src
        own = self._station is not None and source == self._station.address
        if len(source) == 4 and any(source) and not own:
            known = self.hosts.get(source)
            if known.interface is interface if known else len(self.hosts) < _MOST_HOSTS:
                self.hosts[source] = Neighbour(interface, headers.src)

    def _filter(self, interface: Interface, packet: Packet) -> None:
        if not self.connections.is_empty:
            flow = flow_of(packet)
            known = self.connections.find(flow) if flow is not None else None
            if known is not None:
                self._forward(interface, rewritten(packet, known), packet, True)
                return
        rule = self.rules.decide(
            packet.headers, interface.name, None, lambda rule: self._in_passing(rule, interface.name, packet)
        )
        if rule is None or rule.action is Action.ACCEPT:
            self._forward(interface, packet, packet, False)
        elif rule.action in (Action.SNAT, Action.DNAT) and (flow := flow_of(packet)) is not None:
            source = rule.address if rule.action is Action.SNAT else None
            target = (rule.address, rule.port) if rule.action is Action.DNAT else None
            new = self.connections.open(flow, source, target, interface)
            self._forward(interface, rewritten(packet, new), packet, True)
        else:
            self._refuse(rule, interface, packet)

    def _forward(self, interface: Interface, packet: Packet, original: Packet, is_known: bool) -> None:
        headers, station = packet.headers, self._station
        segment = self._segments.get(interface.bridge) if interface.is_bridged else None
        if segment is not None and not headers.src[0] & 1:
            if interface.may_spoof:
                segment.learn(headers.src, interface)
        if is_known and headers.ip_dst != original.headers.ip_dst:
            self._route(interface, packet, True)
        elif station is not None and headers.dst == station.mac:
            self._route(interface, packet, is_known)
        elif segment is None:
            if headers.is_group and station is not None:
                station.receive(interface, packet)
            else:
                interface.counters.denied += 1
        elif headers.is_group:
            for other in segment.members:
                if other is not interface and other.wants(headers.dst):
                    self.send(other, packet, interface.name)
            if station is not None:
                station.receive(interface, packet)
        else:
            known = segment.stations.get(headers.dst)
            for other in segment.members if known is None else [known]:
                # A packet for a station that nobody knows can only be for one that was not told of.
                if other is not interface and (known is other or other.may_spoof):
                    self.send(other, packet, interface.name)

    def _route(self, interface: Interface, packet: Packet, is_known: bool) -> None:
        """Send a packet on that is addressed to the router's own Ethernet address."""
        headers, station = packet.headers, self._station
        assert station is not None
        if headers.kind != ETH_IP or headers.ip_dst in (station.address, _BROADCAST_ADDRESS):
            station.receive(interface, packet)
            return
        there = self.hosts.get(headers.ip_dst)
        if there is None:
            if not station.outside(interface, packet):
                self._answer(interface, icmp_error(station.address, packet, UNREACHABLE, _HOST_UNREACHABLE))
            return
        if not is_known and Mode.NAT in (interface.mode, there.interface.mode):
            flow = flow_of(packet)
            if interface.mode is not Mode.NAT or flow is None:
                interface.counters.denied += 1
                self._answer(interface, icmp_error(station.address, packet, UNREACHABLE, _PROHIBITED))
                return
            packet = rewritten(packet, self.connections.open(flow, station.address, None, interface))
        if packet.data[headers.l3 + 8] <= 1:
            self._answer(interface, icmp_error(station.address, packet, TIME_EXCEEDED, 0))
            return
        self.send(there.interface, _next_hop(packet, there.mac, station.mac), interface.name)

    def _answer(self, interface: Interface, data: bytes | None) -> None:
        if data is not None:
            self.send_ip(data)

    # --- rules ------------------------------------------------------------------------------------------------

    def _in_passing(self, rule: Rule, incoming: str, packet: Packet) -> None:
        if rule.action is Action.LOG:
            headers = packet.headers
            self.log.append(
                f"{incoming}: {mac_text(headers.src)} > {mac_text(headers.dst)} {headers.kind:#06x} "
                f"{ip_text(headers.ip_src)}:{headers.sport} > {ip_text(headers.ip_dst)}:{headers.dport} "
                f"protocol {headers.protocol} length {len(packet.data)}"
            )
            logger.info("%s", self.log[-1])
        elif rule.interface in self.interfaces:
            self.interfaces[rule.interface].enqueue(packet)

    def _refuse(self, rule: Rule, interface: Interface | None, packet: Packet) -> None:
        """Do with a packet what a rule says that does not let it pass."""
        if rule.action is Action.REDIRECT and rule.interface in self.interfaces:
            self.interfaces[rule.interface].enqueue(packet)
            return
        if interface is not None:
            interface.counters.denied += 1
        if rule.action is not Action.REJECT or self._station is None or packet.headers.kind != ETH_IP:
            return
        if packet.headers.protocol == TCP:
            self.send_ip_to(interface, packet, tcp_reset(packet))
        else:
            self.send_ip_to(interface, packet, icmp_error(self._station.address, packet, UNREACHABLE, _PROHIBITED))

    def send_ip_to(self, interface: Interface | None, cause: Packet, data: bytes | None) -> None:
        """Send a network packet back to who sent another one, under the address that this was sent to; if need be in
        fragments, but whoever sends larger ones gets such."""
        if data is not None and interface is not None and not cause.headers.is_group:
            frame = cause.headers.src + cause.headers.dst + b"\x08\x00" + data
            size = cause.fragment_size or cause.headers.end - cause.headers.l3
            self.send(interface, Packet(frame, fragment_size=max(MTU, size)))


def _next_hop(packet: Packet, dst: bytes, src: bytes) -> Packet:
    """The packet for the next segment: to a new neighbour, with its time to live counted down."""
    l3 = packet.headers.l3
    data = bytearray(dst + src + b"\x08\x00" + packet.data[l3:])
    at = 14
    data[at + 8] -= 1
    data[at + 10 : at + 12] = b"\0\0"
    data[at + 10 : at + 12] = checksum(bytes(data[at : at + (data[at] & 15) * 4])).to_bytes(2, "big")
    return packet.changed(bytes(data))
