"""Figures: what was measured for each row and contender, how they compare, and what was hoped for.

A *contender* is a way of running the same thing; ours are those in :data:`OURS`. Costs compare as ratios that are
better when they are smaller, also where a row counts MB/s.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from paravirt.errors import UserError

PARAVIRT = "paravirt"
KVM = "paravirt (KVM)"
OURS = {"unicorn": PARAVIRT, "kvm": KVM}
"""Our contenders, by their CPU engine."""
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
    """What paravirt should reach, on the engine of the contender ``of``.

    With ``against`` the limit is for the ratio to the first contender whose name holds all of those words;
    without, it is for the value itself, in the row's unit.
    """

    limit: float
    against: tuple[str, ...] = ()
    of: str = PARAVIRT

    def __str__(self) -> str:
        text = f"≤ {self.limit:g} × {' '.join(self.against)}" if self.against else f"≤ {self.limit:g}"
        return text if self.of == PARAVIRT else f"{text} ({_short(self.of)})"


@dataclass
class Row:
    """One line of the table."""

    name: str
    unit: str
    section: str
    meaning: str = ""
    lower_is_better: bool = True
    targets: tuple[Target, ...] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)
    """Why one of ours has no such row."""
    samples: dict[str, Sample] = field(default_factory=dict)

    def add(self, contender: str, value: float) -> None:
        """Note the value of one run."""
        self.samples.setdefault(contender, Sample()).values.append(value)

    def ratio(self, contender: str, of: str = PARAVIRT) -> float | None:
        """What ``of`` pays for each unit that ``contender`` pays; None when one of them was not measured."""
        ours, theirs = self.samples.get(of), self.samples.get(contender)
        if ours is None or theirs is None:
            return None
        above, below = ours.median, theirs.median
        if not self.lower_is_better:
            above, below = below, above
        return above / below if below else None

    def judge(self, target: Target) -> str:
        """Whether one target was met."""
        ours = self.samples.get(target.of)
        if ours is None:
            return NOT_JUDGED
        if not target.against:
            good = ours.median <= target.limit if self.lower_is_better else ours.median >= target.limit
            return MET if good else MISSED
        for contender in self.samples:
            if all(word in contender for word in target.against):
                ratio = self.ratio(contender, target.of)
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
        return sorted(names, key=lambda name: (name not in OURS.values(), name != PARAVIRT))


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
                "ratio": None if name in OURS.values() else row.ratio(name),
                "kvm_ratio": None if name in OURS.values() else row.ratio(name, KVM),
            }
        rows.append(
            {
                "name": row.name,
                "section": row.section,
                "unit": row.unit,
                "meaning": row.meaning,
                "lower_is_better": row.lower_is_better,
                "targets": [
                    {"limit": t.limit, "against": list(t.against), "of": t.of, "verdict": row.judge(t)}
                    for t in row.targets
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
        cells = [_cell(row, name) for name in contenders]
        drawn.add_row(row.name, row.unit, *cells, targets, row.verdict if row.targets else "")
    return drawn


def _cell(row: Row, contender: str) -> str:
    sample = row.samples.get(contender)
    if sample is None:
        return "-"
    text = number(sample.median)
    ratios = [] if contender in OURS.values() else [row.ratio(contender, ours) for ours in OURS.values()]
    if any(ratio is not None for ratio in ratios):
        return f"{text} ({', '.join('×' + number(ratio) for ratio in ratios if ratio is not None)})"
    if len(sample.values) > 1:
        text += f" ({number(sample.minimum)}..{number(sample.maximum)})"
    return text


def _short(ours: str) -> str:
    return ours.partition("(")[2].rstrip(")") or ours


def number(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3g}"
