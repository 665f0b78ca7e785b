"""Plots: what is drawn, and what is said where nothing can be."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from paravirt.bench import plots
from paravirt.bench import rows as known
from paravirt.bench.results import PARAVIRT, Results
from paravirt.errors import UserError


def measured(pattern: str) -> Results:
    results = Results("2026-11-21", "a host", 1)
    results.rows = [row for row in known.rows() if row.name.startswith(pattern)]
    for number, row in enumerate(results.rows):
        row.add(PARAVIRT, float(number + 1))
    return results


def test_png_and_svg_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plots.draw(measured("hosting_"), tmp_path)
    plots.draw(measured("crowd_small_100_"), tmp_path)
    results = measured("hosting_")
    results.rows += measured("crowd_").rows
    png, svg = plots.draw(results, tmp_path / "plots")
    assert png.read_bytes().startswith(b"\x89PNG") and "<svg" in svg.read_text()
    with pytest.raises(UserError, match="No row that can be drawn"):
        plots.draw(measured("trap_"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        plots.draw(measured("hosting_share"), tmp_path / "file")


def test_without_matplotlib_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"paravirt\[plots\]"):
        plots.draw(measured("hosting_"), tmp_path)
