"""The network of one machine: the router, its services, and what connects it to the outside."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from paravirt.domain0.net.gateway import Gateway
from paravirt.domain0.net.interface import Interface
from paravirt.domain0.net.options import CheckedOptions
from paravirt.domain0.net.packet import ip_text, mac_text
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
REMEMBERED: Final = 1024
"""Ethernet addresses whose IPv4 address is kept for when they come again."""


class Network:
    """A machine's network. Only Domain 0's thread may touch it.

    Attributes:
        script: how interfaces are joined whose settings do not say it.
    """

    def __init__(self, services: Services, options: CheckedOptions, deterministic: bool) -> None:
        self._clock = (lambda: 0) if deterministic else time.time_ns
        self._seed = b"deterministic" if deterministic else secrets.token_bytes(16)
        self.deterministic = deterministic
        self.script = options.script
        self._services = services
        self.router = Router((lambda: 0.0) if deterministic else time.monotonic)
        self.rounds = Rounds(services.post)
        self.gateway = Gateway(self.router, options.subnet)
        self.nat: UserNat | None = None
        self._options = options
        self.taps: list[Tap] = []
        self._remembered: dict[bytes, bytes] = {}
        for rule in options.rules:
            self.router.rules.add(rule)
        if options.outside:
            self.nat = UserNat(services, self.router, self.gateway.address, options.host_loopback)
            self.gateway.beyond = self.nat
            self.nat.names = partial(self.gateway.answer_names, by_stream=True)

    def start(self) -> None:
        """Open the host's ports and TAP devices.

        Raises:
            UserError: one cannot be had.
        """
        for name, bridge in self._options.taps:
            self.tap(name, bridge)
        for wanted in self._options.forwards:
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

    def mac_for(self, identity: str, devid: int) -> bytes:
        """An Ethernet address for an interface that was given none, from Xen's range.

        It is the same whenever a domain of this ``identity`` (the UUID, which it keeps when it reboots) has its
        interface ``devid``, unless another interface has it.
        """
        taken = {interface.mac for interface in self.router.interfaces.values()}
        attempts = (self._mac(f"{identity}/{devid}/{number}") for number in itertools.count())
        return next(mac for mac in attempts if mac not in taken)

    def _mac(self, what: str) -> bytes:
        mixed = hashlib.sha256(self._seed + what.encode()).digest()
        return XEN_OUI + bytes([mixed[0] & 0x7F, mixed[1], mixed[2]])

    def attach(self, interface: Interface, guest: str) -> None:
        """Join a guest's interface; one without an address of its own gets the one that it had before, if there was
        one, or else the next one that is free.

        Raises:
            UserError: its name or addresses are another one's.
        """
        if not any(len(address) == 4 for address in interface.addresses):
            interface.addresses.add(self._address_for(interface.mac))
        self.router.attach(interface)
        if guest:
            self.gateway.names[interface.name] = guest

    def _address_for(self, mac: bytes) -> bytes:
        address = self._remembered.pop(mac, None)
        if address is None or address in self.router.hosts:
            address = self.gateway.free_address()
        self._remembered[mac] = address
        if len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return address

    def detach(self, interface: Interface) -> None:
        """An interface goes."""
        if self.router.interfaces.get(interface.name) is interface:
            self.router.detach(interface)
            self.gateway.names.pop(interface.name, None)
            self.stop_capture(interface)
            if self.nat is not None:
                self.nat.leave(interface)

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
