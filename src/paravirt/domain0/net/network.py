"""The network of one machine: the router, its services, and what connects it to the outside."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from paravirt.domain0.net.gateway import Gateway
from paravirt.domain0.net.interface import Interface
from paravirt.domain0.net.packet import TCP, UDP, ip_text, mac_text
from paravirt.domain0.net.pcap import Capture
from paravirt.domain0.net.rounds import Rounds
from paravirt.domain0.net.router import Router
from paravirt.domain0.net.rules import parse_rule
from paravirt.domain0.net.tap import Tap
from paravirt.domain0.net.usernat import Forward, UserNat
from paravirt.domain0.services import Services
from paravirt.domain0.xlcfg.vifs import DEFAULT_BRIDGE
from paravirt.errors import UserError

XEN_OUI: Final = b"\x00\x16\x3e"
_FORWARD: Final = re.compile(r"(?:(tcp|udp):)?(?:([0-9.]+):)?([0-9]+):([0-9.]+):([0-9]+)")


@dataclass(frozen=True)
class NetworkOptions:
    """What a machine's network is like.

    Attributes:
        subnet: where the guests' addresses are from; the router has its first.
        outside: guests reach what the host reaches. A deterministic machine's never do.
        host_loopback: the router's address leads to the host's loopback.
        forwards: ports of the host's that lead to guests: ``[tcp:|udp:][HOST-ADDRESS:]PORT:GUEST-ADDRESS:PORT``; the
            host's address is 127.0.0.1 unless it is said.
        rules: of the firewall, in their order (``rules.parse_rule``).
        taps: the host's TAP devices that are joined to the guests' segments: ``NAME[:BRIDGE]``.
    """

    subnet: str = "10.0.2.0/24"
    outside: bool = True
    host_loopback: bool = False
    forwards: Sequence[str] = ()
    rules: Sequence[str] = ()
    taps: Sequence[str] = ()


def parse_forward(text: str) -> Forward:
    """A port of the host's that leads to a guest, from its text.

    Raises:
        UserError: it is none.
    """
    match = _FORWARD.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        protocol, host, port, guest, guest_port = match.groups()
        ports = int(port), int(guest_port)
        if max(ports) > 0xFFFF or not ports[1]:
            raise ValueError(text)
        address = str(ipaddress.IPv4Address(host or "127.0.0.1"))
        packed = ipaddress.IPv4Address(guest).packed
    except ValueError as error:
        raise UserError(f"{text!r} is not a forwarded port: [tcp:|udp:][ADDRESS:]PORT:GUEST:PORT.") from error
    return Forward(UDP if protocol == "udp" else TCP, (address, ports[0]), (packed, ports[1]))


class Network:
    """A machine's network. Only Domain 0's thread may touch it.

    Raises:
        UserError: the options are wrong.
    """

    def __init__(self, services: Services, options: NetworkOptions, deterministic: bool) -> None:
        try:
            subnet = ipaddress.IPv4Network(options.subnet)
        except ValueError as error:
            raise UserError(f"{options.subnet!r} is not an IPv4 network.") from error
        self._clock = (lambda: 0) if deterministic else time.time_ns
        self._seed = b"deterministic" if deterministic else secrets.token_bytes(16)
        self.deterministic = deterministic
        self._services = services
        self.router = Router()
        self.rounds = Rounds(services.post)
        self.gateway = Gateway(self.router, subnet)
        self.nat: UserNat | None = None
        self._taps = options.taps
        self.taps: list[Tap] = []
        self._forwards = [parse_forward(text) for text in options.forwards]
        for text in options.rules:
            self.add_rule(text)
        if options.outside and not deterministic:
            self.nat = UserNat(services, self.router, self.gateway.address, options.host_loopback)
            self.gateway.beyond = self.nat
            self.nat.names = partial(self.gateway.answer_names, by_stream=True)
        elif self._forwards:
            raise UserError("Ports of the host's can be forwarded only where guests have an outside.")

    def start(self) -> None:
        """Open the host's ports and TAP devices.

        Raises:
            UserError: one cannot be had.
        """
        for text in self._taps:
            name, _, bridge = text.partition(":")
            self.tap(name, bridge or DEFAULT_BRIDGE)
        for wanted in self._forwards:
            self.forward(wanted)

    def forward(self, wanted: Forward) -> tuple[str, int]:
        """Have a port of the host's lead to a guest: where it is.

        Raises:
            UserError: it cannot be had.
        """
        if self.nat is None:
            raise UserError("Ports of the host's can be forwarded only where guests have an outside.")
        return self.nat.forward(wanted)

    def tap(self, name: str, bridge: str = DEFAULT_BRIDGE) -> None:
        """Join a TAP device of the host's to a segment.

        Raises:
            UserError: it cannot be had, or the name is another interface's.
        """
        if self.deterministic:
            raise UserError("A deterministic machine has no TAP devices: what comes from them is never the same.")
        self.taps.append(Tap(self._services, self.router, name, bridge))

    def mac_for(self, domid: int, devid: int) -> bytes:
        """An Ethernet address for an interface that was given none, from Xen's range."""
        mixed = hashlib.sha256(self._seed + domid.to_bytes(4, "big") + devid.to_bytes(4, "big")).digest()
        return XEN_OUI + bytes([mixed[0] & 0x7F, mixed[1], mixed[2]])

    def attach(self, interface: Interface, guest: str) -> None:
        """Join a guest's interface; one without an address of its own gets the next one that is free.

        Raises:
            UserError: its name or addresses are another one's.
        """
        if not any(len(address) == 4 for address in interface.addresses):
            interface.addresses.add(self.gateway.free_address())
        self.router.attach(interface)
        if guest:
            self.gateway.names[interface.name] = guest

    def detach(self, interface: Interface) -> None:
        """An interface goes."""
        if self.router.interfaces.get(interface.name) is interface:
            self.router.detach(interface)
            self.gateway.names.pop(interface.name, None)
            self.stop_capture(interface)

    # --- the firewall, and what there is to see ---------------------------------------------------------------

    def add_rule(self, text: str, position: int | None = None) -> None:
        """Add a rule of the firewall (``rules``), at the end or before the one at ``position``.

        Raises:
            UserError: it is none, or there is no such position.
        """
        self.router.rules.add(parse_rule(text), position)

    def let_spoof(self, name: str, allowed: bool) -> None:
        """Have a guest send from any address, as one that is a router or has guests of its own does; or only from its
        own, as at first.

        Raises:
            UserError: there is no such interface.
        """
        self.router.let_spoof(self.find(name), allowed)

    def capture(self, name: str, path: Path) -> None:
        """Write every packet of an interface to a file, from now on.

        Raises:
            UserError: there is no such interface, or the file cannot be made.
        """
        interface = self.find(name)
        self.stop_capture(interface)
        interface.capture = Capture(path, self._clock)

    def stop_capture(self, interface: Interface) -> None:
        """Write no more, and end the file."""
        if interface.capture is not None:
            interface.capture.close()
            interface.capture = None

    def find(self, name: str) -> Interface:
        """An interface by its name.

        Raises:
            UserError: there is none.
        """
        if name not in self.router.interfaces:
            raise UserError(f"There is no network interface {name!r}.")
        return self.router.interfaces[name]

    def status(self) -> list[dict[str, Any]]:
        """Every interface, with what was counted."""
        return [
            {
                "name": interface.name,
                "mac": mac_text(interface.mac) or "-",
                "mode": interface.mode.value,
                "bridge": interface.bridge,
                "addresses": [ip_text(address) for address in sorted(interface.addresses)],
                "up": interface.is_up,
                "may_spoof": interface.may_spoof,
                "waiting": interface.waiting,
                "capture_failure": interface.capture.failure if interface.capture else None,
                **vars(interface.counters),
            }
            for interface in self.router.interfaces.values()
        ]

    def close(self) -> None:
        """Close what is open on the host."""
        for interface in self.router.interfaces.values():
            self.stop_capture(interface)
        for tap in self.taps:
            tap.close()
        if self.nat is not None:
            self.nat.close()
