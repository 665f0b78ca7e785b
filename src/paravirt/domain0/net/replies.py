"""What is answered to packets that go nowhere: ICMP errors and TCP resets. Free of I/O."""

from __future__ import annotations

import struct
from typing import Final

from paravirt.domain0.net.packet import (
    ETH_IP,
    ICMP,
    TCP,
    TCP_ACK,
    TCP_FIN,
    TCP_RST,
    TCP_SYN,
    Packet,
    checksum,
    icmp,
    ipv4,
    ones_sum,
)

ECHO_REPLY: Final = 0
UNREACHABLE: Final = 3
ECHO: Final = 8
TIME_EXCEEDED: Final = 11
_NOT_ERRORS: Final = frozenset({ECHO_REPLY, ECHO})
_QUOTED: Final = 64


def icmp_error(router: bytes, packet: Packet, kind: int, code: int) -> bytes | None:
    """An ICMP error about a packet, from the router's address; None where there is to be none: about other errors,
    later fragments, and packets to or from nobody in particular (RFC 1122, 3.2.2).

    Raises:
        Malformed: the packet is.
    """
    headers = packet.headers
    if headers.kind != ETH_IP or not headers.l4 or headers.is_group:
        return None
    if headers.protocol == ICMP and headers.icmp_type not in _NOT_ERRORS:
        return None
    if not any(headers.ip_src) or headers.ip_src[0] >= 224:
        return None
    quoted = packet.data[headers.l3 : min(headers.end, headers.l4 + _QUOTED)]
    return icmp(router, headers.ip_src, kind, code, bytes(4) + quoted)


def tcp_reset(packet: Packet) -> bytes | None:
    """The reset that answers a TCP packet (RFC 9293, 3.10.7.1); None: resets are not answered.

    Raises:
        Malformed: the packet is.
    """
    headers = packet.headers
    if headers.protocol != TCP or not headers.l4 or headers.tcp_flags & TCP_RST:
        return None
    sequence, acknowledged = struct.unpack_from("!II", packet.data, headers.l4 + 4)
    if headers.tcp_flags & TCP_ACK:
        return tcp_packet(headers.ip_dst, headers.ip_src, headers.dport, headers.sport, acknowledged, 0, TCP_RST)
    length = headers.end - headers.payload + sum(1 for flag in (TCP_SYN, TCP_FIN) if headers.tcp_flags & flag)
    return tcp_packet(
        headers.ip_dst, headers.ip_src, headers.dport, headers.sport, 0, (sequence + length) & 0xFFFFFFFF,
        TCP_RST | TCP_ACK,
    )  # fmt: skip


def tcp_packet(
    src: bytes,
    dst: bytes,
    sport: int,
    dport: int,
    sequence: int,
    acknowledged: int,
    flags: int,
    window: int = 0,
    options: bytes = b"",
    payload: bytes = b"",
    csum_blank: bool = False,
) -> bytes:
    """TCP in IPv4. With ``csum_blank`` the checksum covers the pseudo header only."""
    offset = 5 + len(options) // 4
    head = struct.pack("!HHIIBBHHH", sport, dport, sequence, acknowledged, offset << 4, flags, window, 0, 0) + options
    total = (ones_sum(src + dst) + TCP + len(head) + len(payload)) % 0xFFFF
    if not csum_blank:
        total = checksum(head + payload, total)
    return ipv4(src, dst, TCP, head[:16] + total.to_bytes(2, "big") + head[18:] + payload)
