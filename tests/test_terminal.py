"""The user's terminal: raw while it lasts, and set back on every way out; and the pump between it and a console."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator

import pytest

from paravirt.domain0.console import Console
from paravirt.terminal import End, interact, raw

PATIENCE = 30


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


# --- interact --------------------------------------------------------------------------------------------------


class Session:
    """``interact`` in a thread."""

    def __init__(self, console: Console, input_fd: int, output_fd: int, backlog: bool = True) -> None:
        self.end: End | None = None
        self.error: OSError | None = None
        self._arguments = console, input_fd, output_fd, backlog
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        console, input_fd, output_fd, backlog = self._arguments
        try:
            self.end = interact(console, input_fd, output_fd, backlog=backlog)
        except OSError as error:
            self.error = error

    def join(self) -> End | None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.end


class Typed:
    """Collects what is typed to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._changed = threading.Event()
        console.wake = self._changed.set

    def wait(self, count: int) -> None:
        while self._console.unread < count:
            assert self._changed.wait(PATIENCE)
            self._changed.clear()


def test_typing_and_reading_and_leaving(terminal: tuple[int, int], pipe: tuple[int, int]) -> None:
    outer, inner = terminal
    console = Console()
    typed = Typed(console)
    console.emit(b"backlog ")
    before = termios.tcgetattr(inner)
    session = Session(console, inner, pipe[1])
    assert read_exactly(pipe[0], 8) == b"backlog "
    assert is_raw(inner)
    console.emit(b"new")
    assert read_exactly(pipe[0], 3) == b"new"
    os.write(outer, b"ls\r\x03")
    typed.wait(4)
    os.write(outer, b"x\x1dnever")
    assert session.join() is End.LEFT
    assert termios.tcgetattr(inner) == before
    assert console.unread == 5
    console.emit(b"nobody listens")
    console.close()


def test_the_domains_end(terminal: tuple[int, int], pipe: tuple[int, int]) -> None:
    console = Console()
    session = Session(console, terminal[1], pipe[1])
    console.emit(b"reboot: Power down\n")
    console.close()
    assert session.join() is End.CLOSED
    assert read_exactly(pipe[0], 19) == b"reboot: Power down\n"


def test_a_domain_that_has_ended_is_shown_all_the_same(terminal: tuple[int, int], pipe: tuple[int, int]) -> None:
    console = Console()
    console.emit(b"last words")
    console.close()
    assert Session(console, terminal[1], pipe[1]).join() is End.CLOSED
    assert read_exactly(pipe[0], 10) == b"last words"


def test_without_backlog(terminal: tuple[int, int], pipe: tuple[int, int]) -> None:
    listening = threading.Event()

    class Heard(Console):
        def listen(
            self,
            listener: Callable[[bytes], None],
            backlog: bool = True,
            closed: Callable[[], None] | None = None,
        ) -> None:
            super().listen(listener, backlog, closed)
            listening.set()

    console = Heard()
    console.emit(b"old")
    session = Session(console, terminal[1], pipe[1], backlog=False)
    assert listening.wait(PATIENCE)
    console.emit(b"new")
    assert read_exactly(pipe[0], 3) == b"new"
    os.write(terminal[0], b"\x1d")
    assert session.join() is End.LEFT


def test_a_pipe_is_passed_on_until_it_ends_and_then_only_output(pipe: tuple[int, int]) -> None:
    console = Console()
    typed = Typed(console)
    source_read, source_write = os.pipe()
    session = Session(console, source_read, pipe[1])
    os.write(source_write, b"one\x1dtwo\n")
    os.close(source_write)
    typed.wait(8)
    console.emit(b"still here")
    assert read_exactly(pipe[0], 10) == b"still here"
    console.close()
    assert session.join() is End.CLOSED
    os.close(source_read)


def test_output_that_nobody_takes_is_an_error(terminal: tuple[int, int]) -> None:
    console = Console()
    read, write = os.pipe()
    os.close(read)
    session = Session(console, terminal[1], write)
    console.emit(b"text")
    session.join()
    assert isinstance(session.error, BrokenPipeError)
    os.close(write)
    console.emit(b"more")  # its listener is gone


def test_a_reader_that_is_slow_gets_everything() -> None:
    console = Console()
    read, write = os.pipe()
    os.set_blocking(write, False)
    source_read, source_write = os.pipe()
    session = Session(console, source_read, write)
    data = os.urandom(300_000)
    console.emit(data)
    console.close()
    assert read_exactly(read, len(data)) == data
    assert session.join() is End.CLOSED
    for fd in (read, write, source_read, source_write):
        os.close(fd)
