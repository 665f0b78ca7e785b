"""Standard input as the guest's keyboard, on a pseudo terminal and on pipes."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator

import pytest

from paravirt.cli.keyboard import keyboard


class Guest:
    """Takes what is typed."""

    def __init__(self) -> None:
        self.typed: queue.Queue[bytes] = queue.Queue()
        self.left = threading.Event()

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < count:
            data += self.typed.get(timeout=10)
        return data


class Stdin:
    """Stands in for sys.stdin."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A pseudo terminal as standard input: the user's side, and the program's."""
    outer, inner = os.openpty()
    monkeypatch.setattr(sys, "stdin", Stdin(inner))
    yield outer, inner
    os.close(outer)
    os.close(inner)


def test_every_key_reaches_the_guest(terminal: tuple[int, int]) -> None:
    outer, inner = terminal
    before = termios.tcgetattr(inner)
    guest = Guest()
    with keyboard(guest.typed.put, guest.left.set):
        assert not termios.tcgetattr(inner)[3] & (termios.ISIG | termios.ICANON | termios.ECHO)
        os.write(outer, b"a\x03\x1a\r\xff")
        assert guest.read(5) == b"a\x03\x1a\r\xff"
        assert not guest.left.is_set()
    assert termios.tcgetattr(inner) == before


def test_ctrl_bracket_leaves(terminal: tuple[int, int]) -> None:
    outer, _ = terminal
    guest = Guest()
    with keyboard(guest.typed.put, guest.left.set):
        os.write(outer, b"ls\x1dnever")
        assert guest.left.wait(10)
    assert guest.typed.get_nowait() == b"ls"
    assert guest.typed.empty()


def test_the_terminal_is_set_back_after_an_error(terminal: tuple[int, int]) -> None:
    _, inner = terminal
    before = termios.tcgetattr(inner)
    guest = Guest()
    with pytest.raises(KeyboardInterrupt), keyboard(guest.typed.put, guest.left.set):
        raise KeyboardInterrupt
    assert termios.tcgetattr(inner) == before


def test_a_pipe_is_passed_on_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", Stdin(read))
    guest = Guest()
    threads = threading.active_count()
    with keyboard(guest.typed.put, guest.left.set):
        os.write(write, b"one\x1dtwo")
        assert guest.read(7) == b"one\x1dtwo"
        os.close(write)
    assert threading.active_count() == threads
    assert not guest.left.is_set()
    os.close(read)


def test_without_standard_input() -> None:
    program = "from paravirt.cli.keyboard import keyboard\nwith keyboard(print, print): print('fine')"
    command = ["sh", "-c", 'exec "$0" -c "$1" <&-', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
