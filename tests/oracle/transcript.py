"""Transcripts: what a kernel answers on real Xen, with who answered and when."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

TRANSCRIPTS = Path(__file__).resolve().parent.parent / "guests" / "transcripts"


@dataclass(frozen=True)
class Transcript:
    """The lines of one run and how the guest ended; ``header`` holds the origin, by name."""

    lines: list[str]
    ended: str
    header: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """As it is stored: the header behind hash signs, the lines, and the end in brackets."""
        head = "".join(f"# {name}: {value}\n" for name, value in self.header.items())
        return head + "".join(f"{line}\n" for line in self.lines) + f"[{self.ended}]\n"

    @classmethod
    def parse(cls, text: str) -> Transcript:
        """The inverse of :meth:`text`. Raises ValueError when the last line is not the end in brackets."""
        lines = text.splitlines()
        header: dict[str, str] = {}
        while lines and lines[0].startswith("# "):
            name, _, value = lines.pop(0)[2:].partition(": ")
            header[name] = value
        if not lines or not (lines[-1].startswith("[") and lines[-1].endswith("]")):
            raise ValueError("a transcript's last line says in brackets how the guest ended")
        ended = lines.pop()[1:-1]
        return cls(lines, ended, header)

    def differences(self, other: Transcript, mine: str, others: str) -> list[str]:
        """A unified difference of everything but the headers; empty when they agree."""
        ours = [*self.lines, f"[{self.ended}]"]
        theirs = [*other.lines, f"[{other.ended}]"]
        return list(difflib.unified_diff(ours, theirs, mine, others, lineterm="", n=2))


def path_of(name: str) -> Path:
    """Where the transcript of a kernel is kept."""
    return TRANSCRIPTS / f"{name}.txt"


def load(name: str) -> Transcript | None:
    """The kept transcript of a kernel, if there is one."""
    path = path_of(name)
    return Transcript.parse(path.read_text(encoding="utf-8")) if path.is_file() else None


def normalised(text: str) -> list[str]:
    """Console output as lines: carriage returns dropped, a last line without an end counted."""
    return text.replace("\r", "").removesuffix("\n").split("\n") if text else []
