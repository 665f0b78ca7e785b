"""A program on a pseudo terminal, for tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import time

from ..patience import PATIENCE


class Terminal:
    """A process whose standard streams are a terminal of this size; a child of ours."""

    def __init__(self, command: list[str], lines: int = 24, columns: int = 80) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execv(command[0], command)
        self.seen = b""
        self._matched = 0

    def expect(self, text: str, timeout: float = PATIENCE) -> str:
        """Read until this text comes after the previous match; all that came up to its end."""
        wanted = text.encode()
        deadline = time.monotonic() + timeout
        while wanted not in self.seen[self._matched :]:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"{text!r} did not come; seen: {self.seen.decode(errors='replace')}")
            self.seen += os.read(self.fd, 4096)
        start, self._matched = self._matched, self.seen.index(wanted, self._matched) + len(wanted)
        return self.seen[start : self._matched].decode(errors="replace")

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.fd, text.encode())

    def status(self) -> int:
        """Read to the end, wait for the process, and return its exit status."""
        # EIO is how a pseudo terminal says that the other side has closed.
        with contextlib.suppress(OSError):
            while data := os.read(self.fd, 4096):
                self.seen += data
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)
