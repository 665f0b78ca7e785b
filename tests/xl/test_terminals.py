"""The daemon's thread for terminals, at the moments at which others end what it works with."""

from __future__ import annotations

import os
import threading

import pytest

from paravirt.domain0.console import Console
from paravirt.domain0.daemon.ptys import Pty, Ptys
from paravirt.domain0.daemon.wake import Wake

from ..leftovers import Leftovers
from ..patience import PATIENCE, wait_for


def test_a_terminal_that_goes_as_the_daemon_ends_is_closed_once() -> None:
    """When the thread has had its last round, and not yet seen that it is to end."""
    before, ptys, pty, console = Leftovers(), Ptys(), Pty(), Console()
    ptys.connect(pty, console)
    close_some, is_late = ptys._close_some, threading.Event()

    def last_round() -> None:
        close_some()
        if threading.current_thread() is ptys._thread:
            is_late.set()
            wait_for(lambda: ptys._stopping)

    ptys._close_some = last_round  # type: ignore[method-assign]
    console.emit(b"something to show")
    assert is_late.wait(PATIENCE)
    ptys.disconnect(pty)
    ptys.stop()
    assert before.new() == []


def test_who_calls_late_writes_into_nobody_s_file() -> None:
    wake = Wake()
    wake.up()
    wake.up()
    wake.heard()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(wake.fd)
    wake.close()
    other = os.eventfd(0, os.EFD_NONBLOCK)
    os.dup2(other, wake.fd)  # as a connection may have the number again
    wake.up()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(other)
    for descriptor in {other, wake.fd}:
        os.close(descriptor)
