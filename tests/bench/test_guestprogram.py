"""The program that measures a guest: what it prints is understood, and it measures every row it names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paravirt.bench import guestprogram
from paravirt.bench.guestprogram import parse, program, ramdisk, row_names, run_natively
from paravirt.errors import UserError

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")

CONSOLE = """[    0.9] Run /init as init process\r
PVBENCH INIT\r
PVBENCH ROW null_call 2.1250 us\r
[    1.0] clocksource: PVBENCH ROW memcpy_4m 3140.0 MB/s\r
PVBENCH ROW stat 3.4.5 us\r
PVBENCH ROW fork_sh many us\r
PVBENCH SKIP fork_exec No such file or directory\r
PVBENCH ROW signal_handler 12.5 us"""


def test_rows_are_read_out_of_a_console() -> None:
    report = parse(CONSOLE)
    assert report.values == {"null_call": 2.125, "memcpy_4m": 3140.0}
    assert report.units == {"null_call": "us", "memcpy_4m": "MB/s"}
    assert report.skipped == {"fork_exec": "No such file or directory"}
    assert not report.done


def test_the_last_line_may_still_be_growing() -> None:
    """The console's text ends anywhere: a line without its end is not a row yet."""
    assert "signal_handler" not in parse(CONSOLE).values
    assert parse(CONSOLE + "\r\n").values["signal_handler"] == 12.5
    assert parse(CONSOLE + "\r\nPVBENCH DONE\r\n").done


@needs_compiler
def test_it_measures_every_row_natively() -> None:
    report = run_natively(row_ms=4)
    assert report.done
    assert report.skipped == {}
    assert sorted(report.values) == sorted(row_names())
    assert all(value > 0 for value in report.values.values())
    assert {name for name, unit in report.units.items() if unit == "MB/s"} == {"memcpy_4m", "pipe_bandwidth"}


@needs_compiler
def test_only_some_rows() -> None:
    assert list(run_natively(["stat", "null_call"], row_ms=1).values) == ["null_call", "stat"]


@needs_compiler
def test_a_program_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARAVIRT_CACHE", str(tmp_path))
    first = program()
    stamp = first.stat().st_mtime_ns
    assert program() == first
    assert first.stat().st_mtime_ns == stamp
    assert b"PVBENCH ROW" in first.read_bytes()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(UserError, match="'no-such-compiler' was not found"):
        program()


@needs_compiler
def test_a_compiler_that_cannot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARAVIRT_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "gcc -no-such-option")
    with pytest.raises(UserError, match="could not be compiled with 'gcc'"):
        program()
    assert list(tmp_path.glob("bench/*")) == []


def test_a_mode_that_is_none() -> None:
    with pytest.raises(ValueError, match="turbo"):
        ramdisk("turbo")


@pytest.mark.network
@needs_compiler
@pytest.mark.parametrize("mode", guestprogram.MODES)
def test_ramdisks_hold_what_they_need(mode: str) -> None:
    data = ramdisk(mode).read_bytes()
    assert data.startswith(b"070701")
    assert guestprogram.INIT_LINE.encode() in data
    assert (b"bin/pvbench\0" in data) is (mode != "boot")
