"""The frontend's end of a shared ring, as a well-behaved kernel has it."""

from __future__ import annotations

from collections.abc import Sequence

from paravirt.abi.io.ring import SringHeader
from paravirt.domain0.devices.ring import HEADER_SIZE, RingPages, ring_entries
from paravirt.domain0.ring import GuestPage

MASK = 0xFFFFFFFF


class FrontRing:
    """Requests go in, and responses come out; the indices start at ``start``."""

    def __init__(self, pages: Sequence[GuestPage], entry_size: int, start: int = 0) -> None:
        self.memory = RingPages(pages)
        self.entries = ring_entries(len(pages), entry_size)
        self.entry_size = entry_size
        self.req_prod = self.rsp_cons = start
        for field in ("req_prod", "rsp_prod"):
            self.set_index(field, start)
        for field in ("req_event", "rsp_event"):
            self.set_index(field, start + 1)

    def index(self, field: str) -> int:
        return int.from_bytes(self.memory.read(getattr(SringHeader, field).offset, 4), "little")

    def set_index(self, field: str, value: int) -> None:
        self.memory.write(getattr(SringHeader, field).offset, (value & MASK).to_bytes(4, "little"))

    def slot(self, index: int) -> int:
        return HEADER_SIZE + (index & (self.entries - 1)) * self.entry_size

    @property
    def room(self) -> int:
        return self.entries - (self.req_prod - self.rsp_cons & MASK)

    def put(self, requests: Sequence[bytes]) -> bool:
        """Put in requests: whether the backend is to be sent an event."""
        assert len(requests) <= self.room
        old = self.req_prod
        for request in requests:
            self.memory.write(self.slot(self.req_prod), request)
            self.req_prod = self.req_prod + 1 & MASK
        self.set_index("req_prod", self.req_prod)
        return (self.req_prod - self.index("req_event")) & MASK < (self.req_prod - old) & MASK

    def take(self) -> list[bytes]:
        """All responses that there are; the next one is to come with an event."""
        taken = []
        while True:
            while self.rsp_cons != self.index("rsp_prod"):
                taken.append(self.memory.read(self.slot(self.rsp_cons), self.entry_size))
                self.rsp_cons = self.rsp_cons + 1 & MASK
            self.set_index("rsp_event", self.rsp_cons + 1)
            if self.rsp_cons == self.index("rsp_prod"):
                return taken
