"""``paravirt net``: the firewall-router of the daemon's machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paravirt.domain0.xlcfg.vifs import DEFAULT_BRIDGE
from paravirt.errors import UserError


def _ask(operation: str, **arguments: Any) -> Any:
    from paravirt.domain0.daemon.protocol import Refusal
    from paravirt.xl.client import Daemon

    try:
        return Daemon().call(operation, **arguments)
    except Refusal as refusal:
        raise UserError(str(refusal)) from refusal


@click.group()
def net() -> None:
    """See and change the network of the machine whose domains xl manages.

    \b
    A rule is an action and a pattern, as in:
      drop proto tcp dport 25
      reject in vif2.0 dst 10.0.2.0/24 proto udp
      dnat 10.0.2.15:80 proto tcp dst 10.0.2.1 dport 8080
    """


@net.command("list")
def list_() -> None:
    """List the interfaces, and what was counted."""
    columns = ("name", "mac", "mode", "addresses", "received_packets", "sent_packets", "spoofed", "denied", "overrun")
    row = "{:<12} {:<17} {:<10} {:<16} {:>9} {:>9} {:>7} {:>7} {:>7}"
    click.echo(row.format("interface", "address", "mode", "IP", "received", "sent", "forged", "denied", "overrun"))
    failed = []
    for found in _ask("network-status"):
        if found["capture_failure"]:
            failed.append(f"The capture of {found['name']} has ended: {found['capture_failure']}.")
        found["addresses"] = " ".join(found["addresses"])
        click.echo(row.format(*(found[name] for name in columns)).rstrip())
    for line in failed:
        click.echo(line)


@net.command()
def rules() -> None:
    """List the firewall's rules, with their numbers and how often each matched."""
    for number, found in enumerate(_ask("network-rules")):
        click.echo(f"{number:>3} {found['hits']:>9}  {found['rule']}")


@net.command()
@click.option("--at", metavar="NUMBER", type=click.IntRange(min=0), help="Before the rule of this number.")
@click.argument("rule", nargs=-1, required=True)
def add(at: int | None, rule: tuple[str, ...]) -> None:
    """Add a rule."""
    _ask("network-rule-add", rule=" ".join(rule), position=-1 if at is None else at)


@net.command()
@click.argument("number", type=click.IntRange(min=0))
def remove(number: int) -> None:
    """Remove a rule."""
    _ask("network-rule-remove", position=number)


@net.command()
def log() -> None:
    """Print what rules have logged."""
    for line in _ask("network-log"):
        click.echo(line)


@net.command()
@click.argument("port", metavar="[tcp:|udp:][ADDRESS:]PORT:GUEST:PORT")
def forward(port: str) -> None:
    """Have a port of the host's lead to a guest, and print where it is."""
    click.echo(_ask("network-forward", forward=port))


@net.command()
@click.argument("name")
@click.argument("bridge", default=DEFAULT_BRIDGE)
def tap(name: str, bridge: str) -> None:
    """Join a TAP device of the host's to a bridge."""
    _ask("network-tap", name=name, bridge=bridge)


@net.command()
@click.argument("interface")
@click.argument("allowed", type=click.Choice(["on", "off"]))
def spoofing(interface: str, allowed: str) -> None:
    """Let a guest send from any address, or only from its own."""
    _ask("network-spoofing", interface=interface, allowed=allowed == "on")


@net.command()
@click.argument("interface")
@click.argument("file", type=click.Path(path_type=Path), required=False)
def capture(interface: str, file: Path | None) -> None:
    """Write an interface's packets into a pcap file; without one, no more."""
    _ask("network-capture", interface=interface, path="" if file is None else str(file.absolute()))
