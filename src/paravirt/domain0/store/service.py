"""Joins a connection of the store to a guest's ring."""

from __future__ import annotations

from collections.abc import Callable

from paravirt.domain0.ring import STORE_REPLIES, STORE_REQUESTS, ByteRing, GuestPage, RingError
from paravirt.domain0.store.server import Connection
from paravirt.domain0.store.wire import WireError


class StoreService:
    """Moves bytes between the ring and the connection.

    Attributes:
        fault: what was wrong with the guest's ring or messages, or None; a bad connection is not looked at again.
    """

    def __init__(self, page: GuestPage, connection: Connection, notify: Callable[[], None]) -> None:
        self._requests = ByteRing(page, STORE_REQUESTS)
        self._replies = ByteRing(page, STORE_REPLIES)
        self._connection = connection
        self._notify = notify
        self.fault: str | None = None

    def on_event(self) -> None:
        """Requests in, replies out, as far as both rings allow.  Called in Domain 0's thread."""
        if self.fault is not None:
            return
        moved = False
        try:
            while True:
                progress = self._deliver()
                data = self._requests.take()
                if data:
                    self._connection.receive(data)
                    progress = True
                if not progress:
                    break
                moved = True
        except (RingError, WireError) as error:
            self.fault = str(error)
        if moved:
            self._notify()

    def _deliver(self) -> bool:
        output = self._connection.take_output(1024)
        done = self._replies.put(output) if output else 0
        self._connection.put_back(output[done:])
        return done > 0
