"""Calls that come later, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt.domain0.services import Services


class Later:
    """One call, however often it is asked for until it comes.

    Parameters:
        function: what is called, in Domain 0's thread.

    Attributes:
        is_coming: it was asked for, and has not come. Whoever sets this to false does not wait for it any more; it
            comes nevertheless.
    """

    def __init__(self, services: Services, function: Callable[[], None]) -> None:
        self._services, self._function = services, function
        self.is_coming = False

    def ask(self, delay: float) -> None:
        """Have it come in so many seconds, unless it is coming."""
        if not self.is_coming:
            self.is_coming = True
            self._services.call_later(delay, self._come)

    def _come(self) -> None:
        self.is_coming = False
        self._function()
