"""Packets that tests send, of kinds that the router itself never makes."""

from __future__ import annotations

import struct

from paravirt.domain0.net.interface import link_local
from paravirt.domain0.net.packet import (
    ETH_IPV6,
    ICMPV6,
    TCP,
    TCP_ACK,
    checksum,
    ethernet,
    ones_sum,
)

ALL_NODES = bytes.fromhex("ff02") + bytes(13) + b"\1"


def ipv6(src: bytes, dst: bytes, protocol: int, payload: bytes, hops: int = 255) -> bytes:
    return struct.pack("!IHBB", 0x60000000, len(payload), protocol, hops) + src + dst + payload


def _summed(src: bytes, dst: bytes, protocol: int, body: bytes, at: int, blank: bool = False) -> bytes:
    total = (ones_sum(src + dst) + protocol + len(body)) % 0xFFFF
    if not blank:
        total = checksum(body[:at] + b"\0\0" + body[at + 2 :], total)
    return body[:at] + total.to_bytes(2, "big") + body[at + 2 :]


def tcp6(src_mac: bytes, dst_mac: bytes, payload: bytes, *, sequence: int = 0, blank: bool = False) -> bytes:
    """TCP in IPv6 in Ethernet, between link-local addresses; with ``blank`` its checksum is to be made by others."""
    src, dst = link_local(src_mac), link_local(dst_mac)
    body = struct.pack("!HHIIBBHHH", 1, 2, sequence, 0, 0x50, TCP_ACK, 100, 0, 0) + payload
    return ethernet(dst_mac, src_mac, ETH_IPV6, ipv6(src, dst, TCP, _summed(src, dst, TCP, body, 16, blank)))


def icmp6(src_mac: bytes, dst_mac: bytes, kind: int, rest: bytes, src: bytes = b"", dst: bytes = ALL_NODES) -> bytes:
    """ICMPv6 in Ethernet; ``rest`` begins behind the checksum, and it comes from the link-local address unless
    ``src`` says otherwise."""
    source = src or link_local(src_mac)
    body = _summed(source, dst, ICMPV6, struct.pack("!BBH", kind, 0, 0) + rest, 2)
    return ethernet(dst_mac, src_mac, ETH_IPV6, ipv6(source, dst, ICMPV6, body))
