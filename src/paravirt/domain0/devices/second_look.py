"""Rings that were found empty are looked at once more, where an engine's barriers are none.

A frontend puts in a request and then looks whether the backend wants an event; a backend asks for an event and then
looks for requests. One of the two sees what the other did, if both have a barrier in between. Unicorn executes a
guest's ``mfence`` and locked instructions without one, so that both may look too early: of 100 000 requests that were
put in at the very moment at which the other side went to sleep, one or two were missed by both. Nothing more is heard
of such a ring then. What was stored is seen by everybody a moment later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from paravirt.domain0.devices.backend import Facilities

AFTER: Final = 0.005
"""Seconds."""


class SecondLook:
    """The second look at one ring.

    Parameters:
        look: does what is to be done when the frontend sends an event; there may be nothing to do, and it may come when
            the ring is closed.
    """

    def __init__(self, facilities: Facilities, look: Callable[[], None]) -> None:
        self._services = facilities.services
        self._is_needed = not (facilities.deterministic or facilities.has_barriers)
        self._look = look
        self._position = -1
        self._is_coming = self._is_wanted = False

    def soon(self, position: int) -> None:
        """An event was asked for, and there was nothing to do; at the same ``position`` again is nothing new."""
        if not self._is_needed or position == self._position:
            return
        self._position = position
        if self._is_coming:
            self._is_wanted = True
        else:
            self._come()

    def _come(self) -> None:
        self._is_coming, self._is_wanted = True, False
        self._services.call_later(AFTER, self._came)

    def _came(self) -> None:
        self._is_coming = False
        if self._is_wanted:  # the ring was found empty again, perhaps just now
            self._come()
        self._look()
