"""Scripts that drive test kernels through xl, as the Xen Test Framework's runner does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ..patience import PATIENCE
from .conftest import User


class Runner:
    """A runner of tests that knows Xen, and nothing of this project: it has a search path with an ``xl`` in it."""

    def __init__(self, user: User) -> None:
        bin_folder = user.folder / "bin"
        bin_folder.mkdir()
        script = bin_folder / "xl"
        script.write_text(f'#!/bin/sh\nexec {" ".join(user.command("xl"))} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        self.environment = {**user.environment, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
        self.folder = user.folder

    def open(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["xl", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
            cwd=self.folder,
        )  # fmt: skip

    def output(self, *words: str) -> str:
        done = self.open(*words)
        said, trouble = done.communicate(timeout=PATIENCE)
        assert done.returncode == 0, trouble
        return said

    def last_line_on_the_console(self, name: str) -> str:
        """Paused, attached, let go: the console's last line when the domain has ended."""
        self.output("create", "-p", f"{name}.cfg")
        console = self.open("console", name)
        self.output("unpause", name)
        said, _ = console.communicate(timeout=PATIENCE)
        assert console.returncode == 0
        return said.splitlines()[-1]

    def last_line_in_the_log(self, name: str, logs: Path) -> str:
        """Run in the foreground: what the console's log has gained then."""
        with os.fdopen(os.open(logs / f"guest-{name}.log", os.O_CREAT | os.O_RDONLY, 0o644)) as log:
            log.seek(0, os.SEEK_END)
            self.output("create", "-F", f"{name}.cfg")
            return log.readlines()[-1].rstrip()


def test_capabilities_choose_the_tests(user: User) -> None:
    runner = Runner(user)
    kinds = {"pv", "hvm", "hap", "shadow"} & set(runner.output("info", "virt_caps").split())
    assert kinds == {"pv"}
    assert runner.output("info", "xen_caps").split() == ["xen-3.0-x86_64"]
    (line,) = (line for line in runner.output("info").splitlines() if line.startswith("xen_caps"))
    assert line.split()[2:] == ["xen-3.0-x86_64"]


def test_many_runs_of_one_name_by_the_console(user: User) -> None:
    runner = Runner(user)
    user.config("test-pv64-hello~1")
    for _ in range(4):
        assert runner.last_line_on_the_console("test-pv64-hello~1") == "Goodbye."


def test_runs_by_the_console_s_log(user: User) -> None:
    logs = user.folder / "logs"
    user.environment["PARAVIRT_CONSOLE_LOG"] = str(logs)
    logs.mkdir()
    runner = Runner(user)
    user.config("test-pv64-hello")
    for _ in range(3):
        assert runner.last_line_in_the_log("test-pv64-hello", logs) == "Goodbye."


@pytest.mark.parametrize("kind", ["hvm", "pvh"])
def test_tests_for_other_guests_fail_to_be_created(user: User, kind: str) -> None:
    runner = Runner(user)
    user.config("test-hvm64-hello", type=kind)
    create = runner.open("create", "-p", "test-hvm64-hello.cfg")
    _, trouble = create.communicate(timeout=PATIENCE)
    assert create.returncode != 0 and "type" in trouble


def test_what_is_left_of_a_run_is_destroyed(user: User) -> None:
    runner = Runner(user)
    user.config("test-pv64-stuck")
    runner.output("create", "-p", "test-pv64-stuck.cfg")
    watcher = runner.open("create", "-F", "-p", "test-pv64-stuck.cfg")
    watcher.communicate(timeout=PATIENCE)
    assert watcher.returncode != 0, "the name is taken"
    runner.output("destroy", "test-pv64-stuck")
    assert user.names() == []
