"""Rate limits: so many bytes in each interval, as Xen's network backends count them. Free of I/O."""

from __future__ import annotations

from typing import Final

_LEAST_BURST: Final = 131072
"""A packet may be as large as this, however few bytes there are in an interval (NETIF's largest, twice)."""


class Credit:
    """What an interface may still send.

    Parameters:
        limit: bytes in each interval.
        interval: seconds.
    """

    def __init__(self, limit: int, interval: float) -> None:
        self._limit, self._interval = limit, interval
        self._left = limit
        self._next: float | None = None

    def take(self, size: int, now: float) -> float | None:
        """Use credit for ``size`` bytes at the time ``now``: None, or how many seconds to wait until asking again."""
        if self._next is None:
            self._next = now + self._interval
        while now >= self._next:
            whole = int((now - self._next) // self._interval) + 1
            most = max(self._limit, min(size, _LEAST_BURST))
            self._left = min(self._left + whole * self._limit, most)
            self._next += whole * self._interval
        if size <= self._left:
            self._left -= size
            return None
        return self._next - now
