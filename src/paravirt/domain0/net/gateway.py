"""The router as a station: it answers ARP and pings, gives out addresses, knows names, and is the way outside.

Free of I/O, but for what is behind :class:`Outside`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable
from typing import Final, Protocol

from paravirt.domain0.net import dhcp, dns
from paravirt.domain0.net.interface import Interface
from paravirt.domain0.net.packet import (
    BROADCAST,
    ETH_ARP,
    ETH_IP,
    ICMP,
    TCP,
    UDP,
    Packet,
    arp,
    ethernet,
    icmp,
    ones_sum,
    udp,
)
from paravirt.domain0.net.replies import ECHO, ECHO_REPLY, UNREACHABLE, icmp_error, tcp_reset
from paravirt.domain0.net.router import Router
from paravirt.errors import UserError

OWN_MAC: Final = bytes.fromhex("fefffffffffe")
DOMAIN: Final = "guest"
_ARP_REQUEST, _ARP_REPLY = 1, 2
_PORT_UNREACHABLE: Final = 3
_EVERYBODY: Final = b"\xff" * 4
_LARGEST_LABEL: Final = 63


class Outside(Protocol):
    """What is beyond the router."""

    def send(self, packet: Packet) -> bool:
        """Take an IPv4 packet that is addressed there; false: it cannot go there."""

    def resolve(self, query: bytes, answer: Callable[[bytes], None], by_stream: bool, owner: Hashable) -> bool:
        """Have somebody's DNS query answered, later, if need be by TCP; false: there is nobody to ask, or too much has
        been asked."""


class Gateway:
    """The router's own addresses, and its services.

    Parameters:
        network: where the interfaces' addresses are taken from. The router has the first one.
        outside: None: there is none.

    Attributes:
        mac, address: its own.
        names: the guests' names by their interfaces'.

    Raises:
        UserError: the network has no room for guests.
    """

    def __init__(self, router: Router, network: ipaddress.IPv4Network, outside: Outside | None = None) -> None:
        if network.num_addresses < 4:
            raise UserError(f"The network {network} has no room for guests.")
        self.mac = OWN_MAC
        self.network = network
        self.address = network[1].packed
        self.beyond = outside
        self.names: dict[str, str] = {}
        self._router = router
        self._zone = dns.Zone(DOMAIN, self._address_of, self._name_of)
        router.serve_as(self)

    def free_address(self) -> bytes:
        """An address that no interface has.

        Raises:
            UserError: all are taken.
        """
        for number in range(2, self.network.num_addresses - 1):
            address = self.network[number].packed
            if address not in self._router.hosts:
                return address
        raise UserError(f"The network {self.network} has no free address.")

    # --- as the router's station ------------------------------------------------------------------------------

    def receive(self, interface: Interface, packet: Packet) -> None:
        """A packet to the router's own addresses, or to everybody."""
        headers = packet.headers
        if headers.kind == ETH_ARP:
            self._arp(interface, packet)
        elif headers.kind == ETH_IP and headers.l4:
            if headers.protocol == UDP and headers.dport == dhcp.SERVER_PORT:
                self._dhcp(interface, packet)
            elif headers.ip_dst == self.address and not headers.is_group:
                self._ip(interface, packet)

    def outside(self, interface: Interface, packet: Packet) -> bool:
        """A packet to an address that no interface has; false: there is no way."""
        address = ipaddress.IPv4Address(packet.headers.ip_dst)
        if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_reserved:
            return False
        return self.beyond is not None and address not in self.network and self.beyond.send(packet)

    def _arp(self, interface: Interface, packet: Packet) -> None:
        headers = packet.headers
        if headers.arp_op != _ARP_REQUEST or len(headers.ip_dst) != 4:
            return
        # The only neighbour of an interface that is not bridged stands for all others.
        stands_for = not interface.is_bridged and headers.ip_dst not in (headers.ip_src, *interface.addresses)
        # Who looks whether an address is free (RFC 5227) is not told that it is the router's, if it is its own.
        if headers.ip_dst == self.address or (stands_for and any(headers.ip_src)):
            reply = arp(_ARP_REPLY, self.mac, headers.ip_dst, headers.arp_sender, headers.ip_src)
            self._router.send(interface, Packet(ethernet(headers.arp_sender, self.mac, ETH_ARP, reply)))

    def _ip(self, interface: Interface, packet: Packet) -> None:
        headers = packet.headers
        answer: bytes | None = None
        if headers.protocol == ICMP:
            body = packet.data[headers.l4 : headers.end]
            if headers.icmp_type == ECHO and ones_sum(body) == 0:
                answer = icmp(self.address, headers.ip_src, ECHO_REPLY, 0, body[4:])
        elif headers.protocol == UDP and headers.dport == dns.PORT:
            self._dns(interface, packet)
        elif self.beyond is not None and self.beyond.send(packet):
            return
        elif headers.protocol == TCP:
            answer = tcp_reset(packet)
        else:
            answer = icmp_error(self.address, packet, UNREACHABLE, _PORT_UNREACHABLE)
        self._router.send_ip_to(interface, packet, answer)

    # --- services ---------------------------------------------------------------------------------------------

    def _dhcp(self, interface: Interface, packet: Packet) -> None:
        headers = packet.headers
        query = dhcp.parse(packet.data[headers.payload : headers.end])
        address = next((address for address in sorted(interface.addresses) if len(address) == 4), None)
        if query is None or address is None or query.client != interface.mac:
            return
        offer = dhcp.Offer(address, self.network, self.address, DOMAIN, self.names.get(interface.name, ""))
        answer = dhcp.answer(query, offer)
        if answer is not None:
            data = udp(self.address, _EVERYBODY, dhcp.SERVER_PORT, dhcp.CLIENT_PORT, answer)
            self._router.send(interface, Packet(ethernet(BROADCAST, self.mac, ETH_IP, data)))

    def _dns(self, interface: Interface, packet: Packet) -> None:
        headers = packet.headers
        query = packet.data[headers.payload : headers.end]

        def reply(answer: bytes) -> None:
            data = udp(self.address, headers.ip_src, dns.PORT, headers.sport, answer)
            if answer and interface.is_up:
                self._router.send_ip_to(interface, packet, data)

        self.answer_names(query, reply, interface, by_stream=False)

    def answer_names(
        self, query: bytes, reply: Callable[[bytes], None], owner: Hashable, *, by_stream: bool
    ) -> None:
        """Have somebody's DNS message answered, now or later; with nothing, if it is no query at all."""
        try:
            question = dns.parse(query)
        except dns.NotAQuery as error:
            reply(b"" if error.number is None else dns.failure(error.number, error.code))
            return
        answer = self._zone.answer(query, question)
        if answer is not None:
            reply(answer)
        elif self.beyond is None or not self.beyond.resolve(query, reply, by_stream, owner):
            reply(dns.failure(question.number, dns.SERVER_FAILURE))

    def _address_of(self, name: str) -> bytes | None:
        if name == "router":
            return self.address
        for interface, own in self.names.items():
            if own.lower() == name:
                found = self._router.interfaces[interface].addresses
                return next((address for address in sorted(found) if len(address) == 4), None)
        return None

    def _name_of(self, address: bytes) -> str | None:
        if address == self.address:
            return "router"
        there = self._router.hosts.get(address)
        name = self.names.get(there.interface.name) if there else None
        is_one = name and name.isascii() and all(0 < len(part) <= _LARGEST_LABEL for part in name.split("."))
        return name if is_one else None
