"""The network backend and its frontends, honest and not."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt import Machine, UserError
from paravirt.abi.io import netif, xenbus
from paravirt.domain0.devices import second_look
from paravirt.domain0.devices.second_look import SecondLook
from paravirt.domain0.net import deliver
from paravirt.domain0.net.backend import NetBackend
from paravirt.domain0.net.credit import Credit
from paravirt.domain0.net.interface import QUEUE_BYTES
from paravirt.domain0.net.offload import segments
from paravirt.domain0.net.packet import ETH_IP, TCP_ACK, Packet, ethernet
from paravirt.domain0.net.replies import tcp_packet
from paravirt.domain0.net.rounds import Rounds
from paravirt.domain0.net.transmit import FATAL_SLOTS, next_packet
from paravirt.domain0.ring import GuestProtocolError
from paravirt.domain0.services import Services
from paravirt.domain0.xlcfg.vifs import parse_rate, parse_vif, vif_spec

from ...hypervisor.audited import audited
from ...patience import wait_for
from ..devices.rings import FrontRing
from .fronts import IPS, MACS, PAGE, Front, datagram


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=64) as made, audited(made):
        yield made


def test_packets_go_from_one_guest_to_another(machine: Machine) -> None:
    one, two = Front(machine, 1), Front(machine, 2)
    two.offer(8)
    for size in (10, 1400):
        data = datagram(1, 2, bytes(range(10)) * (size // 10))
        assert one.send(data) == [(0, netif.NETIF_RSP_OKAY)]
        assert two.received() == [data]


def test_large_packets_stay_whole_for_who_takes_them_and_are_cut_for_others(machine: Machine) -> None:
    one, two = Front(machine, 1), Front(machine, 2)
    payload = bytes(range(250)) * 40
    data = ethernet(MACS[2], MACS[1], ETH_IP, tcp_packet(IPS[1], IPS[2], 1, 2, 5, 0, TCP_ACK, payload=payload,
                                                          csum_blank=True))  # fmt: skip
    two.offer(16)
    answers = one.send(data, netif.NETTXF_csum_blank | netif.NETTXF_data_validated, 1000)
    assert [status for _, status in answers].count(netif.NETIF_RSP_NULL) == 1
    assert two.received() == [data]
    two.guest.publish(two.device.nodes, state=xenbus.XenbusStateClosed)
    two.guest.publish(two.device.nodes, state=xenbus.XenbusStateInitialising)
    two.begin(feature_gso_tcpv4=0, feature_no_csum_offload=1)
    two.offer(16)
    one.send(data, netif.NETTXF_csum_blank, 1000)
    pieces = two.received()
    assert [len(piece) - 54 for piece in pieces] == [1000] * 10 and b"".join(p[54:] for p in pieces) == payload


def test_packets_wait_for_buffers(machine: Machine) -> None:
    one, two = Front(machine, 1), Front(machine, 2)
    sent = [datagram(1, 2, bytes([number]) * 5000) for number in range(5)]
    for data in sent:
        one.send(data)
    received: list[bytes] = []
    for _ in range(10):
        two.offer(1)
        received += two.received()
    assert received == sent


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (struct.pack("<IHHHH", 20, 4000, 0, 0, 200), "begin at 4000"),
        (struct.pack("<IHHHH", 20, 0, netif.NETTXF_more_data, 0, 200), "where the ring ends"),
        (struct.pack("<IHHHH", 20, 0, netif.NETTXF_extra_info, 0, 200), "where the ring ends"),
    ],
)
def test_slots_that_make_no_sense_end_the_connection_and_no_other(machine: Machine, request_: bytes, why: str) -> None:
    one, two = Front(machine, 1), Front(machine, 2)
    one.ask([request_])
    assert why in (one.fault or "") and two.fault is None
    assert one.guest.backend_node(one.device.nodes, "state") == "5"
    assert not one.guest.is_mapped(one.refs[0])


def test_a_grant_that_is_none_fails_its_packet_only(machine: Machine) -> None:
    one, two = Front(machine, 1), Front(machine, 2)
    two.offer(4)
    assert one.ask([struct.pack("<IHHHH", 499, 0, 0, 9, 100)]) == [(9, netif.NETIF_RSP_ERROR)]
    assert one.ask([struct.pack("<IHHHH", 499, 0, 0, 9, 3)]) == [(9, netif.NETIF_RSP_ERROR)]
    assert one.send(datagram(1, 2))[0][1] == netif.NETIF_RSP_OKAY and len(two.received()) == 1
    two.rx.put([struct.pack("<HHI", 0, 0, 498)] * 2)
    two.rx.take()
    for _ in range(5):
        one.send(datagram(1, 2))
    answers = [struct.unpack("<HHHh", response)[3] for response in two.rx.take()]
    assert netif.NETIF_RSP_ERROR in answers and two.fault is None


def test_buffers_that_are_taken_back_end_the_connection(machine: Machine) -> None:
    """The index is read twice, before packets are chosen and when buffers are taken, and may differ."""
    one = Front(machine, 1)
    backend = one.device.backend
    assert isinstance(backend, NetBackend)
    put = backend.guarded(lambda: backend._queues[0].put([Packet(bytes(5000))]))
    one.offer(1)
    machine.call(put)
    assert "of 2 receive buffers that were there 1 are left" in (one.fault or "")
    assert not one.guest.is_mapped(one.refs[1])


def test_who_gives_no_buffers_loses_packets_and_holds_no_more_than_so_many(machine: Machine) -> None:
    one, two, size = Front(machine, 1), Front(machine, 2), 32_000
    frames = [one.guest.frame() for _ in range(8)]
    whole = datagram(1, 2, bytes(size))
    for number, frame in enumerate(frames):
        frame.write(0, whole[number * PAGE :][:PAGE])
    refs = [one.guest.grant(frame) for frame in frames]
    for _ in range(QUEUE_BYTES // size + 5):
        slots = [len(whole), *(min(PAGE, len(whole) - at) for at in range(PAGE, len(whole), PAGE))]
        flags = [netif.NETTXF_more_data] * (len(slots) - 1) + [0]
        one.ask([struct.pack("<IHHHH", *slot) for slot in zip(refs, [0] * 8, flags, range(8), slots, strict=True)])
    counted = two.counted()
    assert counted["overrun"] > 0 and counted["waiting"] * len(whole) <= QUEUE_BYTES
    two.offer(40)
    assert two.received() == [whole] * 5 and two.fault is None


def test_a_queue_without_buffers_holds_no_other_up(machine: Machine) -> None:
    one, two = Front(machine, 1), Front(machine, 2, queues=2)
    by_queue: dict[int, list[bytes]] = {}
    backend = two.device.backend
    assert isinstance(backend, NetBackend)
    for sport in range(1, 41):
        data = datagram(1, 2, bytes(4000), sport=sport)
        by_queue.setdefault(backend._queue_of(Packet(data)), []).append(data)
    fed, starved = two.queues
    fed.offer(64)
    assert set(by_queue) == {0, 1}
    most = QUEUE_BYTES // 2 // len(by_queue[1][0])
    for _ in range(most // len(by_queue[1]) + 1):
        for data in by_queue[1]:
            one.send(data)
    before = two.counted()
    assert before["overrun"] > 0 and before["waiting"] == most
    for data in by_queue[0]:
        one.send(data)
    assert fed.received() == by_queue[0] and two.counted()["overrun"] == before["overrun"]
    starved.offer(3)
    assert starved.received() == by_queue[1][:3] and two.fault is None


@pytest.mark.parametrize("split", [False, True])
def test_what_is_put_in_unnoticed_is_found(machine: Machine, monkeypatch: pytest.MonkeyPatch, split: bool) -> None:
    """A packet, and a buffer, of which neither side told the other (see second_look.py)."""
    one, two = Front(machine, 1), Front(machine, 2, split=split)
    for front in (one, two):
        front.queues[0].event(front.queues[0].tx_port)
    data = datagram(1, 2, bytes(2000))
    frame, buffer = one.guest.frame(), two.guest.frame()
    frame.write(0, data)
    request = struct.pack("<IHHHH", one.guest.grant(frame), 0, 0, 7, len(data))
    sender, receiver = one.device.backend, two.device.backend
    assert isinstance(sender, NetBackend) and isinstance(receiver, NetBackend)

    def unnoticed(look: SecondLook, ring: FrontRing, put: bytes) -> None:
        """Just after the backend has looked."""
        soon = look.soon

        def then(position: int) -> None:
            monkeypatch.setattr(look, "soon", soon)
            ring.put([put])
            soon(position)

        monkeypatch.setattr(look, "soon", then)

    unnoticed(sender._queues[0]._second_looks[0], one.queues[0].tx, request)
    unnoticed(receiver._queues[0]._second_looks[1], two.rx, struct.pack("<HHI", 3, 0, two.guest.grant(buffer)))
    one.send(b"a packet for nobody, so that the ring is found empty when it has gone")
    answers: list[bytes] = []

    def has_come() -> bool:
        answers.extend(two.rx.take())
        return bool(answers)

    wait_for(has_come, "the packet")
    assert [struct.unpack("<HHHh", answer)[3] for answer in answers] == [len(data)]
    assert buffer.read(0, len(data)) == data


def large(payload: bytes) -> bytes:
    return ethernet(MACS[2], MACS[1], ETH_IP, tcp_packet(IPS[1], IPS[2], 1, 2, 5, 0, TCP_ACK, payload=payload))


@pytest.mark.parametrize("size", [1, 8, 28])
def test_packets_are_cut_as_small_as_their_sender_wants(machine: Machine, size: int) -> None:
    """Linux's TCP goes down to 8 bytes where somebody asks for it, and its backend has no limit."""
    one, two = Front(machine, 1), Front(machine, 2, feature_gso_tcpv4=0)
    two.offer(120)
    payload = bytes(range(100))
    assert one.send(large(payload), gso=size)[0] == (0, netif.NETIF_RSP_OKAY)
    assert [piece[54:] for piece in two.received()] == [payload[at : at + size] for at in range(0, 100, size)]


def test_no_more_pieces_are_made_than_there_is_room_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Packet] = []

    def watched(packet: Packet) -> Iterator[Packet]:
        for piece in segments(packet):
            made.append(piece)
            yield piece

    monkeypatch.setattr(deliver, "segments", watched)
    one, two = Front(machine, 1), Front(machine, 2, feature_gso_tcpv4=0)
    two.offer(8)
    payload = bytes(range(250)) * 60
    assert one.send(large(payload), gso=1)[0] == (0, netif.NETIF_RSP_OKAY)
    assert [piece[54:] for piece in two.received()] == [payload[at : at + 1] for at in range(8)]
    assert len(made) == 9, "those that are there, and the one that waits"
    two.offer(3)
    assert [piece[54:] for piece in two.received()] == [payload[at : at + 1] for at in range(8, 11)]
    assert len(made) == 12
    # What waits counts with the headers of its pieces.
    for lost in (0, 1):
        assert one.send(large(payload), gso=1)[0] == (0, netif.NETIF_RSP_OKAY)
        assert two.counted()["overrun"] == lost
    assert len(made) == 12


def test_a_flood_of_events_without_credit_is_one_turn_later(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Services, "call_later", lambda self, delay, function: waits.append(delay))
    one = Front(machine, 1, rate="1KB/s@100s")
    answers = one.send(datagram(1, 2, bytes(60_000)))
    assert len(answers) == 15
    for _ in range(3):
        one.send(datagram(1, 2, bytes(60_000)))
    for _ in range(20):
        one.queues[0].event(one.queues[0].tx_port)
    waits = [wait for wait in waits if wait != second_look.AFTER]
    assert len(waits) == 1 and 0 < waits[0] <= 100


def test_a_turn_that_fails_is_no_other_ones() -> None:
    posted: list[object] = []
    turns: list[str] = []
    rounds = Rounds(posted.append)

    class Party:
        def __init__(self, name: str) -> None:
            self.name = name

        def give(self) -> bool:
            turns.append(f"{self.name} gives")
            raise ZeroDivisionError

        def take(self) -> None:
            turns.append(f"{self.name} takes")
            raise ZeroDivisionError

    for name in ("a", "b"):
        rounds.has_packets(Party(name))
        rounds.is_waited_for(Party(name))
    while posted:
        run = posted.pop()
        assert callable(run)
        with pytest.raises(ZeroDivisionError):
            run()
    assert sorted(turns) == ["a gives", "a takes", "b gives", "b takes"]


def test_flipping_is_refused(machine: Machine) -> None:
    one = Front(machine, 1, request_rx_copy=0)
    assert "flipped" in (one.fault or "")
    assert one.guest.backend_node(one.device.nodes, "feature-rx-flip") == "0"


def test_groups_are_joined_and_left(machine: Machine) -> None:
    one, two = Front(machine, 1), Front(machine, 2, request_multicast_control=1)
    group = bytes.fromhex("01005e000001")
    data = group + datagram(1, 2)[6:]
    two.offer(8)
    one.send(data)
    assert not two.received()
    for kind, expected in ((netif.XEN_NETIF_EXTRA_TYPE_MCAST_ADD, 1), (netif.XEN_NETIF_EXTRA_TYPE_MCAST_DEL, 0)):
        two.ask([struct.pack("<IHHHH", 0, 0, netif.NETTXF_extra_info, 0, 0), struct.pack("<BB6sxxxx", kind, 0, group)])
        one.send(data)
        assert len(two.received()) == expected


@given(st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=30))
def test_whatever_requests_are_a_packet_or_a_fault(requests: list[bytes]) -> None:
    left = iter(requests)

    def fetch() -> bytes:
        try:
            return next(left)
        except StopIteration:
            raise GuestProtocolError("no more") from None

    try:
        packet = next_packet(fetch)
    except GuestProtocolError:
        return
    if packet.group is None and not packet.is_bad:
        assert sum(size for _, _, size in packet.parts) == packet.size
        assert all(offset + size <= PAGE for _, offset, size in packet.parts)
    assert len(packet.answers) <= FATAL_SLOTS + netif.XEN_NETIF_EXTRA_TYPE_MAX


@given(st.integers(1, 10_000), st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 200)), max_size=50))
def test_no_more_is_sent_than_there_is_credit_for(limit: int, sends: list[tuple[int, int]]) -> None:
    """Times are multiples of a power of two, so that nothing is rounded."""
    credit, now, sent, largest = Credit(limit, 1.0), 0.0, 0, 0
    for size, pause in sends:
        now += pause / 64
        wait = credit.take(size, now)
        if wait is None:
            sent += size
            largest = max(largest, size)
        else:
            assert 0 < wait <= 1.0
        assert sent <= limit * (int(now) + 1) + max(limit, largest)


# --- settings -----------------------------------------------------------------------------------------------------


def test_settings() -> None:
    text = "mac=0:16:3E:1:2:3, bridge=br1,ip=10.0.0.1/24 fe80::1,script=/etc/xen/scripts/vif-route,rate=1Mb/s@20ms"
    assert parse_vif(f"{text},vifname=v,devid=3,mtu=500,type=vif,backend=0,netdev=eth0,untrusted").settings == {
        "mac": "00:16:3e:01:02:03", "bridge": "br1", "ip": "10.0.0.1 fe80::1", "script": "vif-route", "rate": 2500,
        "rate-interval": 20000, "vifname": "v", "devid": 3, "mtu": 500, "gatewaydev": "eth0", "trusted": False,
    }  # fmt: skip
    assert parse_rate("10MB/s") == (500_000, 50_000) and parse_rate("1GB/s@1s") == (10**9, 10**6)


@pytest.mark.parametrize("text", ["mac=1", "mac=01:00:00:00:00:00", "model=e1000", "type=ioemu", "script=mine", "ip=x",
                                  "rate=5", "rate=1b/s@1u", "backend=other", "bridge=", "devid=256", "mtu=3", "mac",
                                  "colo_x=1", "nonsense=1"])  # fmt: skip
def test_what_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_vif(text)


def test_nodes_and_addresses(machine: Machine) -> None:
    one = Front(machine, 1)
    nodes, store = one.device.nodes, machine.store
    assert one.guest.backend_node(nodes, "script") == "/etc/xen/scripts/vif-bridge"
    assert one.guest.backend_node(nodes, "bridge") == "xenbr0"
    assert machine.call(lambda: store.get(f"{nodes.frontend}/mac")) == MACS[1].hex(":").encode()
    with pytest.raises(UserError, match=r"has the address 10\.0\.2\.21"):
        one.guest.domain.attach(vif_spec(ip="10.0.2.21"))
    one.guest.domain.detach(one.device, force=True)
    assert machine.call(machine.network.status) == []
