"""``paravirt run``: one guest in the foreground, in a machine private to this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from paravirt.cli.steps import SendType, StepsCommand, ordered
from paravirt.machine.choice import DEFAULT_ENGINE, ENGINE_VARIABLE, ENGINES

MEMORY_MIB = 512


@click.command(cls=StepsCommand, context_settings={"max_content_width": 100})
@click.option("--ramdisk", metavar="FILE", type=click.Path(path_type=Path),
              help="Initial ramdisk of the guest.")  # fmt: skip
@click.option("--append", metavar="TEXT", default="", help="Command line of the guest's kernel.")
@click.option("--memory", metavar="MIB", type=click.IntRange(min=1), default=MEMORY_MIB, show_default=True,
              help="Memory of the guest.")  # fmt: skip
@click.option("--vcpus", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
              help="Virtual CPUs of the guest.")  # fmt: skip
@click.option("--disk", "disks", metavar="SPEC", multiple=True,
              help="A disk, as in xl.cfg: TARGET,FORMAT,VDEV,ACCESS.")  # fmt: skip
@click.option("--net", "nets", metavar="SPEC", multiple=True,
              help="A network interface, as in xl.cfg; '' has all defaults.")  # fmt: skip
@click.option("--forward", "forwards", metavar="PORT:GUEST:PORT", multiple=True,
              help="A port of the host's that leads to the guest.")  # fmt: skip
@click.option("--tap", "taps", metavar="NAME", multiple=True, help="A TAP device of the host's on the guest's bridge.")
@click.option("--network", "networks", metavar="SPEC", multiple=True,
              help="What the network is like: subnet=…,script=…,outside=no,host-loopback=yes,rule=….")  # fmt: skip
@click.option("--name", metavar="NAME", default="guest", show_default=True, help="Name of the guest.")
@click.option("--engine", type=click.Choice(ENGINES), default=DEFAULT_ENGINE, show_default=True,
              envvar=ENGINE_VARIABLE, show_envvar=True,
              help="CPU engine: auto is kvm where it is usable, else unicorn.")  # fmt: skip
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True),
              help="Give up after this time, with exit status 124.")  # fmt: skip
@click.option("--stats", metavar="FILE.json", type=click.Path(path_type=Path),
              help="Write times and counts there at the end.")  # fmt: skip
@click.option("--expect", metavar="TEXT", multiple=True,
              help="Wait for TEXT in the output that follows the previous match.")  # fmt: skip
@click.option("--send", metavar="TEXT", multiple=True, type=SendType(),
              help=r"Type TEXT, with C escapes such as \n.")  # fmt: skip
@click.argument("kernel", type=click.Path(path_type=Path))
@click.pass_context
def run(
    ctx: click.Context,
    ramdisk: Path | None,
    append: str,
    memory: int,
    vcpus: int,
    disks: tuple[str, ...],
    nets: tuple[str, ...],
    forwards: tuple[str, ...],
    taps: tuple[str, ...],
    networks: tuple[str, ...],
    name: str,
    engine: str,
    timeout: float | None,
    stats: Path | None,
    expect: tuple[str, ...],
    send: tuple[bytes, ...],
    kernel: Path,
) -> int:
    """Boot KERNEL as a Xen guest in the foreground, with its console on the terminal.

    --expect and --send are steps, done in the order in which they are given. When the last one is an
    expectation, the guest is ended as soon as it is met; otherwise it goes on until it ends by itself.
    On a terminal every key goes to the guest, Ctrl-C too; Ctrl-] leaves and ends the guest.

    \b
    Exit status: 0 powered off, or the last expectation was met, or left with Ctrl-]
                 1 crashed, or ended before an expectation was met
                 2 bad usage or input
                 3 rebooted
               124 the time was over
    """
    from paravirt.cli.session import Session
    from paravirt.cli.stats import prepare_stats
    from paravirt.domain0.net.options import parse_network
    from paravirt.domain0.xlcfg.disks import parse_disk
    from paravirt.domain0.xlcfg.vifs import parse_vif

    if stats is not None:
        prepare_stats(stats)
    session = Session(ordered(ctx, expect, send), timeout=timeout, stats=stats)
    devices = [parse_disk(disk) for disk in disks] + [parse_vif(net) for net in nets]
    options = parse_network(",".join(networks))
    network = replace(options, forwards=[*options.forwards, *forwards], taps=[*options.taps, *taps])
    return session.run(kernel, ramdisk, append, memory, vcpus, name, engine, devices, network)
