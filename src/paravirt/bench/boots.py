"""Boots timed from outside: from the start of a fresh ``paravirt run`` to a text on the guest's console."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paravirt.bench.guestprogram import DONE_LINE, INIT_LINE, KERNEL_OPTIONS, Report, parse
from paravirt.domain0.toolstack import Machine
from paravirt.errors import HypervisorBug

MEMORY_MIB = 512
TIMEOUT_S = 180


@dataclass(frozen=True)
class Boot:
    """Seconds from the process's start to the awaited text; of the time in the engine, the part spent in handlers, and
    on KVM the part in which no guest code ran: handlers and the engine's own loop."""

    seconds: float
    handlers_share: float
    own_share: float


def boot(kernel: Path, ramdisk: Path, engine: str = "unicorn") -> Boot:
    """Boot Linux in a fresh process up to the first line of /init.

    Raises:
        HypervisorBug: it did not come so far.
    """
    with tempfile.TemporaryDirectory(prefix="paravirt-bench-") as scratch:
        stats = Path(scratch) / "stats.json"
        arguments = _linux(kernel, ramdisk, engine)
        seconds, _ = _run([*arguments[:-1], "--stats", str(stats), "--expect", INIT_LINE, arguments[-1]], INIT_LINE)
        found: dict[str, Any] = json.loads(stats.read_text(encoding="utf-8"))
    total = found["engine_ns"] or 1
    return Boot(seconds, found["handler_ns"] / total, 1 - found["inside_ns"] / total)


def micro(kernel: Path, ramdisk: Path, engine: str = "unicorn") -> Report:
    """Boot Linux in a fresh process, let it run the program, and read what that printed.

    Raises:
        HypervisorBug: the program did not come to its end.
    """
    _, text = _run(_linux(kernel, ramdisk, engine), DONE_LINE)
    return parse(text)


def hello_process(kernel: Path, engine: str = "unicorn") -> float:
    """Seconds from the start of a fresh process to the first byte on the console of our smallest guest."""
    seconds, _ = _run(["--engine", engine, "--memory", "16", "--timeout", str(TIMEOUT_S), str(kernel)], "")
    return seconds


def hello_domain(machine: Machine, kernel: Path) -> float:
    """Seconds from asking a running machine for a domain to the first byte on its console.

    Raises:
        HypervisorBug: the guest said nothing.
    """
    image = kernel.read_bytes()
    spoke = threading.Event()
    first = [0.0]

    def hear(data: bytes) -> None:
        if data and not spoke.is_set():
            first[0] = time.perf_counter()
            spoke.set()

    begin = time.perf_counter()
    domain = machine.create(image, memory=16, name="bench-hello", paused=True)
    domain.console.listen(hear)
    domain.unpause()
    if not spoke.wait(TIMEOUT_S):
        domain.destroy()
        raise HypervisorBug("the guest hello said nothing")
    domain.wait(TIMEOUT_S)
    return first[0] - begin


def _linux(kernel: Path, ramdisk: Path, engine: str) -> list[str]:
    return [
        "--engine", engine, "--ramdisk", str(ramdisk), "--append", f"console=hvc0 {KERNEL_OPTIONS}",
        "--memory", str(MEMORY_MIB), "--timeout", str(TIMEOUT_S), str(kernel),
    ]  # fmt: skip


def _run(arguments: list[str], awaited: str) -> tuple[float, str]:
    """Run ``paravirt run``: seconds until ``awaited`` (any byte, if it is empty) was there, and all that was said.

    The process gets the time to end by itself, which writes its statistics; then it is ended.
    """
    command = [sys.executable, "-m", "paravirt.cli.main", "run", *arguments]
    text = bytearray()
    seen: float | None = None
    begin = time.perf_counter()
    # A session of its own: no Ctrl-C reaches it before us, and all of it can be ended at once.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            while time.perf_counter() - begin < TIMEOUT_S + 10:
                if not select.select([process.stdout], [], [], 1.0)[0]:
                    continue
                data = os.read(process.stdout.fileno(), 65536)
                text += data
                if seen is None and data and awaited.encode() in text:
                    seen = time.perf_counter() - begin
                if not data:
                    break
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if seen is not None and sys.exc_info()[0] is None:
                    process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        complaint = process.stderr.read().decode(errors="replace").strip()
    if seen is None:
        tail = text[-500:].decode(errors="replace")
        raise HypervisorBug(f"a benchmark's guest never said {awaited!r}: {tail!r} {complaint!r}")
    return seen, text.decode(errors="replace")
