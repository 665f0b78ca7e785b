"""The file that ``paravirt run --stats`` writes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paravirt.errors import UserError


class Milestones:
    """Wall time from the start of this process to each thing worth knowing, in seconds."""

    def __init__(self) -> None:
        self._process_start = _process_start()
        self.times: dict[str, float] = {}

    def reached(self, name: str) -> None:
        """Note a milestone; the first time counts."""
        self.times.setdefault(name, round(_now() - self._process_start, 6))


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _process_start() -> float:
    """When the kernel started this process, on the clock of :func:`_now` (proc(5): field 22 of stat)."""
    stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
    # The name of the program, in parentheses, may hold anything.
    ticks = int(stat.rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def prepare_stats(path: Path) -> None:
    """Find out before the guest runs whether the file could be written, without making it.

    Raises:
        UserError: it could not.
    """
    place = path if path.exists() else path.parent
    if path.is_dir() or not os.access(place, os.W_OK):
        raise UserError(f"The file {path} cannot be written.")


def write_stats(path: Path, stats: Mapping[str, Any], milestones: Milestones) -> None:
    """Write the file, whole or not at all.

    Raises:
        UserError: it cannot be written after all.
    """
    text = json.dumps({"milestones_s": milestones.times, **stats}, indent=2) + "\n"
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # /dev/stderr, a pipe
            return
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"The file {path} cannot be written ({error.strerror}).") from error
