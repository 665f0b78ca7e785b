"""What a well-behaved domain loses to others that misbehave, as in the paper's section 4.2.

Three Linux guests on a machine with two physical CPUs: one that measures itself has the first; on the other, one writes
to its disk without end, and one forks without end. All have disks, which one Domain 0 serves.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from paravirt.bench.disks import scratch_disk
from paravirt.bench.guestprogram import DONE_LINE, KERNEL_OPTIONS, parse, program
from paravirt.domain0.toolstack import Domain, Machine
from paravirt.domain0.xlcfg.disks import disk_spec
from paravirt.guestkernels import obtain
from paravirt.guestkernels.modules import obtain_modules, ramdisk_files
from paravirt.initramfs import MARKER, build

MEMORY_MIB = 192
PATIENCE_S = 300
CALLS = ("null_call", "fork_exit")
DISK = ("disk_read_64k", "disk_random_read_4k")

_READY = "while [ ! -b /dev/xvda ]; do sleep 0.1; done; echo 1 > /proc/sys/kernel/printk; echo rea''dy"
_HOG = "while :; do dd if=/dev/zero of=/dev/xvda bs=64k 2> /dev/null; done"
_FORKS = "for i in 1 2 3 4 5 6 7 8; do while :; do (:); done & done; wait"


@dataclass(frozen=True)
class Loss:
    """Of one figure, in percent: what the others cost, and how far two undisturbed measurements around were apart."""

    cost: float
    spread: float


def measure(row_ms: int, engine: str = "unicorn") -> dict[str, Loss]:
    """By the program's row, each measured for so long three times: in the middle, while the others are at it.

    Raises:
        UserError: kernel, busybox or program cannot be had.
    """
    kernel = obtain("debian").path
    files = {"bin/pvbench": program()} | ramdisk_files(obtain_modules("debian", ("xen-blkfront",)))
    ramdisk = build(obtain("busybox").path, files)
    with ExitStack() as stack:
        machine = stack.enter_context(Machine(memory=3 * MEMORY_MIB + 64, pcpus=2, engine=engine))

        def guest(name: str, pcpu: int) -> Domain:
            devices = [disk_spec(stack.enter_context(scratch_disk()), "xvda")]
            cmdline = f"console=hvc0 {KERNEL_OPTIONS}"
            domain = machine.create(kernel, ramdisk, cmdline, memory=MEMORY_MIB, name=name, devices=devices)
            domain.pin([pcpu])
            domain.console.expect(MARKER, PATIENCE_S)
            domain.console.send(_READY + "\n")
            domain.console.expect("ready\r\n", PATIENCE_S)
            return domain

        witness = guest("witness", 0)
        others = [guest("hog", 1), guest("forks", 1)]
        for other, command in zip(others, (_HOG, _FORKS), strict=True):
            other.console.send(command + "\n")
            other.pause()
        before = _figures(witness, row_ms)
        for other in others:
            other.unpause()
        beside = _figures(witness, row_ms)
        for other in others:
            other.pause()
        after = _figures(witness, row_ms)
    return {name: _loss(before[name], beside[name], after[name], name in DISK) for name in (*CALLS, *DISK)}


def _figures(domain: Domain, row_ms: int) -> dict[str, float]:
    """What the program finds, by row."""
    values: dict[str, float] = {}
    for options, names in (("", CALLS), ("--disk /dev/xvda", DISK)):
        domain.console.send(f"pvbench {options} --row-ms {row_ms} --only {','.join(names)}\n")
        values |= parse(domain.console.expect(DONE_LINE, PATIENCE_S)).values
    return values


def _loss(before: float, beside: float, after: float, more_is_better: bool) -> Loss:
    alone = (before + after) / 2
    ratio = alone / beside if more_is_better else beside / alone
    return Loss(100 * (ratio - 1), 100 * abs(after - before) / alone)
