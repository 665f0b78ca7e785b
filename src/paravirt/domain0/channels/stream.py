"""Bytes to and from a file descriptor that never blocks, in Domain 0's thread."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Final

from paravirt.domain0.services import Services

INPUT_LIMIT: Final = 4096
"""Bytes that are read ahead of what the guest takes."""

OUTPUT_LIMIT: Final = 1 << 20
"""Bytes of output that wait for a reader."""

_ENDED: Final = select.POLLHUP | select.POLLERR


class Stream:
    """One descriptor, watched from the beginning until :meth:`close`; the descriptor itself is its owner's.

    Parameters:
        on_ready: called when something was read, or when there is room for output again.
        on_end: called when the other side has gone.

    Attributes:
        typed: what was read, and the guest has not taken yet.
    """

    def __init__(self, services: Services, fd: int, on_ready: Callable[[], None], on_end: Callable[[], None]) -> None:
        self.typed = bytearray()
        self._services = services
        self._fd = fd
        self._on_ready = on_ready
        self._on_end = on_end
        self._output = bytearray()
        self._is_open = True
        self._watch()

    @property
    def room(self) -> int:
        """Bytes of output that may be put in."""
        return max(0, OUTPUT_LIMIT - len(self._output))

    def put(self, data: bytes) -> None:
        """Write bytes, now or as soon as the other side takes them."""
        self._output += data
        self._write()

    def drop_output(self, most: int) -> None:
        """Forget the oldest output, so that at most so many bytes wait."""
        del self._output[: max(0, len(self._output) - most)]

    def take(self, count: int) -> None:
        """The guest has taken so many of the typed bytes."""
        del self.typed[:count]
        self._watch()

    def close(self) -> None:
        """Watch it no more."""
        self._is_open = False
        self._services.unwatch(self._fd)

    def _watch(self) -> None:
        if self._is_open:
            events = select.POLLIN if len(self.typed) < INPUT_LIMIT else 0
            events |= select.POLLOUT if self._output else 0
            self._services.watch(self._fd, events, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & select.POLLIN:
                data = os.read(self._fd, INPUT_LIMIT)
                if not data:
                    self._on_end()
                    return
                self.typed += data
            elif events & _ENDED:
                self._on_end()
                return
        except BlockingIOError:
            events &= ~select.POLLIN  # others read it before us
        except OSError:
            self._on_end()
            return
        self._write()
        self._on_ready()

    def _write(self) -> None:
        try:
            while self._output and self._is_open:
                del self._output[: os.write(self._fd, self._output)]
        except BlockingIOError:
            self._watch()
            return
        except OSError:
            self._on_end()
            return
        self._watch()
