"""One run of a kernel on real Xen, under emulation: what it printed and how it ended."""

from __future__ import annotations

import os
import re
import selectors
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paravirt.bench.peers.packages import Qemu, Xen

_STOP = re.compile(rb"^launch: .*\n|rebooting machine|Reboot in|Panic on CPU|Manual reset", re.MULTILINE)
_GUEST_LINE = "| "
_ENDED = "launch: guest ended: "


ENDS = ("poweroff", "reboot", "suspend", "crash", "watchdog", "soft_reset")
"""How a domain can end, in the order of Xen's numbers (SHUTDOWN_*)."""

_REASON = re.compile(r"^\(XEN\) (d1v\d+ .*|domain_crash.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """A kernel's console, line by line; its end ("poweroff", "crash", "timeout"...); all that Xen printed."""

    lines: list[str]
    ended: str
    log: str

    @property
    def reason(self) -> str:
        """What Xen said when it ended the guest, addresses left out; empty when it said nothing."""
        return "; ".join(re.sub(r" ?\b[0-9a-f]{16}\b ?", " ", text) for text in _REASON.findall(self.log))


@dataclass(frozen=True)
class Setting:
    """How a kernel is to be run: memory in MiB, the number of vcpus, the command line, how it should end.

    ``beside`` is the command line of another domain with the same kernel, made just before; empty for none.
    """

    memory: int = 32
    vcpus: int = 1
    cmdline: str = ""
    ended: str = "poweroff"
    beside: str = ""

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Words like ``vcpus=2``; what is not said has its default. Raises TypeError for an unknown word."""
        given = dict(word.split("=", 1) for word in shlex.split(text, comments=True))
        known = cls()
        return cls(
            memory=int(given.pop("memory", known.memory)),
            vcpus=int(given.pop("vcpus", known.vcpus)),
            cmdline=given.pop("cmdline", known.cmdline),
            ended=given.pop("ended", known.ended),
            beside=given.pop("beside", known.beside),
            **given,
        )


def settings(guest: Path) -> dict[str, Setting]:
    """How the kernel in a folder is to be run, from its file ``run``; no file stands for the defaults.

    The file is one setting, named by the empty text, or one setting a line behind a name and a colon.
    """
    file = guest / "run"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    named = {}
    for line in lines:
        name, colon, words = line.partition(": ")
        if not colon:
            return {"": Setting.parse("\n".join(lines))}
        named[name] = Setting.parse(words)
    return named or {"": Setting()}


def boot(xen: Xen, qemu: Qemu, launch: Path, kernel: Path, setting: Setting, timeout: float = 60) -> Answer:
    """Boot Xen with ``launch`` as its control domain, which runs ``kernel`` as an unprivileged guest.

    ``timeout`` is in seconds of wall time; a guest that has not ended by then has ended by "timeout".
    """
    guest = f"mem={setting.memory} vcpus={setting.vcpus} -- {setting.cmdline}"
    command = [
        *qemu.command(), "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-accel", "tcg", "-cpu", "max,-smap", "-smp", "1", "-M", "q35", "-m", str(192 + setting.memory),
        "-kernel", str(xen.image),
        "-append", "console=com1 com1=115200,8n1 dom0_mem=64M loglvl=all guest_loglvl=all",
        # QEMU splits the list at commas; a comma inside a name or an argument is doubled.
        "-initrd", f"{launch} {guest}".replace(",", ",,") + "," + str(kernel).replace(",", ",,"),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            env={**os.environ, **qemu.environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            log = _read_until_stop(process, timeout)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        errors.seek(0)
        log += errors.read()
    return _parse(log.decode("utf-8", "replace").replace("\r", ""))


def _read_until_stop(process: subprocess.Popen[bytes], timeout: float) -> bytes:
    """What the machine prints until it stops, is stopped, or the time is over."""
    if process.stdout is None:
        raise ValueError("the process must write to a pipe")
    deadline = time.monotonic() + timeout
    log = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not _STOP.search(log, max(0, len(log) - 8192)):
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                break
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            log += chunk
    return log


def read_lines(process: subprocess.Popen[bytes], timeout: float) -> Iterator[str]:
    """The whole lines that the machine prints, as they come, until it stops or the time is over."""
    if process.stdout is None:
        raise ValueError("the process must write to a pipe")
    deadline = time.monotonic() + timeout
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", "replace").rstrip("\r")


def _parse(log: str) -> Answer:
    lines: list[str] = []
    ended = "timeout"
    for line in log.splitlines():
        if line.startswith(_GUEST_LINE.rstrip()) and line[:2].rstrip() == "|":
            lines.append(line.removeprefix(_GUEST_LINE) if line != "|" else "")
        elif line.startswith(_ENDED):
            ended = line.removeprefix(_ENDED)
        elif line.startswith("launch: "):
            ended = line
    return Answer(lines, ended, log)
