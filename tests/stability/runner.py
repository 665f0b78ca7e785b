"""The two runs: boots in a row, and hours of work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from paravirt import Domain, Machine, ShutdownReason

from ..hypervisor.audited import audited, check
from ..leftovers import Leftovers
from .guest import BOOTED, MEMORY_MIB, Guest, booting, complaint, last_report, sharing, working

# Wall time is no measure here: this only ends what hangs.
PATIENCE_S = 600.0
LOOK_EVERY_S = 0.25
GAP_S = 5.0
"""A look that comes so late says that the host stopped this process, and the guest with it."""
EXCUSED_S = 60.0
DEBT = 20
"""To Linux, the process that was running then has had all that time: the others, of which each has a part, go first."""
SAY_EVERY_S = 60.0
AUDIT_EVERY_S = 60.0
SPINNER_MIB = 16

Say = Callable[[str], None]


class Unstable(Exception):
    """A guest complained, hung, or ended as it should not."""


def boots(engine: str, count: int, say: Say) -> None:
    """Boot Linux ``count`` times on one machine; each powers off by itself, and nothing is left over.

    Raises:
        Unstable: a boot went wrong, or something is left over.
        HypervisorBug: an audit found something.
    """
    guest = booting()
    with Machine(memory=MEMORY_MIB + 64, pcpus=1, engine=engine) as machine, audited(machine):
        for number in range(1, count + 1):
            begin = time.monotonic()
            _boot(machine, guest)
            say(f"boot {number} of {count}: {time.monotonic() - begin:.1f} s")
            if number == 1:
                free, process = machine.host.free_frames, Leftovers()
            elif machine.host.free_frames != free:
                raise Unstable(f"after boot {number} there are {machine.host.free_frames} free frames, and not {free}")
            elif left := process.stay():
                raise Unstable(f"after boot {number} there is: {left}")


def _boot(machine: Machine, guest: Guest) -> None:
    domain = machine.create(guest.kernel, guest.ramdisk, "console=hvc0", memory=MEMORY_MIB)
    reason = domain.wait(PATIENCE_S)
    output = domain.console.output
    domain.destroy()
    if wrong := complaint(output):
        raise Unstable(f"a guest said: {wrong}")
    if reason is not ShutdownReason.POWEROFF or BOOTED.encode() not in output:
        raise Unstable(f"a guest ended by {reason.name}: {output[-500:]!r}")


def work(engine: str, seconds: float, spinner: Path, say: Say) -> str:
    """Let Linux work for so long beside the kernel ``spinner``, on one physical CPU: what it has done.

    Raises:
        Unstable: the guest complained, hung or ended.
        HypervisorBug: an audit found something.
    """
    guest = working()
    memory = MEMORY_MIB + SPINNER_MIB + 64
    with Machine(memory=memory, pcpus=1, engine=engine) as machine, audited(machine):
        machine.create(spinner, cmdline="loop", memory=SPINNER_MIB, name="spinner")
        domain = machine.create(guest.kernel, guest.ramdisk, "console=hvc0", memory=MEMORY_MIB, name="worker")
        return _watch(machine, domain, seconds, say)


def share(engine: str, seconds: float, say: Say) -> str:
    """Let threads share memory in a Linux of two vcpus, on two physical CPUs, for so long: what was done.

    Raises:
        Unstable: the guest complained, hung or ended.
        HypervisorBug: an audit found something.
    """
    guest = sharing()
    with Machine(memory=MEMORY_MIB + 64, pcpus=2, engine=engine) as machine, audited(machine):
        domain = machine.create(guest.kernel, guest.ramdisk, "console=hvc0", memory=MEMORY_MIB, vcpus=2, name="sharing")
        return _watch(machine, domain, seconds, say)


def _watch(machine: Machine, domain: Domain, seconds: float, say: Say) -> str:
    watch = Watch(machine, domain, say)
    end = time.monotonic() + seconds
    while time.monotonic() < end or not watch.report:
        watch.look()
        time.sleep(LOOK_EVERY_S)
    return watch.report


class Watch:
    """Looks at a working guest again and again."""

    def __init__(self, machine: Machine, domain: Domain, say: Say) -> None:
        self.machine = machine
        self.domain = domain
        self.say = say
        self.report = ""
        self._position = 0
        self._rest = b""
        now = time.monotonic()
        self._looked = self._said = self._audited = now
        self._excused_until = self._stood_still_s = 0.0
        self._counts = {"forks": ("", now)}

    def look(self) -> None:
        """Read what the guest has said since the last look.

        Raises:
            Unstable: it complained, has done nothing for long, or ended.
            HypervisorBug: an audit found something.
        """
        now = time.monotonic()
        if now - self._looked > GAP_S:
            self.say(f"the host let this process stand still for {now - self._looked:.0f} s")
            self._excused_until = now + EXCUSED_S
            self._stood_still_s += now - self._looked
        self._looked = now
        self._read(now < self._excused_until)
        if self.domain.ended:
            raise Unstable(f"the guest ended: {self.domain.console.tail()}")
        for name, (_, since) in self._counts.items():
            if now - since > PATIENCE_S + DEBT * self._stood_still_s:
                raise Unstable(f"{name} has not counted for {now - since:.0f} s: {self.report}")
        if now - self._audited > AUDIT_EVERY_S:
            check(self.machine, "while the guest works")
            self._audited = now
        if now - self._said > SAY_EVERY_S:
            self.say(self.report)
            self._said = now

    def _read(self, late_is_excused: bool) -> None:
        data, self._position, _ = self.domain.console.since(self._position, 1 << 20)
        text = self._rest + data
        whole, self._rest = text[: text.rfind(b"\n") + 1], text[text.rfind(b"\n") + 1 :]
        if wrong := complaint(whole, late_is_excused):
            raise Unstable(f"the guest said: {wrong}\n{self.domain.console.tail(4000)}")
        report = last_report(whole)
        if not report:
            return
        self.report = report
        for name, count in (word.split("=") for word in report.split()):
            if self._counts.get(name, ("", 0.0))[0] != count:
                self._counts[name] = count, time.monotonic()
