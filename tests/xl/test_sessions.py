"""Sessions captured in dom0 of real Xen, run again: the same commands print the same, with the same statuses.

What differs on purpose, and why, is in :data:`DIFFERENT`. Words on standard error are other ones here, and are not
compared.
"""

from __future__ import annotations

import contextlib
import gc
import io
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt.xl import main as xl
from paravirt.xl.table import NEVER, NOT_YET
from paravirt.xs import commands as xs

from ..oracle import kernels
from ..patience import PATIENCE
from . import sessions
from .conftest import User

_FAILURE = "a command that cannot do its work ends with status 1 here"
_NO_SCHEDULER = "a verb of a scheduler that the machine does not have is refused"
_OWN_WORDS = "our own words"
DIFFERENT = {
    "xl pause 99": _FAILURE,
    "xl unpause 99": _FAILURE,
    "xl trigger one nmi 7": _FAILURE,
    "xl trigger one reset": _FAILURE,
    "xl trigger one power": _FAILURE,
    "xl dmesg | head -n 1": "another hypervisor says what it is",
    "xl info -n": "a machine of Xen's under QEMU says nothing about its processors",
    "xl create number.cfg": "a setting that is no number is an error, and not passed over",
    "two-cpus: xl vcpu-pin two 0 1": "its other vcpu is bound to 0, and the vcpus of a domain share a physical CPU",
    "xl cpupool-create 'name=\"third\"' 'cpus=[\"7\"]'": "the number of the scheduler is the status of Xen's xl there",
    "xl vcpu-set two -1": "a negative number is taken for an option",
    "xl sched-credit -s -m 100": "there is no migration delay",
    "xl sched-credit -d Domain-0 -w 300": "the host's scheduler runs Domain 0",
    "xl sched-credit2": _NO_SCHEDULER,
    "xl sched-credit2 -d one": _NO_SCHEDULER,
    "xl sched-credit2 -s": _NO_SCHEDULER,
    "xl sched-rtds": _NO_SCHEDULER,
    "xl sched-rtds -d one": _NO_SCHEDULER,
    "xenstore-ls /local/domain/0": "Linux as dom0 writes there what it can do",
    "xenstore-ls -w /local/domain/1": "an unknown option is refused",
    "xenstore-ls -x": "an unknown option is refused",
    "xl help nonsense": _OWN_WORDS,
    "xl help help": _OWN_WORDS,
    "xl help sched-bvt": "a historic scheduler, which 4.17 does not have",
    "xl help sched-sedf": "a historic scheduler, which 4.17 does not have",
    "xl help network-attach": "there are no device models and no accelerators",
    "xl help top": "the options of top are in its usage",
    "xl help info": "the usage of info, which lacks its arguments in Xen",
    "xl help sched-credit2": "the options of credit's, of which 4.17 has some for credit2",
    "xl help sched-rtds": "the option -e is not in our words",
}
"""Commands (of any session, or of one) for which the answer differs, and why. It has to, else the line goes."""

_SETTLED = re.compile(r" (-b----|-bp---|--p---|---sc-)  ")
_SHELL = re.compile(r"[|<>;&$]")
_LISTED = re.compile(r"^(Domain-0 +0) +\d+( .*)$")
_MASKS = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"(?<=[ :])\d+:\d\d:\d\d"), "DURATION"),
    (re.compile(r"(?<= up ) \d+:\d\d,"), "DURATION"),
    (re.compile(r"migration-delay=\d+us"), ""),
    (re.compile(r"^(\S+ +\d+ +\d+ +)\d+(?= +[r-][b-][p-] )"), r"\1CPU"),
    (re.compile(r"( [r-][b-][p-](?:[s-][a-z-][d-])?) +\d+[.]\d"), r"\1 TIME"),  # more on a busy host
    (re.compile(r'(ring-ref|tty|start_time)( = |: )"[^"]*"'), r"\1"),
    (re.compile(r"(console/ring-ref|console/tty) = .*?  "), r"\1  "),
    (re.compile(r'(ring-ref|tty|start_time|vm) [". ].*(?=\()'), r"\1"),
)
_OF_THE_MACHINE = re.compile(
    "host|release|version|cpu_mhz|hw_caps|virt_caps|total_memory|free_memory|xen_extra|xen_version|xen_caps|xen_changeset"
    "|xen_commandline|cc_compil.*|build_id"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kernels of the sessions."""
    folder = tmp_path_factory.mktemp("kernels")
    for kernel in sessions.KERNELS:
        kernels.build(kernel, folder)
    return folder


class Player:
    """Runs commands as a shell does, xl's and the store's in this process."""

    def __init__(self, user: User, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._user = user
        folder = user.folder
        for name, path in sessions.configurations().items():
            shutil.copy(path, folder / name)
        for kernel in sessions.KERNELS:
            shutil.copy(built / kernel, folder / kernel)
        (folder / "bin").mkdir()
        self._script(folder / "bin/xl", user.command("xl"))
        for name in xs.COMMANDS:
            self._script(folder / f"bin/xenstore-{name}", [user.command("xl")[0], "-m", "paravirt.xs.commands", name])
        for name, value in user.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{user.environment['PATH']}")
        monkeypatch.chdir(folder)

    @staticmethod
    def _script(path: Path, words: list[str]) -> None:
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        path.chmod(0o755)

    def run(self, command: str) -> tuple[str, int]:
        """What it prints, and its status."""
        words = shlex.split(command)
        if words[0] == "sleep":
            self._settle()
            return "", 0
        if _SHELL.search(command) or not words[0].startswith(("xl", "xenstore-")):
            done = subprocess.run(
                ["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            return done.stdout, done.returncode
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # some write to the buffer below it
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            if words[0] == "xl":
                status = xl.main(words[1:])
            else:
                status = xs.run(words[0].removeprefix("xenstore-"), words[1:])
        output.seek(0)
        return output.read(), status

    def _settle(self) -> None:
        """What a person waits for: every domain waits for something, or has come to its end."""
        self._user.wait_for(lambda: all(_SETTLED.search(line) for line in self.run("xl list")[0].splitlines()[2:]))


def comparable(command: str, lines: list[str]) -> list[str]:
    """Lines without what is another one on each machine, and in each run."""
    return list(_comparable(command, lines))


def _comparable(command: str, lines: list[str]) -> Iterator[str]:
    field = re.fullmatch(r"xl info (\w+)", command)
    if field and _OF_THE_MACHINE.fullmatch(field[1]):
        return
    if lines and lines[0].startswith("Usage"):
        lines = lines[:1]
    for line in lines:
        name = line.split(" ")[0]
        if command == "xl info" and _OF_THE_MACHINE.fullmatch(name):
            yield name
            continue
        match = _LISTED.fullmatch(line)
        if match:  # it has no memory of the machine's here, and its time is another one
            line = f"{match[1]} MEMORY{re.sub(r' +[0-9]+[.][0-9]', ' TIME', match[2])}"
        line = re.sub(r"^(Domain-0 .* )[0-9]+[.][0-9]", r"\1TIME", line)
        line = re.sub(r'"(max|target)_memkb": (39321[56]|0),', r'"\1_memkb": of Domain 0', line)
        for pattern, mask in _MASKS:
            line = pattern.sub(mask, line)
        yield line


def _is_absent(command: str) -> bool:
    """Whether it is a verb that this version does not have; test_commands looks at what is said then."""
    words = command.split()
    return words[0] == "xl" and bool({*NOT_YET, *NEVER} & set(words[1:3]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a command's end closes its connection
@pytest.mark.parametrize("name", sessions.names())
def test_the_same_as_on_xen(name: str, user: User, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = sessions.load(name)
    user.environment["PARAVIRT_PCPUS"] = str(session.cpus)
    user.environment["PARAVIRT_ENGINE"] = "unicorn"  # on KVM less is different
    player = Player(user, built, monkeypatch)
    failures = []
    for step in session.steps:
        text, status = player.run(step.command)
        ours = (comparable(step.command, text.splitlines()), status % 256)
        theirs = (comparable(step.command, list(step.output)), step.status)
        differs = step.command in DIFFERENT or f"{name}: {step.command}" in DIFFERENT
        if (ours == theirs) is differs and not _is_absent(step.command):
            failures.append((step.command, theirs, ours))
    gc.collect()  # what commands left is this test's, and not one's that comes later
    assert failures == [], "\n".join(f"$ {command}\nXen:  {theirs}\nours: {ours}" for command, theirs, ours in failures)
