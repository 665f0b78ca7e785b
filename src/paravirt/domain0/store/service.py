"""Joins a connection of the store to a guest's ring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paravirt.abi.io.xs_wire import XENSTORE_ERROR_PROTO, XENSTORE_ERROR_RINGIDX, XenstoreDomainInterface
from paravirt.domain0.ring import (
    STORE_REPLIES,
    STORE_REQUESTS,
    ByteRing,
    GuestPage,
    GuestProtocolError,
    RingError,
)
from paravirt.domain0.store.server import Connection

ROUNDS: Final = 64
"""How often one event may empty or fill a ring: a guest that keeps them busy must not keep Domain 0 from others."""


class StoreService:
    """Moves bytes between the ring and the connection.

    Parameters:
        page: the guest's xenstore page.
        notify: sends the guest an event.
        later: has a function called soon in Domain 0's thread. With it a guest gets ROUNDS of service at a time;
            without it, service until its ring is empty.

    Attributes:
        fault: what was wrong with the guest's ring or messages, or None. A guest at fault is not served any more,
            and finds the error's number in its page.
    """

    def __init__(
        self,
        page: GuestPage,
        connection: Connection,
        notify: Callable[[], None],
        later: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._page = page
        self._requests = ByteRing(page, STORE_REQUESTS)
        self._replies = ByteRing(page, STORE_REPLIES)
        self._connection = connection
        self._notify = notify
        self._later = later
        self.fault: str | None = None

    def on_event(self) -> None:
        """Requests in, replies out, as far as both rings allow. Called in Domain 0's thread."""
        if self.fault is not None or self._connection.broken is not None:
            return
        moved = False
        rounds = 0
        try:
            while self._round():
                moved = True
                rounds += 1
                if rounds >= ROUNDS and self._later is not None:
                    self._later(self.on_event)
                    break
        except GuestProtocolError as error:
            self._break_off(error)
            moved = True
        if moved:
            self._notify()

    def close(self) -> None:
        """The domain has ended: its page is not touched any more."""
        self.fault = "the domain has ended"

    def _round(self) -> bool:
        """Fill one ring and empty the other, once: whether anything moved."""
        sent = self._replies.fill(self._connection.take_output)
        if self._connection.congested:
            return sent > 0
        data = self._requests.take()
        if data:
            self._connection.receive(data)
        return sent > 0 or bool(data)

    def _break_off(self, error: GuestProtocolError) -> None:
        self.fault = str(error)
        self._connection.break_off(self.fault)
        number = XENSTORE_ERROR_RINGIDX if isinstance(error, RingError) else XENSTORE_ERROR_PROTO
        self._page.write(XenstoreDomainInterface.error.offset, number.to_bytes(4, "little"))
