"""Random packets, alone and through the whole path, and random words: what comes out is sound, and nothing breaks.

``PARAVIRT_EXAMPLES=5000 scripts/test tests/domain0/net -k "fuzz or whatever or harms"`` looks for longer.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paravirt import Machine, UserError
from paravirt.abi.io import netif
from paravirt.domain0.net import dhcp, dns, usernat
from paravirt.domain0.net.fragments import fragments
from paravirt.domain0.net.gateway import Gateway
from paravirt.domain0.net.interface import Interface
from paravirt.domain0.net.options import parse_forward
from paravirt.domain0.net.packet import (
    BROADCAST,
    ETH_ARP,
    ETH_IP,
    ICMP,
    ND_ADVERTISEMENT,
    TCP,
    TCP_ACK,
    UDP,
    Malformed,
    Packet,
    arp,
    ethernet,
    icmp,
    ipv4,
    parse,
    udp,
)
from paravirt.domain0.net.replies import ECHO, tcp_packet
from paravirt.domain0.net.rewrite import Connections, Flow, flow_of, rewritten
from paravirt.domain0.net.router import Router
from paravirt.domain0.net.rules import parse_rule
from paravirt.domain0.net.shares import PART
from paravirt.domain0.net.usernat import MOST_SOCKETS, MOST_STREAMS, UserNat
from paravirt.domain0.xlcfg.vifs import parse_vif

from ...hypervisor.audited import audited, check
from ...patience import settled
from .fronts import IPS, MACS, PAGE, Front, datagram
from .outside import GUEST, ROUTER, Guest, Loop
from .packets import icmp6, tcp6

NETWORK = ipaddress.IPv4Network("10.0.2.0/24")
WHOLE_PATH = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
STATION = bytes.fromhex("fefffffffffe")

# --- from a ring to another ---------------------------------------------------------------------------------------

SEEDS = [
    datagram(1, 2, bytes(100)),
    datagram(1, 2, bytes(9000)),
    ethernet(BROADCAST, MACS[1], ETH_ARP, arp(1, MACS[1], IPS[1], bytes(6), IPS[2])),
    ethernet(STATION, MACS[1], ETH_IP, icmp(IPS[1], ROUTER, ECHO, 0, bytes(40))),
    ethernet(STATION, MACS[1], ETH_IP, udp(IPS[1], ROUTER, 9, 53, b"\0\1\1\0\0\1\0\0\0\0\0\0\6router\0\0\1\0\1")),
    ethernet(BROADCAST, MACS[1], ETH_IP, udp(bytes(4), b"\xff" * 4, 68, 67, b"\1\1\6\0" + bytes(232) + b"c\x82Sc")),
    ethernet(MACS[2], MACS[1], ETH_IP, tcp_packet(IPS[1], IPS[2], 7, 8, 1, 0, TCP_ACK, payload=bytes(20_000))),
    *(piece.data for piece in fragments(Packet(datagram(1, 2, bytes(3000)), fragment_size=1500))),
    tcp6(MACS[1], MACS[2], bytes(5000)),
    icmp6(MACS[1], MACS[2], ND_ADVERTISEMENT, bytes(4) + bytes(16)),
]
SLOTS = 17


class Sender:
    """Sends whatever it is given, in slots cut anywhere, out of the same pages again and again."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.frames = [front.guest.frame() for _ in range(SLOTS)]
        self.refs = [front.guest.grant(frame) for frame in self.frames]

    def send(self, data: bytes, cuts: list[int], flags: int, gso: tuple[int, int]) -> None:
        pieces = self._pieces(data, cuts)
        assert len(pieces) <= SLOTS
        requests = []
        for number, (piece, frame, ref) in enumerate(zip(pieces, self.frames, self.refs, strict=False)):
            offset = (PAGE - len(piece)) // 2
            frame.write(offset, piece)
            more = netif.NETTXF_more_data if number + 1 < len(pieces) else 0
            extra = netif.NETTXF_extra_info if gso[0] and not number else 0
            size = len(piece) if number else len(data)
            kept = flags & (netif.NETTXF_csum_blank | netif.NETTXF_data_validated) if not number else 0
            requests.append(struct.pack("<IHHHH", ref, offset, kept | more | extra, number, size))
            if extra:
                requests.append(struct.pack("<BBHBBHxxxx", netif.XEN_NETIF_EXTRA_TYPE_GSO, 0, *gso, 0, 0))
        assert len(self.front.ask(requests)) == len(requests), "every slot is answered"

    @staticmethod
    def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
        bounds = sorted({0, len(data), *(cut % len(data) for cut in cuts), *range(PAGE, len(data), PAGE)})
        return [data[low:high] for low, high in pairwise(bounds)]


@pytest.fixture(scope="module")
def fronts() -> Iterator[tuple[Sender, Sender, Front, Front]]:
    """One that sends anything, one that gets all it can and sends to the third, a witness."""
    with Machine(memory=64) as machine, audited(machine):
        for rule in ("log dport 1-9", "mirror vif2.0 proto icmp", "snat 10.0.2.1 proto udp dport 2000-3000"):
            machine.call(lambda: machine.network.add_rule(rule))  # noqa: B023
        made = [Front(machine, number, feature_gso_tcpv6=1) for number in (1, 2, 0)]
        made[1].offer(200)
        made[2].offer(4)
        yield Sender(made[0]), Sender(made[1]), made[1], made[2]
        check(machine, "after random packets")


@WHOLE_PATH
@given(
    st.one_of(st.sampled_from(SEEDS), st.binary(min_size=1, max_size=2000)),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
    st.integers(1, 65_535),
    st.lists(st.integers(0, 65_535), max_size=8),
    st.integers(0, 0xFFFF),
    st.tuples(st.sampled_from([0, 0, 1, 28, 1000, 0xFFFF]), st.sampled_from([1, 2])),
)
def test_fuzz_from_ring_to_ring(
    fronts: tuple[Sender, Sender, Front, Front],
    data: bytes,
    changes: list[tuple[int, int]],
    length: int,
    cuts: list[int],
    flags: int,
    gso: tuple[int, int],
) -> None:
    """Whatever is sent, who sends it stays connected, who gets it gets packets, and others notice nothing."""
    sender, back, sink, witness = fronts
    changed = bytearray(data)
    for at, value in changes:
        if at < len(changed):
            changed[at] = value
    sender.send(bytes(changed[:length]), cuts, flags, gso)
    sender.front.received()
    for packet in sink.received():
        assert len(packet) >= 14 and parse(packet).end <= len(packet)
    sink.queues[0].offer_again()
    hello = datagram(2, 0, b"hello")
    back.send(hello, [], 0, (0, 1))
    seen: list[bytes] = []

    def come() -> list[bytes]:
        seen.extend(packet for packet in witness.received() if packet[6:12] == MACS[2])
        return seen

    assert settled(come, [hello]) == [hello]
    witness.queues[0].offer_again()
    assert [front.fault for front in (sender.front, sink, witness)] == [None] * 3


# --- names and leases ---------------------------------------------------------------------------------------------


@given(
    st.lists(st.text(max_size=80), max_size=3), st.sampled_from([1, 12, 28, 255]), st.text(max_size=60), st.booleans()
)  # fmt: skip
def test_fuzz_names_of_domains(names: list[str], kind: int, asked: str, own: bool) -> None:
    """Whatever domains are called and whatever is asked, the answer is one, and repeats the question."""
    router = Router()
    gateway = Gateway(router, NETWORK)
    for number, name in enumerate(names):
        address = gateway.free_address()
        interface = Interface(f"vif{number}.0", bytes([0, 0x16, 0x3E, 0, 0, number]), addresses=(address,))
        router.attach(interface)
        gateway.names[interface.name] = name
    if own and names:
        asked = "2.2.0.10.in-addr.arpa" if kind == 12 else f"{names[0]}.guest"
    labels = [label for label in asked.encode("utf-8", "replace").split(b".") if 0 < len(label) < 64]
    body = b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + struct.pack("!HH", kind, 1)
    query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + body
    answers: list[bytes] = []
    gateway.answer_names(query, answers.append, None, by_stream=False)
    (answer,) = answers
    number, flags, questions, records, *_ = struct.unpack_from("!HHHHHH", answer)
    assert number == 7 and flags & 0x8000
    if questions:
        assert answer[12 : 12 + len(body)] == body
        assert (len(answer) > 12 + len(body)) == bool(records)
    else:
        assert flags & 15 in (dns.FORMAT_ERROR, dns.SERVER_FAILURE)


@given(
    st.sampled_from([dhcp.DISCOVER, dhcp.REQUEST, dhcp.INFORM, dhcp.RELEASE]),
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=255)), max_size=8),
    st.text(max_size=100),
    st.integers(0, 60),
)
def test_fuzz_leases(kind: int, options: list[tuple[int, bytes]], hostname: str, cut: int) -> None:
    """A client gets an answer to its question, and no address but its own."""
    head = struct.pack("!BBBBIHH16s6s202s4s", 1, 1, 6, 0, 99, 0, 0, bytes(16), MACS[1], bytes(202), b"c\x82Sc")
    body = bytes([53, 1, kind]) + b"".join(bytes([code, len(value)]) + value for code, value in options)
    query = dhcp.parse((head + body)[: len(head + body) - cut])
    if query is None:
        return
    answer = dhcp.answer(query, dhcp.Offer(IPS[1], NETWORK, ROUTER, "guest", hostname))
    if answer is not None:
        assert answer[:4] == bytes([2, 1, 6, 0]) and answer[4:8] == head[4:8] and answer[28:34] == MACS[1]
        assert answer[16:20] in (IPS[1], bytes(4)) and len(answer) >= 300 and b"\xff" in answer[240:]


# --- rewriting ----------------------------------------------------------------------------------------------------

addresses = st.sampled_from([*IPS, ROUTER, bytes([192, 0, 2, 1])])
ports = st.integers(0, 0xFFFF) | st.sampled_from([53, 80])
flows = st.builds(Flow, st.sampled_from([TCP, UDP]), addresses, ports, addresses, ports) | st.builds(
    lambda src, dst, number: Flow(ICMP, src, number, dst, number), addresses, addresses, ports
)


def packet_of(flow: Flow, payload: bytes) -> Packet:
    if flow.protocol == TCP:
        data = tcp_packet(flow.src, flow.dst, flow.sport, flow.dport, 5, 6, TCP_ACK, payload=payload)
    elif flow.protocol == UDP:
        data = udp(flow.src, flow.dst, flow.sport, flow.dport, payload)
    else:
        data = icmp(flow.src, flow.dst, ECHO, 0, flow.sport.to_bytes(2, "big") + b"\0\1" + payload)
    return Packet(ethernet(STATION, MACS[1], ETH_IP, data))


@given(flows, flows, st.binary(max_size=60))
def test_fuzz_rewriting_is_undone(old: Flow, new: Flow, payload: bytes) -> None:
    """And its checksums are those that a packet made so from the start has."""
    new = Flow(old.protocol, new.src, new.sport, new.dst, new.sport if old.protocol == ICMP else new.dport)
    packet = packet_of(old, payload)
    there = rewritten(packet, new)
    assert there.data == packet_of(new, payload).data
    assert flow_of(there) == new and rewritten(there, old).data == packet.data


@given(st.lists(st.tuples(flows, st.booleans(), st.booleans()), max_size=60))
def test_fuzz_conversations_stay_apart(opened: list[tuple[Flow, bool, bool]]) -> None:
    """Two that are rewritten never look the same to who answers, and answers find their way back."""
    connections = Connections()
    made: dict[Flow, Flow] = {}
    for flow, source, target in opened:
        if connections.find(flow) is None:
            dst = (IPS[2], 80) if target or not source else None
            made[flow] = connections.open(flow, ROUTER if source else None, dst, len(made) % 3)
    for flow, new in made.items():
        assert connections.find(flow) == new and connections.find(new.reverse) == flow.reverse
    assert len({new.reverse for new in made.values()}) == len(made)


# --- the way outside ----------------------------------------------------------------------------------------------


class NoSocket:
    """A socket that takes everything, gives nothing, and breaks when it is told to."""

    family, type = socket.AF_INET, socket.SOCK_STREAM
    numbers = count(1000)

    def __init__(self) -> None:
        self.fd = next(self.numbers)
        self.breaks = False

    def fileno(self) -> int:
        return self.fd

    def connect_ex(self, peer: object) -> int:
        return errno.EINPROGRESS

    def _moved(self, *_: object) -> int:
        if self.breaks:
            raise ConnectionResetError
        return 1

    send = sendto = shutdown = _moved

    def getsockopt(self, *_: object) -> int:
        return errno.ECONNRESET if self.breaks else 0

    def recv(self, size: int) -> bytes:
        self._moved()
        raise BlockingIOError

    recvfrom = recv

    def setsockopt(self, *_: object) -> None: ...

    def close(self) -> None:
        self.fd = -1


near = st.integers(0, 3)
segments = st.builds(
    lambda sport, flags, seq, ack, options, payload: tcp_packet(
        GUEST, bytes([192, 0, 2, 9]), sport, 80, seq, ack, flags, 500, options * 4, payload=payload
    ),
    near, st.integers(0, 255), st.integers(0, 5) | st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF),
    st.binary(max_size=5), st.binary(max_size=40),
)  # fmt: skip
datagrams = st.builds(lambda sport, dport: udp(GUEST, bytes([192, 0, 2, 9]), sport, dport, b"x"), ports, ports)
others = st.builds(lambda kind, data: ipv4(GUEST, bytes([192, 0, 2, 9]), kind, data), st.integers(0, 255), st.binary())


@settings(deadline=None)
@given(st.lists(st.one_of(segments, segments, datagrams, others, st.integers(0, 63)), max_size=80))
def test_fuzz_the_way_outside(steps: list[bytes | int]) -> None:
    """Random packets to it, while sockets become ready and break: nothing stays behind."""
    loop, made = Loop(), list[NoSocket]()

    def open_socket(*_: object) -> NoSocket:
        made.append(NoSocket())
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usernat, "_open", open_socket)
        nat = UserNat(loop, Guest(), ROUTER)
        for step in steps:
            if isinstance(step, int):
                if made:
                    made[step % len(made)].breaks = step % 3 == 0
                for events, handler in list(loop.handlers.values()):
                    handler(step & events or 1)
            else:
                packet = Packet(ethernet(STATION, MACS[1], ETH_IP, step))
                with suppress(Malformed):
                    packet.headers  # noqa: B018 - what is malformed has been dropped by the router
                    nat.send(packet)
            while loop.calls:
                loop.calls.popleft()()
            assert len(nat.streams) <= MOST_STREAMS // PART and len(nat._datagrams) <= MOST_SOCKETS // PART
            assert set(loop.handlers) <= {one.fd for one in made}
        nat.close()
    assert not loop.handlers and all(one.fd < 0 for one in made)


# --- words --------------------------------------------------------------------------------------------------------

WORDS = """accept drop reject log mirror redirect snat dnat in out mac-src mac-dst src dst ether proto sport dport tcp
    udp arp 80 1-2 vif1.0 10.0.0.0/8 fe80::/10 ::1 1.2.3.4:5 00:16:3e:00:00:01 -1 99999999999 0x10 \u00b2 /"""
words = st.lists(st.sampled_from(WORDS.split()) | st.text(max_size=12), max_size=10).map(" ".join)


@given(words, st.sampled_from(SEEDS))
def test_fuzz_rules(text: str, data: bytes) -> None:
    """A rule, which can be asked of any packet; or a sentence that says why not."""
    try:
        rule = parse_rule(text)
    except UserError as error:
        assert str(error)
        return
    for incoming, outgoing in (("vif1.0", None), ("vif1.0", "vif2.0")):
        assert rule.pattern.matches(parse(data), incoming, outgoing) in (True, False)
    assert parse_rule(rule.text) == rule


SETTINGS = ("mac=00:16:3e:00:00:01", "ip=1.2.3.4/24", "ip=::1 1.1.1.1", "rate=1MB/s@1s", "rate=9b/s", "script=vif-nat",
            "mtu=1500", "devid=3", "bridge=x", "vifname=a b", "type=vif", "backend=0", "untrusted")  # fmt: skip


@pytest.mark.parametrize("read", [parse_vif, parse_forward])
@given(st.lists(st.sampled_from(SETTINGS) | st.text(max_size=20), max_size=6).map(",".join) | st.text(max_size=40))
def test_fuzz_settings(read: Callable[[str], object], text: str) -> None:
    try:
        assert read(text)
    except UserError as error:
        assert str(error)
