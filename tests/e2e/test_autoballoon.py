"""A Linux guest gives memory to a second one, and then has less."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paravirt import Machine

from ..cli.conftest import Obtain, guest
from ..domain0.test_autoballoon import created
from ..hypervisor.audited import audited
from ..oracle import kernels
from .conftest import Shell

__all__ = ["guest"]
pytestmark = pytest.mark.network
MIB = 256
"""Frames of a MiB."""


@pytest.fixture
def machine(engine: str) -> Iterator[Machine]:
    with Machine(memory=400, autoballoon=True, engine=engine) as made, audited(made):
        yield made


def test_an_idle_linux_gives_what_a_second_one_needs(machine: Machine, guest: Obtain) -> None:
    first = machine.create(guest("debian-cloud"), guest("initramfs"), "console=hvc0 quiet", memory=288)
    shell = Shell(first)
    total = int(shell("awk '/^MemTotal/ {print $2}' /proc/meminfo").split()[-2])
    second = created(machine, kernels.GUESTS.parent / "src/paravirt/data/hello", 160, paused=True)
    has = first.control(lambda view: view.tot_pages)
    assert 144 * MIB <= has < 288 * MIB
    assert int(shell("awk '/^MemTotal/ {print $2}' /proc/meminfo").split()[-2]) <= total - (288 * MIB - has) * 4
    assert second.control(lambda view: view.tot_pages) == 160 * MIB
    second.destroy()
    first.set_memory_target(288)
    shell("while [ $(cat /sys/devices/system/xen_memory/xen_memory0/info/current_kb) != 294912 ]; do sleep 0.1; done")
    assert first.control(lambda view: view.tot_pages) == 288 * MIB
