"""A domain's console: everything it said, from the first byte on, and what is typed to it.

Output comes from two sides: the shared ring (hvc0) and the emergency console (the console_io hypercall).  It is
kept after the domain's death.  ``expect`` and ``send`` are how programs talk to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from paravirt.domain0.ring import CONSOLE_IN, CONSOLE_OUT, ByteRing, GuestPage, RingError
from paravirt.errors import ParavirtError

MAX_OUTPUT = 64 << 20
"""Bytes kept; of a console that says more, the oldest are dropped (and counted)."""

Listener = Callable[[bytes], None]


class ConsoleError(ParavirtError):
    """What was expected did not come; the message ends with the console's last lines."""


class ConsoleTimeout(ConsoleError):
    """The text did not come in time."""


class ConsoleClosed(ConsoleError):
    """The domain ended before the text came."""


class Console:
    """One console.

    Attributes:
        dropped: bytes of output that are no longer kept.
        fault: what was wrong with the guest's ring, or None; a bad ring is not looked at again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._output = bytearray()
        self._input = bytearray()
        self._match_end = 0
        self._listeners: list[Listener] = []
        self._rings: tuple[ByteRing, ByteRing] | None = None
        self._notify: Callable[[], None] = lambda: None
        self._closed = False
        self.dropped = 0
        self.fault: str | None = None
        self.wake: Callable[[], None] | None = None

    def attach(self, page: GuestPage, notify: Callable[[], None]) -> None:
        """Serve the ring in ``page``; ``notify`` sends the guest an event."""
        self._rings = ByteRing(page, CONSOLE_IN), ByteRing(page, CONSOLE_OUT)
        self._notify = notify

    def emit(self, data: bytes) -> None:
        """Output that did not come through the ring."""
        if not data:
            return
        with self._changed:
            self._output += data
            excess = len(self._output) - MAX_OUTPUT
            if excess > 0:
                del self._output[:excess]
                self.dropped += excess
                self._match_end = max(0, self._match_end - excess)
            self._changed.notify_all()
        for listener in list(self._listeners):
            listener(data)

    def on_event(self) -> None:
        """Move bytes both ways.  Called in Domain 0's thread when the guest or ``send`` asks for it."""
        if self._rings is None or self.fault is not None:
            return
        incoming, outgoing = self._rings
        moved = False
        try:
            while data := outgoing.take():
                moved = True
                self.emit(data)
            with self._changed:
                if self._input:
                    count = incoming.put(bytes(self._input))
                    del self._input[:count]
                    moved = moved or count > 0
        except RingError as error:
            self.fault = str(error)
            return
        if moved:
            self._notify()

    def send(self, data: str | bytes) -> None:
        """Type ``data``; what does not fit into the ring waits until the guest has read."""
        with self._changed:
            self._input += data.encode() if isinstance(data, str) else data
        if self.wake is not None:
            self.wake()

    @property
    def output(self) -> bytes:
        """Everything said so far."""
        with self._changed:
            return bytes(self._output)

    @property
    def closed(self) -> bool:
        """Whether the domain has ended."""
        return self._closed

    def tail(self, length: int = 2000) -> str:
        """The last ``length`` bytes as text."""
        with self._changed:
            return bytes(self._output[-length:]).decode("utf-8", "replace")

    def listen(self, listener: Listener, backlog: bool = True) -> None:
        """Call ``listener`` with new output; with ``backlog`` first with all there is already."""
        with self._changed:
            so_far = bytes(self._output) if backlog else b""
            self._listeners.append(listener)
        if so_far:
            listener(so_far)

    def unlisten(self, listener: Listener) -> None:
        """Take a listener back."""
        self._listeners.remove(listener)

    def expect(self, text: str | bytes, timeout: float | None = None) -> str:
        """Wait for ``text`` in the output after the previous match, and return the output up to its end.

        Parameters:
            timeout: seconds; None waits until the domain ends.

        Raises:
            ConsoleTimeout: it did not come in time.
            ConsoleClosed: the domain ended without it.
        """
        wanted = text.encode() if isinstance(text, str) else text
        with self._changed:
            start = self._match_end
            came = self._changed.wait_for(
                lambda: self._closed or wanted in self._output[self._match_end :], timeout
            )
            found = self._output.find(wanted, self._match_end)
            if found >= 0:
                self._match_end = found + len(wanted)
                return bytes(self._output[min(start, found) : self._match_end]).decode("utf-8", "replace")
            tail = bytes(self._output[-1000:]).decode("utf-8", "replace")
        if came:
            raise ConsoleClosed(f"the domain ended before it said {text!r}; its last words:\n{tail}")
        raise ConsoleTimeout(f"{text!r} did not come within {timeout} s; the console's last words:\n{tail}")

    def close(self) -> None:
        """The domain ended: nobody needs to wait any longer.  The output stays."""
        with self._changed:
            self._closed = True
            self._rings = None
            self._changed.notify_all()
