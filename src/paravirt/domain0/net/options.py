"""What a machine's network is to be like: options from programs and command lines, checked before anything is made."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from paravirt.domain0.net.packet import TCP, UDP
from paravirt.domain0.net.rules import Rule, parse_rule
from paravirt.domain0.net.usernat import Forward
from paravirt.domain0.xlcfg.vifs import DEFAULT_BRIDGE, SCRIPTS
from paravirt.errors import UserError

FEWEST_ADDRESSES: Final = 4
_FORWARD: Final = re.compile(r"(?:(tcp|udp):)?(?:([0-9.]+):)?([0-9]+):([0-9.]+):([0-9]+)")
_SWITCHES: Final = {"yes": True, "1": True, "no": False, "0": False}


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """What a machine's network is like.

    Attributes:
        subnet: where the guests' addresses are from; the router has its first.
        script: how interfaces are joined whose settings do not say it: ``vif-bridge``, ``vif-route`` or ``vif-nat``.
        outside: guests reach what the host reaches. A deterministic machine's never do.
        host_loopback: the router's address leads to the host's loopback.
        forwards: ports of the host's that lead to guests: ``[tcp:|udp:][HOST-ADDRESS:]PORT:GUEST-ADDRESS:PORT``; the
            host's address is 127.0.0.1 unless it is said.
        rules: of the firewall, in their order (``rules.parse_rule``).
        taps: the host's TAP devices that are joined to the guests' segments: ``NAME[:BRIDGE]``.
    """

    subnet: str = "10.0.2.0/24"
    script: str = SCRIPTS[0]
    outside: bool = True
    host_loopback: bool = False
    forwards: Sequence[str] = ()
    rules: Sequence[str] = ()
    taps: Sequence[str] = ()

    def checked(self, deterministic: bool) -> CheckedOptions:
        """The same for a machine, which may be ``deterministic``, with every text understood.

        Raises:
            UserError: one of them is wrong, or they do not go together.
        """
        try:
            subnet = ipaddress.IPv4Network(self.subnet)
        except ValueError as error:
            raise UserError(f"{self.subnet!r} is not an IPv4 network.") from error
        if subnet.num_addresses < FEWEST_ADDRESSES:
            raise UserError(f"The network {subnet} has no room for guests.")
        if self.script not in SCRIPTS:
            raise UserError(f"script={self.script}: there are {', '.join(SCRIPTS)}.")
        outside = self.outside and not deterministic
        forwards = tuple(parse_forward(text) for text in self.forwards)
        if forwards and not outside:
            raise UserError("Ports of the host's can be forwarded only where guests have an outside.")
        if self.taps and deterministic:
            raise UserError("A deterministic machine has no TAP devices: what comes from them is never the same.")
        rules = tuple(parse_rule(text) for text in self.rules)
        taps = tuple((name, bridge or DEFAULT_BRIDGE) for name, _, bridge in (tap.partition(":") for tap in self.taps))
        return CheckedOptions(subnet, self.script, outside, self.host_loopback, forwards, rules, taps)


@dataclasses.dataclass(frozen=True)
class CheckedOptions:
    """See :class:`NetworkOptions`. ``taps`` are names and bridges."""

    subnet: ipaddress.IPv4Network
    script: str
    outside: bool
    host_loopback: bool
    forwards: tuple[Forward, ...]
    rules: tuple[Rule, ...]
    taps: tuple[tuple[str, str], ...]


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


def parse_network(text: str) -> NetworkOptions:
    """Options from one text, like ``subnet=10.1.0.0/24,script=vif-nat,forward=2222:10.1.0.2:22,rule=drop proto udp``.

    Its words are ``subnet``, ``script``, ``outside`` and ``host-loopback`` (``yes`` or ``no``), and, as often as need
    be, ``forward``, ``rule`` and ``tap``. What they say is looked at by :meth:`NetworkOptions.checked`.

    Raises:
        UserError: a word is none of these.
    """
    found: dict[str, str | bool] = {}
    several: dict[str, list[str]] = {"forward": [], "rule": [], "tap": []}
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, equals, value = (part.strip() for part in word.partition("="))
        if name in several and equals:
            several[name].append(value)
        elif name in ("subnet", "script") and equals:
            found[name] = value
        elif name in ("outside", "host-loopback") and value in _SWITCHES:
            found[name.replace("-", "_")] = _SWITCHES[value]
        else:
            raise UserError(
                f"{word!r} says nothing about a network: subnet=, script=, outside=yes|no, host-loopback=yes|no, "
                "forward=, rule= and tap= do."
            )
    return NetworkOptions(
        **found,  # type: ignore[arg-type]
        forwards=several["forward"],
        rules=several["rule"],
        taps=several["tap"],
    )
