"""The user's terminal: raw while it lasts, and set back on every way out, and as a guest's keyboard."""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator

import pytest

from paravirt.terminal import keyboard, raw, write_all

from .leftovers import Leftovers
from .patience import PATIENCE


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo terminal: the user's side, and the program's."""
    outer, inner = os.openpty()
    yield outer, inner
    os.close(outer)
    os.close(inner)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: where it is read, and where it is written."""
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def read_exactly(fd: int, count: int) -> bytes:
    """So many bytes from a file, or less if they do not come."""
    data = b""
    while len(data) < count and select.select([fd], [], [], PATIENCE)[0]:
        piece = os.read(fd, count - len(data))
        if not piece:
            break
        data += piece
    return data


def is_raw(fd: int) -> bool:
    return not termios.tcgetattr(fd)[3] & (termios.ISIG | termios.ICANON | termios.ECHO)


# --- raw -------------------------------------------------------------------------------------------------------


def test_raw_and_back(terminal: tuple[int, int]) -> None:
    _, inner = terminal
    before = termios.tcgetattr(inner)
    with raw(inner):
        assert is_raw(inner)
    assert termios.tcgetattr(inner) == before


def test_an_exception_sets_it_back(terminal: tuple[int, int]) -> None:
    _, inner = terminal
    before = termios.tcgetattr(inner)
    with pytest.raises(KeyboardInterrupt), raw(inner):
        raise KeyboardInterrupt
    assert termios.tcgetattr(inner) == before


def test_the_programs_own_handlers_stay(terminal: tuple[int, int]) -> None:
    _, inner = terminal

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with raw(inner):
            assert signal.getsignal(signal.SIGTERM) is handler
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_no_terminal_is_left_alone(pipe: tuple[int, int]) -> None:
    with raw(pipe[0]):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_terminal_that_goes_away_is_no_error() -> None:
    outer, inner = os.openpty()
    with raw(inner):
        os.close(outer)
        os.close(inner)


PROGRAM = """
import os, sys, threading
from paravirt.terminal import raw
def wait():
    with raw(0):
        print("raw", flush=True)
        if {leave!r} == "return":
            return
        threading.Event().wait()
if {thread}:
    threading.Thread(target=wait, daemon=True).start()
    sys.stdin.read(1)
    sys.exit()
else:
    wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_that_kills_sets_it_back(terminal: tuple[int, int], number: signal.Signals) -> None:
    _, inner = terminal
    before = termios.tcgetattr(inner)
    program = PROGRAM.format(leave="", thread=False)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=inner, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"raw\n"
        assert is_raw(inner)
        process.send_signal(number)
        assert process.wait(PATIENCE) == -number
    assert termios.tcgetattr(inner) == before


def test_the_programs_end_sets_it_back_although_another_thread_is_at_it(terminal: tuple[int, int]) -> None:
    outer, inner = terminal
    before = termios.tcgetattr(inner)
    program = PROGRAM.format(leave="", thread=True)
    with subprocess.Popen([sys.executable, "-c", program], stdin=inner, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"raw\n"
        assert is_raw(inner)
        os.write(outer, b"q")
        assert process.wait(PATIENCE) == 0
    assert termios.tcgetattr(inner) == before


# --- keyboard --------------------------------------------------------------------------------------------------


class Guest:
    """Takes what is typed."""

    def __init__(self) -> None:
        self.typed: queue.Queue[bytes] = queue.Queue()
        self.left = threading.Event()

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < count:
            data += self.typed.get(timeout=PATIENCE)
        return data


class Stdin:
    """Stands in for sys.stdin."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


@pytest.fixture
def standard_input(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """The pseudo terminal as standard input."""
    monkeypatch.setattr(sys, "stdin", Stdin(terminal[1]))
    return terminal


def test_every_key_reaches_the_guest(standard_input: tuple[int, int]) -> None:
    outer, inner = standard_input
    before = termios.tcgetattr(inner)
    guest = Guest()
    with keyboard(guest.typed.put, guest.left.set):
        assert not termios.tcgetattr(inner)[3] & (termios.ISIG | termios.ICANON | termios.ECHO)
        os.write(outer, b"a\x03\x1a\r\xff")
        assert guest.read(5) == b"a\x03\x1a\r\xff"
        assert not guest.left.is_set()
    assert termios.tcgetattr(inner) == before


def test_ctrl_bracket_leaves(standard_input: tuple[int, int]) -> None:
    outer, _ = standard_input
    guest = Guest()
    with keyboard(guest.typed.put, guest.left.set):
        os.write(outer, b"ls\x1dnever")
        assert guest.left.wait(PATIENCE)
    assert guest.read(2) == b"ls"
    assert guest.typed.empty()


def test_the_terminal_is_set_back_after_an_error(standard_input: tuple[int, int]) -> None:
    _, inner = standard_input
    before = termios.tcgetattr(inner)
    guest = Guest()
    with pytest.raises(KeyboardInterrupt), keyboard(guest.typed.put, guest.left.set):
        raise KeyboardInterrupt
    assert termios.tcgetattr(inner) == before


def test_a_pipe_is_passed_on_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", Stdin(read))
    guest = Guest()
    before = Leftovers()
    with keyboard(guest.typed.put, guest.left.set):
        os.write(write, b"one\x1dtwo")
        assert guest.read(7) == b"one\x1dtwo"
        os.close(write)
    assert before.new() == []
    assert not guest.left.is_set()
    os.close(read)


def test_without_standard_input() -> None:
    program = "from paravirt.terminal import keyboard\nwith keyboard(print, print): print('fine')"
    command = ["sh", "-c", 'exec "$0" -c "$1" <&-', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


# --- output ----------------------------------------------------------------------------------------------------


def test_a_reader_that_is_slow_gets_everything(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.set_blocking(write, False)
    data = os.urandom(300_000)
    writer = threading.Thread(target=write_all, args=(write, data))
    writer.start()
    assert read_exactly(read, len(data)) == data
    writer.join(PATIENCE)
    assert not writer.is_alive()


def test_output_that_nobody_takes_is_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        write_all(write, b"text")
    os.close(write)
