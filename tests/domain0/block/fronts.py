"""A block frontend, played by the test, with well-behaved drivers' ways and others."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from paravirt.abi.io import blkif, xenbus
from paravirt.domain0.block.backend import BlockBackend
from paravirt.domain0.block.requests import REQUEST_SIZE

from ...patience import PATIENCE
from ..devices.frontends import FrontendGuest, GuestFrame
from ..devices.rings import FrontRing

Segment = tuple[int, int, int]


def rw(
    operation: int, id_: int, sector: int, segments: Sequence[Segment] = (), nr_segments: int | None = None
) -> bytes:
    """A read, write, barrier or flush; a segment is (reference, first sector, last sector)."""
    count = len(segments) if nr_segments is None else nr_segments
    head = struct.pack("<BBHxxxxQQ", operation, count, 0, id_, sector)
    return head + b"".join(struct.pack("<IBBxx", *segment) for segment in segments[:11])


def discard(id_: int, sector: int, sectors: int) -> bytes:
    return struct.pack("<BBHxxxxQQQ", blkif.BLKIF_OP_DISCARD, 0, 0, id_, sector, sectors)


def indirect(operation: int, id_: int, sector: int, refs: Sequence[int], nr_segments: int) -> bytes:
    head = struct.pack("<BBHxxxxQQHxx", blkif.BLKIF_OP_INDIRECT, operation, nr_segments, id_, sector, 0)
    return head + b"".join(struct.pack("<I", ref) for ref in refs)


class Queue:
    """One ring and one port."""

    def __init__(self, guest: FrontendGuest, order: int = 0) -> None:
        self.guest = guest
        pages = [guest.frame() for _ in range(1 << order)]
        self.ring = FrontRing(pages, REQUEST_SIZE)
        self.refs = [guest.grant(page) for page in pages]
        self.port = guest.port()
        self.nodes: dict[str, object] = {"event-channel": self.port}
        if order:
            self.nodes |= {f"ring-ref{number}": ref for number, ref in enumerate(self.refs)}
        else:
            self.nodes["ring-ref"] = self.refs[0]

    def send(self, requests: Sequence[bytes]) -> None:
        if self.ring.put(requests):
            self.guest.send(self.port)

    def answers(self, count: int, patience: float = PATIENCE) -> dict[int, tuple[int, int]]:
        """Wait for so many responses, and look once at least: (operation, status) by id."""
        taken: dict[int, tuple[int, int]] = {}
        deadline = time.monotonic() + patience
        while True:
            is_last = time.monotonic() >= deadline
            for response in self.ring.take():
                answer = blkif.BlkifResponse.from_buffer_copy(response)
                assert answer.id not in taken, "a request is answered twice"
                taken[answer.id] = answer.operation, answer.status
            if is_last or len(taken) >= count:
                return taken
            time.sleep(0)

    def ask(self, *requests: bytes) -> dict[int, int]:
        """Send requests and wait for their statuses, by id."""
        self.send(requests)
        return {id_: status for id_, (_, status) in self.answers(len(requests)).items()}


class BlockFront:
    """The device's other half: connected, with some data frames granted."""

    def __init__(
        self,
        guest: FrontendGuest,
        device: BlockBackend,
        *,
        persistent: bool = False,
        order: int = 0,
        queues: int = 1,
        frames: int = 16,
        **nodes: object,
    ) -> None:
        self.guest, self.device = guest, device
        self.nodes = nodes
        self.persistent, self.order = persistent, order
        self.frames: list[GuestFrame] = [guest.frame() for _ in range(frames)]
        self.refs = [guest.grant(frame) for frame in self.frames]
        self.queues: list[Queue] = []
        self.connect(queues)

    @property
    def queue(self) -> Queue:
        return self.queues[0]

    def connect(self, count: int = 1) -> None:
        """New rings, published."""
        guest, directory = self.guest, self.device.nodes.frontend
        self.queues = [Queue(guest, self.order) for _ in range(count)]
        values: dict[str, object] = {"feature-persistent": int(self.persistent), "protocol": "x86_64-abi"}
        values |= {name.replace("_", "-"): value for name, value in self.nodes.items()}
        if self.order:
            values["ring-page-order"] = self.order
        if count > 1:
            values["multi-queue-num-queues"] = count
        for number, queue in enumerate(self.queues):
            prefix = f"queue-{number}/" if count > 1 else ""
            values |= {prefix + name: value for name, value in queue.nodes.items()}
        values["state"] = xenbus.XenbusStateInitialised

        def write() -> None:
            for name, value in values.items():
                guest.machine.store.set(f"{directory}/{name}", str(value))

        guest.machine.call(write)

    def state(self, state: int) -> None:
        self.guest.publish(self.device.nodes, state=state)

    def fill(self, data: bytes) -> list[Segment]:
        """Put data, whole sectors, into the frames: the segments that hold it."""
        segments = []
        for number, at in enumerate(range(0, len(data), 4096)):
            piece = data[at : at + 4096]
            self.frames[number].write(0, piece)
            segments.append((self.refs[number], 0, len(piece) // 512 - 1))
        return segments

    def held(self, length: int) -> bytes:
        """What the frames hold."""
        return b"".join(frame.read(0, 4096) for frame in self.frames)[:length]

    def write(self, sector: int, data: bytes, operation: int = blkif.BLKIF_OP_WRITE) -> int:
        """The status."""
        return self.queue.ask(rw(operation, 1, sector, self.fill(data)))[1]

    def read(self, sector: int, length: int) -> bytes:
        """What the disk holds."""
        for frame in self.frames:
            frame.write(0, b"\xee" * 4096)
        status = self.queue.ask(rw(blkif.BLKIF_OP_READ, 2, sector, self.segments(length)))[2]
        assert status == blkif.BLKIF_RSP_OKAY
        return self.held(length)

    def segments(self, length: int) -> list[Segment]:
        return [
            (self.refs[number], 0, min(4096, length - at) // 512 - 1)
            for number, at in enumerate(range(0, length, 4096))
        ]
