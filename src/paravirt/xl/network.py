"""Verbs about network interfaces: network-attach, network-list, network-detach."""

from __future__ import annotations

import dataclasses
import os
from typing import Final

from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.xlcfg.config import DomainConfig
from paravirt.domain0.xlcfg.vifs import KIND, parse_vif, vif_to_libxl
from paravirt.xl.client import Daemon, Options, Row
from paravirt.xl.devices import attach, detach, frontend_numbers, number

_HEAD: Final = "{:<3} {:<2} {:<17} {:<6} {:<5} {:<6} {:>5}/{:<5} {:<30}"
_LINE: Final = "{:<3} {:<2} {}{:>6} {:>5} {:>6} {:>5}/{:<11} {:<30}"


def with_scripts(config: DomainConfig, script: str | None = None) -> DomainConfig:
    """The configuration with how each interface is joined to the others: by ``script``, which is the machine's own
    unless it is given, where it does not say it."""
    if not config.devices.get(KIND):
        return config
    script = script or _default_script()
    joined = tuple(_joined(device, script) for device in config.devices[KIND])
    return dataclasses.replace(config, devices={**config.devices, KIND: joined})


def _joined(spec: DeviceSpec, script: str) -> DeviceSpec:
    return dataclasses.replace(spec, settings={"script": script, **spec.settings})


def _default_script() -> str:
    """How interfaces are joined that do not say it: by the daemon that runs, or else by one that ``xl`` would start."""
    daemon = Daemon.running()
    if daemon is not None:
        return str(daemon.call("network-script"))
    from paravirt.domain0.daemon.main import NETWORK
    from paravirt.domain0.net.options import parse_network

    return parse_network(os.environ.get(NETWORK, "")).script


def network_attach(options: Options) -> int:
    """``xl network-attach``."""
    return attach(options, "vif", parse_vif, lambda spec: vif_to_libxl(_joined(spec, _default_script())))


def network_list(options: Options) -> int:
    """``xl network-list``."""
    daemon = Daemon()
    print(_HEAD.format("Idx", "BE", "Mac Addr.", "handle", "state", "evt-ch", "tx-", "rx-ring-ref", "BE-path"))
    for domain in options.arguments:
        rows = daemon.call("devices", domain=domain, kind=KIND)  # unlike block-list, it ends where there is none
        for row in rows:
            numbers = frontend_numbers(row, "handle", "state", "event-channel", "tx-ring-ref", "rx-ring-ref")
            print(_LINE.format(row["devid"], 0, row["settings"]["mac"], *numbers, row["backend"]))
    return 0


def network_detach(options: Options) -> int:
    """``xl network-detach``."""
    name = options.arguments[1]

    def find(rows: list[Row]) -> Row | None:
        if ":" in name:
            return next((row for row in rows if row["settings"]["mac"] == name.lower()), None)
        return next((row for row in rows if row["devid"] == number(name)), None)

    kept = f"xl: the domain does not let the network interface {name} go; it goes when it is not in use any more"
    return detach(options, KIND, find, f"Unknown device {name}.", kept)
