# cython: language_level=3, annotation_typing=False
"""A domain's mappings of grants, by handle: Xen's maptrack.

Handles come from a first-in, first-out list, which grows by a frame's worth at a time up to the domain's limit; one
of them always stays in the list.
"""

from __future__ import annotations

from collections import deque

HANDLES_PER_FRAME = 256
MAX_FRAMES = 1024
"""The limit unless the toolstack says otherwise."""


class Mapping:
    """One mapping: of the grant ``ref`` of domain ``domid``; GNTMAP_* flags, less what has been unmapped."""

    def __init__(self, domid: int, ref: int, flags: int) -> None:
        self.domid = domid
        self.ref = ref
        self.flags = flags


class MapTrack:
    """All of one domain's.

    Attributes:
        max_frames: 256 handles for each.
        mappings: by handle.
    """

    def __init__(self, max_frames: int = MAX_FRAMES) -> None:
        self.max_frames = max_frames
        self.mappings: dict[int, Mapping] = {}
        self._free: deque[int] = deque()
        self._frames = 0

    def take(self) -> int | None:
        """A free handle; None: there is none."""
        if len(self._free) < 2 and self._frames < self.max_frames:
            first = self._frames * HANDLES_PER_FRAME
            self._free.extendleft(reversed(range(first, first + HANDLES_PER_FRAME)))
            self._frames += 1
        return self._free.popleft() if len(self._free) > 1 else None

    def give(self, handle: int) -> None:
        """A handle is free again."""
        self.mappings.pop(handle, None)
        self._free.append(handle)
