"""The stability run, in short; the long one is `python -m tests.stability`."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt.errors import UserError
from paravirt.machine.choice import choose

from ..cli.conftest import Obtain, guest
from ..oracle import kernels
from . import runner
from .guest import Guest, complaint, last_report

__all__ = ["guest"]

REPORT = b"steady: forks=1 sums=2 reads=3 rounds=4 ticks=5 signals=6 wrong="


@pytest.fixture
def engine(guest: Obtain) -> str:
    for name in ("debian-cloud", "busybox"):
        guest(name)
    try:
        choose("kvm", 1)
    except UserError as error:
        pytest.skip(str(error))
    return "kvm"


@pytest.mark.network
def test_a_guest_works_beside_a_spinner(engine: str, tmp_path: Path) -> None:
    done = runner.work(engine, 0.0, kernels.build("hostile", tmp_path), print)
    assert last_report(f"steady: {done} wrong=0\n".encode()) == done


@pytest.mark.network
def test_threads_on_two_processors_see_what_each_other_changes(engine: str) -> None:
    done = runner.share(engine, 0.0, print)
    assert last_report(f"steady: {done} wrong=0\n".encode()) == done


@pytest.mark.network
def test_boots_in_a_row(engine: str) -> None:
    said: list[str] = []
    runner.boots(engine, 2, said.append)
    assert len(said) == 2


@pytest.mark.network
def test_a_guest_that_ends_otherwise_is_noticed(
    engine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hostile = Guest(kernels.build("hostile", tmp_path), b"no ramdisk of use")
    monkeypatch.setattr(runner, "booting", lambda: hostile)
    with pytest.raises(runner.Unstable, match="ended by"):
        runner.boots(engine, 1, print)


def test_complaints_are_seen() -> None:
    assert complaint(REPORT + b"0\nChecked W+X mappings: passed\n") == ""
    assert complaint(REPORT + b"1\r\nmore") == (REPORT + b"1").decode()
    assert complaint(b"x\n[    1.0] BUG: unable to handle page fault\n") == "[    1.0] BUG: unable to handle page fault"
    late = b"[ 9.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!\n Call Trace:\n"
    assert "soft lockup" in complaint(late)
    assert complaint(late, late_is_excused=True) == ""
    assert "Oops" in complaint(late + b"Oops: 0002\n", late_is_excused=True)


def test_the_last_report_counts() -> None:
    assert last_report(b"booting\n") == ""
    assert last_report(REPORT + b"0\r\n" + REPORT.replace(b"=3", b"=7") + b"0\n").split()[2] == "reads=7"
