"""Standard input as the guest's keyboard."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator

LEAVE = 0x1D
"""Ctrl-], which ends the session, as in xl console and telnet."""


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
        is_terminal = os.isatty(fd)
        if is_terminal:
            stack.enter_context(raw(fd))
        thread = threading.Thread(
            target=_pass_on, args=(fd, wake_read, is_terminal, send, leave), name="keyboard", daemon=True
        )
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.close, wake_write)  # first of all: this wakes the thread
        yield


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """The terminal in raw mode."""
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _pass_on(
    fd: int, wake: int, is_terminal: bool, send: Callable[[bytes], None], leave: Callable[[], None]
) -> None:
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    waiting.register(wake, select.POLLIN)
    while True:
        ready = {number for number, _ in waiting.poll()}
        if wake in ready:
            return
        try:
            data = os.read(fd, 4096)
        except OSError:
            data = b""  # the terminal has gone
        typed, escape, _ = data.partition(bytes([LEAVE])) if is_terminal else (data, b"", b"")
        if typed:
            send(typed)
        if escape:
            leave()
            return
        if not data:
            return
