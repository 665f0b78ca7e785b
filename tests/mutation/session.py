"""A pytest plugin that runs the tests of each mutant, all in one session: `-p tests.mutation.session`.

Each test is run once, in a process of its own, without any mutation: which checks did it make refuse? For each mutant
only those tests are run then, the quickest first, until one fails. A mutant whose check refused nothing in any test
survives without more ado.

The file that `PARAVIRT_MUTANTS` names is shared with the mutated modules: the number of the mutant at work (0: none),
and for each mutant a byte that says whether its check decided something. `PARAVIRT_MUTANT_NUMBERS` names the mutants
to try, and what notices each is written to `PARAVIRT_MUTANT_ANSWERS`.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from ..oracle import kernels

PATIENCE = 60.0  # seconds for the tests of one mutant: one that hangs is noticed too


class _Switch:
    """The memory shared with the mutated modules."""

    def __init__(self) -> None:
        with open(os.environ["PARAVIRT_MUTANTS"], "r+b") as file:  # noqa: PTH123 - read and written in place
            self._page = mmap.mmap(file.fileno(), 1 << 16)

    def choose(self, number: int) -> None:
        self._page[:] = struct.pack("<i", number) + bytes(len(self._page) - 4)

    def decided(self) -> list[int]:
        return [number for number, byte in enumerate(self._page[4:]) if byte]


def _first_failure(items: Sequence[pytest.Item]) -> str | None:
    for item in items:
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=None)):
            return item.nodeid
    return None


def _in_a_child(items: Sequence[pytest.Item]) -> str | None:
    """Run tests in a process of their own: the first that fails, in whatever way, or None."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        failed = None
        try:
            os.setsid()
            failed = _first_failure(items)
        finally:
            os.write(writable, (failed or "none").encode())
            os._exit(0)
    os.close(writable)
    ready, _, _ = select.select([readable], [], [], PATIENCE)
    said = os.read(readable, 4096).decode() if ready else ""
    os.close(readable)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if said == "none":
        return None
    return said or f"{items[0].nodeid} and others ({'the process ended' if ready else 'they did not end'})"


def _build_kernels(items: Sequence[pytest.Item]) -> None:
    """Once for all: each child would build its own."""
    folder = Path(tempfile.mkdtemp(dir=Path(os.environ["PARAVIRT_MUTANTS"]).parent))
    build = kernels.build

    def built(name: str, outdir: Path) -> Path:
        path = folder / name
        return path if path.is_file() else build(name, folder)

    for run in kernels.runs().values():
        built(run.kernel, folder)
    for module in {item.module for item in items if isinstance(item, pytest.Function)}:
        if getattr(module, "kernels", None) is kernels:
            module.kernels = type("Kernels", (), {**vars(kernels), "build": staticmethod(built)})


def _deciding(switch: _Switch, items: Sequence[pytest.Item]) -> dict[int, list[pytest.Item]]:
    """By number, the tests in which a check refuses something; the quickest first."""
    found: dict[int, list[tuple[float, int]]] = {}
    for at, item in enumerate(items):
        switch.choose(0)
        start = time.monotonic()
        failed = _in_a_child([item]) and _in_a_child([item])  # a busy host is forgiven once
        if failed is not None:
            raise pytest.UsageError(f"a test fails without any mutation: {failed}")
        for number in switch.decided():
            found.setdefault(number, []).append((time.monotonic() - start, at))
    return {number: [items[at] for _, at in sorted(tests)] for number, tests in found.items()}


def pytest_runtestloop(session: pytest.Session) -> bool:
    """In place of running each test once."""
    switch = _Switch()
    items = [item for item in session.items if not _is_of_no_use(item)]
    _build_kernels(items)
    deciding = _deciding(switch, items)
    answers: dict[int, Any] = {}
    for number in map(int, os.environ["PARAVIRT_MUTANT_NUMBERS"].split(",")):
        tests = deciding.get(number, [])
        switch.choose(number)
        answers[number] = {"tests": len(tests), "by": _in_a_child(tests) if tests else None}
        print(number, answers[number]["by"] or f"SURVIVES {len(tests)} tests", file=sys.__stderr__, flush=True)
    Path(os.environ["PARAVIRT_MUTANT_ANSWERS"]).write_text(json.dumps(answers), encoding="utf-8")
    return True


def _is_of_no_use(item: pytest.Item) -> bool:
    """What only builds kernels or reads files."""
    return "kernel_builds" in item.name or "has_a_transcript" in item.name or "on_kvm" in item.name
