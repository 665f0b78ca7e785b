"""The outer shell of both commands: exit statuses and single sentences."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import click
import pytest

from paravirt.cli import main as entry
from paravirt.errors import HypervisorBug, UserError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAVIRT_CACHE", str(tmp_path / "cache"))


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit status of a command that raises this."""

    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(entry.Commands, "get_command", lambda *_: command)
    return entry.main(["run"])


def test_the_users_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(monkeypatch, UserError("The file is missing.")) == 2
    assert capsys.readouterr() == ("", "paravirt: The file is missing.\n")


def test_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["no-such-command"]) == 2
    assert "No such command" in capsys.readouterr().err
    assert entry.main(["guests", "--no-such-option"]) == 2
    assert entry.main([]) == 2


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing(monkeypatch, KeyboardInterrupt()) == 130


def test_our_fault_is_loud(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(monkeypatch, HypervisorBug("count below zero")) == 70
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "defect of paravirt" in error


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        failing(monkeypatch, ZeroDivisionError())


def test_every_command_is_there_and_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    for name in entry.COMMANDS:
        if name == "bench":
            continue  # its arguments are the suite's own
        assert entry.main([name, "--help"]) == 0
        assert f"paravirt {name}" in capsys.readouterr().out
    assert entry.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(line in listed for _, line in entry.COMMANDS.values())


def test_help_imports_little() -> None:
    """`paravirt --help` is answered before anything heavy is loaded."""
    program = (
        "import sys; from paravirt.cli.main import main; main(['--help'])\n"
        "heavy = {'numpy', 'unicorn', 'capstone', 'elftools', 'rich', 'subprocess'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_goes_away() -> None:
    program = "import sys; from paravirt.cli.main import main; sys.exit(main(['guests', '--json']))"
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_guests(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry.main(["guests", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["tiny"]["state"] in ("built in", "not obtainable here")
    assert rows["debian"]["state"] in ("obtainable", "not obtainable here")
    assert rows["debian"]["version"] == rows["debian"]["path"] == ""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert entry.main(["guests"]) == 0
    seen = capsys.readouterr()
    assert "debian-cloud" in seen.out
    assert "not obtainable here" in seen.out
    assert "no apt" in seen.err


def test_a_guest_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["guests", "--get", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("paravirt: There is no guest called 'nonsense'")


def test_info(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry.main(["info", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["engines"]}
    assert rows["unicorn"]["usable"]
    assert rows["unicorn"]["capabilities"]["deterministic"] is True
    assert rows["kvm"]["usable"] or rows["kvm"]["why_not"].endswith(".")
    assert rows["kvm"]["usable"] == ("findings" in rows["kvm"])
    assert entry.main(["info"]) == 0
    assert f"engine unicorn {rows['unicorn']['version']}: usable" in capsys.readouterr().out
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    for words in (["info"], ["run", "no-kernel"]):
        assert entry.main(words) == 2
        error = capsys.readouterr().err
        assert error == "paravirt: paravirt runs on Linux on x86-64, and this is linux on riscv64.\n"
