"""IPv4 packets in fragments: whole again whatever their order, seen whole by rules, and never more than is bearable."""

from __future__ import annotations

import random
import socket
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.net.fragments import MOST_BYTES, PATIENCE, Reassembly, fragments
from paravirt.domain0.net.interface import Mode
from paravirt.domain0.net.packet import ETH_IP, MTU, UDP, Malformed, Packet, checksum, ethernet, icmp, ones_sum, udp
from paravirt.domain0.net.replies import ECHO
from paravirt.domain0.net.rules import parse_rule
from paravirt.domain0.net.usernat import UserNat

from .outside import Loop
from .test_router import ROUTER, Net, ip, is_whole, mac


def datagram(size: int, src: int = 1, dst: int = 2, dport: int = 2000, number: int = 1) -> Packet:
    """UDP from a guest to another one with so many bytes of payload, larger than any wire."""
    data = udp(ip(src + 10), ip(dst + 10), 1000, dport, random.Random(size).randbytes(size))
    return Packet(ethernet(mac(dst), mac(src), ETH_IP, numbered(data, number)))


def numbered(data: bytes, number: int) -> bytes:
    """A network packet with an identification, that may be cut."""
    head = bytearray(data[:20])
    struct.pack_into("!HH", head, 4, number, 0)
    struct.pack_into("!H", head, 10, 0)
    struct.pack_into("!H", head, 10, checksum(bytes(head)))
    return bytes(head) + data[20:]


def piece_of(packet: Packet, start: int, end: int, is_last: bool) -> Packet:
    """A fragment, of these bytes of the payload."""
    l3 = packet.headers.l3
    head = bytearray(packet.data[: l3 + 20])
    struct.pack_into("!H", head, l3 + 2, 20 + end - start)
    struct.pack_into("!H", head, l3 + 6, start // 8 | (0 if is_last else 0x2000))
    struct.pack_into("!H", head, l3 + 10, 0)
    struct.pack_into("!H", head, l3 + 10, checksum(bytes(head[l3:])))
    return Packet(bytes(head) + packet.data[l3 + 20 + start : l3 + 20 + end])


def cut(packet: Packet, size: int = MTU) -> list[Packet]:
    return fragments(Packet(packet.data, packet.csum_blank, fragment_size=size))


def together(pieces: list[Packet]) -> list[bytes]:
    """The packets that fragments make, and those that are none."""
    reassembly = Reassembly()
    whole = [reassembly.add(piece, 0.0) if piece.headers.is_fragment else piece for piece in pieces]
    return [packet.data for packet in whole if packet is not None]


@given(
    st.lists(st.tuples(st.integers(0, 9000), st.lists(st.integers(1, 1100), max_size=6)), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_whole_again_in_any_order(made: list[tuple[int, list[int]]], order: random.Random) -> None:
    """Also when the fragments of several are mixed; and again when they are cut once more."""
    whole = [datagram(16 + size, number=number) for number, (size, _) in enumerate(made, 1)]
    pieces: list[Packet] = []
    for packet, (_, cuts) in zip(whole, made, strict=True):
        length = len(packet.data) - 34
        bounds = sorted({0, length, *(8 * at for at in cuts if 8 * at < length)})
        pieces += [piece_of(packet, low, high, high == length) for low, high in pairwise(bounds)]
    order.shuffle(pieces)
    reassembly = Reassembly()
    found = [done for piece in pieces if (done := reassembly.add(piece, 0.0)) is not None]
    assert sorted(packet.data for packet in found) == sorted(packet.data for packet in whole)
    assert reassembly.occupied == 0 and all(is_whole(packet) for packet in found)
    for packet in found:
        again = fragments(packet)
        assert all(len(piece.data) - 14 <= packet.fragment_size for piece in again)
        assert together(again) == [packet.data]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.booleans(), st.integers(0, 255)), max_size=40))
def test_fuzz_fragments(sent: list[tuple[int, int, bool, int]]) -> None:
    """What comes out has every byte from a fragment that came, and no two fragments that came for it overlapped."""
    reassembly = Reassembly()
    since: list[tuple[int, bytes]] = []
    for start, size, is_last, value in sent:
        payload = bytes([value]) * (8 * size)
        where = start | (0 if is_last else 0x2000)
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, where, 64, 99, 0, ip(11), ip(12))
        try:
            whole = reassembly.add(Packet(ethernet(mac(2), mac(1), ETH_IP, head + payload)), 0.0)
        except Malformed:
            since.clear()
            assert reassembly.occupied == 0
            continue
        since.append((8 * start, payload))
        covered = sum(len(part) for _, part in since)
        assert len({at for begin, part in since for at in range(begin, begin + len(part))}) == covered
        if whole is not None:
            assert whole.data[34:] == b"".join(part for _, part in sorted(since))
            since.clear()
    assert reassembly.occupied == 0 or since


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 1200, False), (8, 1008, False)],
        [(0, 1200, False), (0, 1200, False)],
        [(800, 1600, False), (0, 808, False)],
        [(1600, 2008, True), (2000, 2008, True)],
        [(800, 1600, False), (8, 800, True)],
        [(0, 801, False)],
        [(0, 0, True)],
    ],
)
def test_what_contradicts_itself_is_refused(pieces: list[tuple[int, int, bool]]) -> None:
    """And what came of it is forgotten: the rest alone makes nothing whole."""
    packet, reassembly = datagram(2000), Reassembly()
    for start, end, is_last in pieces[:-1]:
        assert reassembly.add(piece_of(packet, start, end, is_last), 0.0) is None
    with pytest.raises(Malformed):
        reassembly.add(piece_of(packet, *pieces[-1]), 0.0)
    assert reassembly.occupied == 0


def test_a_packet_that_never_ends() -> None:
    """The last fragment is beyond what a packet's length can say."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 60, 7, 0x1FFF, 64, UDP, 0, ip(11), ip(12))
    with pytest.raises(Malformed):
        Reassembly().add(Packet(ethernet(mac(2), mac(1), ETH_IP, head + bytes(40))), 0.0)


def test_fragments_that_wait_are_bounded_in_bytes_and_time() -> None:
    reassembly = Reassembly()
    for number in range(3000):
        packet = datagram(2000, number=number & 0xFFFF)
        reassembly.add(piece_of(packet, 0, 8 + 8 * (number % 100), False), number / 1000)
        assert reassembly.occupied <= MOST_BYTES
    assert reassembly.occupied > MOST_BYTES // 2
    first, second = cut(datagram(2000, number=0xFFFF))
    assert reassembly.add(first, PATIENCE + 4) is None
    assert reassembly.occupied < 2000
    assert reassembly.add(second, PATIENCE + 5) is not None and reassembly.occupied == 0


def test_who_sends_fragments_without_end_disturbs_nobody() -> None:
    net = Net()
    net.router.interfaces["vif2.0"].fragments.add(cut(datagram(2000, 2, 1))[0], 0.0)
    for number in range(500):
        net.send(1, cut(datagram(4000, number=number))[0].data)
    net.send(2, cut(datagram(2000, 2, 1))[1].data)
    assert len(net.got(1)) == 2 and not net.got(2)


def test_fragments_go_through_a_bridge_no_larger_than_they_came() -> None:
    net, packet = Net(), datagram(3000)
    for piece in cut(packet, 600):
        net.send(1, piece.data)
    got = net.got(2)
    assert len(got) == 6 and all(len(piece.data) <= 614 and piece.headers.is_fragment for piece in got)
    assert together(got) == [packet.data]


@pytest.mark.parametrize(("size", "largest"), [(600, MTU), (MTU, MTU), (4000, 4000), (9028, 9028)])
def test_who_sends_large_packets_is_answered_with_such(size: int, largest: int) -> None:
    """A ping of 9000 bytes, in fragments of so many or as one: its answer is in no smaller ones than need be."""
    net = Net()
    body = bytes(4) + random.Random(size).randbytes(8996)
    ping = numbered(icmp(ip(11), ROUTER, ECHO, 0, body), 9)
    for piece in cut(Packet(ethernet(net.gateway.mac, mac(1), ETH_IP, ping)), size):
        net.send(1, piece.data)
    got = net.got(1)
    assert largest - 8 < max(len(piece.data) - 14 for piece in got) <= largest
    (made,) = together(got)
    assert Packet(made).data[38:] == body and is_whole(Packet(made))


@pytest.mark.parametrize("dport", [53, 54])
def test_rules_see_the_whole_packet(dport: int) -> None:
    """Also when the ports come last."""
    net = Net()
    net.router.rules.add(parse_rule("drop proto udp dport 53"))
    for piece in reversed(cut(datagram(3000, dport=dport))):
        net.send(1, piece.data)
    assert len(net.got(2)) == (0 if dport == 53 else 3)
    assert net.ports[1].counters.denied == (dport == 53)


def test_fragments_are_rewritten_as_one() -> None:
    net = Net(third=Mode.NAT)
    packet = datagram(3000, 3, 1)
    for piece in cut(Packet(net.gateway.mac + packet.data[6:])):
        net.send(3, piece.data)
    (made,) = together(net.got(1))
    whole = Packet(made)
    assert whole.headers.ip_src == ROUTER and is_whole(whole) and whole.data[42:] == packet.data[42:]


def test_fragments_of_others_are_refused() -> None:
    net = Net()
    for piece in cut(datagram(3000, 2, 1)):
        net.send(1, mac(2) + mac(1) + piece.data[12:])
    assert net.ports[1].counters.spoofed == 3 and not net.ports[1].fragments.occupied


@pytest.mark.parametrize("size", [1472, 1473, 20_000, 65_507])
def test_large_datagrams_go_out_and_come_in(size: int) -> None:
    net, loop = Net(), Loop()
    nat = UserNat(loop, net.router, ROUTER, host_loopback=True)
    net.gateway.beyond = nat
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("127.0.0.1", 0))
        host.settimeout(30)
        data = udp(ip(11), ROUTER, 1000, host.getsockname()[1], random.Random(size).randbytes(size))
        for piece in cut(Packet(ethernet(net.gateway.mac, mac(1), ETH_IP, numbered(data, 9)))):
            net.send(1, piece.data)
        payload, peer = host.recvfrom(65_535)
        assert payload == data[28:]
        host.sendto(payload[::-1], peer)
        loop.until(lambda: net.ports[1].waiting)
    nat.close()
    got = net.got(1)
    assert all(len(piece.data) <= MTU + 14 and not ones_sum(piece.data[14:34]) for piece in got)
    (made,) = together(got)
    whole = Packet(made)
    assert whole.data[42:] == payload[::-1] and is_whole(whole)
