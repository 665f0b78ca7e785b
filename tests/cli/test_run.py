"""`paravirt run` as a person uses it: a process of its own, with real guests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paravirt.machine.choice import settle

from ..domain0.builder import _kernels
from ..oracle import kernels
from ..patience import PATIENCE
from .terminal import Terminal

COMMAND = [sys.executable, "-m", "paravirt.cli.main", "run"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def hello(folder: Path) -> str:
    """Says hello and powers off."""
    return str(kernels.build("hello", folder))


@pytest.fixture(scope="module")
def ending(folder: Path) -> str:
    """Ends as its command line says."""
    return str(kernels.build("hostile", folder))


VIRT_BASE = 0xFFFFFFFF80000000
LOOP = (
    bytes.fromhex(
        "488b4648"  # mov 72(%rsi), %rax: start_info's console frame
        "48ba00000000" "0080ffff"  # movabs $MACH2PHYS, %rdx
        "488b04c2"  # mov (%rdx,%rax,8), %rax
        "48c1e00c"  # shl $12, %rax
        "48ba"  # movabs $VIRT_BASE, %rdx
    )
    + VIRT_BASE.to_bytes(8, "little")
    + bytes.fromhex("4801d048b9")  # add %rdx, %rax; movabs $text, %rcx
    + b"looping\n"
    + bytes.fromhex(
        "48898800040000"  # mov %rcx, 1024(%rax): the output ring
        "c7800c0c000008000000"  # movl $8, 3084(%rax): its producer
        "8b4e50"  # mov 80(%rsi), %ecx: the console's port
        "51"  # push %rcx
        "bf04000000"  # mov $EVTCHNOP_send, %edi
        "4889e6"  # mov %rsp, %rsi
        "b820000000"  # mov $HYPERVISOR_event_channel_op, %eax
        "0f05"  # syscall
        "ebfe"  # jmp .
    )
)


@pytest.fixture(scope="module")
def looping(folder: Path) -> str:
    """Says so and jumps to itself with its events masked, for ever."""
    path = folder / "looping"
    path.write_bytes(_kernels.Kernel([_kernels.Load(0, LOOP)], notes=_kernels.xen_notes()).build())
    return str(path)


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, check=False, timeout=PATIENCE)


def test_a_guest_that_powers_off(hello: str) -> None:
    done = run("--append", "one two", "--memory", "32", hello)
    assert done.returncode == 0
    assert done.stdout.startswith(b"Hello from a paravirtual guest!")
    assert b'Command: "one two"' in done.stdout
    assert b"Memory:  32 MiB" in done.stdout
    assert done.stdout.rstrip().endswith(b"Goodbye.")
    assert done.stderr == b""


def test_the_engine_that_was_not_named_is_said(hello: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("--engine", "auto", hello)
    assert done.returncode == 0
    assert done.stderr.decode() == f"paravirt: {settle('auto')[1]}\n"
    monkeypatch.setenv("PARAVIRT_ENGINE", "abacus")
    assert (run(hello).returncode, run("--engine", "unicorn", hello).returncode) == (2, 0)


@pytest.mark.parametrize(("how", "status", "words"), [
    ("poweroff", 0, b""),
    ("reboot", 3, b""),
    ("suspend", 0, b"suspended itself"),
    ("watchdog", 1, b"watchdog"),
    ("crash", 1, b"crashed"),
    ("jump", 1, b"rip"),
    ("stack", 1, b"rsp"),
])  # fmt: skip
def test_how_a_guest_ends(ending: str, how: str, status: int, words: bytes) -> None:
    done = run("--append", how, ending)
    assert b"going to end by: " + how.encode() in done.stdout
    assert (done.returncode, words in done.stderr) == (status, True)
    if not words:
        assert done.stderr == b""


def test_the_last_expectation_ends_the_guest(looping: str, hello: str) -> None:
    done = run("--expect", "Hello", "--expect", "MiB in", hello)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"MiB in" in done.stdout


def test_expectations_follow_each_other(hello: str) -> None:
    done = run("--expect", "Memory", "--expect", "Hello", hello)
    assert done.returncode == 1
    assert done.stderr == b"paravirt: the guest powered off before it said 'Hello'\n"


@pytest.mark.parametrize(("how", "status"), [("reboot", 3), ("crash", 1)])
def test_an_end_before_the_expectation(ending: str, how: str, status: int) -> None:
    assert run("--append", how, "--expect", "never said", ending).returncode == status


def test_the_time_is_over(looping: str) -> None:
    done = run("--timeout", "1", looping)
    assert (done.returncode, done.stderr) == (124, b"paravirt: the time is over\n")
    assert run("--timeout", "1", "--expect", "x", looping).returncode == 124


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_guest_that_never_stops(looping: str, number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, looping], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout
        assert process.stdout.readline() == b"looping\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors.strip()) == (128 + number, b"", b"")


def test_standard_input_is_left_to_a_script_that_waits_for_text(hello: str) -> None:
    read, write = os.pipe()
    os.write(write, b"for somebody else")
    os.close(write)
    command = [*COMMAND, "--expect", "Hello", hello]
    assert subprocess.run(command, stdin=read, capture_output=True, check=False).returncode == 0
    assert os.read(read, 100) == b"for somebody else"
    os.close(read)


def test_statistics(hello: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    assert run("--stats", str(path), "--expect", "Goodbye", hello).returncode == 0
    stats = json.loads(path.read_text())
    times = stats["milestones_s"]
    assert 0 < times["machine"] < times["created"] < times["step 1: Goodbye"] <= times["end"]
    assert times["created"] < times["first output"]
    assert "hypercalls" in stats
    assert list(tmp_path.iterdir()) == [path]


def test_statistics_of_a_crash(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    assert run("--stats", str(path), "--append", "crash", ending).returncode == 1
    assert "traps" in json.loads(path.read_text())


def test_a_reader_that_goes_away(looping: str, hello: str) -> None:
    process = subprocess.Popen([*COMMAND, hello], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.close()
    assert process.wait(PATIENCE) == 141


def test_an_output_that_is_full(looping: str) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [*COMMAND, "--expect", "never", looping]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr == b"paravirt: Standard output cannot be written (No space left on device).\n"


def bad_kernels(folder: Path) -> dict[str, Path]:
    """Files that are no kernel for us, by what is wrong with them."""
    whole = _kernels.kernel()
    contents = {
        "empty": b"",
        "text": b"#!/bin/sh\necho no kernel\n",
        "truncated": whole[: len(whole) // 2],
        "without_notes": _kernels.Kernel().build(),
        "other_machine": _kernels.Kernel(machine=183, notes=_kernels.xen_notes()).build(),
        "zeroes": bytes(100000),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in contents}


def sentence(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one sentence of a refusal."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == b""
    text = done.stderr.decode()
    assert text.startswith("paravirt: ")
    assert text.endswith(".\n")
    assert text.count("\n") == 1
    return text


def test_files_that_are_no_kernel(tmp_path: Path) -> None:
    for path in bad_kernels(tmp_path).values():
        sentence(run(str(path)))


def test_files_that_are_not_there(hello: str, tmp_path: Path) -> None:
    assert "No such file" in sentence(run(str(tmp_path / "missing")))
    assert "directory" in sentence(run(str(tmp_path)))
    assert "No such file" in sentence(run("--ramdisk", str(tmp_path / "missing"), hello))
    assert "cannot be written" in sentence(run("--stats", str(tmp_path / "missing/stats.json"), hello))
    assert "cannot be written" in sentence(run("--stats", str(tmp_path), hello))
    assert list(tmp_path.iterdir()) == []


def test_sizes_that_make_no_sense(hello: str) -> None:
    sentence(run("--memory", "1", hello))
    sentence(run("--memory", "99999999", hello))
    sentence(run("--vcpus", "1000", hello))
    for words in ("--memory 0", "--memory many", "--vcpus 0", "--timeout 0", "--send \\"):
        done = run(*words.split(), hello)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"Error: " in done.stderr
    assert run().returncode == 2


def test_ctrl_bracket_leaves_a_guest_on_a_terminal(looping: str) -> None:
    terminal = Terminal([*COMMAND, looping])
    terminal.expect("looping")
    terminal.type("\x03\x1a\x1c")  # these are the guest's; a raw terminal sends no signal
    time.sleep(0.3)
    assert os.waitpid(terminal.pid, os.WNOHANG) == (0, 0)
    terminal.type("\x1d")
    assert terminal.status() == 0


def test_output_on_a_terminal(hello: str) -> None:
    terminal = Terminal([*COMMAND, hello])
    assert terminal.status() == 0
    assert b"Goodbye." in terminal.seen
