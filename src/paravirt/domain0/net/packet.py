"""Packets: what their headers say, with every length checked, and their checksums. Free of I/O.

Formats: Ethernet II and IEEE 802.1Q, RFC 826 (ARP), 791 (IPv4), 8200 (IPv6), 9293 (TCP), 768 (UDP), 792 and 4443
(ICMP).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field
from typing import Final

ETH_IP: Final = 0x0800
ETH_ARP: Final = 0x0806
ETH_VLAN: Final = 0x8100
ETH_IPV6: Final = 0x86DD
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
BROADCAST: Final = b"\xff" * 6
ETH_HEADER: Final = 14
MTU: Final = 1500
"""The largest network packet that the router itself makes and sends as one."""

TCP_FIN: Final = 0x01
TCP_SYN: Final = 0x02
TCP_RST: Final = 0x04
TCP_PSH: Final = 0x08
TCP_ACK: Final = 0x10
TCP_CWR: Final = 0x80

_VLAN = struct.Struct("!HH")
_IP = struct.Struct("!BxHHHBBxx4s4s")
_IP6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIBB")
_PORTS = struct.Struct("!HHH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
ND_ROUTER_SOLICITATION: Final = 133
ND_ROUTER_ADVERTISEMENT: Final = 134
ND_SOLICITATION: Final = 135
ND_ADVERTISEMENT: Final = 136
ND_REDIRECT: Final = 137
_ND_OPTIONS_AT: Final = {
    ND_ROUTER_SOLICITATION: 8,
    ND_ROUTER_ADVERTISEMENT: 16,
    ND_SOLICITATION: 24,
    ND_ADVERTISEMENT: 24,
    ND_REDIRECT: 40,
}
_ND_LINKS: Final = (1, 2)
_IP6_EXTENSIONS: Final = frozenset({0, 43, 60})
_IP6_FRAGMENT: Final = 44
_MOST_EXTENSIONS: Final = 8
IP_FRAGMENT_MASK: Final = 0x1FFF
IP_MORE_FRAGMENTS: Final = 0x2000


class Malformed(Exception):
    """The headers contradict themselves, or the packet ends inside them."""


@dataclass(slots=True)
class Headers:
    """What a packet's headers say. Addresses are bytes in network order; what is not there is 0 or empty.

    Attributes:
        dst, src: Ethernet addresses.
        vlan: the tag's number, or None.
        kind: the Ethernet type behind the tag.
        l3: where the network header begins.
        ip_src, ip_dst: of IPv4, IPv6 or ARP (its sender and target).
        protocol: of IPv4 and IPv6, behind IPv6's extension headers.
        l4: where the transport header begins; 0: there is none, or it is in an earlier fragment.
        end: where the network packet ends; what follows is padding.
        sport, dport: of TCP and UDP.
        tcp_flags: TCP_*.
        payload: where the transport header ends; 0 if ``l4`` is.
        is_fragment: part of a larger network packet.
        arp_op, arp_sender: ARP's operation and the Ethernet address that it announces.
        icmp_type: of ICMP and ICMPv6.
        nd_target, nd_links: of IPv6's neighbour discovery: the address that it is about, and the Ethernet addresses
            that it announces.
    """

    dst: bytes
    src: bytes
    vlan: int | None = None
    kind: int = 0
    l3: int = ETH_HEADER
    ip_src: bytes = b""
    ip_dst: bytes = b""
    protocol: int = 0
    l4: int = 0
    end: int = 0
    sport: int = 0
    dport: int = 0
    tcp_flags: int = 0
    payload: int = 0
    is_fragment: bool = False
    arp_op: int = 0
    arp_sender: bytes = b""
    icmp_type: int = 0
    nd_target: bytes = b""
    nd_links: tuple[bytes, ...] = ()

    @property
    def is_group(self) -> bool:
        """To several stations: a broadcast or multicast."""
        return bool(self.dst[0] & 1)


@dataclass(slots=True)
class Packet:
    """A packet on its way.

    Attributes:
        data: from the Ethernet header on, without frame check sequence.
        csum_blank: TCP's or UDP's checksum covers the pseudo header alone; the rest is known to be good, and whoever
            needs the full one has to make it.
        gso_size: bytes of TCP payload for each packet on a wire, when this is several in one; else 0.
        fragment_size: the largest IPv4 packet that it may be on a wire; if it is larger, it is cut into fragments. 0:
            it is not cut.
    """

    data: bytes
    csum_blank: bool = False
    gso_size: int = 0
    _headers: Headers | None = field(default=None, repr=False, compare=False)
    fragment_size: int = 0

    def changed(self, data: bytes) -> Packet:
        """Other bytes that are to be sent on as these were."""
        return Packet(data, self.csum_blank, self.gso_size, fragment_size=self.fragment_size)

    @property
    def headers(self) -> Headers:
        """The headers, parsed once.

        Raises:
            Malformed: they contradict themselves.
        """
        if self._headers is None:
            self._headers = parse(self.data)
        return self._headers


def parse(data: bytes) -> Headers:
    """Read a packet's headers.

    Raises:
        Malformed: they contradict themselves, or the packet ends inside them.
    """
    if len(data) < ETH_HEADER:
        raise Malformed(f"{len(data)} bytes are no Ethernet packet")
    headers = Headers(data[:6], data[6:12], kind=data[12] << 8 | data[13], end=len(data))
    if headers.kind == ETH_VLAN:
        if len(data) < ETH_HEADER + _VLAN.size:
            raise Malformed("the packet ends in its VLAN tag")
        tag, headers.kind = _VLAN.unpack_from(data, ETH_HEADER)
        headers.vlan = tag & 0xFFF
        headers.l3 += _VLAN.size
    if headers.kind == ETH_IP:
        _parse_ip(data, headers)
    elif headers.kind == ETH_IPV6:
        _parse_ip6(data, headers)
    elif headers.kind == ETH_ARP:
        _parse_arp(data, headers)
    return headers


def _parse_ip(data: bytes, headers: Headers) -> None:
    start = headers.l3
    if len(data) < start + _IP.size:
        raise Malformed("the packet ends in its IPv4 header")
    first, length, _, fragment, _, protocol, src, dst = _IP.unpack_from(data, start)
    size = (first & 15) * 4
    if first >> 4 != 4 or size < _IP.size or not size <= length <= len(data) - start:
        raise Malformed(f"an IPv4 header of {size} bytes in {length} bytes in a packet of {len(data)}")
    headers.ip_src, headers.ip_dst, headers.protocol = src, dst, protocol
    headers.end = start + length
    headers.is_fragment = bool(fragment & (IP_FRAGMENT_MASK | IP_MORE_FRAGMENTS))
    if not fragment & IP_FRAGMENT_MASK:
        _parse_transport(data, headers, start + size)


def _parse_ip6(data: bytes, headers: Headers) -> None:
    start = headers.l3
    if len(data) < start + _IP6.size:
        raise Malformed("the packet ends in its IPv6 header")
    first, length, following, _, src, dst = _IP6.unpack_from(data, start)
    at = start + _IP6.size
    if first >> 28 != 6 or length > len(data) - at:
        raise Malformed(f"an IPv6 payload of {length} bytes in a packet of {len(data)}")
    headers.ip_src, headers.ip_dst = src, dst
    headers.end = at + length
    first_fragment = True
    for _ in range(_MOST_EXTENSIONS):
        if following in _IP6_EXTENSIONS:
            if at + 8 > headers.end:
                raise Malformed("the packet ends in an IPv6 extension header")
            following, at = data[at], at + 8 + data[at + 1] * 8
        elif following == _IP6_FRAGMENT:
            if at + 8 > headers.end:
                raise Malformed("the packet ends in its IPv6 fragment header")
            headers.is_fragment = True
            first_fragment = (data[at + 2] << 8 | data[at + 3]) & 0xFFF8 == 0
            following, at = data[at], at + 8
        else:
            break
    else:
        raise Malformed("too many IPv6 extension headers")
    if at > headers.end:
        raise Malformed("an IPv6 extension header is longer than the packet")
    headers.protocol = following
    if first_fragment:
        _parse_transport(data, headers, at)


def _parse_transport(data: bytes, headers: Headers, at: int) -> None:
    left = headers.end - at
    protocol = headers.protocol
    if protocol == TCP:
        if left < 20:
            raise Malformed("the packet ends in its TCP header")
        headers.sport, headers.dport, _, _, offset, headers.tcp_flags = _TCP.unpack_from(data, at)
        size = (offset >> 4) * 4
        if not 20 <= size <= left:
            raise Malformed(f"a TCP header of {size} bytes where {left} are left")
        headers.l4, headers.payload = at, at + size
    elif protocol == UDP:
        if left < 8:
            raise Malformed("the packet ends in its UDP header")
        headers.sport, headers.dport, length = _PORTS.unpack_from(data, at)
        if length < 8 or (length > left and not headers.is_fragment):
            raise Malformed(f"a UDP packet of {length} bytes where {left} are left")
        headers.l4, headers.payload = at, at + 8
        headers.end = min(headers.end, at + length)
    elif protocol in (ICMP, ICMPV6):
        if left < 4:
            raise Malformed("the packet ends in its ICMP header")
        headers.icmp_type = data[at]
        headers.l4, headers.payload = at, at + 4
        if protocol == ICMPV6 and headers.icmp_type in _ND_OPTIONS_AT:
            _parse_neighbour(data, headers)


def _parse_neighbour(data: bytes, headers: Headers) -> None:
    """Neighbour discovery (RFC 4861)."""
    at = headers.l4 + _ND_OPTIONS_AT[headers.icmp_type]
    if at > headers.end:
        raise Malformed("the packet ends in neighbour discovery")
    if headers.icmp_type in (ND_SOLICITATION, ND_ADVERTISEMENT):
        headers.nd_target = data[headers.l4 + 8 : headers.l4 + 24]
    while at < headers.end:
        size = data[at + 1] * 8 if at + 1 < headers.end else 0
        if not size or at + size > headers.end:
            raise Malformed("an option of neighbour discovery is longer than the packet")
        if data[at] in _ND_LINKS:
            headers.nd_links += (data[at + 2 : at + 8],)
        at += size


def _parse_arp(data: bytes, headers: Headers) -> None:
    if len(data) < headers.l3 + _ARP.size:
        raise Malformed("the packet ends in ARP")
    hardware, protocol, hlen, plen, headers.arp_op, sender, sender_ip, _, target_ip = _ARP.unpack_from(data, headers.l3)
    if (hardware, protocol, hlen, plen) != (1, ETH_IP, 6, 4):
        raise Malformed("ARP that is not about IPv4 on Ethernet")
    headers.arp_sender, headers.ip_src, headers.ip_dst = sender, sender_ip, target_ip


# --- checksums ----------------------------------------------------------------------------------------------------


def ones_sum(data: bytes) -> int:
    """The sum of the 16-bit words in ones' complement (RFC 1071), from 0 to 0xfffe; 0xffff is 0 here."""
    if len(data) & 1:
        data += b"\0"
    # 2**16 is 1 modulo 0xffff, so that the number that the bytes are has the same remainder as its words' sum.
    return int.from_bytes(data, "big") % 0xFFFF


def checksum(data: bytes, start: int = 0) -> int:
    """The internet checksum of ``data``, on top of the sum ``start``; never 0, which UDP takes for none."""
    return 0xFFFF - (ones_sum(data) + start) % 0xFFFF


def pseudo_sum(headers: Headers, length: int) -> int:
    """The sum of the pseudo header of TCP or UDP, for ``length`` bytes from the transport header on."""
    return (ones_sum(headers.ip_src + headers.ip_dst) + headers.protocol + length) % 0xFFFF


def checksum_at(headers: Headers) -> int:
    """Where the transport checksum is, or 0 if there is none."""
    if not headers.l4:
        return 0
    return headers.l4 + {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}.get(headers.protocol, -headers.l4)


# --- making packets -----------------------------------------------------------------------------------------------


def ethernet(dst: bytes, src: bytes, kind: int, payload: bytes) -> bytes:
    """An Ethernet packet."""
    return dst + src + kind.to_bytes(2, "big") + payload


def ipv4(src: bytes, dst: bytes, protocol: int, payload: bytes, ttl: int = 64, identification: int = 0) -> bytes:
    """An IPv4 packet that is not to be cut into fragments."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), identification, 0x4000, ttl, protocol, 0, src, dst)
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def udp(src: bytes, dst: bytes, sport: int, dport: int, payload: bytes) -> bytes:
    """UDP in IPv4, with its checksum."""
    length = 8 + len(payload)
    head = struct.pack("!HHHH", sport, dport, length, 0)
    total = (ones_sum(src + dst) + UDP + length) % 0xFFFF
    return ipv4(src, dst, UDP, head[:6] + checksum(head + payload, total).to_bytes(2, "big") + payload)


def icmp(src: bytes, dst: bytes, kind: int, code: int, rest: bytes) -> bytes:
    """ICMP in IPv4; ``rest`` begins behind the checksum."""
    body = struct.pack("!BBH", kind, code, 0) + rest
    return ipv4(src, dst, ICMP, body[:2] + checksum(body).to_bytes(2, "big") + body[4:])


def arp(operation: int, sender: bytes, sender_ip: bytes, target: bytes, target_ip: bytes) -> bytes:
    """ARP about IPv4."""
    return _ARP.pack(1, ETH_IP, 6, 4, operation, sender, sender_ip, target, target_ip)


# --- texts --------------------------------------------------------------------------------------------------------


def mac_text(mac: bytes) -> str:
    """00:16:3e:…"""
    return mac.hex(":")


def ip_text(address: bytes) -> str:
    """An IPv4 or IPv6 address as text."""
    return str(ipaddress.ip_address(address)) if address else "-"
