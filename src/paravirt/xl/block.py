"""Verbs about virtual disks: block-attach, block-list, block-detach."""

from __future__ import annotations

import json
import time
from typing import Final

from paravirt.domain0.daemon.protocol import NOT_FOUND, Refusal
from paravirt.domain0.xlcfg.disks import KIND, disk_to_libxl, parse_disk
from paravirt.domain0.xlcfg.vdev import vdev_number
from paravirt.errors import UserError
from paravirt.xl.client import FAILURE, Daemon, Options, Row, say

PATIENCE: Final = 10.0
"""Seconds that a guest has for letting a disk go (LIBXL_DESTROY_TIMEOUT)."""

_LIST: Final = "{:<5} {:<3} {:<6} {:<5} {:<6} {:<8} {:<30}"


def block_attach(options: Options) -> int:
    """``xl block-attach``."""
    domain, *words = options.arguments
    spec = parse_disk(",".join(words))
    if "n" in options:
        print("disk:", json.dumps(disk_to_libxl(spec), indent=4))
        return 0
    Daemon().call("device-attach", domain=domain, device={"kind": spec.kind, "settings": spec.settings})
    return 0


def block_list(options: Options) -> int:
    """``xl block-list``."""
    daemon = Daemon()
    print(_LIST.format("Vdev", "BE", "handle", "state", "evt-ch", "ring-ref", "BE-path"))
    for domain in options.arguments:
        try:
            rows = daemon.call("devices", domain=domain, kind=KIND)
        except Refusal as refusal:
            if refusal.code != NOT_FOUND:
                raise
            say(f"{domain} is an invalid domain identifier")
            continue
        for row in rows:
            nodes = row["frontend_nodes"]
            numbers = [_number(nodes.get(name, "")) for name in ("state", "event-channel", "ring-ref")]
            print(_LIST.format(row["devid"], 0, row["domid"], *numbers, row["backend"]))
    return 0


def block_detach(options: Options) -> int:
    """``xl block-detach``."""
    domain, name = options.arguments[:2]
    daemon = Daemon()
    force = "f" in options
    row = _find(daemon, domain, name)
    if row is None:
        say(f"Error: Device {name} not connected.")
        return FAILURE
    daemon.call("device-detach", domain=domain, kind=KIND, devid=row["devid"], force=force)
    deadline = time.monotonic() + PATIENCE
    while _find(daemon, domain, name) is not None:
        if time.monotonic() > deadline:
            say(f"xl: the domain does not let the disk {name} go; it goes when it is not in use any more")
            return FAILURE
        time.sleep(0.05)
    return 0


def _find(daemon: Daemon, domain: str, name: str) -> Row | None:
    try:
        devid = vdev_number(name)
    except UserError:
        return None
    rows = daemon.call("devices", domain=domain, kind=KIND)
    return next((row for row in rows if row["devid"] == devid), None)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1
