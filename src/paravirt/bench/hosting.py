"""Many domains on one machine: shares, caps, how soon a sleeper wakes, what a switch costs, how much work gets done.

All guests are one kernel of ours (trapkernel/load.c), on machines of their own.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from paravirt.bench.kernels import kernel
from paravirt.domain0.toolstack import Domain, Machine
from paravirt.errors import HypervisorBug

POLICIES = ("credit", "sedf", "bvt")
WEIGHTS = (1, 2, 3, 4)
CAP = 20
SCHED_OP = 29
HOGS = 3
MANY = (2, 8, 32, 128)
MEMORY_MIB = 4
PATIENCE_S = 120.0
LEAD_MS = 200
"""So long after the last domain was made the measured time begins: all run by then."""

_HAD = re.compile(r"bench: had (\d+) did (\d+)\s")
_LATE = re.compile(r"bench: late (\d+)\s")


@dataclass(frozen=True)
class Wakeups:
    """How late alarms came, in microseconds."""

    median_us: float
    p99_us: float


@contextmanager
def _machine(domains: int, engine: str, scheduler: str = "credit", pcpus: int = 1) -> Iterator[Machine]:
    with Machine(memory=(MEMORY_MIB + 1) * domains + 16, pcpus=pcpus, scheduler=scheduler, engine=engine) as machine:
        yield machine


@dataclass(frozen=True)
class Burnt:
    """Of some domains that computed: the part of the time that each had a physical CPU, what they did together, and
    seconds of the host's processors that this process used meanwhile."""

    shares: list[float]
    done: int
    processor_s: float


def burn(machine: Machine, parameters: Sequence[dict[str, int]], seconds: float, vcpus: int = 1) -> Burnt:
    """Have domains of one or two vcpus compute, one for each set of the scheduler's parameters."""
    begin = machine.host.now() // 1_000_000 + LEAD_MS + 10 * len(parameters)
    end = begin + round(1000 * seconds)
    command = f"burn {'both ' * (vcpus - 1)}from={begin} to={end}"
    domains = [
        machine.create(kernel("load"), cmdline=command, memory=MEMORY_MIB, vcpus=vcpus, paused=True) for _ in parameters
    ]
    for domain, values in zip(domains, parameters, strict=True):
        if values:
            domain.sched_set(**values)
        domain.unpause()
    processor_s = -_processor_time(machine, begin) + _processor_time(machine, end)
    found = [_burnt(domain, seconds) for domain in domains]
    for domain in domains:
        domain.destroy()
    return Burnt([share for share, _ in found], sum(done for _, done in found), processor_s)


def _processor_time(machine: Machine, at_ms: int) -> float:
    """This process's use of the host's processors up to a system time."""
    time.sleep(max(0, at_ms / 1000 - machine.host.now() / 1e9))
    return time.process_time()


def _burnt(domain: Domain, seconds: float) -> tuple[float, int]:
    match = _HAD.search(domain.console.expect(" did ", PATIENCE_S + seconds) + domain.console.expect("\n", PATIENCE_S))
    if match is None:
        raise HypervisorBug(f"the benchmark's guest said {bytes(domain.console.output)!r}")
    return int(match[1]) / (seconds * 1e9), int(match[2])


def worst_share(scheduler: str, seconds: float, engine: str = "unicorn") -> float:
    """Domains with weights 1 to 4 that compute: by how many per cent of its share the worst is off."""
    weights = [{"mcuadv": 12 // w} if scheduler == "bvt" else {"weight": w} for w in WEIGHTS]
    with _machine(len(WEIGHTS), engine, scheduler) as machine:
        had = burn(machine, weights, seconds).shares
    shares = [share / sum(had) for share in had]
    return max(100 * abs(s * sum(WEIGHTS) / w - 1) for s, w in zip(shares, WEIGHTS, strict=True))


def cap_error(seconds: float, engine: str = "unicorn") -> float:
    """A domain with a cap that is alone: by how many per cent of the cap its time is off."""
    with _machine(1, engine) as machine:
        (had,) = burn(machine, [{"cap": CAP}], seconds).shares
    return 100 * abs(100 * had / CAP - 1)


def wakeups(scheduler: str, count: int, engine: str = "unicorn") -> Wakeups:
    """How late the alarms of a domain that sleeps are beside others that compute, on one physical CPU."""
    with _machine(HOGS + 1, engine, scheduler) as machine:
        for _ in range(HOGS):
            machine.create(kernel("load"), cmdline="burn from=0 to=1000000000", memory=MEMORY_MIB)
        sleeper = machine.create(kernel("load"), cmdline=f"wake count={count}", memory=MEMORY_MIB)
        if scheduler == "bvt":
            sleeper.sched_set(warpback=1, warpvalue=1000)
        elif scheduler == "sedf":
            sleeper.sched_set(period=10_000_000, slice=1_000_000)
        text = sleeper.console.expect("bench: end", PATIENCE_S)
    late = sorted(int(ns) / 1000 for ns in _LATE.findall(text))
    return Wakeups(statistics.median(late), late[len(late) * 99 // 100])


def switch_us(seconds: float, engine: str = "unicorn") -> tuple[float, float]:
    """What a yield costs that goes to another domain, and one that comes back at once, in microseconds."""
    costs = []
    for domains in (2, 1):
        with _machine(domains, engine) as machine:
            for _ in range(domains):
                machine.create(kernel("load"), cmdline="yield", memory=MEMORY_MIB)
            time.sleep(LEAD_MS / 1000)
            before = machine.stats()
            time.sleep(seconds)
            after = machine.stats()
        yields = after["hypercalls"][SCHED_OP][0] - before["hypercalls"][SCHED_OP][0]
        costs.append(seconds * 1e6 / yields)
    return costs[0], costs[1]


def throughput(seconds: float, domains: int, pcpus: int = 1, engine: str = "unicorn", vcpus: int = 1) -> int:
    """What so many domains that compute, each on one or two vcpus, do together."""
    with _machine(domains, engine, pcpus=pcpus) as machine:
        return burn(machine, [{}] * domains, seconds, vcpus).done


def efficiency(seconds: float, domains: int, engine: str = "unicorn") -> float:
    """The same on one physical CPU for each second of the host's processors, whatever else the host has to do."""
    with _machine(domains, engine) as machine:
        burnt = burn(machine, [{}] * domains, seconds)
    return burnt.done / burnt.processor_s


_NATIVE = """
import time
end, done = time.monotonic() + float(__import__("sys").argv[1]), 0
while time.monotonic() < end:
    for _ in range(2000):
        pass
    done += 1
print(done)
"""


def native_throughput(seconds: float, processes: int) -> int:
    """What so many processes of the host's that compute do together."""
    running = [
        subprocess.Popen([sys.executable, "-c", _NATIVE, str(seconds)], stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return sum(int(process.communicate()[0]) for process in running)
