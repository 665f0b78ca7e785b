"""Medians, ratios, verdicts, and the shape of what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from paravirt.bench import rows as known
from paravirt.bench.results import (
    KVM,
    MET,
    MISSED,
    NOT_JUDGED,
    PARAVIRT,
    Results,
    Row,
    Sample,
    Target,
    as_json,
    number,
    table,
    write_json,
)
from paravirt.errors import UserError

XEN = "xen-dom0 (Xen 4.17.7, QEMU 10.0.2 TCG)"
OLD_XEN = "xen-dom0 (Xen 4.17.7, QEMU 7.2 TCG)"
BEATS_XEN = Target(0.5, ("xen-dom0", "QEMU 10"))


def filled(targets: tuple[Target, ...] = (), lower: bool = True, **values: list[float]) -> Row:
    row = Row("row", "us", "guest", lower_is_better=lower, targets=targets)
    names = {"ours": PARAVIRT, "xen": XEN, "old": OLD_XEN, "native": "native", "kvm": KVM}
    for name, found in values.items():
        for value in found:
            row.add(names[name], value)
    return row


def test_a_sample() -> None:
    sample = Sample([5.0, 1.0, 100.0, 3.0])
    assert (sample.minimum, sample.median, sample.maximum) == (1.0, 4.0, 100.0)


def test_ratio_is_of_medians() -> None:
    assert filled(ours=[1, 2, 90], xen=[8, 7, 900]).ratio(XEN) == 0.25


def test_ratio_of_bandwidths_is_a_cost() -> None:
    assert filled(lower=False, ours=[400], native=[1600]).ratio("native") == 4


def test_no_ratio_without_both() -> None:
    assert filled(ours=[1]).ratio(XEN) is None
    assert filled(xen=[1]).ratio(XEN) is None


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [([4.0], MET), ([4.1], MISSED), ([9.0, 1.0, 3.0], MET)],
)
def test_absolute_target(ours: list[float], verdict: str) -> None:
    assert filled((Target(4),), ours=ours).verdict == verdict


@pytest.mark.parametrize(("ours", "verdict"), [(10.0, MET), (10.1, MISSED)])
def test_target_against_a_contender(ours: float, verdict: str) -> None:
    assert filled((BEATS_XEN,), ours=[ours], xen=[20.0]).verdict == verdict


@pytest.mark.parametrize(("ours", "verdict"), [(100.0, MET), (99.0, MISSED)])
def test_bandwidth_target_against_a_contender(ours: float, verdict: str) -> None:
    assert filled((BEATS_XEN,), lower=False, ours=[ours], xen=[50.0]).verdict == verdict


def test_an_older_emulator_is_shown_and_not_judged() -> None:
    row = filled((BEATS_XEN,), ours=[90.0], old=[20.0])
    assert row.ratio(OLD_XEN) == 4.5
    assert row.verdict == NOT_JUDGED


def test_one_missed_target_is_a_miss() -> None:
    both = (Target(4), BEATS_XEN)
    assert filled(both, ours=[3.0], xen=[5.0]).verdict == MISSED
    assert filled(both, ours=[3.0], xen=[6.0]).verdict == MET
    assert filled(both, ours=[3.0]).verdict == MET  # of what could be judged
    assert filled(both).verdict == NOT_JUDGED


def test_a_target_of_one_engine_is_judged_by_that_one() -> None:
    quick = Target(3, of=KVM)
    assert filled((quick,), ours=[9.0]).verdict == NOT_JUDGED
    assert filled((quick,), ours=[9.0], kvm=[2.0]).verdict == MET
    assert filled((quick,), ours=[1.0], kvm=[4.0]).verdict == MISSED
    against = Target(1.25, ("native",), KVM)
    assert filled((against,), ours=[9.0], kvm=[5.0], native=[4.0]).verdict == MET
    assert filled((against,), ours=[1.0], kvm=[5.1], native=[4.0]).verdict == MISSED
    assert (str(quick), str(against)) == ("≤ 3 (KVM)", "≤ 1.25 × native (KVM)")


def test_both_engines_in_the_table() -> None:
    results = Results("2026-01-02", "", 1, [filled(ours=[2.0], kvm=[4.0], native=[8.0])])
    assert results.contenders() == [PARAVIRT, KVM, "native"]
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(table(results))
    assert "8 (×0.25, ×0.5)" in captured.get()
    assert as_json(results)["rows"][0]["samples"]["native"]["kvm_ratio"] == 0.5


def test_json(tmp_path: Path) -> None:
    results = Results("2026-01-02", "2 CPUs", 2, [filled((BEATS_XEN,), ours=[1, 3], xen=[8, 8])], {"peer": "none"})
    write_json(results, tmp_path / "figures.json")
    read = json.loads((tmp_path / "figures.json").read_text())
    assert read == as_json(results)
    (row,) = read["rows"]
    of_itself = {"ratio": None, "kvm_ratio": None}
    assert row["samples"][PARAVIRT] == {"values": [1, 3], "median": 2, "min": 1, "max": 3, **of_itself}
    assert row["samples"][XEN]["ratio"] == 0.25
    assert row["targets"] == [{"limit": 0.5, "against": ["xen-dom0", "QEMU 10"], "of": PARAVIRT, "verdict": "met"}]
    assert (read["runs"], read["skipped"]) == (2, {"peer": "none"})


def test_json_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_json(Results("", "", 1), tmp_path / "missing" / "figures.json")


def test_table() -> None:
    results = Results("2026-01-02", "", 1, [filled((BEATS_XEN,), ours=[2.0], xen=[8.0])])
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(table(results))
    line = next(line for line in captured.get().splitlines() if "row " in line and "us" in line)
    assert "8 (×0.25)" in line
    assert line.index("2 ") < line.index("8 (×")
    assert "met" in line


@pytest.mark.parametrize(
    ("value", "text"), [(8123.4, "8123"), (100.4, "100"), (12.345, "12.35"), (1.2345, "1.23"), (0.01234, "0.0123")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for row in known.rows()]
    assert len(names) == len(set(names))
    assert all(row.meaning for row in known.rows())
