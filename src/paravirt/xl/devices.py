"""What the verbs about all kinds of devices have in common."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.xl.client import FAILURE, Daemon, Options, Row, say

PATIENCE: Final = 10.0
"""Seconds that a guest has for letting a device go (LIBXL_DESTROY_TIMEOUT)."""


def attach(
    options: Options, title: str, parse: Callable[[str], DeviceSpec], to_libxl: Callable[[DeviceSpec], Any]
) -> int:
    """Give a domain the device that the words after it describe; a dry run only prints it, under its ``title``."""
    domain, *words = options.arguments
    spec = parse(",".join(words))
    if "n" in options:
        print(f"{title}:", json.dumps(to_libxl(spec), indent=4))
        return 0
    Daemon().call("device-attach", domain=domain, device={"kind": spec.kind, "settings": spec.settings})
    return 0


def detach(options: Options, kind: str, find: Callable[[list[Row]], Row | None], missing: str, kept: str) -> int:
    """Detach the device that ``find`` finds among the domain's, and wait until it finds none.

    Parameters:
        missing: what to say when it finds none in the beginning.
        kept: what to say when the guest does not let it go in time.
    """
    domain, daemon = options.arguments[0], Daemon()

    def found() -> Row | None:
        return find(daemon.call("devices", domain=domain, kind=kind))

    row = found()
    if row is None:
        say(missing)
        return FAILURE
    daemon.call("device-detach", domain=domain, kind=kind, devid=row["devid"], force="f" in options)
    deadline = time.monotonic() + PATIENCE
    while found() is not None:
        if time.monotonic() > deadline:
            say(kept)
            return FAILURE
        time.sleep(0.05)
    return 0


def frontend_numbers(row: Row, *names: str) -> list[int]:
    """Numbers among the nodes of a device's frontend, -1 for what is not there."""
    return [number(row["frontend_nodes"].get(name, "")) for name in names]


def number(text: str) -> int:
    """A decimal number, or -1."""
    return int(text) if text.isdecimal() else -1
