"""One ring of a block device, from its requests to their responses.

All of it runs in Domain 0's thread, but for the jobs themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from paravirt.abi.io.blkif import BLKIF_OP_READ, BLKIF_OP_WRITE_BARRIER, BLKIF_RSP_ERROR
from paravirt.domain0.block.ending import Ending
from paravirt.domain0.block.requests import (
    REQUEST_SIZE,
    RequestError,
    add_segments,
    head,
    parse,
    response,
    segments_size,
)
from paravirt.domain0.block.transfers import DiskJob, GrantCache, Transfer
from paravirt.domain0.devices.backend import MappedRing
from paravirt.domain0.devices.later import Later
from paravirt.domain0.devices.second_look import SecondLook
from paravirt.domain0.grants import GrantError, MappedGrant
from paravirt.domain0.ring import RingError

if TYPE_CHECKING:
    from paravirt.domain0.block.backend import BlockBackend

BATCH: Final = 64
"""Requests of a ring that are looked at before other devices have their turn."""

MOMENT: Final = 0.001
"""Seconds after which a ring is looked at again that a physical CPU's thread was working on."""

KEPT_FOR_EACH: Final = 33
"""Frames for each entry of a ring that stay mapped at most: those of 32 segments, and of their description."""


class Queue:
    """A ring and an event channel of a device.

    Parameters:
        persistent: the frontend uses the same grants again and again.

    Raises:
        GrantError, GuestProtocolError: the ring or the port cannot be had.
    """

    def __init__(self, device: BlockBackend, refs: Sequence[int], port: int, persistent: bool) -> None:
        facilities, domid = device.facilities, device.nodes.domid
        self._device = device
        self._services = facilities.services
        self._serve = device.guarded(self._go_on)
        self._second_look = SecondLook(facilities, self._serve)
        self._ring = MappedRing(facilities.grants, domid, refs, REQUEST_SIZE)
        try:
            self._channel = facilities.services.bind(domid, port, self._serve)
        except BaseException:
            self._ring.unmap()
            raise
        self._direct = device.direct_ring(self._ring) if persistent else None
        on_keep = self._direct.keep if self._direct is not None else None
        self._frames = GrantCache(facilities.grants, domid, persistent * KEPT_FOR_EACH * self._ring.entries, on_keep)
        if self._direct is not None:
            self._channel.serve_natively(self._direct)
        self._backlog: deque[bytes] = deque()
        self._in_flight = 0
        self._is_left = False
        self._ending: Ending | None = None
        self._credit = Later(facilities.services, self.hurry)
        self._moment = Later(facilities.services, self._serve)
        # There may be requests from before we came.
        self._services.post(self._serve)

    def close(self, done: Callable[[], None], *, finish: bool, linger: bool) -> None:
        """Take no more requests; ``done`` is called when those under way have come to their end.

        Parameters:
            finish: do and answer all that the frontend has put into the ring; else, answer nothing any more.
            linger: and what it still puts into it, while that goes on, for some seconds at most.
        """
        self._take_back()
        self._ending = Ending(self._services, done, self._channel.notify, self._serve)
        if not finish:
            self._leave()
            self._wind_up()
            return
        if linger:
            self._ending.linger()
        self._services.post(self._serve)

    def hurry(self) -> None:
        """Whatever was waited for before the next request, it need not be any more."""
        self._take_back()
        self._credit.is_coming = False
        self._serve()

    def counted(self) -> tuple[int, int, int, int]:
        """What was done without Python: requests and bytes read, requests and bytes written."""
        return self._direct.counts() if self._direct is not None else (0, 0, 0, 0)

    def completed(self, jobs: Sequence[DiskJob]) -> None:
        """Answer the requests of jobs that have run elsewhere, and let the frontend see all answers."""
        self._answer(jobs)
        self._hand_over()

    def _answer(self, jobs: Sequence[DiskJob]) -> None:
        """The same, while we are at work on the ring."""
        borrowed: list[MappedGrant] = []
        for job in jobs:
            for transfer in job.transfers:
                self._in_flight -= 1
                borrowed += transfer.borrowed
                self._device.count(transfer)
                if not self._is_left:
                    request = transfer.request
                    self._ring.respond(response(request.id, request.operation, transfer.status))
        self._frames.unmap(borrowed)
        if self._is_left:
            self._wind_up()
            return
        if self._ring.publish():
            self._channel.notify()
        if not self._in_flight and (self._backlog or self._ending is not None):
            self._services.post(self._serve)

    def _leave(self) -> None:
        """The ring is nothing to us any more."""
        self._is_left = True
        if self._ending is not None:
            self._ending.give_up()
        self._channel.close()
        self._backlog.clear()
        self._ring.unmap()

    def _wind_up(self) -> None:
        """The device closes: come to the end, unless something is under way."""
        if self._in_flight:
            return
        if not self._is_left:
            self._leave()
        self._frames.clear()
        if self._ending is not None:
            self._ending.done()

    def _go_on(self) -> None:
        if self._direct is not None and not self._is_left:
            outcome = self._direct.serve()
            if outcome is None:
                self._moment.ask(MOMENT)
                return
            is_answered, is_left = outcome
            if is_answered:
                self._channel.notify()
            if not is_left:
                if is_answered:  # else somebody has looked here before, and asked for the same
                    self._second_look.soon(self._direct.position)
                return
            self._take_back()
        try:
            self._look()
        except RingError:
            if self._ending is None:
                raise
            # The frontend has closed already: there is nothing to disconnect it from.
            self._leave()
            self._wind_up()

    def _look(self) -> None:
        """An event came, or it is our turn again."""
        if self._is_left or self._credit.is_coming:
            return
        delay = self._device.delay()
        if delay > 0:
            self._credit.ask(delay)
            return
        taken = self._ring.take(BATCH - len(self._backlog))
        if self._ending is not None:
            self._ending.came(len(taken))
        self._backlog += taken
        self._work()
        if self._backlog:  # a job's completion goes on with it
            return
        if self._ring.ask_for_event():
            self._services.post(self._serve)
        elif self._ending is None:
            self._second_look.soon(self._ring.position[0])
            self._device.measure()
            self._hand_over()
        elif not self._ending.is_waited_for:
            self._wind_up()

    def _hand_over(self) -> None:
        """Nothing is to be done: what needs no waiting can be done without Python from now on.

        Whoever calls this does nothing to the ring afterwards.
        """
        device, image = self._device, self._device.image
        if self._direct is None or self._in_flight or self._backlog or self._ending is not None or device.is_revoked:
            return
        self._direct.hand_over(self._ring.position, image.size, device.may_write and image.is_quick)

    def _take_back(self) -> None:
        """The ring is Python's, from where it is now."""
        position = self._direct.take_back() if self._direct is not None else None
        if position is not None:
            requests, responses, was_slow = position
            self._ring.resume(requests, responses)
            if was_slow:
                self._device.image.was_slow()

    def _work(self) -> None:
        """Begin what can be begun: a barrier waits for all requests before it."""
        jobs: list[DiskJob] = []
        backlog = self._backlog
        while backlog:
            id_, operation = head(backlog[0])
            if operation == BLKIF_OP_WRITE_BARRIER and self._in_flight:
                break
            data = backlog.popleft()
            try:
                transfer = self._prepare(data)
            except RequestError as error:
                self._ring.respond(response(id_, operation, error.status))
            except GrantError:
                self._ring.respond(response(id_, operation, BLKIF_RSP_ERROR))
            else:
                self._in_flight += 1
                self._device.charge(transfer)
                if not (jobs and jobs[-1].absorb(transfer)):
                    jobs.append(DiskJob(self, self._device.image, self._device.facilities.grants, transfer))
        done = []
        for job in jobs:
            if job.run_at_once():
                done.append(job)
            else:
                self._device.submit(job)
        self._answer(done)

    def _prepare(self, data: bytes) -> Transfer:
        """A request with its frames mapped.

        Raises:
            RequestError, GrantError: it is to be answered with an error.
        """
        request = parse(data, self._device.unit)
        if request.indirect_refs:
            described, borrowed = self._frames.map(request.indirect_refs, readonly=True)
            try:
                add_segments(request, described[0].read(0, segments_size(request)))
            finally:
                self._frames.unmap(borrowed)
        transfer = Transfer(request, self._device.locate(request))
        if request.segments:
            refs, starts, lengths = zip(*request.segments, strict=True)
            is_read = request.operation == BLKIF_OP_READ
            frames, transfer.borrowed = self._frames.map(refs, readonly=not is_read)
            parts = zip(frames, starts, lengths, strict=True)
            transfer.ranges = self._device.facilities.grants.ranges(parts, writable=is_read)
        return transfer
