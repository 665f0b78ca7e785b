"""One machine that fills up with idle domains: how fast they start, what each takes beside its memory, and how soon one
answers among so many.

Small domains are one kernel of ours (trapkernel/load.c); Linux is Debian's cloud kernel with a shell.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from paravirt.bench.kernels import kernel
from paravirt.bench.turns import Turns, engine_counters, measure
from paravirt.domain0.toolstack import Domain, Machine
from paravirt.errors import UserError
from paravirt.guestkernels import obtain
from paravirt.initramfs import cached
from paravirt.machine.choice import default_pcpus

SMALL = (1, 10, 100, 1000)
LINUX = (1, 10, 32, 128)
QUICK_SMALL = SMALL[:3]
QUICK_LINUX = LINUX[:1]
SMALL_MIB = 4
LINUX_MIB = 76
"""In 72 the kernel boots just so."""
SPARE_MIB = 1024
"""Of the host's memory, beside the machine's."""
ALARMS = 50
ECHOES = 20
PATIENCE_S = 300.0
PROMPT = "# "

_LATE = re.compile(r"bench: late (\d+)\s")


@dataclass(frozen=True)
class Effort:
    """How long the machine is watched while it is idle, and how many processes guests start by turns."""

    idle_s: float
    starts: int


FULL = Effort(4.0, 256)
QUICK = Effort(0.2, 32)


@dataclass(frozen=True)
class Crowd:
    """A machine with so many domains.

    Attributes:
        per_second: how many of the last ones started in a second.
        own_kib: this process's own memory that came with each domain, beside the domains' memory and the translated
            code.
        code_mib: translated code that the engine keeps.
        answer_us: the median of how long an answer takes: how late an alarm is, or a shell's echo.
        idle_percent: how much of a processor of the host's the machine takes while all its domains are idle.
        turns: what Linux guests pay for taking turns.
    """

    domains: int
    per_second: float
    own_kib: float
    code_mib: float
    answer_us: float
    idle_percent: float
    turns: Turns | None = None

    def figures(self) -> dict[str, float]:
        """By the last part of their rows' names."""
        figures: dict[str, float] = {
            "start": self.per_second,
            "own": self.own_kib,
            "code": self.code_mib,
            "answer": self.answer_us,
            "idle": self.idle_percent,
        }
        if self.turns is not None:
            figures |= {
                "fork_exec": self.turns.start_us,
                "translating": self.turns.translating_percent,
                "forgotten": self.turns.forgotten,
                "flushes": self.turns.flushes_per_update,
            }
            if self.turns.switch_us is not None:
                figures["switch"] = self.turns.switch_us
        return figures


def small(marks: tuple[int, ...], effort: Effort, engine: str = "unicorn") -> Iterator[Crowd]:
    """Fill a machine with small domains, and measure at each mark."""
    image = kernel("load")

    def start(machine: Machine, pcpu: int) -> Domain:
        domain = machine.create(image, cmdline="idle", memory=SMALL_MIB)
        domain.console.expect("bench: idle", PATIENCE_S)
        return domain

    def answer(machine: Machine, domain: Domain) -> float:
        sleeper = machine.create(image, cmdline=f"wake count={ALARMS}", memory=SMALL_MIB)
        text = sleeper.console.expect("bench: end", PATIENCE_S)
        return statistics.median(int(ns) / 1000 for ns in _LATE.findall(text))

    yield from _fill(marks, SMALL_MIB, 1, engine, effort, start, answer)


def linux(
    marks: tuple[int, ...], effort: Effort, say: Callable[[str], None], engine: str = "unicorn"
) -> Iterator[Crowd]:
    """The same with Linux, and what it costs these to take turns; first all that this host has memory for.

    Raises:
        UserError: Debian's archive cannot be reached, and nothing is in the cache; or there is no memory for the rest.
    """
    image, ramdisk = obtain("debian-cloud", say).path, cached(obtain("busybox", say).path)
    room = max(0, _available_mib() - SPARE_MIB) // (LINUX_MIB + 1)
    possible = tuple(mark for mark in marks if mark <= room)

    def start(machine: Machine, pcpu: int) -> Domain:
        domain = machine.create(image, ramdisk, cmdline="console=hvc0 quiet", memory=LINUX_MIB, paused=True)
        domain.pin([pcpu])
        domain.unpause()
        domain.console.expect(PROMPT, PATIENCE_S)
        return domain

    def answer(machine: Machine, domain: Domain) -> float:
        return statistics.median(_echo_us(domain, number) for number in range(ECHOES))

    if possible:
        take_turns = partial(measure, starts=effort.starts)
        yield from _fill(possible, LINUX_MIB, default_pcpus(), engine, effort, start, answer, take_turns)
    if possible != marks:
        raise UserError(f"This host has memory for {room} Linux guests of {LINUX_MIB} MiB, and not for {marks[-1]}.")


def _fill(
    marks: tuple[int, ...],
    memory: int,
    pcpus: int,
    engine: str,
    effort: Effort,
    start: Callable[[Machine, int], Domain],
    answer: Callable[[Machine, Domain], float],
    take_turns: Callable[[Machine, list[Domain]], Turns] | None = None,
) -> Iterator[Crowd]:
    """Domains start as many at a time as there are physical CPUs; when they are measured all are on the first."""
    with Machine(memory=(memory + 1) * (marks[-1] + 1) + 16, pcpus=pcpus, engine=engine) as machine:
        own, domains = _own_kib(), list[Domain]()
        for mark in marks:
            begin, more = time.monotonic(), mark - len(domains)
            with ThreadPoolExecutor(pcpus) as starters:
                domains += starters.map(start, [machine] * more, (number % pcpus for number in range(more)))
            per_second = more / (time.monotonic() - begin)
            for domain in domains:
                domain.pin([0])
            turns = take_turns(machine, domains) if take_turns is not None else None
            answer_us, idle_percent = answer(machine, domains[-1]), _idle_percent(effort.idle_s)
            code = _code_kib(machine)
            own_kib = max(0.0, _own_kib() - own - code) / mark
            yield Crowd(mark, per_second, own_kib, code / 1024, answer_us, idle_percent, turns)


def _idle_percent(seconds: float) -> float:
    """How much of a processor this process takes while nobody asks its machine for anything."""
    begin, before = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return 100 * (time.process_time() - before) / (time.monotonic() - begin)


def _code_kib(machine: Machine) -> float:
    """How much of their buffers for translated code the machine's engines have filled; nothing if they have none."""
    every = [engine_counters(engine) for engine in machine.engines]
    return sum(one["buffer_bytes"] if one["whole_flushes"] else one["kept_bytes"] for one in every) / 1024


def _available_mib() -> int:
    """The host's memory that can be had."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


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
