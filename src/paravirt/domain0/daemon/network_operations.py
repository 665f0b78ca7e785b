"""Operations on the machine's firewall-router: what ``paravirt net`` asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paravirt.domain0.daemon.requests import Request, operation
from paravirt.domain0.net.options import parse_forward


@operation("network-status")
def status(request: Request) -> list[dict[str, Any]]:
    """Every interface, with what was counted."""
    return request.machine.call(request.machine.network.status)


@operation("network-script")
def script(request: Request) -> str:
    """How interfaces are joined whose settings do not say it."""
    return request.machine.network.script


@operation("network-rules")
def rules(request: Request) -> list[dict[str, Any]]:
    """The firewall's rules in their order, and how often each matched."""

    def rows() -> list[dict[str, Any]]:
        known = request.machine.network.router.rules
        return [{"rule": rule.text, "hits": hits} for rule, hits in zip(known.rules, known.hits, strict=True)]

    return request.machine.call(rows)


@operation("network-rule-add")
def add(request: Request) -> None:
    """Add a ``rule``, at the end or as number ``position``."""
    text, position = request.string("rule"), request.integer("position", -1)
    request.machine.call(lambda: request.machine.network.add_rule(text, None if position < 0 else position))


@operation("network-rule-remove")
def remove(request: Request) -> None:
    """Remove the rule at ``position``."""
    position = request.integer("position")
    request.machine.call(lambda: request.machine.network.router.rules.remove(position))


@operation("network-log")
def log(request: Request) -> list[str]:
    """What rules have logged."""
    return request.machine.call(lambda: list(request.machine.network.router.log))


@operation("network-forward")
def forward(request: Request) -> str:
    """Have a port of the host's lead to a guest, as the text ``forward`` says: where it is."""
    wanted = parse_forward(request.string("forward"))
    address, port = request.machine.call(lambda: request.machine.network.forward(wanted))
    return f"{address}:{port}"


@operation("network-tap")
def tap(request: Request) -> None:
    """Join the host's TAP device ``name`` to a ``bridge``."""
    name, bridge = request.string("name"), request.string("bridge")
    request.machine.call(lambda: request.machine.network.tap(name, bridge))


@operation("network-spoofing")
def spoofing(request: Request) -> None:
    """Have an ``interface`` send from any address, if that is ``allowed``."""
    name, allowed = request.string("interface"), request.flag("allowed")
    request.machine.call(lambda: request.machine.network.let_spoof(name, allowed))


@operation("network-capture")
def capture(request: Request) -> None:
    """Write an ``interface``'s packets into the file ``path``, or none any more if that is empty."""
    network, name, path = request.machine.network, request.string("interface"), request.string("path")

    def change() -> None:
        if path:
            network.capture(name, Path(path))
        else:
            network.stop_capture(network.find(name))

    request.machine.call(change)
