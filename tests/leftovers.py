"""What a test waits for, and what it must not leave behind.

A busy host ends things late: a connection whose other end has closed, an object in a cycle of an earlier test. So the
holdings before and after are not counted, but told apart; what went away meanwhile is nobody's fault, and what is there
that was not is waited for to go.
"""

from __future__ import annotations

import gc
import threading
from collections import Counter
from pathlib import Path

from .patience import settled


def open_files() -> Counter[str]:
    """What this process's descriptors are of: files by their paths, sockets and pipes by their numbers, and of event
    counters and the like, which have neither, how many there are."""
    found: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found[str(descriptor.readlink())] += 1
        except FileNotFoundError:  # closed since: that of the listing itself is
            continue
    return found


class Leftovers:
    """The process's descriptors and threads at one time; all that others left is collected first."""

    def __init__(self) -> None:
        gc.collect()
        self._files, self._threads = open_files(), set(threading.enumerate())

    def files(self) -> list[str]:
        """The descriptors that were not there then."""
        return sorted((open_files() - self._files).elements())

    def new(self) -> list[str]:
        """What there is that was not then, threads too."""
        return self.files() + [str(thread) for thread in threading.enumerate() if thread not in self._threads]

    def stay(self, threads: bool = True) -> list[str]:
        """What there is that was not then, and does not go for all our patience."""
        look = self.new if threads else self.files

        def collected() -> list[str]:
            if look():
                gc.collect()
            return look()

        return settled(collected, [])
