"""Waiting in threads that signals have to reach."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK_EVERY_S = 0.5


def wait_in_turns(wait: Callable[[float], bool], timeout: float | None = None) -> bool:
    """Wait by ``wait``, which takes seconds and says whether what is waited for has come, until it has: True; or until
    ``timeout`` seconds are over, if it is not None: False.

    Python acts on a signal between two of its instructions. One that comes when the main thread has done its last, and
    does not sleep yet, would be noticed when something else wakes that thread; so it wakes by itself now and then.
    """
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = LOOK_EVERY_S if end is None else min(LOOK_EVERY_S, max(0.0, end - time.monotonic()))
        if wait(left):
            return True
        if end is not None and time.monotonic() >= end:
            return False
