"""Guest kernels that paravirt can obtain by itself, and where it keeps them.

:func:`obtain` is the whole of it: it answers with the path of a guest's file, fetching it first when it is
not in the cache yet.
"""

from __future__ import annotations

from paravirt.guestkernels.catalogue import GUESTS, Guest, Obtained, find, obtain

__all__ = ["GUESTS", "Guest", "Obtained", "find", "obtain"]
