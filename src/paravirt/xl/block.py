"""Verbs about virtual disks: block-attach, block-list, block-detach."""

from __future__ import annotations

from typing import Final

from paravirt.domain0.daemon.protocol import NOT_FOUND, Refusal
from paravirt.domain0.xlcfg.disks import KIND, disk_to_libxl, parse_disk
from paravirt.domain0.xlcfg.vdev import vdev_number
from paravirt.errors import UserError
from paravirt.xl.client import Daemon, Options, Row, say
from paravirt.xl.devices import attach, detach, frontend_numbers

_LIST: Final = "{:<5} {:<3} {:<6} {:<5} {:<6} {:<8} {:<30}"


def block_attach(options: Options) -> int:
    """``xl block-attach``."""
    return attach(options, "disk", parse_disk, disk_to_libxl)


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
            numbers = frontend_numbers(row, "state", "event-channel", "ring-ref")
            print(_LIST.format(row["devid"], 0, row["domid"], *numbers, row["backend"]))
    return 0


def block_detach(options: Options) -> int:
    """``xl block-detach``."""
    name = options.arguments[1]

    def find(rows: list[Row]) -> Row | None:
        try:
            devid = vdev_number(name)
        except UserError:
            return None
        return next((row for row in rows if row["devid"] == devid), None)

    kept = f"xl: the domain does not let the disk {name} go; it goes when it is not in use any more"
    return detach(options, KIND, find, f"Error: Device {name} not connected.", kept)
