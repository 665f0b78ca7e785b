"""Sessions: commands of Xen's toolstack, what they printed in dom0 of real Xen, and their statuses, as files.

A file says how many physical CPUs the machine has, and holds commands behind "$ "; below each one are the lines of its
standard output, those of its standard error behind "2> ", and its status in brackets. A command with nothing below it
waits to be captured::

    # physical CPUs: 1
    $ xl domid nobody
    2> Can't get domid of domain name 'nobody', maybe this domain does not exist.
    [1]

``scripts/oracle --golden`` runs the commands in a dom0 and writes what came of them. Every session begins with a fresh
boot, in a folder with the configuration files of :data:`SESSIONS` and the kernels of :data:`KERNELS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SESSIONS = Path(__file__).parent / "golden" / "sessions"
KERNELS = ("hello", "hostile", "idle")

_CPUS = "# physical CPUs: "
_STATUS = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True)
class Step:
    """One command; ``status`` is None as long as it was never run."""

    command: str
    output: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    status: int | None = None

    def text(self) -> str:
        """As it is stored."""
        lines = [f"$ {self.command}", *self.output, *(f"2> {line}".rstrip() for line in self.errors)]
        if self.status is not None:
            lines.append(f"[{self.status}]")
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class Session:
    """What a file holds."""

    cpus: int
    steps: tuple[Step, ...]

    def text(self) -> str:
        """As it is stored."""
        return f"{_CPUS}{self.cpus}\n" + "".join(step.text() for step in self.steps)

    @classmethod
    def parse(cls, text: str) -> Session:
        """The inverse of :meth:`text`. Raises ValueError where a line belongs to no command."""
        first, _, rest = text.partition("\n")
        if not first.startswith(_CPUS):
            raise ValueError(f"a session begins with {_CPUS!r}")
        return cls(int(first.removeprefix(_CPUS)), tuple(_steps(rest)))


def _steps(text: str) -> list[Step]:
    steps: list[Step] = []
    output: list[str] = []
    errors: list[str] = []
    command = ""
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                steps.append(Step(command))
            command = line[2:]
        elif not command:
            raise ValueError(f"this line belongs to no command: {line!r}")
        elif match := _STATUS.fullmatch(line):
            steps.append(Step(command, tuple(output), tuple(errors), int(match[1])))
            command, output, errors = "", [], []
        elif line.startswith("2>"):
            errors.append(line[3:])
        else:
            output.append(line)
    return [*steps, Step(command)] if command else steps


def names() -> list[str]:
    """All sessions."""
    return sorted(path.stem for path in SESSIONS.glob("*.txt"))


def path_of(name: str) -> Path:
    """Where a session is kept."""
    return SESSIONS / f"{name}.txt"


def load(name: str) -> Session:
    """A session."""
    return Session.parse(path_of(name).read_text(encoding="utf-8"))


def configurations() -> dict[str, Path]:
    """By name, the configuration files that the commands can use."""
    return {path.name: path for path in sorted(SESSIONS.glob("*.cfg"))}
