"""The firewall-router: who gets which packet, what is refused, and that no packet harms it."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.net import dhcp, dns
from paravirt.domain0.net.gateway import Gateway
from paravirt.domain0.net.interface import QUEUE_BYTES, Interface, Mode, link_local
from paravirt.domain0.net.offload import segments, with_checksum
from paravirt.domain0.net.packet import (
    BROADCAST,
    ETH_ARP,
    ETH_IP,
    ND_ADVERTISEMENT,
    ND_REDIRECT,
    ND_ROUTER_ADVERTISEMENT,
    ND_ROUTER_SOLICITATION,
    ND_SOLICITATION,
    TCP,
    TCP_ACK,
    TCP_RST,
    TCP_SYN,
    UDP,
    Malformed,
    Packet,
    arp,
    ethernet,
    icmp,
    ones_sum,
    parse,
    pseudo_sum,
    udp,
)
from paravirt.domain0.net.replies import ECHO, tcp_packet
from paravirt.domain0.net.router import Router
from paravirt.domain0.net.rules import Action, parse_rule
from paravirt.errors import UserError

from .packets import icmp6

NETWORK = ipaddress.IPv4Network("10.0.2.0/24")
ROUTER = NETWORK[1].packed


def ip(number: int) -> bytes:
    return NETWORK[number].packed


def mac(number: int) -> bytes:
    return bytes([0, 0x16, 0x3E, 0, 0, number])


class Net:
    """A router with three guests: two share a bridge, the third is routed."""

    def __init__(self, third: Mode = Mode.ROUTE) -> None:
        self.router = Router()
        self.gateway = Gateway(self.router, NETWORK)
        modes = {1: Mode.BRIDGE, 2: Mode.BRIDGE, 3: third}
        self.ports = {
            number: Interface(f"vif{number}.0", mac(number), mode=mode, addresses=(ip(number + 10),))
            for number, mode in modes.items()
        }
        for number, port in self.ports.items():
            self.router.attach(port)
            self.gateway.names[port.name] = f"guest{number}"

    def send(self, number: int, data: bytes, **how: int) -> None:
        self.router.receive(self.ports[number], Packet(data, **how))  # type: ignore[arg-type]

    def got(self, number: int) -> list[Packet]:
        port = self.ports[number]
        return [port.take() for _ in range(port.waiting)]

    def udp(self, src: int, dst: int, sport: int = 1000, dport: int = 2000, to: bytes | None = None) -> bytes:
        data = udp(ip(src + 10), ip(dst + 10), sport, dport, b"data")
        return ethernet(to or mac(dst), mac(src), ETH_IP, data)


@pytest.fixture
def net() -> Net:
    return Net()


def is_whole(packet: Packet) -> bool:
    """Whether every checksum is right."""
    headers, data = packet.headers, packet.data
    if ones_sum(data[headers.l3 : headers.l3 + 20]):
        return False
    length = headers.end - headers.l4
    start = pseudo_sum(headers, length) if headers.protocol in (TCP, UDP) else 0
    return (ones_sum(data[headers.l4 : headers.end]) + start) % 0xFFFF == 0


def test_a_bridge_is_a_switch(net: Net) -> None:
    data = net.udp(1, 2)
    net.send(1, data)
    assert [packet.data for packet in net.got(2)] == [data] and not net.got(1) and not net.got(3)
    net.send(1, BROADCAST + data[6:])
    assert len(net.got(2)) == 1 and not net.got(3)
    net.send(1, mac(99) + data[6:])
    assert not net.got(2)


def test_the_router_goes_between_segments_and_counts_hops(net: Net) -> None:
    net.send(1, net.udp(1, 3, to=net.gateway.mac))
    (packet,) = net.got(3)
    assert packet.headers.dst == mac(3) and packet.headers.src == net.gateway.mac and is_whole(packet)
    assert packet.data[packet.headers.l3 + 8] == 63
    dying = bytearray(net.udp(1, 3, to=net.gateway.mac))
    dying[14 + 8] = 1
    net.send(1, bytes(dying))
    (error,) = net.got(1)
    assert error.headers.icmp_type == 11 and is_whole(error)


def test_what_is_not_its_own_is_dropped(net: Net) -> None:
    data = net.udp(1, 2)
    for forged in (
        data[:6] + mac(2) + data[12:],
        ethernet(mac(2), mac(1), ETH_IP, udp(ip(12), ip(13), 1, 2, b"")),
        ethernet(BROADCAST, mac(1), ETH_ARP, arp(2, mac(1), ip(12), mac(2), ip(12))),
        ethernet(BROADCAST, mac(1), ETH_ARP, arp(2, mac(2), ip(11), mac(2), ip(12))),
        ethernet(mac(2), mac(1), 0x88CC, b"who am I"),
    ):
        net.send(1, forged)
    assert net.ports[1].counters.spoofed == 5 and not net.got(2)


def test_neighbours_speak_for_themselves(net: Net) -> None:
    """Of IPv6's neighbour discovery, what is about others is forged; and no guest is a router (RFC 4861)."""
    own, other, nobody = link_local(mac(1)), link_local(mac(2)), bytes(16)

    def link(number: int, kind: int = 2) -> bytes:
        return bytes([kind, 1]) + mac(number)

    packets = {
        icmp6(mac(1), mac(2), ND_ADVERTISEMENT, bytes(4) + own + link(1)): True,
        icmp6(mac(1), mac(2), ND_ADVERTISEMENT, bytes(4) + other + link(1)): False,
        icmp6(mac(1), mac(2), ND_ADVERTISEMENT, bytes(4) + other, src=nobody): False,
        icmp6(mac(1), mac(2), ND_ADVERTISEMENT, bytes(4) + own + link(3)): False,
        icmp6(mac(1), mac(2), ND_SOLICITATION, bytes(4) + other + link(1, 1)): True,
        icmp6(mac(1), mac(2), ND_SOLICITATION, bytes(4) + other + link(1, 1) + link(3, 1)): False,
        icmp6(mac(1), mac(2), ND_SOLICITATION, bytes(4) + own, src=nobody): True,
        icmp6(mac(1), mac(2), ND_ROUTER_SOLICITATION, bytes(4) + link(1, 1)): True,
        icmp6(mac(1), mac(2), ND_ROUTER_ADVERTISEMENT, bytes(12) + link(1, 1)): False,
        icmp6(mac(1), mac(2), ND_REDIRECT, bytes(4) + other + other): False,
        icmp6(mac(1), mac(2), 128, b"ping", src=other): False,
        icmp6(mac(1), mac(2), 128, b"ping"): True,
    }
    for data, is_own in packets.items():
        before = net.ports[1].counters.spoofed
        net.send(1, data)
        assert ([packet.data for packet in net.got(2)], net.ports[1].counters.spoofed - before) == (
            ([data], 0) if is_own else ([], 1)
        )
    for rest in (bytes(4), bytes(4) + own + b"\2\0", bytes(4) + own + b"\2\2" + bytes(6), bytes(4) + own + b"\2"):
        with pytest.raises(Malformed):
            parse(icmp6(mac(1), mac(2), ND_ADVERTISEMENT, rest))


def test_arp_and_pings_are_answered(net: Net) -> None:
    for number, asked in ((1, ROUTER), (3, ROUTER), (3, ip(11))):
        request = arp(1, mac(number), ip(number + 10), bytes(6), asked)
        net.send(number, ethernet(BROADCAST, mac(number), ETH_ARP, request))
        (answer,) = net.got(number)
        assert (answer.headers.arp_op, answer.headers.arp_sender, answer.headers.ip_src) == (2, net.gateway.mac, asked)
        net.got(2)
    net.send(1, ethernet(net.gateway.mac, mac(1), ETH_IP, icmp(ip(11), ROUTER, ECHO, 0, b"\1\2\3\4hello")))
    (answer,) = net.got(1)
    assert answer.headers.icmp_type == 0 and answer.data.endswith(b"\1\2\3\4hello") and is_whole(answer)


def test_nat_mode_hides_who_is_behind_it() -> None:
    net = Net(Mode.NAT)
    net.send(1, net.udp(1, 3, to=net.gateway.mac))
    assert not net.got(3) and net.got(1)[0].headers.icmp_type == 3
    net.send(3, net.udp(3, 1, to=net.gateway.mac))
    (packet,) = net.got(1)
    headers = packet.headers
    assert headers.ip_src == ROUTER and is_whole(packet)
    answer = udp(ip(11), ROUTER, headers.dport, headers.sport, b"answer")
    net.send(1, ethernet(net.gateway.mac, mac(1), ETH_IP, answer))
    (back,) = net.got(3)
    assert (back.headers.ip_dst, back.headers.dport) == (ip(13), 1000) and is_whole(back)


def test_no_room_is_counted(net: Net) -> None:
    data = net.udp(1, 2) + bytes(1400)
    for _ in range(QUEUE_BYTES // len(data) + 5):
        net.send(1, data)
    assert net.ports[2].counters.overrun == 5


# --- rules --------------------------------------------------------------------------------------------------------


def test_rules_drop_reject_log_and_redirect(net: Net) -> None:
    for rule in ("log dport 1-3000", "drop in vif1.0 dport 1", "reject dport 2", "redirect vif3.0 dport 3",
                 "accept dport 4", "mirror vif3.0 dport 5", "drop dport 4", "drop out vif2.0 dport 6"):  # fmt: skip
        net.router.rules.add(parse_rule(rule))
    for port in range(1, 7):
        net.send(1, net.udp(1, 2, dport=port))
    assert [packet.headers.dport for packet in net.got(2)] == [4, 5]
    assert [packet.headers.dport for packet in net.got(3)] == [3, 5]
    (refused,) = net.got(1)
    assert refused.headers.icmp_type == 3 and is_whole(refused)
    assert net.ports[1].counters.denied == 3 and len(net.router.log) == 6
    net.send(2, net.udp(2, 1, dport=1))
    assert net.got(1)
    net.router.rules.remove(1)
    net.send(1, net.udp(1, 2, dport=1))
    assert net.got(2)


def test_a_rejected_connection_is_reset(net: Net) -> None:
    net.router.rules.add(parse_rule("reject proto tcp"))
    data = tcp_packet(ip(11), ip(12), 7, 8, 1000, 0, TCP_SYN)
    net.send(1, ethernet(mac(2), mac(1), ETH_IP, data))
    (answer,) = net.got(1)
    assert answer.headers.tcp_flags == TCP_RST | TCP_ACK and is_whole(answer)
    assert int.from_bytes(answer.data[14 + 20 + 8 : 14 + 20 + 12], "big") == 1001


@pytest.mark.parametrize("blank", [False, True])
def test_rewriting_there_and_back(net: Net, blank: bool) -> None:
    net.router.rules.add(parse_rule("dnat 10.0.2.12:80 proto tcp dst 10.0.2.1 dport 8080"))
    data = tcp_packet(ip(11), ROUTER, 7, 8080, 1, 0, TCP_SYN, csum_blank=blank)
    net.send(1, ethernet(net.gateway.mac, mac(1), ETH_IP, data), csum_blank=blank)
    (packet,) = net.got(2)
    assert (packet.headers.ip_dst, packet.headers.dport, packet.headers.dst) == (ip(12), 80, mac(2))
    assert is_whole(with_checksum(packet))
    answer = tcp_packet(ip(12), ip(11), 80, 7, 1, 2, TCP_SYN | TCP_ACK, csum_blank=blank)
    net.send(2, ethernet(mac(1), mac(2), ETH_IP, answer), csum_blank=blank)
    (back,) = net.got(1)
    assert (back.headers.ip_src, back.headers.sport) == (ROUTER, 8080) and is_whole(with_checksum(back))


@pytest.mark.parametrize("text", ["", "eat", "drop dport", "drop dport x", "drop dport 9-1", "drop src 10.0.0.300",
                                  "snat", "dnat 1.2.3.4:99999", "drop nonsense 3", "snat 1.2.3.4 out vif1.0",
                                  "drop mac-src 00:16"])  # fmt: skip
def test_what_is_no_rule_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UserError, match="rule"):
        parse_rule(text)


@given(st.sampled_from(Action), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_rule_matches_exactly_its_ports(action: Action, low: int, high: int, port: int) -> None:
    target = {"snat": "1.2.3.4 ", "dnat": "1.2.3.4 ", "redirect": "x ", "mirror": "x "}.get(action.value, "")
    text = f"{action.value} {target}dport {min(low, high)}-{max(low, high)}"
    headers = parse(ethernet(mac(2), mac(1), ETH_IP, udp(ip(11), ip(12), 1, port, b"")))
    assert parse_rule(text).pattern.matches(headers, "a", None) == (min(low, high) <= port <= max(low, high))


# --- services -----------------------------------------------------------------------------------------------------


def dhcp_message(kind: int, client: bytes, options: bytes = b"") -> bytes:
    head = struct.pack("!BBBBIHH16s16s192s4s", 1, 1, 6, 0, 77, 0, 0, bytes(16), client, bytes(192), b"\x63\x82\x53\x63")
    payload = head + bytes([53, 1, kind]) + options + b"\xff"
    return ethernet(BROADCAST, client, ETH_IP, udp(bytes(4), b"\xff" * 4, 68, 67, payload))


@pytest.mark.parametrize("number", [1, 3])
def test_dhcp_gives_each_its_own_address(net: Net, number: int) -> None:
    net.send(number, dhcp_message(dhcp.DISCOVER, mac(number)))
    (offer,) = net.got(number)
    payload = offer.data[offer.headers.payload :]
    assert is_whole(offer) and payload[16:20] == ip(number + 10) and payload[242] == dhcp.OFFER
    wanted = bytes([50, 4]) + ip(number + 10)
    net.send(number, dhcp_message(dhcp.REQUEST, mac(number), wanted))
    assert net.got(number)[0].data[42 + 242] == dhcp.ACK
    net.send(number, dhcp_message(dhcp.REQUEST, mac(number), bytes([50, 4]) + ip(99)))
    assert net.got(number)[0].data[42 + 242] == dhcp.NAK


@pytest.mark.parametrize("wanted", [b"", bytes([1, 3, 121, 6])])
def test_dhcp_for_an_address_of_another_network(wanted: bytes) -> None:
    """It is alone on its link with the router, to which it is told the way."""
    query = dhcp.parse(dhcp_message(dhcp.DISCOVER, mac(1), bytes([55, len(wanted)]) + wanted)[42:])
    assert query is not None
    answer = dhcp.answer(query, dhcp.Offer(bytes([192, 168, 7, 5]), NETWORK, ROUTER))
    assert answer is not None
    options = dhcp._options(answer[240:])
    assert options[1] == b"\xff" * 4 and options[3] == ROUTER and 28 not in options
    assert options.get(121) == (b"\x20" + ROUTER + bytes(4) + b"\0" + ROUTER if wanted else None)
    inside = dhcp.answer(query, dhcp.Offer(ip(11), NETWORK, ROUTER))
    assert inside is not None and 121 not in dhcp._options(inside[240:])


def question(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 5, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


@pytest.mark.parametrize(
    ("name", "kind", "code", "end"),
    [
        ("guest2", 1, dns.NO_ERROR, ip(12)),
        ("GUEST2.guest", 1, dns.NO_ERROR, ip(12)),
        ("router", 1, dns.NO_ERROR, ROUTER),
        ("guest2.guest", 28, dns.NO_ERROR, struct.pack("!HH", 28, 1)),
        ("nobody.guest", 1, dns.NAME_ERROR, struct.pack("!HH", 1, 1)),
        ("12.2.0.10.in-addr.arpa", 12, dns.NO_ERROR, b"\6guest2\5guest\0"),
        ("example.org", 1, dns.SERVER_FAILURE, b""),
    ],
)
def test_names(net: Net, name: str, kind: int, code: int, end: bytes) -> None:
    data = udp(ip(11), ROUTER, 999, 53, question(name, kind))
    net.send(1, ethernet(net.gateway.mac, mac(1), ETH_IP, data))
    (answer,) = net.got(1)
    payload = answer.data[answer.headers.payload :]
    assert is_whole(answer) and payload[:2] == b"\0\5" and payload[3] & 15 == code and payload.endswith(end)


# --- offload, and whatever bytes ----------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=9000), st.integers(64, 3000), st.integers(0, 0xFFFFFFFF))
def test_pieces_of_a_large_packet_are_its_payload(payload: bytes, size: int, sequence: int) -> None:
    flags = TCP_ACK | 0x09  # the end and the push belong to the last piece alone
    data = tcp_packet(ip(1), ip(2), 1, 2, sequence, 0, flags, 10, payload=payload, csum_blank=True)
    pieces = list(segments(Packet(ethernet(mac(2), mac(1), ETH_IP, data), True, size)))
    assert b"".join(piece.data[piece.headers.payload : piece.headers.end] for piece in pieces) == payload
    assert all(is_whole(with_checksum(piece)) for piece in pieces)
    assert [piece.headers.tcp_flags for piece in pieces] == [TCP_ACK] * (len(pieces) - 1) + [flags]
    at = [int.from_bytes(piece.data[38:42], "big") for piece in pieces]
    assert at == [(sequence + size * number) & 0xFFFFFFFF for number in range(len(pieces))]


SEEDS = [
    Net().udp(1, 2),
    ethernet(BROADCAST, mac(1), ETH_ARP, arp(1, mac(1), ip(11), bytes(6), ROUTER)),
    dhcp_message(dhcp.DISCOVER, mac(1)),
    ethernet(Net().gateway.mac, mac(1), ETH_IP, udp(ip(11), ROUTER, 9, 53, question("guest2.guest"))),
    ethernet(mac(2), mac(1), ETH_IP, tcp_packet(ip(11), ip(12), 7, 8, 1, 0, TCP_SYN, payload=bytes(100))),
    ethernet(mac(2), mac(1), 0x86DD, b"\x60\0\0\0\0\x14\x06\x40" + bytes(52)),
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 400),
    st.booleans(),
    st.sampled_from([0, 1, 500, 0xFFFF]),
)
def test_no_packet_harms_the_router(
    seed: bytes, changes: list[tuple[int, int]], length: int, blank: bool, gso: int
) -> None:
    net = Net(Mode.NAT)
    for rule in ("log", "mirror vif2.0", "snat 10.0.2.1 proto udp dport 2000", "reject proto tcp"):
        net.router.rules.add(parse_rule(rule))
    data = bytearray(seed)
    for at, value in changes:
        if at < len(data):
            data[at] = value
    packet = Packet(bytes(data[: max(length, 1)]), blank, gso)
    net.router.receive(net.ports[1], packet)
    counters = net.ports[1].counters
    assert counters.received_packets == 1
    for number in net.ports:
        for sent in net.got(number):
            try:
                pieces = list(segments(sent))
                assert all(with_checksum(piece).headers.end for piece in pieces)
            except Malformed:
                pytest.fail("a malformed packet was passed on")


@given(st.binary(max_size=300))
def test_whatever_bytes_are_packets_or_malformed(data: bytes) -> None:
    try:
        headers = parse(data)
    except Malformed:
        return
    assert headers.end <= len(data) and headers.l4 <= headers.payload <= headers.end


@given(st.binary(max_size=600))
def test_whatever_bytes_are_dhcp_and_dns_or_none(data: bytes) -> None:
    query = dhcp.parse(data)
    assert query is None or len(query.client) == 6
    zone = dns.Zone("guest", lambda name: ip(11), lambda address: "guest1")
    try:
        found = dns.parse(data)
    except dns.NotAQuery as error:
        assert error.code
    else:
        answer = zone.answer(data, found)
        assert answer is None or answer[:2] == data[:2]
