"""How tests wait for what comes about soon: for the thing itself, and for as long as a busy host may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

# Wall time is no measure here: this only ends a test that hangs.
PATIENCE = 200.0


def wait_for(condition: Callable[[], object], what: str = "what is waited for", patience: float = PATIENCE) -> None:
    """Return when a condition holds.

    Raises:
        AssertionError: it does not, for all our patience.
    """
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"it never came about: {what}"
        time.sleep(0.002)


def settled(look: Callable[[], Value], expected: Value) -> Value:
    """What there is to see when it is what is expected, or when our patience has ended."""
    deadline = time.monotonic() + PATIENCE
    while (seen := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.002)
    return seen
