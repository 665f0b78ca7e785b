"""TAP devices: the host on a bridge with guests. Skipped where this process may not make any."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt import Machine, UserError
from paravirt.abi.io import netif
from paravirt.domain0.net import tap
from paravirt.domain0.net.offload import with_checksum
from paravirt.domain0.net.options import NetworkOptions
from paravirt.domain0.net.packet import BROADCAST, ETH_ARP, ETH_IP, TCP_ACK, Packet, arp, ethernet, mac_text, udp
from paravirt.domain0.net.replies import tcp_packet

from ...hypervisor.audited import audited
from ...patience import PATIENCE, wait_for
from .fronts import IPS, MACS, Front, datagram
from .outside import ROUTER

NAME = "pvtest0"
HOST_MAC, HOST = bytes.fromhex("020000000001"), bytes([10, 0, 2, 200])
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_ETH_P_ALL = 3


def why_not() -> str | None:
    """Why no device can be made here."""
    try:
        with Machine(memory=16, network=NetworkOptions(taps=[NAME])):
            return None
    except UserError as error:
        return str(error)


@pytest.fixture
def machine() -> Iterator[Machine]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Machine(memory=64, network=NetworkOptions(taps=[f"{NAME}:xenbr0"])) as made, audited(made):
        yield made


class HostEnd:
    """The host's end of the device, brought up."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", NAME.encode(), _IFF_UP))
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self.socket.bind((NAME, _ETH_P_ALL))

    def send(self, data: bytes) -> None:
        self.socket.send(data)

    def receive(self, count: int) -> list[bytes]:
        """So many packets of the guests'; the kernel's own are passed over."""
        found: list[bytes] = []
        while len(found) < count:
            assert select.select([self.socket], [], [], PATIENCE)[0]
            data, address = self.socket.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                found.append(data)
        return found


@pytest.fixture
def host(machine: Machine) -> Iterator[HostEnd]:
    made = HostEnd()
    with made.socket:
        yield made


def received(front: Front, count: int) -> list[bytes]:
    """So many packets that the host sent to a guest, and no more of those that are there."""
    found: list[bytes] = []

    def have_come() -> bool:
        found.extend(from_host(front))
        return len(found) >= count

    wait_for(have_come, f"{count} packets")
    return found


def from_host(front: Front) -> list[bytes]:
    """What the test has sent to a guest; the host's kernel speaks by itself to all that is on a network with it."""
    return [data for data in front.received() if data[6:12] == HOST_MAC]


def test_the_host_is_on_the_bridge(host: HostEnd, machine: Machine) -> None:
    one, two = Front(machine, 1), Front(machine, 2)
    one.offer(64)
    two.offer(64)
    asks = ethernet(BROADCAST, HOST_MAC, ETH_ARP, arp(1, HOST_MAC, HOST, bytes(6), IPS[1]))
    host.send(asks)
    assert received(one, 1) == [asks] and received(two, 1) == [asks]
    answer = ethernet(HOST_MAC, MACS[1], ETH_ARP, arp(2, MACS[1], IPS[1], HOST_MAC, HOST))
    one.send(answer)
    assert host.receive(1) == [answer]
    data = ethernet(MACS[1], HOST_MAC, ETH_IP, udp(HOST, IPS[1], 1, 2, b"from the host"))
    host.send(data)
    assert received(one, 1) == [data] and not from_host(two)
    # Who sends it a packet that stands for several, without a checksum, is helped.
    payload = bytes(range(200)) * 20
    segment = tcp_packet(IPS[1], HOST, 1, 2, 5, 0, TCP_ACK, payload=payload, csum_blank=True)
    one.send(ethernet(HOST_MAC, MACS[1], ETH_IP, segment), netif.NETTXF_csum_blank, 1000)
    pieces = host.receive(4)
    assert b"".join(piece[54:] for piece in pieces) == payload
    assert all(with_checksum(Packet(piece, True)).data == piece for piece in pieces)


def test_the_router_answers_the_host_and_rules_hold_for_it(host: HostEnd, machine: Machine) -> None:
    host.send(ethernet(BROADCAST, HOST_MAC, ETH_ARP, arp(1, HOST_MAC, HOST, bytes(6), ROUTER)))
    (answer,) = host.receive(1)
    assert Packet(answer).headers.ip_src == ROUTER
    one = Front(machine, 1)
    one.offer(64)
    machine.call(lambda: machine.network.add_rule(f"drop in {NAME} proto udp dport 7"))
    for port in (7, 8):
        host.send(ethernet(MACS[1], HOST_MAC, ETH_IP, udp(HOST, IPS[1], 1, port, b"")))
    assert [Packet(data).headers.dport for data in received(one, 1)] == [8]
    (row,) = [row for row in machine.call(machine.network.status) if row["name"] == NAME]
    assert (row["mac"], row["denied"], row["may_spoof"]) == ("-", 1, True)


def test_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    for name, why in (("a/b", "cannot be the name"), (NAME, "cannot be had")):
        with pytest.raises(UserError, match=why):
            machine.call(lambda: machine.network.tap(name))  # noqa: B023
    monkeypatch.setattr(tap, "_CLONE", Path("/dev/nothing"))
    with pytest.raises(UserError, match="gives out no TAP devices"):
        machine.call(lambda: machine.network.tap("pvtest1"))
    with (
        pytest.raises(UserError, match="deterministic"),
        Machine(memory=16, deterministic=True, network=NetworkOptions(taps=[NAME])),
    ):
        pass


def test_a_guest_may_be_let_send_from_any_address() -> None:
    with Machine(memory=64) as machine, audited(machine):
        one, two = Front(machine, 1), Front(machine, 2)
        two.offer(8)
        nested = ethernet(MACS[2], HOST_MAC, ETH_IP, udp(HOST, IPS[2], 1, 2, b"from a guest's guest"))
        back = ethernet(HOST_MAC, MACS[2], ETH_IP, udp(IPS[2], HOST, 2, 1, b"back"))
        one.offer(8)
        name = one.counted()["name"]
        for allowed in (False, True, False):
            machine.call(lambda: machine.network.let_spoof(name, allowed))  # noqa: B023
            before = one.counted()["spoofed"]
            one.send(nested)
            assert two.received() == [nested] * allowed and one.counted()["spoofed"] - before == (not allowed)
            two.send(back)
            assert one.received() == [back] * allowed
            assert machine.call(lambda: HOST in machine.network.router.hosts) == allowed
            one.send(datagram(1, 2))
            assert two.received() == [datagram(1, 2)], mac_text(MACS[1])
