"""The backend's end of a shared ring of requests and responses (public/io/ring.h).

The frontend's memory is not to be believed: each of its fields is read once in a pass, indices are checked, and what
is worked with are copies. The backend's own indices are kept here; those in the page are only written.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from ctypes import sizeof
from typing import Final

from paravirt.abi.io.ring import XEN_PAGE_SHIFT, SringHeader
from paravirt.domain0.ring import INDEX_MASK, GuestPage, RingError
from paravirt.errors import HypervisorBug

PAGE_SIZE: Final = 1 << XEN_PAGE_SHIFT
HEADER_SIZE: Final = sizeof(SringHeader)

_REQ_PROD: Final = SringHeader.req_prod.offset
_REQ_EVENT: Final = SringHeader.req_event.offset
_RSP_PROD: Final = SringHeader.rsp_prod.offset
_RSP_EVENT: Final = SringHeader.rsp_event.offset


def ring_entries(pages: int, entry_size: int) -> int:
    """How many entries of ``entry_size`` bytes a ring of so many pages has."""
    fitting = (pages * PAGE_SIZE - HEADER_SIZE) // entry_size
    return 1 << (fitting.bit_length() - 1)


class RingPages:
    """Pages that follow each other in the frontend's memory, as one: entries may lie across their borders."""

    def __init__(self, pages: Sequence[GuestPage]) -> None:
        self._pages = pages

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on."""
        page, start = divmod(offset, PAGE_SIZE)
        if start + length <= PAGE_SIZE:
            return self._pages[page].read(start, length)
        first = PAGE_SIZE - start
        return self._pages[page].read(start, first) + self.read(offset + first, length - first)

    def write(self, offset: int, data: bytes) -> None:
        """Store ``data`` at ``offset``."""
        page, start = divmod(offset, PAGE_SIZE)
        first = PAGE_SIZE - start
        self._pages[page].write(start, data[:first])
        if len(data) > first:
            self.write(offset + first, data[first:])


class BackRing:
    """Requests come out of it, and responses go in; it may have been in use with an earlier backend.

    Parameters:
        pages: the ring's pages, a power of two of them.
        entry_size: bytes of an entry: of a request or of a response, whichever is longer.

    Attributes:
        entries: how many requests there can be at a time.

    Raises:
        RingError: the indices make no sense.
    """

    def __init__(self, pages: Sequence[GuestPage], entry_size: int) -> None:
        self.entries: Final = ring_entries(len(pages), entry_size)
        self._memory: GuestPage = pages[0] if len(pages) == 1 else RingPages(pages)
        self._entry_size = entry_size
        # What an earlier backend has not answered is done anew (BACK_RING_ATTACH).
        self._rsp_prod = self._published = self._req_cons = self._index(_RSP_PROD)
        self._fence = threading.Lock()
        self.waiting()

    @property
    def unanswered(self) -> int:
        """Requests that were taken and have no response yet."""
        return (self._req_cons - self._rsp_prod) & INDEX_MASK

    @property
    def position(self) -> tuple[int, int]:
        """The indices of requests that were taken, and of responses that were put in."""
        return self._req_cons, self._rsp_prod

    def resume(self, requests: int, responses: int) -> None:
        """Go on at this position, up to which somebody else took requests and published responses."""
        self._req_cons, self._rsp_prod, self._published = requests, responses, responses

    def waiting(self) -> int:
        """How many requests the frontend has put in that were not taken.

        Raises:
            RingError: more than the ring has room for.
        """
        producer = self._index(_REQ_PROD)
        count = (producer - self._req_cons) & INDEX_MASK
        if count + self.unanswered > self.entries:
            raise RingError(
                f"the request index {producer:#x} is {count} beyond the {self._req_cons:#x} requests taken, of which "
                f"{self.unanswered} are unanswered, but the ring has {self.entries} entries"
            )
        return count

    def take(self, limit: int) -> list[bytes]:
        """Copies of up to ``limit`` requests, each ``entry_size`` bytes.

        Raises:
            RingError: the indices make no sense.
        """
        count = min(limit, self.waiting())
        size = self._entry_size
        slot = self._req_cons & (self.entries - 1)
        before_end = min(count, self.entries - slot)
        data = self._memory.read(HEADER_SIZE + slot * size, before_end * size) if before_end else b""
        if before_end < count:
            data += self._memory.read(HEADER_SIZE, (count - before_end) * size)
        self._req_cons = (self._req_cons + count) & INDEX_MASK
        return [data[at : at + size] for at in range(0, count * size, size)]

    def ask_for_event(self, count: int = 1) -> bool:
        """Have the frontend send an event when ``count`` requests wait; true: they do already.

        Raises:
            RingError: the indices make no sense.
        """
        self._memory.write(_REQ_EVENT, _bytes(self._req_cons + count))
        self._full_barrier()
        return self.waiting() >= count

    def respond(self, response: bytes) -> None:
        """Put in a response; the frontend sees it after :meth:`publish`.

        Raises:
            HypervisorBug: it answers nothing, or is too long.
        """
        self.respond_all([response])

    def respond_all(self, responses: Sequence[bytes]) -> None:
        """Put in several responses.

        Raises:
            HypervisorBug: as for :meth:`respond`; none is put in then.
        """
        count, size = len(responses), self._entry_size
        if count > self.unanswered or any(len(response) > size for response in responses):
            raise HypervisorBug("a response that no request asked for, or that has no room in the ring")
        # What is behind a response in its entry belongs to the request, which was taken.
        entries = b"".join([response.ljust(size, b"\0") for response in responses])
        slot = self._rsp_prod & (self.entries - 1)
        before_end = (self.entries - slot) * size
        if entries:
            self._memory.write(HEADER_SIZE + slot * size, entries[:before_end])
        if len(entries) > before_end:
            self._memory.write(HEADER_SIZE, entries[before_end:])
        self._rsp_prod = (self._rsp_prod + count) & INDEX_MASK

    def publish(self) -> bool:
        """Let the frontend see the responses: whether it is to be sent an event.

        It is sent one always when nothing is left to do: an emulated processor's barriers may not be real ones, so
        that what it wanted to be told of may be seen too late, but then it will wait for nothing else.
        """
        old, new = self._published, self._rsp_prod
        if old == new:
            return False
        self._memory.write(_RSP_PROD, _bytes(new))
        self._published = new
        self._full_barrier()
        event = self._index(_RSP_EVENT)
        return (new - event) & INDEX_MASK < (new - old) & INDEX_MASK or not self.unanswered

    def _index(self, offset: int) -> int:
        return int.from_bytes(self._memory.read(offset, 4), "little")

    def _full_barrier(self) -> None:
        # What was stored is visible before anything is loaded: taking a lock is a locked instruction.
        with self._fence:
            return


def _bytes(index: int) -> bytes:
    return (index & INDEX_MASK).to_bytes(4, "little")
