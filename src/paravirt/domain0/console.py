"""A domain's console: everything it said, from the first byte on, and what is typed to it.

Output comes from two sides: the shared ring (hvc0, public/io/console.h) and the emergency console (the console_io
hypercall). It is kept after the domain's death. ``expect`` and ``send`` are how programs talk to it.

Threads: the ring is served in Domain 0's thread. Everything else may be called from any thread; one condition
guards the bytes, and nothing foreign is called while it is held.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from paravirt.domain0.ring import CONSOLE_IN, CONSOLE_OUT, ByteRing, GuestPage, RingError
from paravirt.domain0.waiting import wait_in_turns
from paravirt.errors import ParavirtError

MAX_OUTPUT: Final = 64 << 20
"""Bytes kept; of a console that says more, the oldest are dropped (and counted)."""

ROUNDS: Final = 32
"""How often one event may empty the ring: a guest that never stops talking must not keep Domain 0 from others."""

TAIL: Final = 1000
"""Bytes of the console that an error message ends with."""

Listener = Callable[[bytes], None]
logger = logging.getLogger(__name__)


class ConsoleError(ParavirtError):
    """What was expected did not come; the message ends with the console's last lines."""


class ConsoleTimeout(ConsoleError):
    """The text did not come in time."""


class ConsoleClosed(ConsoleError):
    """The domain ended before the text came."""


class _Subscription:
    """A listener, and how far it has been told. ``position`` counts from the console's first byte."""

    def __init__(self, listener: Listener, closed: Callable[[], None] | None, position: int) -> None:
        self.listener = listener
        self.closed = closed
        self.position = position
        self.busy = False
        self.gone = False


class Console:
    """One console.

    Parameters:
        limit: bytes of output to keep; None keeps all.

    Attributes:
        dropped: bytes of output that are no longer kept.
        fault: what was wrong with the guest's ring, or None; a bad ring is not looked at again.
        wake: has ``on_event`` called in Domain 0's thread.
    """

    def __init__(self, limit: int | None = MAX_OUTPUT) -> None:
        self._changed = threading.Condition()
        self._limit = limit
        self._output = bytearray()
        self._input = bytearray()
        self._match_end = 0
        self._subscriptions: list[_Subscription] = []
        self._rings: tuple[ByteRing, ByteRing] | None = None
        self._notify: Callable[[], None] | None = None
        self._closed = False
        self.dropped = 0
        self.fault: str | None = None
        self.wake: Callable[[], None] | None = None

    # --- Domain 0's side --------------------------------------------------------------------------------------

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
            excess = 0 if self._limit is None else len(self._output) - self._limit
            if excess > 0:
                del self._output[:excess]
                self.dropped += excess
            self._changed.notify_all()
        self._tell()

    def on_event(self) -> None:
        """Move bytes both ways. Called in Domain 0's thread when the guest or ``send`` asks for it."""
        rings = self._rings
        if rings is None or self.fault is not None:
            return
        incoming, outgoing = rings
        moved = False
        try:
            for _ in range(ROUNDS):
                data = outgoing.take()
                if not data:
                    break
                moved = True
                self.emit(data)
            else:
                if self.wake is not None:
                    self.wake()
            moved = self._type(incoming) or moved
        except RingError as error:
            self.fault = str(error)
        if moved and self._notify is not None:
            self._notify()

    def close(self) -> None:
        """The domain ended: nobody needs to wait any longer. The output stays."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._rings = None
            self._notify = None
            self._input.clear()
            self._changed.notify_all()
        self._tell()

    # --- everybody's side -------------------------------------------------------------------------------------

    def send(self, data: str | bytes) -> None:
        """Type ``data``; what does not fit into the ring waits until the guest has read.

        What is typed after the domain's end goes nowhere.
        """
        with self._changed:
            if self._closed:
                return
            self._input += data.encode() if isinstance(data, str) else data
        if self.wake is not None:
            self.wake()

    @property
    def output(self) -> bytes:
        """Everything said so far, from byte 0 on (less :attr:`dropped` bytes)."""
        with self._changed:
            return bytes(self._output)

    def since(self, position: int, limit: int) -> tuple[bytes, int, bool]:
        """Up to ``limit`` bytes of output from ``position`` on, where they end, and whether nothing follows, ever.

        Positions count from the console's first byte, 0. What is no longer kept is left out.
        """
        with self._changed:
            start = max(0, position - self.dropped)
            data = bytes(self._output[start : start + limit])
            end = self.dropped + start + len(data)
            return data, end, self._closed and end == self.dropped + len(self._output)

    @property
    def unread(self) -> int:
        """Bytes that were typed and that the guest's ring had no room for yet."""
        with self._changed:
            return len(self._input)

    @property
    def closed(self) -> bool:
        """Whether the domain has ended."""
        return self._closed

    def tail(self, length: int = 2000) -> str:
        """The last ``length`` bytes as text."""
        with self._changed:
            return self._tail(length)

    def expect(self, text: str | bytes, timeout: float | None = None) -> str:
        """Wait for ``text`` in the output after the previous match, and return the output up to its end.

        Parameters:
            timeout: seconds; None waits until the domain ends.

        Raises:
            ConsoleTimeout: it did not come in time.
            ConsoleClosed: the domain ended without it.
        """
        wanted = text.encode() if isinstance(text, str) else text
        searched = position = -1

        def seen_or_closed() -> bool:
            nonlocal searched, position
            start = max(self._match_end, searched)
            at = self._output.find(wanted, max(0, start - self.dropped))
            end = self.dropped + len(self._output)
            position = self.dropped + at if at >= 0 else -1
            searched = max(start, end - len(wanted) + 1)
            return at >= 0 or self._closed

        with self._changed:
            came = wait_in_turns(lambda left: self._changed.wait_for(seen_or_closed, left), timeout)
            if position >= 0:
                begin = max(0, self._match_end - self.dropped)
                self._match_end = position + len(wanted)
                return bytes(self._output[begin : self._match_end - self.dropped]).decode("utf-8", "replace")
            tail = self._tail(TAIL)
        if came:
            raise ConsoleClosed(f"the domain ended before it said {text!r}; its last words:\n{tail}")
        raise ConsoleTimeout(f"{text!r} did not come within {timeout} s; the console's last words:\n{tail}")

    def listen(self, listener: Listener, backlog: bool = True, closed: Callable[[], None] | None = None) -> None:
        """Call ``listener`` with new output, in order and once; with ``backlog`` first with all there is already.

        It is called in whatever thread has the output, and must not keep that waiting. One that raises an
        exception is not called again. ``closed`` is called when the domain has ended and all output was told.
        """
        with self._changed:
            position = self.dropped if backlog else self.dropped + len(self._output)
            self._subscriptions.append(_Subscription(listener, closed, position))
        self._tell()

    def unlisten(self, listener: Listener) -> None:
        """Take a listener back."""
        with self._changed:
            for one in self._subscriptions:
                one.gone = one.gone or one.listener == listener
            self._subscriptions = [one for one in self._subscriptions if not one.gone]

    # ----------------------------------------------------------------------------------------------------------

    def _type(self, ring: ByteRing) -> bool:
        """Give the guest what was typed, as much as fits: whether it was anything."""
        with self._changed:
            typed = bytes(self._input[: CONSOLE_IN.size])
        count = ring.put(typed) if typed else 0
        with self._changed:
            del self._input[:count]
        return count > 0

    def _tail(self, length: int) -> str:
        return bytes(self._output[-length:]).decode("utf-8", "replace") if length > 0 else ""

    def _tell(self) -> None:
        with self._changed:
            subscriptions = list(self._subscriptions)
        for one in subscriptions:
            self._tell_one(one)

    def _tell_one(self, one: _Subscription) -> None:
        """Tell a listener all that is new. If another thread is at it, that one goes on with what is new now."""
        with self._changed:
            if one.busy:
                return
            one.busy = True
        try:
            while (data := self._next_for(one)) is not None:
                if data:
                    one.listener(data)
                elif one.closed is not None:
                    one.closed()
        except Exception:  # whatever it is, the guest's output must go on to the others
            self.unlisten(one.listener)
            logger.exception("a console's listener failed, and is not told more")

    def _next_for(self, one: _Subscription) -> bytes | None:
        """What to tell a listener next: bytes, or none at all for the end; None if there is nothing new."""
        with self._changed:
            end = self.dropped + len(self._output)
            if one.gone:
                return None
            if one.position < end:
                data = bytes(self._output[max(0, one.position - self.dropped) :])
                one.position = end
                return data
            if self._closed:
                one.gone = True
                return b""
            one.busy = False
            return None
