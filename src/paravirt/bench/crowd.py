"""One machine that fills up with idle domains: how fast they start, what each takes beside its memory, and how soon one
answers among so many.

Small domains are one kernel of ours (trapkernel/load.c); Linux is Debian's cloud kernel with a shell.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from paravirt.bench.kernels import kernel
from paravirt.domain0.toolstack import Domain, Machine
from paravirt.guestkernels import obtain
from paravirt.initramfs import cached

SMALL = (1, 10, 100, 1000)
LINUX = (1, 4, 16, 32)
QUICK_SMALL = SMALL[:3]
QUICK_LINUX = LINUX[:1]
SMALL_MIB = 4
LINUX_MIB = 96
ALARMS = 50
ECHOES = 20
PATIENCE_S = 300.0
PROMPT = "# "

_LATE = re.compile(r"bench: late (\d+)\s")


@dataclass(frozen=True)
class Crowd:
    """A machine with so many domains: how many of the last ones started in a second, KiB of this process's own memory
    that came with each domain (the domains' memory is not the process's own), and the median of how long an answer
    takes: in microseconds, how late an alarm is, or a shell's echo."""

    domains: int
    per_second: float
    own_kib: float
    answer_us: float


def small(marks: tuple[int, ...], engine: str = "unicorn") -> Iterator[Crowd]:
    """Fill a machine with small domains, and measure at each mark."""
    image = kernel("load")

    def start(machine: Machine) -> Domain:
        domain = machine.create(image, cmdline="idle", memory=SMALL_MIB)
        domain.console.expect("bench: idle", PATIENCE_S)
        return domain

    def answer(machine: Machine, domain: Domain) -> float:
        sleeper = machine.create(image, cmdline=f"wake count={ALARMS}", memory=SMALL_MIB)
        text = sleeper.console.expect("bench: end", PATIENCE_S)
        return statistics.median(int(ns) / 1000 for ns in _LATE.findall(text))

    yield from _fill(marks, SMALL_MIB, engine, start, answer)


def linux(marks: tuple[int, ...], say: Callable[[str], None], engine: str = "unicorn") -> Iterator[Crowd]:
    """The same with Linux.

    Raises:
        UserError: Debian's archive cannot be reached, and nothing is in the cache.
    """
    image, ramdisk = obtain("debian-cloud", say).path, cached(obtain("busybox", say).path)

    def start(machine: Machine) -> Domain:
        domain = machine.create(image, ramdisk, cmdline="console=hvc0 quiet", memory=LINUX_MIB)
        domain.console.expect(PROMPT, PATIENCE_S)
        return domain

    def answer(machine: Machine, domain: Domain) -> float:
        return statistics.median(_echo_us(domain, number) for number in range(ECHOES))

    yield from _fill(marks, LINUX_MIB, engine, start, answer)


def _fill(
    marks: tuple[int, ...],
    memory: int,
    engine: str,
    start: Callable[[Machine], Domain],
    answer: Callable[[Machine, Domain], float],
) -> Iterator[Crowd]:
    with Machine(memory=(memory + 1) * (marks[-1] + 1) + 16, pcpus=1, engine=engine) as machine:
        own, count = _own_kib(), 0
        for mark in marks:
            begin, before = time.monotonic(), count
            while count < mark:
                last = start(machine)
                count += 1
            per_second = (count - before) / (time.monotonic() - begin)
            yield Crowd(mark, per_second, (_own_kib() - own) / mark, answer(machine, last))


def _own_kib() -> int:
    """This process's memory that is not a machine's."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) if found else 0


def _echo_us(domain: Domain, number: int) -> float:
    """How long a guest's shell takes for a sum; its echo of what is typed has no such line."""
    begin = time.monotonic()
    domain.console.send(f"echo sum-$((1000+{number}))\n")
    domain.console.expect(f"sum-{1000 + number}\r\n", PATIENCE_S)
    return 1e6 * (time.monotonic() - begin)
