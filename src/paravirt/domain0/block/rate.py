"""A limit to how much a device may do in a time: a bucket of tokens."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

BURST: Final = 0.1
"""Seconds' worth of what was not used that may be used at once."""

RESOLUTION: Final = 1e-6
"""Seconds that are not worth waiting for."""


class RateLimit:
    """So many units each second.

    More than there is left may be taken, and is then waited for: a request of any size has its turn.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate = per_second
        self._clock = clock
        self._left = per_second * BURST
        self._at = clock()

    def wait(self) -> float:
        """Seconds until something may be taken again; 0: now."""
        now = self._clock()
        self._left = min(self._rate * BURST, self._left + (now - self._at) * self._rate)
        self._at = now
        debt = -self._left / self._rate
        return debt if debt > RESOLUTION else 0.0

    def take(self, units: float) -> None:
        """Use some."""
        self._left -= units
