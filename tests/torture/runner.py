"""Random lives of domains on one machine, beside witnesses that must not notice; nothing may be left over."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from paravirt import Domain, Machine, ShutdownReason, UserError
from paravirt.domain0.xlcfg.disks import disk_spec
from paravirt.hypervisor.audit import require_clean
from paravirt.machine.choice import DEFAULT_ENGINE

from ..leftovers import Leftovers
from ..patience import settled
from .guests import (
    CRASHING,
    DISK_MIB,
    LINUX_MIB,
    PAIR,
    SMALL_MIB,
    WITNESS,
    WORKERS,
    Kernels,
    complaint,
    progress,
)

# Wall time is no measure here: this only ends what hangs.
PATIENCE = 300.0
MOST_SMALL = 10
LONGEST_PAUSE_S = 0.05
STEPS_BETWEEN_LOOKS = 60
ACTIONS = ("create", "create", "pair", "hostile", "pause", "unpause", "pin", "spread", "sched", "migrate", "cpu",
           "destroy", "destroy", "linux", "audit")  # fmt: skip
OFTEN = frozenset(("create", "pair", "hostile", "destroy"))
"""What has to happen at least once, however few the steps are and whatever chance has it."""


class Noticed(Exception):
    """A guest noticed something, or something was left over."""


@dataclass(eq=False)
class Subject:
    """A domain that things happen to."""

    domain: Domain
    kind: str
    twin: Subject | None = None
    seen: int = 0
    """How much of its console has been looked at."""
    crashed_by_us: bool = False

    @property
    def runs(self) -> bool:
        return not self.domain.ended


@dataclass
class Counts:
    """What happened."""

    actions: dict[str, int] = field(default_factory=dict)
    widows: int = 0
    work: int = 0

    def count(self, what: str) -> None:
        self.actions[what] = self.actions.get(what, 0) + 1

    def __str__(self) -> str:
        actions = ", ".join(f"{what} {number}" for what, number in sorted(self.actions.items()))
        return f"{actions}; {self.widows} outlived their twins; witnesses did {self.work} rounds of work"


def uncap(domain: Domain) -> None:
    """Let a domain have all the time that it wants, where its pool's scheduler knows of caps."""
    if "cap" in domain.sched_get():
        domain.sched_set(cap=0)


def memory_needed(linux: int) -> int:
    """MiB of a machine for so many Linux guests and all small ones."""
    return (linux + 1) * LINUX_MIB + (MOST_SMALL + 4) * SMALL_MIB + 32


class Torture:
    """Random steps on a machine; the first guest, and the first Linux, are witnesses: they are only moved about."""

    def __init__(self, machine: Machine, kernels: Kernels, folder: Path, seed: int, linux: int = 0) -> None:
        self.machine = machine
        self.kernels = kernels
        self.folder = folder
        self.chance = random.Random(seed)
        self.linux = linux
        self.counts = Counts()
        self.subjects: list[Subject] = []
        self._disks = 0
        self._warm_up()
        self.before, self.process = self.census(), Leftovers()
        self._second_pool()
        self.witnesses = [self._small(WITNESS)]
        if linux:
            self.witnesses.append(self._linux())
        self._work = [0] * len(self.witnesses)

    # --- domains ------------------------------------------------------------------------------------------------

    def _small(self, kernel: str, vcpus: int = 1, cmdline: str = "", paused: bool = False) -> Subject:
        path = self.kernels.small[kernel]
        return Subject(self.machine.create(path, memory=SMALL_MIB, vcpus=vcpus, cmdline=cmdline, paused=paused), kernel)

    def _linux(self) -> Subject:
        self._disks += 1
        disk = self.folder / f"disk-{self._disks}"
        with disk.open("wb") as file:
            file.truncate(DISK_MIB << 20)
        domain = self.machine.create(
            self.kernels.linux, self.kernels.ramdisk, cmdline="console=hvc0 quiet", memory=LINUX_MIB,
            vcpus=self.chance.choice([1, 2, 4]), devices=[disk_spec(disk)],
        )  # fmt: skip
        disk.unlink()  # the backend has it open
        return Subject(domain, "linux")

    def _second_pool(self) -> None:
        """Where there are three physical CPUs or more, some are in a pool of their own."""
        pools = self.machine.cpupools
        if self.machine.host.nr_pcpus > 2:
            for cpu in range(2, self.machine.host.nr_pcpus):
                pools.remove_cpu(pools.find(0), cpu)
            pools.create("second", self.chance.choice(["credit", "sedf", "bvt"]), pools.free_cpus())

    def _pair(self) -> list[Subject]:
        """Two domains that share a page, on different physical CPUs at first."""
        pcpus = self.machine.host.nr_pcpus
        pair = [self._small(PAIR, cmdline=role, paused=True) for role in ("offer", "take")]
        pair[0].twin, pair[1].twin = pair[1], pair[0]
        for place, one in enumerate(pair, self.chance.randrange(pcpus)):
            with contextlib.suppress(UserError):  # it is not in its pool
                one.domain.pin([place % pcpus])
            one.domain.unpause()
        if pair[1].domain.domid != pair[0].domain.domid + 1:  # the numbers began anew, or one was taken
            for one in pair:
                one.domain.destroy()
        return pair

    def _warm_up(self) -> None:
        """What comes into being with the first domain of its kind only."""
        subjects = [self._small(WITNESS), *self._pair()]
        if self.linux:
            subjects.append(self._linux())
        for one in subjects:
            one.domain.console.expect("wrong 0", PATIENCE)
            one.domain.destroy()

    # --- steps --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Do something to some domain, and look whether anybody noticed."""
        self._look()
        self.subjects = [one for one in self.subjects if one.runs or self._is_widow(one)]
        what = self.chance.choice(ACTIONS)
        if len(self.subjects) < 2:
            what = "create"
        if what in ("create", "hostile", "pair", "linux"):
            if self._make(what):
                self.counts.count(what)
            return
        self.counts.count(what)
        if what == "audit":
            with self.machine.host.lock:
                require_clean(self.machine.host, "in between")
        elif what == "cpu":
            self._move_cpu()
        else:
            with contextlib.suppress(UserError):  # it ended by itself just now, or its pool does not let it
                self._change(what)

    def _make(self, what: str) -> bool:
        """Make a domain, or two, unless there are enough."""
        if what == "linux":
            if sum(one.kind == "linux" for one in self.subjects) >= self.linux - 1:
                return False
            self.subjects.append(self._linux())
        elif len(self.subjects) >= MOST_SMALL:
            return False
        elif what == "pair":
            self.subjects += self._pair()
        elif what == "hostile":
            self.subjects.append(self._small("hostile", cmdline=self.chance.choice(CRASHING)))
        else:
            kind = self.chance.choice(list(WORKERS))
            self.subjects.append(self._small(kind, WORKERS[kind], paused=self.chance.random() < 0.2))
        return True

    def _change(self, what: str) -> None:
        pcpus = self.machine.host.nr_pcpus
        moved_only = what in ("pin", "spread", "sched", "migrate", "unpause")
        one = self.chance.choice([*self.witnesses, *self.subjects] if moved_only else self.subjects)
        if not one.runs or (self._is_widow(one) and not moved_only):
            return
        if what == "pin":
            one.domain.pin([self.chance.randrange(pcpus)])
        elif what == "spread":
            one.domain.pin(range(pcpus))
        elif what == "migrate":
            self.machine.cpupools.migrate(one.domain, self.chance.choice(self.machine.cpupools.all()))
        elif what == "sched":
            one.domain.sched_set(weight=self.chance.randint(1, 1000), cap=self.chance.choice([0, 0, 30]))
        elif what == "destroy":
            self._end(one)
        else:
            getattr(one.domain, what)()

    def _move_cpu(self) -> None:
        """Take a physical CPU out of one pool, and put it into the other, unless the first one needs it."""
        pools = self.machine.cpupools
        if len(pools.all()) < 2:
            return
        source, target = self.chance.sample(pools.all(), 2)
        if not source.cpus:  # all went to the other one while no domain was here
            source, target = target, source
        with contextlib.suppress(UserError):
            cpu = self.chance.choice(source.cpus)
            pools.remove_cpu(source, cpu)
            pools.add_cpu(target, cpu)

    def _end(self, one: Subject) -> None:
        """Destroy it; Linux, as often, crashes."""
        if one.kind == "linux" and progress(one.domain.console.output) and self.chance.random() < 0.5:
            one.crashed_by_us = True
            path = f"/local/domain/{one.domain.domid}/control/sysrq"
            self.machine.call(lambda: self.machine.store.set(path, "c"))
            one.domain.unpause()
            self.counts.count("panic")
        else:
            one.domain.destroy()

    @staticmethod
    def _is_widow(one: Subject) -> bool:
        """Whether it worked with a domain that has ended, and so has to end by itself, without a complaint."""
        return one.twin is not None and not one.twin.runs and progress(one.domain.console.output) > 0

    def _leave_one_alone(self) -> None:
        """One widow at least there has to be, however seldom pairs had begun when one of the two ended."""
        pair = self._pair()
        while not all(one.runs for one in pair):
            pair = self._pair()
        wait_for(lambda: all(progress(one.domain.console.output) for one in pair), "a pair works")
        pair[0].domain.destroy()
        self.subjects = pair[1:]
        self._see_off(pair[1])

    # --- looking ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read what is new on all consoles; see to it that those who are alone end.

        Raises:
            Noticed: there is a complaint, or a witness has ended.
        """
        for one in [*self.witnesses, *self.subjects]:
            output = one.domain.console.output
            wrong = complaint(output[max(0, one.seen - 200) :])
            if wrong and not one.crashed_by_us:
                raise Noticed(f"{one.kind}, domain {one.domain.domid}: {wrong}")
            one.seen = len(output)
        for one in self.witnesses:
            if not one.runs:
                raise Noticed(f"a witness, {one.kind}, ended: {one.domain.crash_report or one.domain.console.tail()}")
        for one in list(self.subjects):
            if self._is_widow(one):
                self._see_off(one)

    def _see_off(self, widow: Subject) -> None:
        """Wait for the end of one whose twin has ended."""
        self.subjects.remove(widow)
        with contextlib.suppress(UserError):  # it has ended already
            while widow.domain.control(lambda view: view.is_paused):
                widow.domain.unpause()
            uncap(widow.domain)
        reason = widow.domain.wait(PATIENCE)
        said = widow.domain.console.tail()
        if reason is ShutdownReason.POWEROFF and "TEST pair: PASS" in said:
            self.counts.widows += 1
        elif reason is not ShutdownReason.DESTROYED:
            raise Noticed(f"domain {widow.domain.domid}, which was left alone, ended by {reason.name}: {said}")

    def look_at_witnesses(self) -> None:
        """Wait until each witness has worked on, unhindered."""
        for number, one in enumerate(self.witnesses):
            uncap(one.domain)
            one.domain.unpause()
            done = progress(one.domain.console.output)
            wait_for(lambda: progress(one.domain.console.output) > done + 1 or not one.runs, "a witness works")  # noqa: B023
            self._work[number] = progress(one.domain.console.output)
        self.counts.work = sum(self._work)
        self._look()

    def census(self) -> dict[str, object]:
        """What can leak."""
        with self.machine.host.lock:
            free = self.machine.host.free_frames
        return {
            "free frames": free,
            "store nodes": sorted(self.machine.call(lambda: list(self._nodes("/")))),
            "zombies": list(self.machine.host.zombies),
        }

    def _nodes(self, path: str) -> list[str]:
        found = []
        for name in self.machine.store.directory(path):
            inner = f"{path.rstrip('/')}/{name}"
            found += [inner, *self._nodes(inner)]
        return found

    def finish(self) -> None:
        """End all domains, and look for what is left.

        Raises:
            Noticed: something leaked.
        """
        self.look_at_witnesses()
        for one in self.subjects:
            one.domain.destroy()
        self._leave_one_alone()
        for one in self.witnesses:
            one.domain.destroy()
        for pool in self.machine.cpupools.all()[1:]:
            self.machine.cpupools.destroy(pool)
        with self.machine.host.lock:
            require_clean(self.machine.host, "at the end")
        after = settled(self.census, self.before)
        left = {what: (value, after[what]) for what, value in self.before.items() if after[what] != value}
        if left:
            raise Noticed(f"left over (before, after): {left}")
        # Threads are looked at when the machine is gone: the pool of Domain 0's may have grown.
        if still_open := self.process.stay(threads=False):
            raise Noticed(f"left over: {still_open}")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return when a condition holds.

    Raises:
        Noticed: it does not, for all our patience.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Noticed(f"it never came about that {what}")
        time.sleep(0.01)


def torture(
    kernels: Kernels, folder: Path, *, pcpus: int, seed: int, linux: int = 0, engine: str = DEFAULT_ENGINE,
    steps: int = 0, seconds: float = 0.0, say: Callable[[str], None] = lambda text: None,
) -> Counts:  # fmt: skip
    """Make a machine suffer for so many steps, or so long, and until all of it has happened that is to happen often.

    Raises:
        Noticed: somebody noticed, or something leaked.
        HypervisorBug: an audit found something.
    """
    process = Leftovers()
    with Machine(memory=memory_needed(linux), pcpus=pcpus, engine=engine) as machine:
        subject = Torture(machine, kernels, folder, seed, linux)
        end = time.monotonic() + seconds
        done = 0
        while done < steps or time.monotonic() < end or not subject.counts.actions.keys() >= OFTEN:
            subject.step()
            done += 1
            time.sleep(subject.chance.random() * LONGEST_PAUSE_S)
            if done % STEPS_BETWEEN_LOOKS == 0:
                subject.look_at_witnesses()
                say(f"{done} steps: {subject.counts}")
        subject.finish()
    if left := process.stay():
        raise Noticed(f"left by the machine: {left}")
    return subject.counts
