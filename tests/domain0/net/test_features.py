"""What frontends may choose: queues, event channels of their own, offloads of IPv6, groups; and whose turn it is."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from paravirt import Machine
from paravirt.abi.io import netif, xenbus
from paravirt.domain0.net.backend import MOST_QUEUES, TURN, NetBackend
from paravirt.domain0.net.offload import with_checksum
from paravirt.domain0.net.packet import TCP, Packet, ones_sum, pseudo_sum
from paravirt.domain0.services import Channel

from ...hypervisor.audited import audited
from .fronts import MACS, PAGE, Front, datagram
from .packets import tcp6

CSUM_BLANK = netif.NETTXF_csum_blank | netif.NETTXF_data_validated
GSO_TCPV6 = netif.XEN_NETIF_GSO_TYPE_TCPV6


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=64) as made, audited(made):
        yield made


def test_conversations_are_spread_over_the_queues_and_each_keeps_its_order(machine: Machine) -> None:
    one, two = Front(machine, 1), Front(machine, 2, queues=MOST_QUEUES)
    for queue in two.queues:
        queue.offer(30)
    sent = {port: [datagram(1, 2, bytes([number]), port) for number in range(5)] for port in range(100, 112)}
    for number in range(5):
        for port in sent:
            assert one.send(sent[port][number])[0][1] == netif.NETIF_RSP_OKAY
    received = [queue.received() for queue in two.queues]
    where = [{Packet(data).headers.sport for data in packets} for packets in received]
    assert sum(map(len, where)) == len(sent), "a conversation is in one queue"
    assert sum(map(bool, where)) > 1, "and not all of them in the same"
    for ports, packets in zip(where, received, strict=True):
        for port in ports:
            assert [data for data in packets if Packet(data).headers.sport == port] == sent[port]


def test_each_queue_sends(machine: Machine) -> None:
    one, two = Front(machine, 1, queues=2), Front(machine, 2)
    two.offer(8)
    for number, queue in enumerate(one.queues):
        data = datagram(1, 2, bytes([number]))
        assert queue.send(data) == [(0, netif.NETIF_RSP_OKAY)]
        assert two.received() == [data]


@pytest.mark.parametrize("count", [0, MOST_QUEUES + 1])
def test_as_many_queues_as_are_offered(machine: Machine, count: int) -> None:
    one = Front(machine, 1)
    assert one.guest.backend_node(one.device.nodes, "multi-queue-max-queues") == str(MOST_QUEUES)
    one.guest.publish(one.device.nodes, state=xenbus.XenbusStateClosed)
    one.guest.publish(one.device.nodes, state=xenbus.XenbusStateInitialising)
    one.guest.publish(one.device.nodes, multi_queue_num_queues=count, state=xenbus.XenbusStateConnected)
    assert one.fault is not None
    assert one.guest.backend_node(one.device.nodes, "state") == str(xenbus.XenbusStateClosing)


def test_a_queue_without_its_ring_leaves_nothing_of_the_others(machine: Machine) -> None:
    one = Front(machine, 1, queues=2)
    nodes, refs = one.device.nodes, [ref for queue in one.queues for ref in queue.refs]
    assert all(one.guest.is_mapped(ref) for ref in refs)
    one.guest.publish(nodes, state=xenbus.XenbusStateClosed)
    one.guest.publish(nodes, state=xenbus.XenbusStateInitialising)
    one.guest.publish(nodes, **{"queue-1/rx-ring-ref": 400}, state=xenbus.XenbusStateConnected)
    assert one.fault is not None and not any(one.guest.is_mapped(ref) for ref in refs)


@pytest.mark.parametrize("split", [False, True])
def test_each_direction_has_its_events(machine: Machine, monkeypatch: pytest.MonkeyPatch, split: bool) -> None:
    one, two = Front(machine, 1, split=split), Front(machine, 2, split=split)
    two.offer(1)
    notified: list[Channel] = []
    notify = Channel.notify

    def note(channel: Channel) -> None:
        notified.append(channel)
        notify(channel)

    monkeypatch.setattr(Channel, "notify", note)
    one.send(datagram(1, 2))
    queues = []
    for front in (one, two):
        backend = front.device.backend
        assert isinstance(backend, NetBackend)
        queues += backend._queues
    assert notified == [queues[0]._tx_channel, queues[1]._rx_channel]
    assert (queues[0]._tx_channel is queues[0]._rx_channel) is not split
    # Buffers that come are told of by the other one of the channels.
    one.send(datagram(1, 2, b"waits"))
    assert len(two.received()) == 1
    two.offer(1)
    assert two.received() == [datagram(1, 2, b"waits")]


# --- offloads -----------------------------------------------------------------------------------------------------


def is_whole(data: bytes) -> bool:
    headers = Packet(data).headers
    return (ones_sum(data[headers.l4 :]) + pseudo_sum(headers, len(data) - headers.l4)) % 0xFFFF == 0


def test_large_packets_of_ipv6(machine: Machine) -> None:
    """Whole for who takes them, cut for others; with checksums for who wants them."""
    payload = bytes(range(200)) * 40
    data = tcp6(MACS[1], MACS[2], payload, blank=True)
    one, two = Front(machine, 1), Front(machine, 2, feature_gso_tcpv6=1, feature_ipv6_csum_offload=1)
    two.offer(16)
    one.send(data, CSUM_BLANK, gso=1000, kind=GSO_TCPV6)
    assert two.queues[0].arrived() == [(data, (1000, GSO_TCPV6))]
    for blank in (0, 1):
        two.guest.publish(two.device.nodes, state=xenbus.XenbusStateClosed)
        two.guest.publish(two.device.nodes, state=xenbus.XenbusStateInitialising)
        two.begin(feature_gso_tcpv6=0, feature_ipv6_csum_offload=blank)
        two.offer(16)
        one.send(data, CSUM_BLANK, gso=1000, kind=GSO_TCPV6)
        pieces = two.received()
        assert [len(piece) - 74 for piece in pieces] == [1000] * 8
        assert b"".join(piece[74:] for piece in pieces) == payload
        assert [is_whole(piece) for piece in pieces] == [not blank] * 8
        assert all(is_whole(with_checksum(Packet(piece, bool(blank))).data) for piece in pieces)


def test_a_frontend_without_scattering_gets_what_fits_a_page(machine: Machine) -> None:
    """What does not is lost, and counted."""
    one, two = Front(machine, 1), Front(machine, 2, feature_sg=0, feature_gso_tcpv4=0)
    two.offer(8)
    room = PAGE - len(datagram(1, 2, b""))
    for size in (room, room + 1, 5):
        one.send(datagram(1, 2, bytes(size)))
    assert [len(data) for data in two.received()] == [PAGE, PAGE - room + 5]
    assert two.counted()["overrun"] == 1
    large = tcp6(MACS[1], MACS[2], bytes(8000), blank=True)
    one.send(large, CSUM_BLANK, gso=1400, kind=GSO_TCPV6)
    pieces = two.received()
    assert len(pieces) == 6 and all(Packet(piece).headers.protocol == TCP and is_whole(piece) for piece in pieces)


# --- groups -------------------------------------------------------------------------------------------------------


def test_groups_may_be_chosen_and_not_while_it_is_connected(machine: Machine) -> None:
    one, two = Front(machine, 1), Front(machine, 2)
    assert one.guest.backend_node(one.device.nodes, "feature-dynamic-multicast-control") == "1"
    group = bytes.fromhex("333300000001")
    data = group + datagram(1, 2)[6:]
    two.offer(8)
    add = [
        struct.pack("<IHHHH", 0, 0, netif.NETTXF_extra_info, 7, 0),
        struct.pack("<BB6sxxxx", netif.XEN_NETIF_EXTRA_TYPE_MCAST_ADD, 0, group),
    ]
    for chooses, expected in ((0, 1), (1, 0), (0, 1), (1, 0)):
        two.guest.publish(two.device.nodes, request_multicast_control=chooses)
        status = netif.NETIF_RSP_OKAY if chooses else netif.NETIF_RSP_ERROR
        one.send(data)
        assert len(two.received()) == expected
        assert two.ask(add) == [(7, status), (0, netif.NETIF_RSP_NULL)]
        one.send(data)
        assert len(two.received()) == 1, "it has joined the group, or has all of them"


# --- turns --------------------------------------------------------------------------------------------------------


def test_interfaces_take_turns(machine: Machine) -> None:
    """One that floods has its turn, then the other, however much the first has to say."""
    many, few = 3 * TURN, 5
    fronts = [Front(machine, number) for number in range(3)]
    fronts[2].offer(many + few)
    requests = []
    for number, count in ((0, many), (1, few)):
        frame = fronts[number].guest.frame()
        data = datagram(number, 2)
        frame.write(0, data)
        request = struct.pack("<IHHHH", fronts[number].guest.grant(frame), 0, 0, 0, len(data))
        requests.append([request] * count)

    def send_both() -> None:
        """In Domain 0's thread, which would look at a ring once more that it has found empty just before."""
        for front, some in zip(fronts[:2], requests, strict=True):
            front.queues[0].tx.put(some)
            front.guest.send(front.queues[0].tx_port)

    machine.call(send_both)
    for _ in range(2 * many // TURN):
        machine.call(lambda: None)
    assert [MACS.index(data[6:12]) for data in fronts[2].received()] == [0] * TURN + [1] * few + [0] * (many - TURN)
