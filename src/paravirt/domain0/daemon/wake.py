"""How a thread that waits for file descriptors is woken by others."""

from __future__ import annotations

import contextlib
import os
import threading


class Wake:
    """A descriptor that is readable when somebody wants the thread's attention.

    A listener may be called for the last time when it has just been taken back, and its thread has just ended. By then
    the number of a closed descriptor may be another file's; so nobody writes to it after :meth:`close`.

    Attributes:
        fd: what to wait for (POLLIN).
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._is_open = True

    def up(self) -> None:
        """Wake the thread, if there still is one."""
        with self._lock, contextlib.suppress(BlockingIOError):  # it is readable already
            if self._is_open:
                os.eventfd_write(self.fd, 1)

    def heard(self) -> None:
        """The thread is awake: it is readable again when somebody calls again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """The thread waits no more."""
        with self._lock:
            self._is_open = False
            os.close(self.fd)
