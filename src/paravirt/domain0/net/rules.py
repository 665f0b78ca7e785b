"""Rules of the firewall: patterns and what is done with the packets that match. Free of I/O.

A rule is written as its action and then its pattern, word by word:

    drop proto tcp dport 25
    reject in vif2.0 dst 10.0.2.0/24 proto udp
    dnat 10.0.2.15:80 proto tcp dst 10.0.2.1 dport 8080

The first rule that matches decides, except that ``log`` and ``mirror`` are done in passing. What no rule decides
is accepted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from paravirt.domain0.net.packet import ETH_ARP, ETH_IP, ETH_IPV6, ICMP, ICMPV6, TCP, UDP, Headers
from paravirt.errors import UserError

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
PROTOCOLS: Final = {"icmp": ICMP, "tcp": TCP, "udp": UDP, "icmpv6": ICMPV6}
KINDS: Final = {"arp": ETH_ARP, "ip": ETH_IP, "ipv6": ETH_IPV6}
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_PORT_LIMIT: Final = 0xFFFF


class Action(Enum):
    """What is done with a packet that a rule matches."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    LOG = "log"
    MIRROR = "mirror"
    REDIRECT = "redirect"
    SNAT = "snat"
    DNAT = "dnat"


_IN_PASSING: Final = frozenset({Action.LOG, Action.MIRROR})


@dataclass(frozen=True)
class Pattern:
    """What a packet must be like; what is None does not matter.

    Attributes:
        incoming, outgoing: names of the interfaces that it came from and goes to. A rule with ``outgoing`` is looked
            at when it is known where the packet goes, others when it comes.
        mac_src, mac_dst, src, dst: addresses.
        kind, protocol: Ethernet type and IP protocol, by number.
        sport, dport: from and to, both included.
    """

    incoming: str | None = None
    outgoing: str | None = None
    mac_src: bytes | None = None
    mac_dst: bytes | None = None
    src: Prefix | None = None
    dst: Prefix | None = None
    kind: int | None = None
    protocol: int | None = None
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None

    def matches(self, headers: Headers, incoming: str, outgoing: str | None) -> bool:
        """Whether a packet is like this; ``outgoing`` is None as long as that is not known."""
        return (
            (self.outgoing is None) == (outgoing is None)
            and self.outgoing in (None, outgoing)
            and self.incoming in (None, incoming)
            and self.mac_src in (None, headers.src)
            and self.mac_dst in (None, headers.dst)
            and self.kind in (None, headers.kind)
            and self.protocol in (None, headers.protocol if headers.ip_src else None)
            and (self.src is None or _contains(self.src, headers.ip_src))
            and (self.dst is None or _contains(self.dst, headers.ip_dst))
            and (self.sport is None or _has_port(self.sport, headers, headers.sport))
            and (self.dport is None or _has_port(self.dport, headers, headers.dport))
        )


def _contains(prefix: Prefix, address: bytes) -> bool:
    mask, wanted = prefix.netmask.packed, prefix.network_address.packed
    return len(address) == len(wanted) and all(a & m == w for a, m, w in zip(address, mask, wanted, strict=True))


def _has_port(ports: tuple[int, int], headers: Headers, port: int) -> bool:
    return headers.protocol in (TCP, UDP) and bool(headers.l4) and ports[0] <= port <= ports[1]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        text: as it was written.
        interface: where a redirected or mirrored packet goes.
        address, port: what a packet's are rewritten to (``snat``: its source, ``dnat``: its destination); port 0: it
            stays.
    """

    text: str
    action: Action
    pattern: Pattern
    interface: str = ""
    address: bytes = b""
    port: int = 0

    @property
    def decides(self) -> bool:
        """No rule behind it is looked at."""
        return self.action not in _IN_PASSING


class Rules:
    """The rules in their order, and how often each matched."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.hits: list[int] = []
        self.has_outgoing = False

    def add(self, rule: Rule, position: int | None = None) -> None:
        """Add a rule, at the end or before the one at ``position``.

        Raises:
            UserError: there is no such position.
        """
        at = len(self.rules) if position is None else position
        if not 0 <= at <= len(self.rules):
            raise UserError(f"There are {len(self.rules)} rules: none can be put in as number {at}.")
        self.rules.insert(at, rule)
        self.hits.insert(at, 0)
        self._look()

    def remove(self, position: int) -> None:
        """Remove a rule.

        Raises:
            UserError: there is none at that position.
        """
        if not 0 <= position < len(self.rules):
            raise UserError(f"There is no rule {position}.")
        del self.rules[position], self.hits[position]
        self._look()

    def decide(
        self, headers: Headers, incoming: str, outgoing: str | None, in_passing: Callable[[Rule], None]
    ) -> Rule | None:
        """The rule that decides about a packet, if any; ``in_passing`` is called with those that do something else."""
        for number, rule in enumerate(self.rules):
            if rule.pattern.matches(headers, incoming, outgoing):
                self.hits[number] += 1
                if rule.decides:
                    return rule
                in_passing(rule)
        return None

    def _look(self) -> None:
        self.has_outgoing = any(rule.pattern.outgoing is not None for rule in self.rules)


# --- reading rules ------------------------------------------------------------------------------------------------


def parse_rule(text: str) -> Rule:
    """A rule from its text.

    Raises:
        UserError: it is none.
    """
    words = text.split()
    if not words or words[0] not in {action.value for action in Action}:
        actions = ", ".join(action.value for action in Action)
        raise UserError(f"The rule {text!r} does not begin with one of {actions}.")
    action, rest = Action(words[0]), words[1:]
    interface, address, port = "", b"", 0
    if action in (Action.REDIRECT, Action.MIRROR, Action.SNAT, Action.DNAT):
        if not rest:
            raise UserError(f"The rule {text!r} does not say where to.")
        target, rest = rest[0], rest[1:]
        if action in (Action.REDIRECT, Action.MIRROR):
            interface = target
        else:
            address, port = _address_and_port(text, target)
    if len(rest) % 2:
        raise UserError(f"The rule {text!r} ends with {rest[-1]!r}, and nothing behind it.")
    fields: dict[str, object] = {}
    for word, value in zip(rest[::2], rest[1::2], strict=True):
        if word not in _WORDS:
            raise UserError(f"The rule {text!r} has {word!r}, where one of {', '.join(_WORDS)} is possible.")
        name, read = _WORDS[word]
        try:
            fields[name] = read(value)
        except ValueError as error:
            raise UserError(f"The rule {text!r} has {value!r} as its {word}.") from error
    pattern = Pattern(**fields)  # type: ignore[arg-type]
    if action in (Action.SNAT, Action.DNAT) and pattern.outgoing is not None:
        raise UserError(f"The rule {text!r} rewrites packets whose way is known already: leave 'out' away.")
    return Rule(" ".join(words), action, pattern, interface, address, port)


def _address_and_port(text: str, target: str) -> tuple[bytes, int]:
    address, _, port = target.partition(":")
    try:
        packed, number = ipaddress.IPv4Address(address).packed, int(port) if port else 0
    except ValueError as error:
        raise UserError(f"The rule {text!r} has {target!r} in place of an IPv4 address (and :port).") from error
    if not 0 <= number <= _PORT_LIMIT:
        raise UserError(f"The rule {text!r} has a port that is too large.")
    return packed, number


def _ports(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    low, high = int(first), int(last or first)
    if not 0 <= low <= high <= _PORT_LIMIT:
        raise ValueError(text)
    return low, high


def _mac(text: str) -> bytes:
    if not _MAC.fullmatch(text):
        raise ValueError(text)
    return bytes.fromhex(text.replace(":", ""))


def _number(names: dict[str, int], most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = names[text] if text in names else int(text, 0)
        if not 0 <= number <= most:
            raise ValueError(text)
        return number

    return read


def _prefix(text: str) -> Prefix:
    return ipaddress.ip_network(text, strict=False)


_WORDS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "in": ("incoming", str),
    "out": ("outgoing", str),
    "mac-src": ("mac_src", _mac),
    "mac-dst": ("mac_dst", _mac),
    "src": ("src", _prefix),
    "dst": ("dst", _prefix),
    "ether": ("kind", _number(KINDS, 0xFFFF)),
    "proto": ("protocol", _number(PROTOCOLS, 0xFF)),
    "sport": ("sport", _ports),
    "dport": ("dport", _ports),
}
