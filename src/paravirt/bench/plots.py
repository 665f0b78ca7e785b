"""Plots of the rows about many domains, as PNG and SVG; they need matplotlib, which is an extra."""

from __future__ import annotations

import importlib
import itertools
from functools import partial
from pathlib import Path
from typing import Any

from paravirt.bench.crowd import LINUX, SMALL
from paravirt.bench.hosting import MANY, POLICIES
from paravirt.bench.results import PARAVIRT, Results
from paravirt.errors import UserError

COLUMNS = 3


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what was measured into files of a folder, which is made: their names.

    Raises:
        UserError: matplotlib is not installed, no such row was measured, or the files cannot be written.
    """
    pyplot = _pyplot()
    values = {row.name: row.samples[PARAVIRT].median for row in results.rows if PARAVIRT in row.samples}
    panels = [panel for panel in (_shares, _wakeups, _work, *_CROWDS) if panel(None, values)]
    if not panels:
        raise UserError("No row that can be drawn was measured: those of 'hosting_*' and 'crowd_*' are.")
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 4 * rows), squeeze=False)
    for axis, panel in itertools.zip_longest(axes.flat, panels):
        if panel is None:
            axis.set_axis_off()
        else:
            panel(axis, values)
    figure.tight_layout()
    files = [folder / f"hosting.{kind}" for kind in ("png", "svg")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            figure.savefig(file)
    except OSError as error:
        raise UserError(f"The plots cannot be written: {error}.") from error
    finally:
        pyplot.close(figure)
    return files


def _pyplot() -> Any:
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise UserError("Plots need matplotlib: pip install 'paravirt[plots]'.") from error


def _shares(axis: Any, values: dict[str, float]) -> bool:
    """How far shares are off; without an axis, whether there is something to draw."""
    known = [policy for policy in POLICIES if f"hosting_share_{policy}" in values]
    if axis is not None:
        axis.bar(known, [values[f"hosting_share_{policy}"] for policy in known])
        axis.axhline(4, linestyle="--", color="grey")
        axis.set(title="Weights 1:2:3:4", ylabel="worst share is off by, %")
    return bool(known)


def _wakeups(axis: Any, values: dict[str, float]) -> bool:
    known = [policy for policy in POLICIES if f"hosting_wake_{policy}" in values]
    if axis is not None:
        places = range(len(known))
        for shift, suffix, label in ((-0.2, "", "median"), (0.2, "_p99", "99th percentile")):
            heights = [values[f"hosting_wake_{policy}{suffix}"] for policy in known]
            axis.bar([place + shift for place in places], heights, width=0.4, label=label)
        axis.set_xticks(list(places), known)
        axis.set(title="An alarm beside three hogs", ylabel="late by, us", yscale="log")
        axis.legend()
    return bool(known)


def _work(axis: Any, values: dict[str, float]) -> bool:
    known = [count for count in MANY if f"hosting_work_{count}" in values]
    if axis is not None:
        axis.plot([1, *known], [100, *(values[f"hosting_work_{count}"] for count in known)], marker="o")
        axis.set(title="Work done together", xlabel="domains", ylabel="% of one domain's", xscale="log")
        axis.set_ylim(bottom=0)
    return bool(known)


def _crowd(what: str, title: str, unit: str, axis: Any, values: dict[str, float]) -> bool:
    """One figure against the number of domains, of both kinds."""
    known = False
    for kind, label, marks in (("small", "small domains", SMALL), ("linux", "Linux", LINUX)):
        found = [(mark, values[name]) for mark in marks if (name := f"crowd_{kind}_{mark}_{what}") in values]
        known = known or bool(found)
        if axis is not None and found:
            axis.plot(*zip(*found, strict=True), marker="o", label=label)
    if axis is not None:
        axis.set(title=title, xlabel="domains", ylabel=unit, xscale="log", yscale="log")
        axis.legend()
    return known


_CROWDS = (
    partial(_crowd, "start", "How fast domains start", "domains in a second"),
    partial(_crowd, "own", "Memory beside the domain's", "KiB for each"),
    partial(_crowd, "answer", "An alarm, or a shell's echo", "us"),
    partial(_crowd, "idle", "All idle", "% of a processor"),
    partial(_crowd, "code", "Translated code", "MiB"),
    partial(_crowd, "fork_exec", "Starting a process, by turns", "us of processor time"),
    partial(_crowd, "translating", "Of that, translating", "%"),
    partial(_crowd, "switch", "A switch among guests at work", "us"),
)
