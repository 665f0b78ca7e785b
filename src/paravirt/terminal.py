"""The user's terminal as a guest's: raw while it lasts, itself again afterwards, whatever happens.

with raw(0):
    end = interact(domain.console)
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import os
import queue
import select
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, Protocol

ESCAPE: Final = 0x1D
"""Ctrl-], which leaves, as in xl console and telnet."""

_CHUNK: Final = 4096
_DEADLY: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Speaker(Protocol):
    """What one can be connected with: a :class:`paravirt.domain0.console.Console`, or something like it."""

    def send(self, data: str | bytes) -> None:
        """Type ``data``."""

    def listen(
        self, listener: Callable[[bytes], None], backlog: bool = True, closed: Callable[[], None] | None = None
    ) -> None:
        """Call ``listener`` with all output, and ``closed`` when there will be no more."""

    def unlisten(self, listener: Callable[[bytes], None]) -> None:
        """Take a listener back."""


class End(enum.Enum):
    """Why :func:`interact` came to its end."""

    LEFT = "the user typed Ctrl-]"
    CLOSED = "the domain ended"


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


def interact(speaker: Speaker, input_fd: int = 0, output_fd: int = 1, *, backlog: bool = True) -> End:
    """Pass what is typed to ``speaker`` and what it says to ``output_fd``, until one of the two has had enough.

    A terminal is raw meanwhile, and Ctrl-] leaves. From anything else everything is passed on until it ends; after
    that there is only output.

    Parameters:
        backlog: begin with everything that was said before.

    Raises:
        OSError: the output cannot be written.
    """
    with raw(input_fd), _Output(speaker, output_fd, backlog) as output:
        escape = bytes([ESCAPE]) if os.isatty(input_fd) else None
        waiting = select.poll()
        waiting.register(output.wake_fd, select.POLLIN)
        waiting.register(input_fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in waiting.poll()}
            if output.wake_fd in ready and not output.write():
                return End.CLOSED
            if input_fd not in ready:
                continue
            data = _read(input_fd)
            if not data:
                waiting.unregister(input_fd)
                continue
            typed, left, _ = data.partition(escape) if escape else (data, b"", b"")
            if typed:
                speaker.send(typed)
            if left:
                output.write()
                return End.LEFT


class _Output:
    """A speaker's output on its way to a file: taken in its thread, written in ours."""

    def __init__(self, speaker: Speaker, fd: int, backlog: bool) -> None:
        self._speaker = speaker
        self._fd = fd
        self._backlog = backlog
        self._said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = True
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __enter__(self) -> _Output:
        self._speaker.listen(self._hear, self._backlog, lambda: self._hear(None))
        return self

    def __exit__(self, *_: object) -> None:
        self._speaker.unlisten(self._hear)
        with self._lock:
            self._open = False
            os.close(self.wake_fd)

    def _hear(self, data: bytes | None) -> None:
        self._said.put(data)
        with self._lock:
            if self._open:
                os.eventfd_write(self.wake_fd, 1)

    def write(self) -> bool:
        """Write what was said: whether there may be more."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)
        while not self._said.empty():
            data = self._said.get()
            if data is None:
                return False
            _write_all(self._fd, data)
        return True


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:
        return b""  # the terminal has gone


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # whoever gave us the file has set it so
            select.select([], [fd], [])
