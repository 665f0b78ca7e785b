"""Whose turn it is: interfaces that have packets to give take turns, a limited number of packets each. Free of I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol


class Party(Protocol):
    """What is behind an interface."""

    def give(self) -> bool:
        """Hand some packets to the router: whether there are more."""

    def take(self) -> None:
        """Take what waits at the interface, as far as there is room for it."""


class Rounds:
    """The turns of one router's interfaces.

    Parameters:
        soon: calls a function soon, after what else there is to do.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], None]) -> None:
        self._soon = soon
        self._givers: deque[Party] = deque()
        self._takers: deque[Party] = deque()
        self._is_coming = False

    def has_packets(self, party: Party) -> None:
        """It is to have a turn."""
        if party not in self._givers:
            self._givers.append(party)
            self._come()

    def is_waited_for(self, party: Party) -> None:
        """Packets wait for it."""
        if party not in self._takers:
            self._takers.append(party)
            self._come()

    def leave(self, party: Party) -> None:
        """It is gone."""
        if party in self._givers:
            self._givers.remove(party)
        if party in self._takers:
            self._takers.remove(party)

    def _come(self) -> None:
        if not self._is_coming:
            self._is_coming = True
            self._soon(self._run)

    def _run(self) -> None:
        """One turn for each that wants one. A party that fails loses its turn, and nobody else does."""
        try:
            for _ in range(len(self._givers)):
                if not self._givers:
                    break
                party = self._givers.popleft()
                if party.give():
                    self._givers.append(party)
                self._hand_out()
            self._hand_out()
        finally:
            self._is_coming = False
            if self._givers or self._takers:
                self._come()

    def _hand_out(self) -> None:
        for _ in range(len(self._takers)):
            if self._takers:
                self._takers.popleft().take()
