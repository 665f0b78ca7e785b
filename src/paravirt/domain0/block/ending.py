"""A ring's last time: its device closes, and what its frontend has put in, or holds back, is done and answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paravirt.domain0.services import Services

LINGER: Final = 0.02
"""Seconds between looks at a frontend that has closed."""

QUIET_LOOKS: Final = 10
"""After so many looks in a row without requests it is believed to have none left. They are counted, and not the time:
a host that stood still has kept the guest from putting any in."""

MOST_LOOKS: Final = 250
"""How often it is looked while more requests come."""


class Ending:
    """The end of one ring.

    Parameters:
        done: called when it has come.
        nudge: sends the frontend an event.
        look: looks at the ring again.
    """

    def __init__(
        self, services: Services, done: Callable[[], None], nudge: Callable[[], None], look: Callable[[], None]
    ) -> None:
        self.done: Final = done
        self._services, self._nudge, self._look = services, nudge, look
        self._left = self._quiet = 0

    @property
    def is_waited_for(self) -> bool:
        """More requests may come."""
        return self._left > 0

    def linger(self) -> None:
        """Wait for what the frontend holds back, while some of it comes, for some seconds at most.

        Linux's stops its queues before it says that it has closed; when it is told that its device has gone, it waits
        for the requests that are in them, for ever.  An event starts the queues again.
        """
        self._left = MOST_LOOKS
        self._wait()

    def came(self, count: int) -> None:
        """So many requests were there."""
        if count:
            self._quiet = 0

    def give_up(self) -> None:
        """Nothing is waited for: the ring is nothing to us any more."""
        self._left = 0

    def _wait(self) -> None:
        self._quiet += 1
        self._nudge()
        self._services.call_later(LINGER, self._waited)

    def _waited(self) -> None:
        if not self._left:
            return
        self._left = self._left - 1 if self._quiet < QUIET_LOOKS else 0
        if self._left:
            self._wait()
        else:
            self._look()
