"""Figures: what was measured for each row and contender, how they compare, and what was hoped for.

A *contender* is a way of running the same thing; ours is :data:`PARAVIRT`. Costs compare as ratios that are
better when they are smaller, also where a row counts MB/s.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from paravirt.errors import UserError

PARAVIRT = "paravirt"
NATIVE = "native"

MET, MISSED, NOT_JUDGED = "met", "missed", "not judged"


@dataclass
class Sample:
    """The values of one row for one contender, one for each run."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def minimum(self) -> float:
        return min(self.values)

    @property
    def maximum(self) -> float:
        return max(self.values)


@dataclass(frozen=True)
class Target:
    """What paravirt should reach.

    With ``against`` the limit is for the ratio to the first contender whose name holds all of those words;
    without, it is for the value itself, in the row's unit.
    """

    limit: float
    against: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"≤ {self.limit:g} × {' '.join(self.against)}" if self.against else f"≤ {self.limit:g}"


@dataclass
class Row:
    """One line of the table."""

    name: str
    unit: str
    section: str
    meaning: str = ""
    lower_is_better: bool = True
    targets: tuple[Target, ...] = ()
    samples: dict[str, Sample] = field(default_factory=dict)

    def add(self, contender: str, value: float) -> None:
        """Note the value of one run."""
        self.samples.setdefault(contender, Sample()).values.append(value)

    def ratio(self, contender: str) -> float | None:
        """What paravirt pays for each unit that ``contender`` pays; None when one of them was not measured."""
        ours, theirs = self.samples.get(PARAVIRT), self.samples.get(contender)
        if ours is None or theirs is None:
            return None
        above, below = ours.median, theirs.median
        if not self.lower_is_better:
            above, below = below, above
        return above / below if below else None

    def judge(self, target: Target) -> str:
        """Whether one target was met."""
        ours = self.samples.get(PARAVIRT)
        if ours is None:
            return NOT_JUDGED
        if not target.against:
            good = ours.median <= target.limit if self.lower_is_better else ours.median >= target.limit
            return MET if good else MISSED
        for contender in self.samples:
            if all(word in contender for word in target.against):
                ratio = self.ratio(contender)
                if ratio is not None:
                    return MET if ratio <= target.limit else MISSED
        return NOT_JUDGED

    @property
    def verdict(self) -> str:
        """Missed when any target was, met when all that could be judged were."""
        verdicts = {self.judge(target) for target in self.targets}
        for verdict in (MISSED, MET):
            if verdict in verdicts:
                return verdict
        return NOT_JUDGED


@dataclass
class Results:
    """All rows of one run of the suite, and what could not be had."""

    date: str
    host: str
    runs: int
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def contenders(self) -> list[str]:
        """All names, ours first."""
        names = dict.fromkeys(name for row in self.rows for name in row.samples)
        return sorted(names, key=lambda name: name != PARAVIRT)


def as_json(results: Results) -> dict[str, Any]:
    """Everything, as plain data."""
    rows = []
    for row in results.rows:
        samples = {}
        for name, sample in row.samples.items():
            samples[name] = {
                "values": sample.values,
                "median": sample.median,
                "min": sample.minimum,
                "max": sample.maximum,
                "ratio": None if name == PARAVIRT else row.ratio(name),
            }
        rows.append(
            {
                "name": row.name,
                "section": row.section,
                "unit": row.unit,
                "meaning": row.meaning,
                "lower_is_better": row.lower_is_better,
                "targets": [
                    {"limit": t.limit, "against": list(t.against), "verdict": row.judge(t)} for t in row.targets
                ],
                "verdict": row.verdict,
                "samples": samples,
            }
        )
    return {
        "date": results.date,
        "host": results.host,
        "runs": results.runs,
        "skipped": results.skipped,
        "rows": rows,
    }


def write_json(results: Results, path: Path) -> None:
    """Write :func:`as_json` to ``path``.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(as_json(results), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"The file {path} cannot be written ({error.strerror}).") from error


def table(results: Results) -> Table:
    """Medians, with the ratio of ours to each other contender, for a terminal."""
    contenders = results.contenders()
    drawn = Table(title=f"paravirt bench, {results.date}, medians of {results.runs}")
    drawn.add_column("row", no_wrap=True)
    drawn.add_column("unit")
    for name in contenders:
        drawn.add_column(name, justify="right")
    drawn.add_column("target")
    drawn.add_column("verdict")
    section = None
    for row in results.rows:
        if section not in (None, row.section):
            drawn.add_section()
        section = row.section
        targets = ", ".join(map(str, row.targets))
        cells = [_cell(row, name, contenders) for name in contenders]
        drawn.add_row(row.name, row.unit, *cells, targets, row.verdict if row.targets else "")
    return drawn


def _cell(row: Row, contender: str, contenders: Sequence[str]) -> str:
    sample = row.samples.get(contender)
    if sample is None:
        return "-"
    text = number(sample.median)
    ratio = None if contender == PARAVIRT or PARAVIRT not in contenders else row.ratio(contender)
    if ratio is not None:
        text += f" (×{number(ratio)})"
    elif len(sample.values) > 1:
        text += f" ({number(sample.minimum)}..{number(sample.maximum)})"
    return text


def number(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3g}"
