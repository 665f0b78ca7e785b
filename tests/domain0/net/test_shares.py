"""What one guest can have of what all need: flows without end are its own loss."""

from __future__ import annotations

import resource
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.net import dns, usernat
from paravirt.domain0.net.interface import Interface, Mode
from paravirt.domain0.net.network import Network
from paravirt.domain0.net.options import NetworkOptions
from paravirt.domain0.net.packet import ETH_IP, TCP_SYN, UDP, ethernet, udp
from paravirt.domain0.net.replies import tcp_packet
from paravirt.domain0.net.resolver import MOST_QUERIES, Resolver
from paravirt.domain0.net.rewrite import Connections, Flow
from paravirt.domain0.net.shares import PART, Shares
from paravirt.domain0.net.usernat import MOST_SOCKETS, MOST_STREAMS, UserNat
from paravirt.domain0.services import Services

from .outside import ROUTER, Guest, Loop, to_nat
from .test_fuzz import NoSocket
from .test_router import Net, ip, mac

FLOWS = 10_000
FAR = bytes([192, 0, 2, 9])


@given(st.integers(1, 300), st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=400))
def test_there_is_always_some_left_for_who_has_none(most: int, wanted: list[tuple[int, bool]]) -> None:
    """Unless so many have some as there are in all."""
    shares, own = Shares(most), Counter[int]()
    for owner, takes in wanted:
        if takes and shares.has_room_for(owner):
            shares.take(owner)
            own[owner] += 1
        elif not takes and own[owner]:
            shares.give_back(owner)
            own[owner] -= 1
        total = own.total()
        assert total <= most and max(own.values(), default=0) <= max(1, most // PART)
        assert shares.of(owner) == own[owner]
        assert shares.has_room_for("new") == (total < most)
        assert total < most or len(+own) >= min(most, PART)


def test_flows_that_are_rewritten() -> None:
    """One guest's flood forgets its own, and its ports are found at once."""
    net = Net(third=Mode.NAT)
    connections = net.router.connections
    quiet = Flow(UDP, ip(14), 7, FAR, 80)
    assert connections.open(quiet, ROUTER, None, "quiet").src == ROUTER
    for number in range(FLOWS):
        data = udp(ip(13), ip(11), 7, number, b"")
        net.send(3, ethernet(net.gateway.mac, mac(3), ETH_IP, data))
        net.ports[1].discard()
    assert len(connections) == 1 + 4096 // PART
    assert connections.find(quiet) is not None
    net.router.detach(net.ports[3])
    assert len(connections) == 1


def test_however_many_flood_there_is_room_for_another_one() -> None:
    connections = Connections()
    for number in range(8 * 1200):
        connections.open(Flow(UDP, ip(number % 8), number, FAR, 80), ROUTER, None, number % 8)
    assert len(connections) < 4096
    new = connections.open(Flow(UDP, ip(99), 5, FAR, 79), ROUTER, None, "new")
    assert connections.find(Flow(UDP, ip(99), 5, FAR, 79)) == new and len(connections) <= 4096
    for number in range(5000):
        connections.open(Flow(UDP, ip(99), 5, FAR, 80 + number), ROUTER, None, ("one of many", number))
    assert len(connections) == 4096


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[NoSocket]:
    """Those that were opened; the host sets no limit to descriptors."""
    made: list[NoSocket] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def open_socket(*_: object) -> NoSocket:
        made.append(NoSocket())
        return made[-1]

    monkeypatch.setattr(usernat, "_open", open_socket)
    return made


def test_flows_to_the_outside(sockets: list[NoSocket]) -> None:
    nat = UserNat(Loop(), Guest(), ROUTER)
    for number in range(FLOWS):
        nat.send(to_nat(tcp_packet(ip(1), FAR, number, 80, 1, 0, TCP_SYN)))
        nat.send(to_nat(udp(ip(1), FAR, number, 80, b"")))
    is_open = [one for one in sockets if one.fd >= 0]
    assert len(is_open) == MOST_STREAMS // PART + MOST_SOCKETS // PART
    for guest in range(2, 12):  # and others, each of whom wants as much
        for number in range(MOST_STREAMS):
            nat.send(to_nat(tcp_packet(ip(guest), FAR, number, 80, 1, 0, TCP_SYN)))
    streams = Counter(key.guest for key in nat.streams)
    assert set(streams) == {ip(guest) for guest in range(1, 12)} and streams.total() < MOST_STREAMS
    assert nat.send(to_nat(tcp_packet(ip(99), FAR, 1, 80, 1, 0, TCP_SYN)))
    nat.close()
    assert all(one.fd < 0 for one in sockets)


def test_who_is_gone_has_nothing_any_more(sockets: list[NoSocket]) -> None:
    """A guest that begins connections and reboots, again and again, leaves none of them behind."""
    services = Services(threaded=True)
    network = Network(services, NetworkOptions().checked(False), False)
    nat = network.nat
    assert nat is not None
    for number in range(12):
        guest = Interface(f"vif{number}.0", mac(1), addresses=(ip(11),))
        network.attach(guest, "guest")
        for port in range(MOST_STREAMS // PART):
            assert nat.send(to_nat(tcp_packet(ip(11), FAR, port, 80, 1, 0, TCP_SYN)))
        assert nat.send(to_nat(udp(ip(11), FAR, 5, 80, b"")))
        network.detach(guest)
        assert not nat.streams and not nat._datagrams
        assert all(one.fd < 0 for one in sockets)
    network.close()
    services.stop()


@pytest.mark.parametrize("limit", [64, 1024])
def test_descriptors_of_the_host(limit: int, sockets: list[NoSocket], monkeypatch: pytest.MonkeyPatch) -> None:
    """All guests together leave most of the few that there may be."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    nat = UserNat(Loop(), Guest(), ROUTER)
    for number in range(5000):
        nat.send(to_nat(tcp_packet(ip(number % 200), FAR, number, 80, 1, 0, TCP_SYN)))
        nat.send(to_nat(udp(ip(number % 200), FAR, number, 80, b"")))
    is_open = sum(one.fd >= 0 for one in sockets)
    assert limit // 8 <= is_open <= limit * 3 // 8
    nat.close()


@pytest.mark.parametrize("limit", [64, 256])
def test_descriptors_for_names(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to the router's name service has two ends on the host, and each question its socket."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(usernat, "first_server", lambda: ("127.0.0.1", 9))
    nat = UserNat(Loop(), Guest(), ROUTER)
    nat.names = lambda query, reply, owner: None
    for number in range(1000):
        nat.send(to_nat(tcp_packet(ip(number % 200), ROUTER, number, dns.PORT, 1, 0, TCP_SYN)))
        nat.resolve(bytes(12), lambda _: None, False, number % 200)
    is_open = len(nat.streams) + len(nat._name_streams) + len(nat._resolver._asked)
    assert limit // 8 <= is_open <= limit * 7 // 16
    nat.leave(ip(0))
    nat.close()
    assert not nat._name_streams and nat._socket_shares.has_room_for("anybody")


def test_questions_for_names() -> None:
    """One guest's do not keep others from being answered."""
    resolver = Resolver(Loop(), ("127.0.0.1", 9))
    taken = [resolver.ask(bytes(12), lambda _: None, False, "one") for _ in range(MOST_QUERIES)]
    assert taken.count(True) == MOST_QUERIES // PART
    assert resolver.ask(bytes(12), lambda _: None, False, "another")
    resolver.close()
    assert resolver.ask(bytes(12), lambda _: None, False, "one")
    resolver.close()


def test_an_owner_is_one_whatever_addresses_it_has() -> None:
    net = Net()
    net.router.let_spoof(net.ports[1], True)
    for number in range(100, 110):
        net.send(1, ethernet(mac(2), mac(1), ETH_IP, udp(ip(number), ip(12), 1, 2, b"")))
    assert {net.router.owner(ip(number)) for number in (11, *range(100, 110))} == {net.ports[1]}
    assert net.router.owner(ip(12)) is net.ports[2] and net.router.owner(ip(200)) == ip(200)
