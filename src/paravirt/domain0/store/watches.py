"""Watches: who wants to know of changes where."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Protocol

from paravirt.domain0.store.tree import ROOT


class Watcher(Protocol):
    """Somebody who is told.

    Attributes:
        domid: whose permissions count.
        target: the domain on whose behalf it acts, if any.
    """

    domid: int
    target: int | None

    def tell(self, watch: Watch, path: bytes) -> None:
        """Something changed at ``path``."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One watch.

    Attributes:
        path: absolute, or a special one (@introduceDomain, @releaseDomain).
        token: what the watcher wants to be reminded of.
        hidden: bytes at the start of an event's path that the watcher does not see: it gave a relative path.
        number: watches are told in the order in which they were set.
    """

    watcher: Watcher
    path: bytes
    token: bytes
    hidden: int
    number: int

    def shown(self, path: bytes) -> bytes:
        """An event's path as the watcher sees it."""
        return path[self.hidden :]


class Watches:
    """All watches, found by path."""

    def __init__(self) -> None:
        self._numbers = count()
        self._by_path: dict[bytes, list[Watch]] = {}

    def add(self, watcher: Watcher, path: bytes, token: bytes, hidden: int = 0) -> Watch:
        """Set a watch."""
        watch = Watch(watcher, path, token, hidden, next(self._numbers))
        self._by_path.setdefault(path, []).append(watch)
        return watch

    def remove(self, watch: Watch) -> None:
        """Take one back."""
        watches = self._by_path[watch.path]
        watches.remove(watch)
        if not watches:
            del self._by_path[watch.path]

    def find(self, path: bytes, exact: bool) -> list[Watch]:
        """The watches to tell of a change at ``path``: those on it and, unless ``exact``, on what is above it."""
        by_path = self._by_path
        found = list(by_path.get(path, ()))
        if exact:
            return found
        above = path
        while (slash := above.rfind(b"/")) > 0:
            above = above[:slash]
            found += by_path.get(above, ())
        if path != ROOT:
            found += by_path.get(ROOT, ())
        found.sort(key=lambda watch: watch.number)
        return found

    def __len__(self) -> int:
        return sum(map(len, self._by_path.values()))
