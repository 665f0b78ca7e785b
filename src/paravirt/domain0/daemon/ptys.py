"""The consoles' terminals: each domain's console is a pseudo terminal, named in xenstore as ``console/tty``.

One thread moves the bytes. A terminal that nobody reads takes a few KiB and then waits, and nothing else waits for it;
who opens it later reads the rest of what the console still has.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import Final

from paravirt.domain0.console import Console
from paravirt.domain0.daemon.wake import Wake
from paravirt.domain0.pseudoterminal import PseudoTerminal

_CHUNK: Final = 4096


class Pty(PseudoTerminal):
    """One console's terminal, and how much of the console it has shown."""

    def __init__(self) -> None:
        super().__init__()
        self.console: Console | None = None
        self.position = 0
        self.pending = b""


class Ptys:
    """All terminals of a daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ptys: dict[int, Pty] = {}
        self._closing: list[Pty] = []
        self._stopping = False
        self._wake = Wake()
        self._thread = threading.Thread(target=self._run, name="ptys", daemon=True)
        self._thread.start()

    def connect(self, pty: Pty, console: Console) -> None:
        """Serve a terminal from now on; it is closed by :meth:`disconnect`."""
        pty.console = console
        with self._lock:
            self._ptys[pty.near] = pty
        console.listen(self._said)

    def disconnect(self, pty: Pty) -> None:
        """The domain is gone, and its terminal goes."""
        if pty.console is not None:
            pty.console.unlisten(self._said)
        with self._lock:
            self._closing.append(pty)
        self._wake.up()

    def stop(self) -> None:
        """Close all terminals."""
        self._stopping = True
        self._wake.up()
        self._thread.join()
        self._close_some()  # it may have ended without another round
        for pty in self._ptys.values():
            pty.close()
        self._wake.close()

    def _said(self, _data: bytes) -> None:
        self._wake.up()

    def _run(self) -> None:
        while not self._stopping:
            poll = select.poll()
            poll.register(self._wake.fd, select.POLLIN)
            with self._lock:
                ptys = dict(self._ptys)
            for fd, pty in ptys.items():
                poll.register(fd, select.POLLIN | (select.POLLOUT if pty.pending else 0))
            for fd, events in poll.poll():
                if fd == self._wake.fd:
                    self._wake.heard()
                elif events & select.POLLIN:
                    self._typed(ptys[fd])
            for pty in ptys.values():
                self._show(pty)
            self._close_some()

    def _typed(self, pty: Pty) -> None:
        with contextlib.suppress(OSError):
            data = os.read(pty.near, _CHUNK)
            if pty.console is not None:
                pty.console.send(data)

    def _show(self, pty: Pty) -> None:
        assert pty.console is not None
        while True:
            if not pty.pending:
                pty.pending, pty.position, _ = pty.console.since(pty.position, _CHUNK)
            if not pty.pending:
                return
            try:
                pty.pending = pty.pending[os.write(pty.near, pty.pending) :]
            except BlockingIOError:
                return

    def _close_some(self) -> None:
        with self._lock:
            closing, self._closing = self._closing, []
            for pty in closing:
                self._ptys.pop(pty.near, None)
        for pty in closing:
            pty.close()
