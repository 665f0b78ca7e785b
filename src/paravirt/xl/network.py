"""Verbs about network interfaces: network-attach, network-list, network-detach."""

from __future__ import annotations

import json
import time
from typing import Final

from paravirt.domain0.xlcfg.vifs import KIND, parse_vif, vif_to_libxl
from paravirt.xl.client import FAILURE, Daemon, Options, Row, say

PATIENCE: Final = 10.0
"""Seconds that a guest has for letting an interface go (LIBXL_DESTROY_TIMEOUT)."""

_HEAD: Final = "{:<3} {:<2} {:<17} {:<6} {:<5} {:<6} {:>5}/{:<5} {:<30}"
_LINE: Final = "{:<3} {:<2} {}{:>6} {:>5} {:>6} {:>5}/{:<11} {:<30}"


def network_attach(options: Options) -> int:
    """``xl network-attach``."""
    domain, *words = options.arguments
    spec = parse_vif(",".join(words))
    if "n" in options:
        print("vif:", json.dumps(vif_to_libxl(spec), indent=4))
        return 0
    Daemon().call("device-attach", domain=domain, device={"kind": spec.kind, "settings": spec.settings})
    return 0


def network_list(options: Options) -> int:
    """``xl network-list``."""
    daemon = Daemon()
    print(_HEAD.format("Idx", "BE", "Mac Addr.", "handle", "state", "evt-ch", "tx-", "rx-ring-ref", "BE-path"))
    for domain in options.arguments:
        rows = daemon.call("devices", domain=domain, kind=KIND)  # unlike block-list, it ends where there is none
        for row in rows:
            nodes = row["frontend_nodes"]
            names = ("handle", "state", "event-channel", "tx-ring-ref", "rx-ring-ref")
            numbers = [_number(nodes.get(name, "")) for name in names]
            print(_LINE.format(row["devid"], 0, row["settings"]["mac"], *numbers, row["backend"]))
    return 0


def network_detach(options: Options) -> int:
    """``xl network-detach``."""
    domain, name = options.arguments[:2]
    daemon = Daemon()
    row = _find(daemon, domain, name)
    if row is None:
        say(f"Unknown device {name}.")
        return FAILURE
    daemon.call("device-detach", domain=domain, kind=KIND, devid=row["devid"])
    deadline = time.monotonic() + PATIENCE
    while _find(daemon, domain, name) is not None:
        if time.monotonic() > deadline:
            say(f"xl: the domain does not let the network interface {name} go; it goes when it is not in use any more")
            return FAILURE
        time.sleep(0.05)
    return 0


def _find(daemon: Daemon, domain: str, name: str) -> Row | None:
    """A domain's interface by its number, or by its Ethernet address."""
    rows = daemon.call("devices", domain=domain, kind=KIND)
    if ":" in name:
        return next((row for row in rows if row["settings"]["mac"] == name.lower()), None)
    return next((row for row in rows if row["devid"] == _number(name)), None)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1
