"""Domains that make random hypercalls (guests/fuzz), and a machine that has to bear it.

What must hold: no exception leaves a handler, no service fails, the audit is clean whenever it is made, and a domain
that ends otherwise than by its own will is one that crashed for its own fault, with a report.
"""

from __future__ import annotations

import hashlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from paravirt import Domain, Machine, ShutdownReason
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.audit import require_clean

DOMAIN_MIB = 12
# Frames with low numbers, and powers of two, are some bystander's: random calls that mean them hit him, if they can,
# and not the caller's own code.
BYSTANDER_MIB = 68
IDLE_AUDITS = 5  # so many audits without a hypercall in between: the domains wait for what will never come
CIRCLES = 10  # times as many hypercalls as a domain was to make: it gets nowhere, returning from traps say


@dataclass
class Counts:
    """How often a sub-operation was asked for, and how often it succeeded."""

    calls: int = 0
    good: int = 0


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        table: by (hypercall, sub-operation).
        calls: calls of domains that ended by themselves.
        hypercalls: all hypercalls that the machine served.
        crashes: (seed, report) of each domain that crashed.
        early: domains that ended without a word.
        audits: how many audits were made, all of them clean.
        seconds: wall time.
    """

    table: dict[tuple[int, int], Counts] = field(default_factory=dict)
    calls: int = 0
    hypercalls: int = 0
    domains: int = 0
    crashes: list[tuple[int, str]] = field(default_factory=list)
    early: int = 0
    audits: int = 0
    seconds: float = 0.0


@contextmanager
def no_traceback() -> Iterator[list[str]]:
    """Collects what handlers and services show as our bugs; they print a traceback and go on."""
    seen: list[str] = []
    show = traceback.print_exc

    def note() -> None:
        seen.append(traceback.format_exc())
        show()

    traceback.print_exc = note  # type: ignore[assignment]
    try:
        yield seen
    finally:
        traceback.print_exc = show


class Fuzzer:
    """One machine with some domains at a time, each with the next seed.

    Args:
        kernel: guests/fuzz, built.
        domains: how many at a time.
        calls_each: calls after which a domain ends.
        audit_every: seconds between audits; also made around the end of each domain.
        say: told about what happens.
    """

    def __init__(
        self,
        kernel: Path,
        *,
        domains: int = 2,
        calls_each: int = 200_000,
        audit_every: float = 1.0,
        deterministic: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.kernel = kernel
        self.count = domains
        self.calls_each = calls_each
        self.audit_every = audit_every
        self.deterministic = deterministic
        self.say = say
        self.outcome = Outcome()
        self._idle = 0
        self._seen = 0
        self._base = 0  # hypercalls of the machine when the last domain began

    def run(self, calls: int, seed: int) -> Outcome:
        """At least ``calls`` calls, the first domain's seed being ``seed``.

        Raises:
            HypervisorBug: something that must hold does not; the message has the seeds.
        """
        started = time.monotonic()
        running: dict[int, Domain] = {}
        memory = BYSTANDER_MIB + self.count * DOMAIN_MIB + 8
        with no_traceback() as bugs, Machine(memory=memory, deterministic=self.deterministic) as machine:
            self._audit_around_ends(machine)
            bystander = machine.create(kernel=self.kernel, memory=BYSTANDER_MIB, name="bystander", paused=True)
            before = _contents(machine, bystander)
            while self.outcome.calls < calls or running:
                while len(running) < self.count and self.outcome.calls < calls:
                    running[seed] = self._start(machine, seed, running)
                    seed += 1
                self._wait(machine, running)
                self._check(machine, bugs, f"with seeds {', '.join(map(str, running))}")
                self._end_idle(machine, running)
                for number in [number for number, domain in running.items() if domain.ended]:
                    self._take(number, running.pop(number))
            self._check(machine, bugs, "at the end")
            if _contents(machine, bystander) != before:
                raise HypervisorBug("the memory of a domain that did nothing has changed")
            self.outcome.hypercalls = sum(count for count, _ in machine.stats()["hypercalls"].values())
        self.outcome.seconds = time.monotonic() - started
        return self.outcome

    def _start(self, machine: Machine, seed: int, running: dict[int, Domain]) -> Domain:
        own = machine.next_domid()
        self._base = self._seen
        peer = next((domain.domid for domain in running.values()), own + 1)
        words = f"seed={seed} calls={self.calls_each} domid={own} peer={peer} fifo={seed % 2}"
        return machine.create(
            kernel=self.kernel, cmdline=words, memory=DOMAIN_MIB, vcpus=2, name=f"seed-{seed}"
        )

    def _wait(self, machine: Machine, running: dict[int, Domain]) -> None:
        """Until one has ended, or it is time for an audit."""
        end = time.monotonic() + self.audit_every
        while time.monotonic() < end and not any(domain.ended for domain in running.values()):
            first = next(iter(running.values()))
            try:
                first.wait(min(0.05, self.audit_every))
            except TimeoutError:
                continue

    def _end_idle(self, machine: Machine, running: dict[int, Domain]) -> None:
        """A domain may have blocked for good, or run in circles: its own affair, but there is no more to come of it."""
        calls = sum(count for count, _ in machine.stats()["hypercalls"].values())
        self._idle = 0 if calls != self._seen else self._idle + 1
        self._seen = calls
        if self._idle >= IDLE_AUDITS or calls - self._base > CIRCLES * self.calls_each * self.count:
            for domain in running.values():
                domain.destroy()

    def _check(self, machine: Machine, bugs: list[str], occasion: str) -> None:
        if bugs:
            raise HypervisorBug(f"an exception reached the machine {occasion}:\n{bugs[0]}")
        with machine.host.lock:
            require_clean(machine.host, occasion)
        self.outcome.audits += 1

    def _audit_around_ends(self, machine: Machine) -> None:
        end = machine._end

        def careful(domain: Domain, reason: ShutdownReason) -> None:
            for when in ("before", "after"):
                if when == "after":
                    end(domain, reason)
                with machine.host.lock:
                    require_clean(machine.host, f"{when} {domain.name} was taken down")
                self.outcome.audits += 1

        machine._end = careful  # type: ignore[method-assign]

    def _take(self, seed: int, domain: Domain) -> None:
        reason = domain.wait(0)
        text = domain.console.output.decode("utf-8", "replace")
        self.outcome.domains += 1
        report = domain.crash_report
        if reason is ShutdownReason.CRASH and (report is None or "crashed" not in report):
            raise HypervisorBug(f"seed {seed}: the domain crashed without a report")
        if report is None and "FAIL unexpected trap" in text:
            report = f"Domain {domain.domid} (seed-{seed}) crashed itself."  # under a code that it had announced
        if report is not None:
            self.outcome.crashes.append((seed, report))
            self.say(f"seed {seed} crashed: {_cause(report, text)}")
        elif "\nTEST fuzz: PASS" not in text.replace("\r", ""):
            # Some random call was the one to shut down, or the console's page is gone.
            self.outcome.early += 1
            self.say(f"seed {seed} ended early, by {reason.name}")
        self._count(text)

    def _count(self, text: str) -> None:
        for line in text.splitlines():
            words = line.split()
            if words[:1] == ["SLOT"] and len(words) == 5:
                op, sub, calls, good = map(int, words[1:])
                if not good <= calls <= self.calls_each + 100 or op > 64:
                    continue  # a domain whose own calls have spoiled its table
                counts = self.outcome.table.setdefault((op, sub), Counts())
                counts.calls += calls
                counts.good += good
                self.outcome.calls += calls


def _contents(machine: Machine, domain: Domain) -> bytes:
    """A hash of all memory of a paused domain."""
    found = hashlib.sha256()
    view = machine.host.domains[domain.domid]
    for mfn in view.p2m:
        found.update(machine.memory.read(int(mfn) << 12, 4096))
    return found.digest()


def _cause(report: str, console: str) -> str:
    said = [line for line in console.splitlines() if line.startswith(("unexpected", "FAILED", "TEST"))]
    return "; ".join([report.splitlines()[0], *said[:2]])


def announce(text: str) -> None:
    """Say something to whoever watches a long run."""
    print(text, file=sys.stderr, flush=True)
