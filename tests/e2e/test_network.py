"""Debian's stock kernel on a network: addresses, names, the host, and each other."""

from __future__ import annotations

import ipaddress
import random
import re
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt import Machine, ShutdownReason
from paravirt.domain0.net.interface import link_local
from paravirt.domain0.net.options import NetworkOptions, parse_forward
from paravirt.domain0.net.packet import ETH_IPV6, Packet, ip_text, mac_text
from paravirt.domain0.xlcfg.disks import disk_spec
from paravirt.domain0.xlcfg.vifs import DEFAULT_MTU, vif_spec
from paravirt.errors import UserError
from paravirt.guestkernels import obtain
from paravirt.guestkernels.modules import obtain_modules, ramdisk_files
from paravirt.initramfs import DHCP, DHCP_SCRIPT, build

from ..hypervisor.audited import check
from ..leftovers import Leftovers
from ..patience import PATIENCE, settled, wait_for
from .conftest import Shell

pytestmark = pytest.mark.network

MIB = 1 << 20
UP = "while [ ! -e /sys/class/net/eth0 ]; do sleep 0.1; done; ip link set lo up; udhcpc -q -n -t 60 -i eth0"

LISTENS = "while ! netstat -ltn | grep -q ':{} '; do sleep 0.1; done"
GONE = "while pidof nc >/dev/null; do sleep 0.1; done"


def reaches(shell: Shell, host: str, times: int = 2) -> bool:
    """Whether a guest's pings are answered. One at a time: for the last of several it waits a second or so, which a
    busy host may take; and again, since who is asked for an address for three seconds in vain is taken for gone."""
    ping = f"for i in $(seq 40); do ping -c 1 -W 5 {host} && break; done"
    return all(" 1 packets received" in shell(ping) for _ in range(times))


def only_line(pattern: str, printed: str) -> str:
    """The line that is like this; the echo of the command is among them too."""
    found = re.findall(f"^{pattern}$", printed, re.MULTILINE)
    assert len(found) == 1, printed
    return str(found[0])


@pytest.fixture(scope="module")
def ramdisk() -> bytes:
    """Busybox and the kernel's frontends."""
    try:
        return build(obtain("busybox").path, ramdisk_files(obtain_modules("debian-cloud")))
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def machine(engine: str) -> Iterator[Machine]:
    with Machine(memory=300, network=NetworkOptions(host_loopback=True), engine=engine) as made:
        yield made
        check(made, "a network's end")


@pytest.fixture(scope="module")
def guests(machine: Machine, ramdisk: bytes) -> dict[str, Shell]:
    """Two guests, each with the address that it was given; ada has two vcpus."""
    kernel = obtain("debian-cloud").path
    started = [
        machine.create(kernel, ramdisk, "console=hvc0 quiet", 128, vcpus, name, devices=[vif_spec(rate=rate)])
        for name, vcpus, rate in (("ada", 2, None), ("bob", 1, "1000MB/s"))
    ]
    shells = {domain.name: Shell(domain) for domain in started}
    for shell in shells.values():
        shell(UP)
    return shells


def test_guests_have_addresses_and_names(guests: dict[str, Shell]) -> None:
    assert "10.0.2.2 " in guests["ada"]("ifconfig eth0") and "10.0.2.3 " in guests["bob"]("ifconfig eth0")
    for name in ("router", "bob", "bob.guest"):
        assert reaches(guests["ada"], name), name
    assert "NXDOMAIN" in guests["ada"]("nslookup nobody.guest")


def exchange(guests: dict[str, Shell], address: str, blocks: int = 16) -> None:
    """Send random bytes, in blocks of 64 KiB, from ada to bob by TCP."""
    guests["ada"](f"dd if=/dev/urandom of=/tmp/data bs=64k count={blocks} 2>/dev/null")
    wanted = only_line(r"[0-9a-f]{32}  -", guests["ada"]("md5sum </tmp/data"))
    # nc ends when either side has no more to say: the receiver's input stays open.
    guests["bob"](f"(sleep 1000 | nc -l -p 5000 >/tmp/data &); {LISTENS.format(5000)}")
    guests["ada"](f"nc {address} 5000 </tmp/data")
    guests["bob"](GONE)
    assert only_line(r"[0-9a-f]{32}  -", guests["bob"]("md5sum </tmp/data")) == wanted


def test_guests_exchange_tcp_traffic(guests: dict[str, Shell]) -> None:
    exchange(guests, "bob", 160)


def captured(path: Path) -> list[Packet]:
    """The packets of a capture."""
    data, packets = path.read_bytes()[24:], []
    while data:
        (size,) = struct.unpack_from("<8xI", data)
        packets.append(Packet(data[16 : 16 + size]))
        data = data[16 + size :]
    return packets


def test_linux_chooses_what_is_offered(machine: Machine, guests: dict[str, Shell]) -> None:
    """Every feature but the choice of groups, which its driver does not know; with two vcpus it has two queues."""
    ada, store = guests["ada"], machine.store
    path = f"/local/domain/{ada.domain.domid}/device/vif/0"
    nodes = (
        "request-rx-copy", "feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6", "feature-ipv6-csum-offload",
        "feature-no-csum-offload", "request-multicast-control", "multi-queue-num-queues",
    )  # fmt: skip
    chosen = {name: machine.call(lambda: store.get(f"{path}/{name}")) for name in nodes}  # noqa: B023
    assert chosen == dict.fromkeys(nodes[:5], b"1") | dict.fromkeys(nodes[5:7]) | {nodes[7]: b"2"}
    channels = {
        machine.call(lambda: store.get(f"{path}/queue-{queue}/event-channel-{way}"))  # noqa: B023
        for queue in range(2)
        for way in ("tx", "rx")
    }
    assert len(channels - {None}) == 4
    # Refused connections, each a conversation of its own: their answers come by both queues.
    ada("for i in $(seq 16); do nc bob 9 </dev/null 2>/dev/null; done")
    counts = re.findall(r"^ *\d+: +(\d+) +(\d+) .* vif0-q([01])-([rt]x)$", ada("cat /proc/interrupts"), re.MULTILINE)
    assert sorted((queue, way) for *_, queue, way in counts) == sorted((q, w) for q in "01" for w in ("rx", "tx"))
    assert all(int(first) + int(second) for first, second, *_ in counts)


def test_ipv6_with_large_packets(machine: Machine, guests: dict[str, Shell], tmp_path: Path) -> None:
    """By link-local addresses on the bridge: the sender leaves cutting and checksums to others, and nobody has to."""
    mac = machine.call(lambda: machine.network.find("vif2.0").mac)
    address = f"{ipaddress.IPv6Address(link_local(mac))}%eth0"
    for guest in guests.values():  # an address is no sender's before it is known to be nobody else's
        guest("while ip addr show eth0 | grep -q tentative; do sleep 0.1; done")
    assert reaches(guests["ada"], f"-6 {address}")
    machine.call(lambda: machine.network.capture("vif2.0", tmp_path / "x.pcap"))
    exchange(guests, address)
    machine.call(lambda: machine.network.stop_capture(machine.network.find("vif2.0")))
    sizes = [len(packet.data) for packet in captured(tmp_path / "x.pcap") if packet.headers.kind == ETH_IPV6]
    assert max(sizes) > DEFAULT_MTU + 14, "how much larger is a matter of how busy the host is"


def test_a_guest_reaches_the_host_and_the_host_a_guest(machine: Machine, guests: dict[str, Shell]) -> None:
    received: list[bytes] = []

    def echo(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65536):
                received.append(data)
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        guests["ada"]("dd if=/dev/zero bs=64k count=32 2>/dev/null | tr '\\0' x >/tmp/sent")
        guests["ada"](f"nc router {port} </tmp/sent >/tmp/back")
        thread.join(PATIENCE)
        assert len(b"".join(received)) == 2 * MIB
        assert only_line("same", guests["ada"]("cmp /tmp/sent /tmp/back && echo same"))
    _, port = machine.call(lambda: machine.network.forward(parse_forward("0:10.0.2.3:6000")))
    guests["bob"](f"(echo hello | nc -l -p 6000 >/tmp/got &); {LISTENS.format(6000)}")
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        with connection.makefile("rb") as said:
            assert said.readline() == b"hello\n"
        connection.sendall(b"y" * MIB)
        connection.shutdown(socket.SHUT_WR)
        assert only_line(r"\d+", guests["bob"](f"{GONE}; wc -c </tmp/got")) == str(MIB)


def appear(shell: Shell, number: int) -> None:
    """Wait for an interface of a guest's."""
    shell(f"while [ ! -e /sys/class/net/eth{number} ]; do sleep 0.1; done")


def vanish(shell: Shell, number: int) -> None:
    """Wait until one has gone."""
    shell(f"while [ -e /sys/class/net/eth{number} ]; do sleep 0.1; done")


@pytest.mark.parametrize("script", ["vif-route", "vif-nat"])
def test_guests_by_way_of_the_router(
    machine: Machine, guests: dict[str, Shell], script: str, tmp_path: Path
) -> None:
    """ada has a second interface that is routed, or hidden behind the router; bob is where it was, on the bridge."""
    ada, bob = guests["ada"], guests["bob"]
    device = ada.domain.attach_network(script=script, ip="192.0.2.7")
    appear(ada, 1)
    ada("ip link set eth1 up; ip addr add 192.0.2.7/32 dev eth1; ip route add 10.0.2.3 dev eth1 src 192.0.2.7")
    assert reaches(ada, "10.0.2.3")
    machine.call(lambda: machine.network.capture("vif2.0", tmp_path / "x.pcap"))
    exchange(guests, "10.0.2.3")
    machine.call(lambda: machine.network.stop_capture(machine.network.find("vif2.0")))
    senders = {ip_text(found.headers.ip_src) for found in captured(tmp_path / "x.pcap") if found.headers.dport == 5000}
    assert senders == {"192.0.2.7" if script == "vif-route" else "10.0.2.1"}
    # Others begin a conversation with it in the one case, and not in the other.
    if script == "vif-route":
        assert reaches(bob, "192.0.2.7")
    else:
        assert "0 packets received" in bob("ping -c 2 -i 0.1 -W 1 192.0.2.7")
    ada("ip link set eth1 down")
    ada.domain.detach(device)
    vanish(ada, 1)


def test_an_interface_comes_and_goes(machine: Machine, guests: dict[str, Shell]) -> None:
    shell = guests["bob"]
    device = shell.domain.attach(vif_spec(script="vif-route", ip="192.0.2.5", mac="00:16:3e:01:02:03"))
    appear(shell, 1)
    assert "00:16:3E:01:02:03" in shell("ifconfig eth1 192.0.2.5 netmask 255.255.255.255 up; ifconfig eth1")
    # What it answers goes the way that it came, or the router would take it for forged.
    shell("ip route add 10.0.2.2 dev eth1")
    assert reaches(guests["ada"], "192.0.2.5")
    shell.domain.detach(device)
    vanish(shell, 1)
    assert "eth1" not in shell("ls /sys/class/net")
    left = ["vif1.0", "vif2.0"]
    assert settled(lambda: machine.call(lambda: [row["name"] for row in machine.network.status()]), left) == left


def test_rules_and_the_check_of_sources(machine: Machine, guests: dict[str, Shell]) -> None:
    ada = guests["ada"]
    machine.call(lambda: machine.network.add_rule("reject in vif1.0 proto tcp dport 5001"))
    assert re.search("refused|unreachable", ada("nc bob 5001 </dev/null 2>&1"))
    before = machine.call(lambda: machine.network.find("vif1.0").counters.spoofed)
    assert "0 packets received" in ada("ip addr add 10.0.2.77/24 dev eth0; ping -c 1 -W 1 -I 10.0.2.77 bob")
    wait_for(lambda: machine.call(lambda: machine.network.find("vif1.0").counters.spoofed) > before)


def test_another_ones_ethernet_address_is_no_use(machine: Machine, guests: dict[str, Shell]) -> None:
    bob = guests["bob"]
    device = bob.domain.attach_network(ip="10.0.2.50")
    appear(bob, 1)
    mac = machine.call(lambda: mac_text(machine.network.find("vif1.0").mac))
    bob(f"ip link set eth1 address {mac} up; ip addr add 10.0.2.50/32 dev eth1; ip route add 10.0.2.1 dev eth1")
    assert "0 packets received" in bob("ping -c 2 -i 0.1 -W 1 10.0.2.1")
    counters = machine.call(lambda: machine.network.find("vif2.1").counters)
    wait_for(lambda: counters.spoofed, "the packets are looked at")
    spoofed, received = machine.call(lambda: (counters.spoofed, counters.received_packets))
    assert spoofed == received
    bob.domain.detach(device)
    vanish(bob, 1)
    assert reaches(guests["ada"], "router", 1)


def held(machine: Machine) -> dict[str, object]:
    """What interfaces make Domain 0 hold."""

    def count() -> dict[str, object]:
        return {
            "grants": len(machine.grants._track.mappings),
            "channels": len(machine._services._handlers),
            "interfaces": [row["name"] for row in machine.network.status()],
            "addresses": sorted(machine.network.router.hosts),
            "watches": sorted(machine.store.watches._by_path),
            "nodes": [machine.store.directory(f"/local/domain/0/backend/vif/{domid}") for domid in (1, 2)],
            "frontends": [machine.store.directory(f"/local/domain/{domid}/device/vif") for domid in (1, 2)],
        }

    return machine.call(count)


def test_interfaces_come_and_go_under_traffic(machine: Machine, guests: dict[str, Shell]) -> None:
    """Some let go by the guest, others taken from it, while packets go to them and through them."""
    ada, bob = guests["ada"], guests["bob"]
    before, process = held(machine), Leftovers()
    bob("(while :; do sleep 1000 | nc -l -p 5006 >/dev/null; done &) 2>/dev/null")
    ada("(while :; do dd if=/dev/zero bs=64k count=50 2>/dev/null | nc bob 5006; done &) 2>/dev/null")
    ada("(ping -i 0.002 192.0.2.9 >/dev/null &)")
    for number in range(6):
        device = bob.domain.attach_network(script="vif-route", ip="192.0.2.9")
        appear(bob, 1)
        bob("ip link set eth1 up; ip addr add 192.0.2.9/32 dev eth1; ip route add 10.0.2.2 dev eth1")
        # One may be lost where so much goes on.
        ping = "ping -c 1 -W 5 -I 192.0.2.9 10.0.2.2"
        assert " 1 packets received" in bob(f"for i in 1 2 3 4 5; do {ping} && break; done")
        assert machine.call(lambda: machine.network.find("vif2.1").counters.sent_packets)
        bob.domain.detach(device, force=number % 2 == 1)
        vanish(bob, 1)
        check(machine, f"after interface {number}")
    ada("killall -q sh nc ping; while pidof ping nc >/dev/null; do sleep 0.1; done")
    assert settled(lambda: held(machine), before) == before
    assert process.stay(threads=False) == []


SYSTEM = b"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -o remount,rw /
exec sh
"""


def test_a_guest_lives_on_a_disk_and_is_on_a_network(engine: str, ramdisk: bytes, tmp_path: Path) -> None:
    """What it fetches from the host is on its root file system when it is off."""
    programs = {name: shutil.which(name, path="/usr/sbin:/sbin:/usr/bin") for name in ("mke2fs", "debugfs")}
    if not all(programs.values()):
        pytest.skip("this system has no mke2fs")
    root, disk, sent = tmp_path / "root", tmp_path / "disk", random.Random(1).randbytes(MIB)
    for name in ("bin", "sbin", "etc/udhcpc", "proc", "sys", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(obtain("busybox").path, root / "bin/busybox")
    for name, content in (("sbin/init", SYSTEM), (DHCP_SCRIPT, DHCP.encode())):
        (root / name).write_bytes(content)
    for name in ("bin/busybox", "sbin/init", DHCP_SCRIPT):
        (root / name).chmod(0o755)
    subprocess.run([programs["mke2fs"] or "", "-q", "-t", "ext4", "-d", root, disk, "16M"], check=True)
    with (
        Machine(memory=160, network=NetworkOptions(host_loopback=True), engine=engine) as machine,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        devices = [disk_spec(str(disk)), vif_spec()]
        words = "console=hvc0 quiet root=/dev/xvda"
        shell = Shell(machine.create(obtain("debian-cloud").path, ramdisk, words, 128, devices=devices))
        assert "/dev/xvda / ext4 rw" in shell(f"{UP}; cat /proc/mounts")

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(sent)

        thread = threading.Thread(target=serve)
        thread.start()
        shell(f"nc router {listener.getsockname()[1]} >/fetched </dev/null")
        thread.join(PATIENCE)
        shell("sync; mount -o remount,ro /")
        shell.domain.console.send("poweroff -f\n")
        assert shell.domain.wait(PATIENCE) is ShutdownReason.POWEROFF
    found = subprocess.run([programs["debugfs"] or "", "-R", "cat /fetched", disk], capture_output=True, check=True)
    assert found.stdout == sent
