"""A user with a machine of their own: a runtime directory, and a daemon that does not outlive the test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..oracle import kernels
from ..patience import PATIENCE

HELLO = Path(kernels.GUESTS).parent / "src/paravirt/data/hello"


class User:
    """Runs commands, as a user with this runtime directory does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PARAVIRT_RUNTIME_DIR": str(folder),
            "PARAVIRT_MEMORY": "300",
            "PARAVIRT_PCPUS": "2",
            "PYTHONUNBUFFERED": "1",
        }

    def command(self, program: str, *arguments: str) -> list[str]:
        """The words of a command."""
        modules = {
            "xl": "paravirt.xl.main",
            "paravirtd": "paravirt.domain0.daemon.main",
            "paravirt": "paravirt.cli.main",
        }
        return [sys.executable, "-m", modules[program], *arguments]

    def start(self, *arguments: str, program: str = "xl", **settings: Any) -> subprocess.Popen[str]:
        """A command that runs beside the test."""
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **settings}
        return subprocess.Popen(
            self.command(program, *arguments), text=True, env=self.environment, cwd=self.folder, **settings
        )

    def run(self, *arguments: str, program: str = "xl", text: str = "") -> subprocess.CompletedProcess[str]:
        """A command that ends, whatever its status."""
        return subprocess.run(
            self.command(program, *arguments), capture_output=True, text=True, env=self.environment, cwd=self.folder,
            input=text, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def xl(self, *arguments: str, text: str = "", status: int = 0) -> str:
        """What a command says, which has to end with this status."""
        done = self.run(*arguments, text=text)
        assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def config(self, name: str, kernel: Path = HELLO, **settings: object) -> str:
        """The path of a configuration file; settings as in xl.cfg."""
        lines = [f'name = "{name}"', f'kernel = "{kernel}"', "memory = 32"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        path = self.folder / f"{name}.cfg"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    def names(self) -> list[str]:
        """The domains, Domain 0 excepted."""
        return [line.split()[0] for line in self.xl("list").splitlines()[2:]]

    def wait_for(self, condition: Any) -> None:
        """Return when a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it never came about"
            time.sleep(0.02)

    def log(self) -> list[dict[str, Any]]:
        """The daemon's log, less a line that is just being written."""
        path = self.folder / "paravirtd.log"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def pids(self) -> list[int]:
        """Every daemon that was started."""
        return [line["pid"] for line in self.log() if line["event"] == "started"]

    def end(self) -> None:
        """End the daemon, in whatever state it is; it makes no more files then."""
        for pid in self.pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"paravirt.domain0.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    self.wait_for(lambda: not is_alive(pid))  # noqa: B023


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; one that its parent has not noticed yet has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.fixture
def user() -> Iterator[User]:
    # A socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    someone = User(folder)
    try:
        yield someone
    finally:
        someone.end()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel that ends in the way that its command line names."""
    return kernels.build("hostile", tmp_path_factory.mktemp("kernels"))
