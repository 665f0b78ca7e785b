"""What guests have of something there is little of: no one has so much that others go without. Free of I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Final

PART: Final = 4
"""The part of all that one may have: a fourth."""


class Shares:
    """Who has how many of so many things.

    However many want all they can get, some are left for who has none yet: who has as many as are free gets no more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._own: Counter[Hashable] = Counter()
        self._total = 0

    def has_room_for(self, owner: Hashable) -> bool:
        """Whether one may have one more."""
        return self._own.get(owner, 0) < min(max(1, self._most // PART), self._most - self._total)

    def of(self, owner: Hashable) -> int:
        """How many one has."""
        return self._own.get(owner, 0)

    def take(self, owner: Hashable) -> None:
        """One has one more."""
        self._own[owner] += 1
        self._total += 1

    def give_back(self, owner: Hashable) -> None:
        """One has one less."""
        self._own[owner] -= 1
        self._total -= 1
        if not self._own[owner]:
            del self._own[owner]
