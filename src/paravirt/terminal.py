"""The user's terminal as a guest's: raw while it lasts, itself again afterwards, whatever happens.

with keyboard(domain.console.send, domain.destroy):
    domain.wait()
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

ESCAPE: Final = 0x1D
"""Ctrl-], which leaves, as in xl console and telnet."""

_CHUNK: Final = 4096
_DEADLY: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """While this lasts, the terminal ``fd`` passes every key on. What is no terminal is left as it is.

    The terminal is set back on every way out: at the end of the block, with an exception, at the program's end if
    another thread is here, and by a signal that would kill the program (if this is the main thread, and the program
    has no handler of its own for it).
    """
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)

    def set_back() -> None:
        # A terminal that is gone needs nothing.
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)

    atexit.register(set_back)
    try:
        with _set_back_when_killed(set_back):
            tty.setraw(fd)
            yield
    finally:
        set_back()
        atexit.unregister(set_back)


@contextlib.contextmanager
def _set_back_when_killed(set_back: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def die(number: int, _frame: FrameType | None) -> None:
        set_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    ours = [number for number in _DEADLY if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, die)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def keyboard(send: Callable[[bytes], None], leave: Callable[[], None]) -> Iterator[None]:
    """While this context lasts, what is typed goes to ``send``; ``leave`` is called when Ctrl-] is typed.

    A terminal is set to raw mode, so that every other key reaches the guest, and is set back at the end.
    Without a terminal, standard input is passed on until it ends, Ctrl-] included.
    """
    try:
        fd = sys.stdin.fileno()
        os.fstat(fd)
    except (AttributeError, OSError, ValueError):
        yield  # there is no standard input
        return
    wake_read, wake_write = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, wake_read)
        stack.enter_context(raw(fd))
        thread = threading.Thread(target=_pass_on, args=(fd, wake_read, send, leave), name="keyboard", daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.close, wake_write)  # first of all: this wakes the thread
        yield


def _pass_on(fd: int, wake: int, send: Callable[[bytes], None], leave: Callable[[], None]) -> None:
    escape = bytes([ESCAPE]) if os.isatty(fd) else None
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    waiting.register(wake, select.POLLIN)
    while True:
        ready = {number for number, _ in waiting.poll()}
        if wake in ready:
            return
        try:
            data = os.read(fd, _CHUNK)
        except OSError:
            data = b""  # the terminal has gone
        typed, left, _ = data.partition(escape) if escape else (data, b"", b"")
        if typed:
            send(typed)
        if left:
            leave()
            return
        if not data:
            return


def write_all(fd: int, data: bytes) -> None:
    """All of it, however little the file takes at a time."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # whoever gave us the file has set it so
            select.select([], [fd], [])
