"""What the way outside is between, played by tests: Domain 0's thread, and the guests."""

from __future__ import annotations

import heapq
import select
import time
from collections import deque
from collections.abc import Callable

from paravirt.domain0.net.packet import Packet, ethernet

from ...patience import PATIENCE

GUEST, ROUTER = bytes([10, 0, 2, 2]), bytes([10, 0, 2, 1])


class Loop:
    """Domain 0's thread, for one test."""

    def __init__(self) -> None:
        self.handlers: dict[int, tuple[int, Callable[[int], None]]] = {}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.calls: deque[Callable[[], None]] = deque()

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self.handlers[fd] = events, handler

    def unwatch(self, fd: int) -> None:
        self.handlers.pop(fd, None)

    def call_later(self, delay: float, function: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (time.monotonic() + delay, len(self.timers) + id(function), function))

    def post(self, function: Callable[[], None]) -> None:
        self.calls.append(function)

    def until(self, condition: Callable[[], object]) -> None:
        """Go on until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            poll = select.poll()
            for fd, (events, _) in self.handlers.items():
                poll.register(fd, events)
            for fd, ready in poll.poll(10):
                if fd in self.handlers:
                    self.handlers[fd][1](ready)
            while self.calls:
                self.calls.popleft()()
            while self.timers and self.timers[0][0] <= time.monotonic():
                heapq.heappop(self.timers)[2]()


class Guest:
    """What the router sends to the guest."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []

    def send_ip(self, data: bytes, *, csum_blank: bool = False, gso_size: int = 0) -> bool:
        self.packets.append(Packet(ethernet(bytes(6), bytes(6), 0x0800, data), csum_blank, gso_size))
        return True


    def owner(self, address: bytes) -> bytes:
        return address


def to_nat(data: bytes) -> Packet:
    return Packet(ethernet(bytes(6), bytes(6), 0x0800, data))
