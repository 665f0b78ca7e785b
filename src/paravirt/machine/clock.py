"""The machine's clocks: all time in a machine comes from one of these.

A clock counts nanoseconds of *system time* from the machine's boot, and knows the wall-clock time of that
moment. The real clock follows the host. The virtual clock stands still until it is told to go on, so that two
runs with the same inputs see the same times; native code keeps its own copy of the count
(``Host.virtual_ns``) and a virtual clock may be given that as its source.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

# Where virtual wall-clock time begins unless somebody chooses otherwise: 2026-01-01 00:00:00 UTC.
VIRTUAL_EPOCH_NS = 1_767_225_600 * 1_000_000_000
# How many nanoseconds of virtual time one translation block of guest code takes.
NS_PER_BLOCK = 10


class Clock(Protocol):
    """What the rest of the machine asks of a clock."""

    @property
    def virtual(self) -> bool:
        """Whether time passes only as the machine says, never by itself."""

    @property
    def boot_wall_ns(self) -> int:
        """The wall-clock time at system time zero: nanoseconds since 1970-01-01 UTC."""

    def now(self) -> int:
        """System time in nanoseconds; never goes back."""

    def wall(self) -> int:
        """The wall-clock time: nanoseconds since 1970-01-01 UTC."""


class RealClock:
    """The host's time: CLOCK_MONOTONIC since this clock was made.

    The wall clock is read once. Later changes to the host's wall clock are not followed: guests have their
    own means (NTP) to do that, and get no surprises by ours.
    """

    virtual = False

    def __init__(self) -> None:
        self._boot = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._boot_wall = time.clock_gettime_ns(time.CLOCK_REALTIME)

    @property
    def boot_ns(self) -> int:
        """CLOCK_MONOTONIC at system time zero, in nanoseconds."""
        return self._boot

    @property
    def boot_wall_ns(self) -> int:
        """The wall-clock time at system time zero: nanoseconds since 1970-01-01 UTC."""
        return self._boot_wall

    def now(self) -> int:
        """Nanoseconds since this clock was made."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC) - self._boot

    def wall(self) -> int:
        """The wall-clock time: nanoseconds since 1970-01-01 UTC."""
        return self._boot_wall + self.now()


class VirtualClock:
    """Time that passes only when told to.

    Args:
        boot_wall_ns: the wall-clock time at system time zero; a fixed date unless chosen.
        source: reads the present time in nanoseconds from whoever keeps it; without one the clock keeps it, and
            :meth:`advance` and :meth:`advance_to` move it.

    Raises:
        ValueError: a wall-clock time before 1970, which guests cannot be told.
    """

    virtual = True

    def __init__(
        self, boot_wall_ns: int = VIRTUAL_EPOCH_NS, source: Callable[[], int] | None = None
    ) -> None:
        if boot_wall_ns < 0:
            raise ValueError("The wall clock cannot start before 1970.")
        self._boot_wall = boot_wall_ns
        self._source = source
        self._now = 0

    @property
    def boot_wall_ns(self) -> int:
        """The wall-clock time at system time zero: nanoseconds since 1970-01-01 UTC."""
        return self._boot_wall

    def now(self) -> int:
        """System time in nanoseconds."""
        return self._now if self._source is None else self._source()

    def wall(self) -> int:
        """The wall-clock time: nanoseconds since 1970-01-01 UTC."""
        return self._boot_wall + self.now()

    def advance(self, ns: int) -> int:
        """Let ``ns`` nanoseconds pass; the new time.

        Raises:
            ValueError: ``ns`` is negative, or the time is somebody else's to keep.
        """
        if ns < 0:
            raise ValueError("Time cannot go back.")
        if self._source is not None:
            raise ValueError("This clock's time is kept by its source.")
        self._now += ns
        return self._now

    def advance_to(self, at: int) -> int:
        """Let time pass until ``at``, if that is not past already; the new time.

        Raises:
            ValueError: the time is somebody else's to keep.
        """
        return self.advance(max(0, at - self._now))
