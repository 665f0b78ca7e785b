"""The block backend: serves one disk to one guest's frontend, as Linux's xen-blkback does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from paravirt.abi.io.blkif import (
    BLKIF_OP_DISCARD,
    BLKIF_OP_READ,
    BLKIF_OP_WRITE,
    BLKIF_RSP_EOPNOTSUPP,
    BLKIF_RSP_OKAY,
    VDISK_CDROM,
    VDISK_READONLY,
)
from paravirt.abi.io.xenbus import XenbusStateClosed, XenbusStateClosing, XenbusStateConnected
from paravirt.domain0.block.direct import DirectRing
from paravirt.domain0.block.image import SECTOR_SIZE, Image
from paravirt.domain0.block.queue import Queue
from paravirt.domain0.block.rate import RateLimit
from paravirt.domain0.block.requests import MAX_INDIRECT_SEGMENTS, Request, RequestError
from paravirt.domain0.block.transfers import DiskJob, Transfer
from paravirt.domain0.devices.backend import Backend, Facilities, MappedRing
from paravirt.domain0.devices.nodes import DeviceNodes, FrontendNodes
from paravirt.domain0.ring import GuestProtocolError

logger = logging.getLogger(__name__)
MAX_RING_PAGE_ORDER: Final = 4
MAX_QUEUES: Final = 4
PROTOCOL: Final = "x86_64-abi"
LAST_WORDS: Final = 10.0
"""Seconds in which a guest whose disk is taken away is to close it: as long as libxl waits (LIBXL_DESTROY_TIMEOUT)."""


@dataclass
class Counts:
    """What a device has done, as xentop shows it.

    Attributes:
        read_requests, write_requests: that were carried out.
        read_bytes, written_bytes: by them.
        errors: requests that ended in an error.
    """

    read_requests: int = 0
    write_requests: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    errors: int = 0


@dataclass(frozen=True)
class DiskOptions:
    """How a guest sees a disk.

    Attributes:
        is_cdrom: as a CD-ROM, which is read only.
        sector_size: bytes of a sector, 512 or 4096.
        discard: it may discard, if the image can.
        rate: bytes each second that it may transfer at most; 0: no limit.
    """

    is_cdrom: bool = False
    sector_size: int = SECTOR_SIZE
    discard: bool = True
    rate: int = 0


class BlockBackend(Backend):
    """One disk.

    Parameters:
        image: where its bytes are; it is closed when the device has gone.

    Attributes:
        unit: bytes that a sector number counts: 512, as every frontend has it, unless this one says that it counts
            the disk's own sectors.
        is_revoked: the disk has been taken away from its guest.
    """

    def __init__(
        self, facilities: Facilities, nodes: DeviceNodes, image: Image, options: DiskOptions | None = None
    ) -> None:
        super().__init__(facilities, nodes)
        self.image = image
        self.options = options = options or DiskOptions()
        self.unit = SECTOR_SIZE
        self._counts = Counts()
        self._readonly = image.readonly or options.is_cdrom
        self._limit = RateLimit(options.rate) if options.rate else None
        self._queues: list[Queue] = []
        self.is_revoked = False

    @property
    def counts(self) -> Counts:
        """What it has done."""
        counts = replace(self._counts)
        for queue in self._queues:
            _add(counts, queue)
        return counts

    def counted(self) -> Mapping[str, int]:
        """Its :class:`Counts`."""
        return asdict(self.counts)

    # --- as a backend -----------------------------------------------------------------------------------------

    def features(self) -> Mapping[str, str]:
        """What the frontend may choose from."""
        nodes = {
            "feature-barrier": "1",
            "feature-flush-cache": "1",
            "feature-persistent": "1",
            "feature-max-indirect-segments": str(MAX_INDIRECT_SEGMENTS),
            "max-ring-page-order": str(MAX_RING_PAGE_ORDER),
            "max-ring-pages": str(1 << MAX_RING_PAGE_ORDER),
            "multi-queue-max-queues": str(MAX_QUEUES),
        }
        if self._can_discard:
            nodes |= {
                "feature-discard": "1",
                "discard-granularity": str(max(self.image.discard_granularity, self.options.sector_size)),
                "discard-alignment": "0",
                "discard-secure": "0",
            }
        return nodes

    def open(self, frontend: FrontendNodes) -> Mapping[str, str]:
        """Map the rings."""
        protocol = frontend.text("protocol", PROTOCOL)
        if protocol != PROTOCOL:
            raise GuestProtocolError(f"its protocol is {protocol[:40]!r}, not {PROTOCOL!r}")
        large = frontend.flag("feature-large-sector-size")
        self.unit = self.options.sector_size if large else SECTOR_SIZE
        persistent = frontend.flag("feature-persistent")
        count = frontend.number("multi-queue-num-queues", 1, MAX_QUEUES)
        if count == 0:
            raise GuestProtocolError("it wants no queues")
        order = frontend.number("ring-page-order", 0, MAX_RING_PAGE_ORDER)
        for number in range(count):
            place = frontend if count == 1 else frontend.below(f"queue-{number}")
            names = [f"ring-ref{page}" for page in range(1 << order)] if order else ["ring-ref"]
            refs = [place.number(name) for name in names]
            self._queues.append(Queue(self, refs, place.number("event-channel"), persistent))
        flags = (VDISK_CDROM if self.options.is_cdrom else 0) | (VDISK_READONLY if self._readonly else 0)
        return {
            "sectors": str(self._sectors),
            "info": str(flags),
            "sector-size": str(self.options.sector_size),
            "physical-sector-size": str(self.options.sector_size),
        }

    def disconnect(self, done: Callable[[], None]) -> None:
        """Take the rings down, when what is under way has ended.

        A frontend that has closed waits for what it had asked for: all of it is answered first; so does one whose disk
        is taken away. One that broke the rules, or begins anew, gets no more answers: its rings may be something else
        by now.
        """
        finish = (self.is_revoked or self._state.frontend == XenbusStateClosed) and self.fault is None
        # Who unplugs a disk that is in use holds requests back; there is no waiting without time.
        linger = not self._state.is_online and not self.facilities.deterministic
        queues, self._queues = self._queues, []
        left = len(queues)

        def closed() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done()

        for queue in queues:
            queue.close(closed, finish=finish, linger=linger)
            _add(self._counts, queue)
        if not queues:
            done()

    def revoke(self) -> None:
        """Take the disk away from a guest that goes on: all that it asks for from now on are errors.

        Linux waits for every request that it has made, for ever. Therefore the ring is served until it has closed the
        disk, or has had the time to; on Xen, where the backend goes at once, it is left waiting.
        """
        self.is_revoked = True
        for queue in self._queues:
            queue.hurry()
        if self.state not in (XenbusStateConnected, XenbusStateClosing) or self.facilities.deterministic:
            self.destroy()
            return
        self.close()
        self.facilities.services.call_later(LAST_WORDS, self.destroy)

    def gone(self) -> None:
        """The device does not come back: nobody needs the image."""
        try:
            self.image.close()
        except OSError as error:  # whoever waits for the device's end is not to wait for ever
            nodes = self.nodes
            logger.warning("%s %d of domain %d: its image: %s", nodes.kind, nodes.devid, nodes.domid, error)
        super().gone()

    # --- for its queues ---------------------------------------------------------------------------------------

    def locate(self, request: Request) -> int:
        """The byte of the disk that a request begins at.

        Raises:
            RequestError: the disk has not all of its bytes, or may not be used so.
        """
        offset = request.sector * self.unit
        if self.is_revoked:
            raise RequestError("the disk has been taken away")
        if request.operation != BLKIF_OP_READ and self._readonly:
            raise RequestError("the disk is read-only")
        if request.operation == BLKIF_OP_DISCARD and not self._can_discard:
            raise RequestError("nothing can be discarded", BLKIF_RSP_EOPNOTSUPP)
        if not request.length:
            return 0
        if offset + request.length > self.image.size:
            self.measure()
        if offset + request.length > self.image.size:
            raise RequestError(f"{request.length} bytes at {offset} of a disk with {self.image.size}")
        if (offset | request.length) % self.options.sector_size:
            raise RequestError("parts of sectors")
        return offset

    @property
    def may_write(self) -> bool:
        """Whether the guest may."""
        return not self._readonly

    def direct_ring(self, ring: MappedRing) -> DirectRing | None:
        """One of its rings, for requests that need no waiting, if they need nothing else either."""
        fd = self.image.direct_fd
        if fd < 0 or self._limit or self.is_revoked or self.facilities.deterministic:
            return None
        host = self.facilities.grants.host
        return DirectRing(host, ring.addresses, ring.entries, fd, self.unit, self.options.sector_size)

    def submit(self, job: DiskJob) -> None:
        """Have a job run; domains take turns."""
        self.facilities.io.submit(self.nodes.domid, job)

    def delay(self) -> float:
        """Seconds until the device may transfer more."""
        return self._limit.wait() if self._limit and not self.is_revoked else 0.0

    def charge(self, transfer: Transfer) -> None:
        """A request begins."""
        if self._limit:
            self._limit.take(transfer.request.length)

    def count(self, transfer: Transfer) -> None:
        """A request has ended."""
        counts, length = self._counts, transfer.request.length
        if transfer.status != BLKIF_RSP_OKAY:
            counts.errors += 1
        elif transfer.request.operation == BLKIF_OP_READ:
            counts.read_requests += 1
            counts.read_bytes += length
        elif transfer.request.operation == BLKIF_OP_WRITE:
            counts.write_requests += 1
            counts.written_bytes += length

    def measure(self) -> None:
        """If the image has another size now, tell the frontend: its disk has it too."""
        if self.image.measure() and self.state == XenbusStateConnected:
            self._write({"sectors": str(self._sectors)})
            # Nothing but a state's node is watched; that it is written is what tells.
            self.publish(self.state)

    # ----------------------------------------------------------------------------------------------------------

    @property
    def _sectors(self) -> int:
        return self.image.size // self.options.sector_size * self.options.sector_size // self.unit

    @property
    def _can_discard(self) -> bool:
        return self.options.discard and not self._readonly and self.image.discard_granularity > 0


def _add(counts: Counts, queue: Queue) -> None:
    """Count what a queue's ring did by itself."""
    read_requests, read_bytes, write_requests, written_bytes = queue.counted()
    counts.read_requests += read_requests
    counts.read_bytes += read_bytes
    counts.write_requests += write_requests
    counts.written_bytes += written_bytes
