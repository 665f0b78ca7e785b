"""What a well-behaved domain loses to others that misbehave, as in the paper's section 4.2.

Three Linux guests at a time share one physical CPU, with equal weights: one that measures itself, and two beside it. In
the control these two are well-behaved as well, and use their shares: they compute. In the experiment one writes to its
disk without end instead, and one forks without end. All have disks, which one Domain 0 serves on another of the host's
processors. Controls and experiments take turns, because a host is not equally fast at all times.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from paravirt.bench.disks import scratch_disk
from paravirt.bench.guestprogram import DONE_LINE, KERNEL_OPTIONS, parse, program
from paravirt.domain0.toolstack import Domain, Machine
from paravirt.domain0.xlcfg.disks import disk_spec
from paravirt.guestkernels import obtain
from paravirt.guestkernels.modules import obtain_modules, ramdisk_files
from paravirt.initramfs import MARKER, build

MEMORY_MIB: Final = 128
PATIENCE_S: Final = 300
CALLS: Final = ("null_call", "fork_exit")
DISK: Final = ("disk_read_64k", "disk_random_read_4k")

_READY: Final = "while [ ! -b /dev/xvda ]; do sleep 0.1; done; echo 1 > /proc/sys/kernel/printk; echo rea''dy"
_NEIGHBOURS: Final = {
    "computes": "while :; do :; done",
    "computes-too": "while :; do :; done",
    "hog": "while :; do dd if=/dev/zero of=/dev/xvda bs=64k 2> /dev/null; done",
    "forks": "for i in 1 2 3 4 5 6 7 8; do while :; do (:); done & done; wait",
}
_WELL_BEHAVED: Final = ("computes", "computes-too")
_ANTISOCIAL: Final = ("hog", "forks")
_TURNS: Final = (_WELL_BEHAVED, _ANTISOCIAL, _WELL_BEHAVED, _ANTISOCIAL, _WELL_BEHAVED)


@dataclass(frozen=True)
class Loss:
    """Of one figure, in percent: what antisocial neighbours cost, and how far the controls were apart."""

    cost: float
    spread: float


def measure(row_ms: int, engine: str = "unicorn") -> dict[str, Loss]:
    """By the program's row, each measured for so long in every turn.

    Raises:
        UserError: kernel, busybox or program cannot be had.
    """
    with ExitStack() as stack:
        guests = _Guests(stack, engine)
        found = [(neighbours, guests.figures(neighbours, row_ms)) for neighbours in _TURNS]
    losses = {}
    for row in (*CALLS, *DISK):
        control, beside = (
            [figures[row] for neighbours, figures in found if neighbours is kind]
            for kind in (_WELL_BEHAVED, _ANTISOCIAL)
        )
        losses[row] = _loss(control, beside, row in DISK)
    return losses


class _Guests:
    """The domain that measures itself, and all its neighbours, which stand still when they are not wanted."""

    def __init__(self, stack: ExitStack, engine: str) -> None:
        self._stack = stack
        self._kernel = obtain("debian").path
        files = {"bin/pvbench": program()} | ramdisk_files(obtain_modules("debian", ("xen-blkfront",)))
        self._ramdisk = build(obtain("busybox").path, files)
        memory = (len(_NEIGHBOURS) + 1) * MEMORY_MIB + 64
        self._machine = stack.enter_context(Machine(memory=memory, pcpus=1, engine=engine))
        self._neighbours: dict[str, Domain] = {}
        for name, command in _NEIGHBOURS.items():
            domain = self._neighbours[name] = self._boot(name)
            domain.console.send(command + "\n")
            domain.pause()
        self._witness = self._boot("witness")

    def _boot(self, name: str) -> Domain:
        devices = [disk_spec(self._stack.enter_context(scratch_disk()), "xvda")]
        cmdline = f"console=hvc0 {KERNEL_OPTIONS}"
        domain = self._machine.create(
            self._kernel, self._ramdisk, cmdline, memory=MEMORY_MIB, name=name, devices=devices
        )
        domain.console.expect(MARKER, PATIENCE_S)
        domain.console.send(_READY + "\n")
        domain.console.expect("ready\r\n", PATIENCE_S)
        return domain

    def figures(self, neighbours: Sequence[str], row_ms: int) -> dict[str, float]:
        """What the program finds, by row, beside these neighbours."""
        for name in neighbours:
            self._neighbours[name].unpause()
        values: dict[str, float] = {}
        for options, rows in (("", CALLS), ("--disk /dev/xvda", DISK)):
            command = f"pvbench {options} --throughout --row-ms {row_ms} --only {','.join(rows)}\n"
            self._witness.console.send(command)
            values |= parse(self._witness.console.expect(DONE_LINE, PATIENCE_S)).values
        for name in neighbours:
            self._neighbours[name].pause()
        return values


def _loss(control: Sequence[float], beside: Sequence[float], more_is_better: bool) -> Loss:
    undisturbed, disturbed = statistics.median(control), statistics.median(beside)
    ratio = undisturbed / disturbed if more_is_better else disturbed / undisturbed
    return Loss(100 * (ratio - 1), 100 * (max(control) - min(control)) / undisturbed)
