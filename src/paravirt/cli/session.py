"""A guest in the foreground: its console on our standard streams, the steps, the end and its exit status.

Three threads share the work. The main one does the steps and then waits for the guest's end, so that Ctrl-C
reaches it; one copies the console to standard output, one standard input to the console.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import click

from paravirt.cli.keyboard import keyboard
from paravirt.cli.stats import Milestones, write_stats
from paravirt.cli.steps import Expect, Step
from paravirt.domain0.console import ConsoleClosed, ConsoleTimeout
from paravirt.domain0.toolstack import Domain, Machine, ShutdownReason

POWERED_OFF, CRASHED, REBOOTED, TIMED_OUT, READER_GONE = 0, 1, 3, 124, 141
_STATUS = {
    ShutdownReason.POWEROFF: POWERED_OFF,
    ShutdownReason.SUSPEND: POWERED_OFF,
    ShutdownReason.REBOOT: REBOOTED,
    ShutdownReason.DESTROYED: POWERED_OFF,  # with Ctrl-]
}


class Session:
    """One guest from its start to its end.

    ``steps`` are done in order. ``timeout`` is in seconds, for the whole session. ``listen`` says whether
    standard input goes to the guest; by default it does unless the last step is an expectation, so that a
    script's loop keeps its own input.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        timeout: float | None = None,
        stats: Path | None = None,
        listen: bool | None = None,
    ) -> None:
        self._steps = steps
        self._ends_with_expectation = bool(steps) and isinstance(steps[-1], Expect)
        self._listen = not self._ends_with_expectation if listen is None else listen
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._stats = stats
        self._reader_gone = False
        self._output: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.milestones = Milestones()

    def run(
        self,
        kernel: Path,
        ramdisk: Path | str | None,
        cmdline: str,
        memory: int,
        vcpus: int,
        name: str,
    ) -> int:
        """Boot a guest with ``memory`` MiB, stay with it, and return the exit status.

        Raises:
            UserError: a file or a number cannot be used.
        """
        with Machine(memory=memory) as machine:
            self.milestones.reached("machine")
            domain = machine.create(
                kernel, ramdisk, cmdline, memory=memory, vcpus=vcpus, name=name, paused=True
            )
            self.milestones.reached("created")
            try:
                status = self._attend(domain)
            finally:
                domain.destroy()
                if self._stats is not None:
                    write_stats(self._stats, machine.stats(), self.milestones)
        return READER_GONE if self._reader_gone else status

    def _attend(self, domain: Domain) -> int:
        """Start the guest and stay until it ends, or until it has done what was expected."""
        copier = threading.Thread(target=self._copy_output, args=(domain,), name="output", daemon=True)
        # The console calls its listeners in Domain 0's thread, which must not wait for our reader.
        domain.console.listen(self._output.put)
        copier.start()
        with contextlib.ExitStack() as stack:
            if self._listen:
                stack.enter_context(keyboard(domain.console.send, domain.destroy))
            domain.unpause()
            status = self._do_steps(domain)
            if status is None:
                status = self._wait(domain)
            self.milestones.reached("end")
            domain.destroy()
            self._output.put(None)
            copier.join()
        self._say_how_it_ended(domain, status)
        return status

    def _do_steps(self, domain: Domain) -> int | None:
        """Do every step; the exit status when that settles it, else None."""
        for number, step in enumerate(self._steps):
            if not isinstance(step, Expect):
                domain.console.send(step.data)
                continue
            try:
                domain.console.expect(step.text, timeout=self._left())
            except ConsoleTimeout:
                return TIMED_OUT
            except ConsoleClosed:
                reason = domain.wait()
                if reason is ShutdownReason.POWEROFF:
                    click.echo(f"paravirt: the guest powered off before it said {step.text!r}", err=True)
                    return CRASHED
                return _STATUS.get(reason, CRASHED)
            self.milestones.reached(f"step {number + 1}: {step.text}")
        return POWERED_OFF if self._ends_with_expectation else None

    def _wait(self, domain: Domain) -> int:
        try:
            reason = domain.wait(self._left())
        except TimeoutError:
            return TIMED_OUT
        return _STATUS.get(reason, CRASHED)

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _say_how_it_ended(self, domain: Domain, status: int) -> None:
        if domain.crash_report:
            click.echo(f"\n{domain.crash_report.rstrip()}", err=True)
        elif status == TIMED_OUT:
            click.echo("paravirt: the time is over", err=True)

    def _copy_output(self, domain: Domain) -> None:
        """Console to standard output, from byte 0 until None comes."""
        while (data := self._output.get()) is not None:
            self.milestones.reached("first output")
            if self._reader_gone:
                continue
            try:
                write_all(sys.stdout.fileno(), data)
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                self._reader_gone = True
                domain.destroy()


def write_all(fd: int, data: bytes) -> None:
    """All of it, however little the file takes at a time."""
    while data:
        data = data[os.write(fd, data) :]
