"""A guest in the foreground: its console on our standard streams, the steps, the end and its exit status.

Three threads share the work. The main one does the steps and then waits for the guest's end, so that Ctrl-C
reaches it; one copies the console to standard output, one standard input to the console.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import click

from paravirt.cli.info import require_platform
from paravirt.cli.stats import Milestones, write_stats
from paravirt.cli.steps import Expect, Step
from paravirt.domain0.console import ConsoleClosed, ConsoleTimeout
from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.net.options import NetworkOptions
from paravirt.domain0.toolstack import Domain, Machine, ShutdownReason
from paravirt.errors import UserError
from paravirt.machine.choice import DEFAULT_ENGINE
from paravirt.terminal import keyboard, write_all

POWERED_OFF, CRASHED, REBOOTED, TIMED_OUT, READER_GONE = 0, 1, 3, 124, 141
_WORDS = {
    ShutdownReason.SUSPEND: "the guest suspended itself, and cannot be resumed yet",
    ShutdownReason.WATCHDOG: "the guest's watchdog ended it",
    ShutdownReason.SOFT_RESET: "the guest asked for a soft reset, which is not supported",
}
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
        self._write_error: OSError | None = None
        self._last_words: list[str] = []
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
        engine: str = DEFAULT_ENGINE,
        devices: Sequence[DeviceSpec] = (),
        network: NetworkOptions | None = None,
    ) -> int:
        """Boot a guest with ``memory`` MiB, stay with it, and return the exit status.

        Raises:
            UserError: a file or a number cannot be used, or standard output cannot be written.
        """
        require_platform()
        with interruptible(), Machine(memory=memory, engine=engine, network=network) as machine:
            self.milestones.reached("machine")
            if machine.engine_notice:
                click.echo(f"paravirt: {machine.engine_notice}", err=True)
            domain = machine.create(
                kernel, ramdisk, cmdline, memory=memory, vcpus=vcpus, name=name, paused=True, devices=devices
            )
            self.milestones.reached("created")
            try:
                status = self._attend(domain)
            finally:
                domain.destroy()
                if self._stats is not None:
                    write_stats(self._stats, machine.stats(), self.milestones)
        if self._write_error is None:
            return status
        if self._write_error.errno == errno.EPIPE:
            return READER_GONE
        raise UserError(f"Standard output cannot be written ({self._write_error.strerror}).")

    def _attend(self, domain: Domain) -> int:
        """Start the guest and stay until it ends, or until it has done what was expected."""
        copier = threading.Thread(target=self._copy_output, args=(domain,), name="output", daemon=True)
        # The console calls its listeners in Domain 0's thread, which must not wait for our reader.
        domain.console.listen(self._take)
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
        # The terminal is itself again.
        if domain.crash_report:
            click.echo(f"\n{domain.crash_report.rstrip()}", err=True)
        for words in self._last_words:
            click.echo(f"paravirt: {words}", err=True)
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
                return self._timed_out()
            except ConsoleClosed:
                reason = domain.wait()
                if reason is ShutdownReason.POWEROFF:
                    self._last_words.append(f"the guest powered off before it said {step.text!r}")
                    return CRASHED
                return self._status(reason)
            self.milestones.reached(f"step {number + 1}: {step.text}")
        return POWERED_OFF if self._ends_with_expectation else None

    def _wait(self, domain: Domain) -> int:
        try:
            reason = domain.wait(self._left())
        except TimeoutError:
            return self._timed_out()
        return self._status(reason)

    def _status(self, reason: ShutdownReason) -> int:
        if reason in _WORDS:
            self._last_words.append(_WORDS[reason])
        return _STATUS.get(reason, CRASHED)

    def _timed_out(self) -> int:
        self._last_words.append("the time is over")
        return TIMED_OUT

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _take(self, data: bytes) -> None:
        self.milestones.reached("first output")
        self._output.put(data)

    def _copy_output(self, domain: Domain) -> None:
        """Console to standard output, from byte 0 until None comes."""
        while (data := self._output.get()) is not None:
            if self._write_error is not None:
                continue
            try:
                write_all(sys.stdout.fileno(), data)
            except OSError as error:
                self._write_error = error
                domain.destroy()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a session as Ctrl-C does: with the terminal set back."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number))

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
