"""Debian's stock kernel on a network: addresses, names, the host, and each other."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator

import pytest

from paravirt import Machine
from paravirt.domain0.net.network import NetworkOptions, parse_forward
from paravirt.domain0.xlcfg.vifs import vif_spec
from paravirt.errors import UserError
from paravirt.guestkernels import obtain
from paravirt.guestkernels.modules import obtain_modules, ramdisk_files
from paravirt.initramfs import build

from ..hypervisor.audited import check
from .conftest import PATIENCE, Shell

pytestmark = pytest.mark.network

MIB = 1 << 20
# What udhcpc has its script do with a lease.
BOUND = b"""#!/bin/sh
[ "$1" = bound ] || exit 0
ifconfig eth0 $ip netmask $subnet
route add default gw $router
echo "search $domain
nameserver $dns" >/etc/resolv.conf
"""
UP = "ip link set lo up; ip link set eth0 up; udhcpc -q -n -i eth0 -s /etc/bound"

GONE = "while pidof nc >/dev/null; do sleep 0.1; done"


def only_line(pattern: str, printed: str) -> str:
    """The line that is like this; the echo of the command is among them too."""
    found = re.findall(f"^{pattern}$", printed, re.MULTILINE)
    assert len(found) == 1, printed
    return str(found[0])


@pytest.fixture(scope="module")
def ramdisk() -> bytes:
    """Busybox and the kernel's frontends."""
    try:
        return build(obtain("busybox").path, {**ramdisk_files(obtain_modules("debian-cloud")), "etc/bound": BOUND})
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine(memory=300, network=NetworkOptions(host_loopback=True)) as made:
        yield made
        check(made, "a network's end")


@pytest.fixture(scope="module")
def guests(machine: Machine, ramdisk: bytes) -> dict[str, Shell]:
    """Two guests, each with the address that it was given."""
    kernel = obtain("debian-cloud").path
    started = [
        machine.create(kernel, ramdisk, "console=hvc0 quiet", memory=128, name=name, devices=[vif_spec(rate=rate)])
        for name, rate in (("ada", None), ("bob", "1000MB/s"))
    ]
    shells = {domain.name: Shell(domain) for domain in started}
    for shell in shells.values():
        shell(UP)
    return shells


def test_guests_have_addresses_and_names(guests: dict[str, Shell]) -> None:
    assert "10.0.2.2 " in guests["ada"]("ifconfig eth0") and "10.0.2.3 " in guests["bob"]("ifconfig eth0")
    for name in ("router", "bob", "bob.guest"):
        assert "3 packets received" in guests["ada"](f"ping -c 3 -i 0.1 {name}"), name
    assert "NXDOMAIN" in guests["ada"]("nslookup nobody.guest")


def test_guests_exchange_tcp_traffic(guests: dict[str, Shell]) -> None:
    guests["ada"]("dd if=/dev/urandom of=/tmp/data bs=64k count=160 2>/dev/null")
    wanted = only_line(r"[0-9a-f]{32}  -", guests["ada"]("md5sum </tmp/data"))
    # nc ends when either side has no more to say: the receiver's input stays open.
    guests["bob"]("(sleep 1000 | nc -l -p 5000 >/tmp/data &); sleep 0.2")
    guests["ada"]("nc bob 5000 </tmp/data")
    guests["bob"](GONE)
    assert only_line(r"[0-9a-f]{32}  -", guests["bob"]("md5sum </tmp/data")) == wanted


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
    guests["bob"]("(echo hello | nc -l -p 6000 >/tmp/got &); sleep 0.2")
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        assert connection.recv(6, socket.MSG_WAITALL) == b"hello\n"
        connection.sendall(b"y" * MIB)
        connection.shutdown(socket.SHUT_WR)
        assert only_line(r"\d+", guests["bob"](f"{GONE}; wc -c </tmp/got")) == str(MIB)


def test_an_interface_comes_and_goes(machine: Machine, guests: dict[str, Shell]) -> None:
    shell = guests["bob"]
    device = shell.domain.attach(vif_spec(script="vif-route", ip="192.0.2.5", mac="00:16:3e:01:02:03"))
    shell("for i in $(seq 100); do [ -e /sys/class/net/eth1 ] && break; sleep 0.1; done")
    assert "00:16:3E:01:02:03" in shell("ifconfig eth1 192.0.2.5 netmask 255.255.255.255 up; ifconfig eth1")
    # What it answers goes the way that it came, or the router would take it for forged.
    shell("ip route add 10.0.2.2 dev eth1")
    assert "2 packets received" in guests["ada"]("ping -c 2 -i 0.1 192.0.2.5")
    shell.domain.detach(device)
    shell("for i in $(seq 100); do [ -e /sys/class/net/eth1 ] || break; sleep 0.1; done")
    assert "eth1" not in shell("ls /sys/class/net")
    assert machine.call(lambda: [row["name"] for row in machine.network.status()]) == ["vif1.0", "vif2.0"]


def test_rules_and_the_check_of_sources(machine: Machine, guests: dict[str, Shell]) -> None:
    ada = guests["ada"]
    machine.call(lambda: machine.network.add_rule("reject in vif1.0 proto tcp dport 5001"))
    assert re.search("refused|unreachable", ada("nc bob 5001 </dev/null 2>&1"))
    before = machine.call(lambda: machine.network.find("vif1.0").counters.spoofed)
    assert "0 packets received" in ada("ip addr add 10.0.2.77/24 dev eth0; ping -c 1 -W 1 -I 10.0.2.77 bob")
    assert machine.call(lambda: machine.network.find("vif1.0").counters.spoofed) > before
