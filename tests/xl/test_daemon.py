"""The daemon: one for each user, started when it is wanted, ended in order, killed, and spoken to badly."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from paravirt.machine.choice import settle

from ..oracle import kernels
from ..patience import PATIENCE
from .conftest import User, is_alive


def test_of_two_that_race_one_starts_the_daemon(user: User) -> None:
    racing = [user.start("list") for _ in range(4)]
    outputs = {one.communicate(timeout=PATIENCE)[0].splitlines()[0] for one in racing}
    assert [one.returncode for one in racing] == [0] * 4
    assert len(outputs) == 1
    assert len(user.pids()) == 1


def test_a_second_daemon_says_that_there_is_one(user: User) -> None:
    user.xl("list")
    done = user.run("--foreground", program="paravirtd")
    assert done.returncode == 1 and "runs already" in done.stderr
    assert len(user.pids()) == 1


def test_in_the_foreground_until_a_signal(user: User) -> None:
    # On a host that stands still the guest powers off late.
    daemon = user.start("--foreground", "--memory", "128", "--patience", str(PATIENCE), program="paravirtd")
    assert daemon.stderr is not None
    assert json.loads(daemon.stderr.readline())["event"] == "started"
    assert 100 < int(user.xl("info", "total_memory")) < 140
    user.xl("create", "-p", user.config("one"))
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(PATIENCE) == 0
    daemon.stderr.close()
    assert daemon.stdout is not None
    daemon.stdout.close()
    ended = user.log()[-1]
    # The kernel has no time to listen to anybody: asked to power off, it says its piece and does.
    assert ended["event"] == "ended" and ended["stopped"] == []
    assert not (user.folder / "paravirtd.sock").exists()


@pytest.mark.parametrize(
    ("memory", "words"), [("much", "'much', and not a number"), ("99999999", "cannot be made"), ("0", "cannot be made")]
)
def test_why_it_does_not_start_is_said_by_who_wanted_it(user: User, memory: str, words: str) -> None:
    user.environment["PARAVIRT_MEMORY"] = memory
    done = user.run("list")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("xl: ") and words in done.stderr
    started = user.run(program="paravirtd")
    assert started.returncode == 1 and words in started.stderr
    user.environment["PARAVIRT_MEMORY"] = "64"
    assert user.run("list").returncode == 0, "nothing is left of the attempts"


def test_more_physical_cpus_are_refused(user: User) -> None:
    done = user.run("--pcpus", "65", program="paravirtd")
    assert done.returncode == 1 and "1 to 64 physical CPUs" in done.stderr


def test_the_engine_is_chosen_at_its_start(user: User) -> None:
    wrong = user.run("--engine", "abacus", program="paravirtd")
    assert wrong.returncode == 1 and "no CPU engine 'abacus'" in wrong.stderr
    user.environment["PARAVIRT_ENGINE"] = "auto"
    name = settle("auto")[0]
    assert f"--engine {name}" in user.xl("info", "xen_commandline")
    assert f"Guests run on the {'KVM' if name == 'kvm' else 'Unicorn'} engine." in user.xl("dmesg")


def test_idle_guests_are_asked_for_memory_if_the_daemon_was_told_so(
    user: User, tmp_path_factory: pytest.TempPathFactory
) -> None:
    user.environment["PARAVIRT_AUTOBALLOON"] = "maybe"
    wrong = user.run("list")
    assert wrong.returncode == 1 and "PARAVIRT_AUTOBALLOON is 'maybe', and neither on nor off." in wrong.stderr
    user.environment["PARAVIRT_AUTOBALLOON"] = "on"
    idle = kernels.build("idle", tmp_path_factory.mktemp("kernels"))
    user.xl("create", user.config("one", idle))

    def is_refused() -> bool:
        """A guest that stands still with the host seems to work, and is not asked then."""
        refused = user.run("create", user.config("big"), "memory=1000")
        assert refused.returncode == 3
        return "the domain needs 1000 MiB, and idle guests can give 16 MiB." in refused.stderr

    user.wait_for(is_refused)


def test_a_folder_that_is_not_one_is_not_used(user: User, tmp_path: Path) -> None:
    link = user.folder / "link"
    link.symlink_to(tmp_path)
    user.environment["PARAVIRT_RUNTIME_DIR"] = str(link)
    done = user.run("list")
    assert done.returncode == 1 and "not a folder of yours" in done.stderr
    user.environment["PARAVIRT_RUNTIME_DIR"] = "/tmp/" + "x" * 100
    assert "too long" in user.run("list").stderr


def test_stop_ends_guests_that_do_not_listen(
    user: User, hostile: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    endless = kernels.build("rewrites", tmp_path_factory.mktemp("kernels"))
    user.run("--memory", "128", "--patience", "0.2", program="paravirtd")
    user.xl("create", user.config("deaf", hostile, extra="suspend"))
    user.wait_for(lambda: "---s" in user.xl("list"))
    user.xl("create", user.config("busy", endless))
    assert user.run("--stop", program="paravirtd").returncode == 0
    assert user.log()[-1]["stopped"] == ["busy"]
    assert user.run("--stop", program="paravirtd").returncode == 1


def test_the_next_one_says_what_happened_to_the_domains_of_one_that_was_killed(user: User) -> None:
    user.xl("create", "-p", user.config("lost"))
    os.kill(user.pids()[0], signal.SIGKILL)
    user.wait_for(lambda: not is_alive(user.pids()[0]))
    first, second = user.run("list"), user.run("list")
    assert first.returncode == 0 and "lost (1)" in first.stderr
    assert second.stderr == ""
    assert "lost (1)" in user.xl("dmesg")
    assert user.names() == []


def test_after_an_orderly_end_there_is_nothing_to_say(user: User) -> None:
    user.xl("create", "-p", user.config("one"))
    assert user.run("--stop", program="paravirtd").returncode == 0
    assert user.run("list").stderr == ""


def test_its_folder_is_private(user: User) -> None:
    user.xl("list")
    for path in user.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    user.run("--stop", program="paravirtd")
    user.folder.chmod(0o755)
    done = user.run("list")
    assert done.returncode == 1 and "0700" in done.stderr


def test_a_client_that_dies_leaves_the_others_alone(user: User) -> None:
    user.xl("create", "-p", user.config("hello"))
    console = user.start("console", "hello")
    user.wait_for(lambda: any(line["event"] == "started" for line in user.log()))
    console.kill()
    console.communicate()
    other = user.start("console", "hello")
    user.xl("unpause", "hello")
    assert "Goodbye." in other.communicate(timeout=PATIENCE)[0]


# --- the protocol ------------------------------------------------------------------------------------------------


class Talk:
    """A client that says what it likes."""

    def __init__(self, user: User) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(user.folder / "paravirtd.sock"))
        self._file = self.socket.makefile("rb")

    def say(self, line: bytes) -> dict[str, Any] | None:
        """Send a line; the reply, events left out, or None if the daemon hangs up."""
        self.socket.sendall(line)
        while answer := self._file.readline():
            message: dict[str, Any] = json.loads(answer)
            if "event" not in message:
                return message
        return None

    def ask(self, operation: str, version: int = 1, **arguments: object) -> dict[str, Any]:
        request = {"version": version, "operation": operation, "arguments": arguments}
        answer = self.say(json.dumps(request).encode() + b"\n")
        assert answer is not None
        return answer

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@pytest.fixture
def talk(user: User) -> Any:
    user.xl("list")
    client = Talk(user)
    yield client
    client.close()


def test_a_pause_too_many_is_refused_and_the_end_comes_all_the_same(user: User, talk: Talk, hostile: Path) -> None:
    user.xl("create", "-p", user.config("one", hostile, extra="poweroff"))
    for _ in range(254):
        assert talk.ask("pause", domain="one") == {"result": None}
    done = user.run("pause", "one")
    assert done.returncode == 1 and "paused 255 times" in done.stderr
    assert user.run("--stop", program="paravirtd").returncode == 0
    ends = [line["event"] for line in user.log() if line["event"] in ("domain shutdown", "domain destroyed")]
    assert ends == ["domain shutdown", "domain destroyed"], "it was let go on, and powered off"


def test_a_connection_takes_many_requests(talk: Talk) -> None:
    assert talk.ask("hello")["result"]["version"] == 1
    assert talk.ask("list")["result"][0]["name"] == "Domain-0"


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("fly", {}, "unsupported"),
        ("pause", {}, "invalid"),
        ("pause", {"domain": 5}, "invalid"),
        ("pause", {"domain": "nobody"}, "not-found"),
        ("pause", {"domain": "0"}, "invalid"),
        ("destroy", {"domain": "Domain-0"}, "invalid"),
        ("create", {"config": {}}, "invalid"),
        ("create", {"config": {"name": "a", "kernel": "/nowhere", "uuid": "x"}}, "invalid"),
        ("console", {"domain": "nobody"}, "not-found"),
        ("debug-keys", {"keys": "Z"}, "unsupported"),
    ],
)
def test_refusals_are_sentences_with_a_code(
    talk: Talk, operation: str, arguments: dict[str, Any], code: str
) -> None:
    answer = talk.ask(operation, **arguments)
    assert answer["code"] == code and answer["error"].endswith(".")
    assert talk.ask("hello")["result"], "the connection goes on"


def test_another_version_is_refused(talk: Talk) -> None:
    assert talk.ask("hello", version=2)["code"] == "unsupported"


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"{\n", b"\xff\xfe\n", b"5\n"])
def test_what_is_no_message_ends_that_connection_alone(user: User, talk: Talk, line: bytes) -> None:
    assert talk.say(line) is None
    assert user.names() == []


@pytest.mark.parametrize("line", [b"{}\n", b'{"version": 1}\n', b'{"version": 1, "operation": 5}\n',
                                  b'{"version": 1, "operation": "list", "arguments": []}\n'])  # fmt: skip
def test_what_is_no_request_is_refused(talk: Talk, line: bytes) -> None:
    answer = talk.say(line)
    assert answer is not None and "error" in answer
