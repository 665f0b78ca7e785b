"""Requests under way: frames mapped, and jobs that move their bytes between frames and image."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from paravirt.abi.io.blkif import (
    BLKIF_OP_DISCARD,
    BLKIF_OP_FLUSH_DISKCACHE,
    BLKIF_OP_READ,
    BLKIF_OP_WRITE,
    BLKIF_OP_WRITE_BARRIER,
    BLKIF_RSP_EOPNOTSUPP,
    BLKIF_RSP_ERROR,
    BLKIF_RSP_OKAY,
)
from paravirt.domain0.block.image import Image
from paravirt.domain0.block.requests import Request
from paravirt.domain0.grants import Grants, MappedGrant
from paravirt.domain0.iopool import JobOwner

MERGED_MOST: Final = 1 << 20
"""Bytes that several requests for adjacent sectors are joined to."""

logger = logging.getLogger(__name__)


class GrantCache:
    """A frontend's frames, mapped.  Those of one that uses its grants again and again stay mapped.

    Parameters:
        keep: how many stay mapped at most; 0: none, each is mapped for its request.
        on_keep: is told the reference and the machine address of one that stays mapped, writable.
    """

    def __init__(
        self, grants: Grants, domid: int, keep: int, on_keep: Callable[[int, int], None] | None = None
    ) -> None:
        self._on_keep = on_keep
        self._grants = grants
        self._domid = domid
        self._keep = keep
        self._kept: dict[int, MappedGrant] = {}

    def map(self, refs: Sequence[int], *, readonly: bool) -> tuple[list[MappedGrant], list[MappedGrant]]:
        """The frames, in order; and those of them that are to be unmapped when they are not needed any more.

        Raises:
            GrantError: the domain does not grant one of them.
        """
        kept = self._kept
        try:
            return [kept[ref] for ref in refs], []
        except KeyError:  # as a rule, none is missing
            return self._map(refs, readonly)

    def _map(self, refs: Sequence[int], readonly: bool) -> tuple[list[MappedGrant], list[MappedGrant]]:
        kept = self._kept
        missing = [ref for ref in dict.fromkeys(refs) if ref not in kept]
        readonly = readonly and not self._keep
        new = dict(zip(missing, self._grants.map_all(self._domid, missing, readonly=readonly), strict=True))
        frames = [kept.get(ref) or new[ref] for ref in refs]
        room = self._keep - len(kept)
        for ref in missing[:room] if room > 0 else ():
            kept[ref] = new.pop(ref)
            if self._on_keep is not None:
                self._on_keep(ref, kept[ref].address)
        return frames, list(new.values())

    def unmap(self, frames: Sequence[MappedGrant]) -> None:
        """Give back what :meth:`map` said is to be."""
        if frames:
            self._grants.unmap_all(frames)

    def clear(self) -> None:
        """Give everything back."""
        self.unmap(list(self._kept.values()))
        self._kept.clear()


@dataclass(slots=True)
class Transfer:
    """A request, and the frames that it is about.

    Attributes:
        offset: bytes from the disk's beginning.
        ranges: the machine's memory that it is about, [start, end), in order.
        borrowed: frames to unmap in the end.
        status: BLKIF_RSP_*: what came of it.
    """

    request: Request
    offset: int
    ranges: list[tuple[int, int]] = field(default_factory=list)
    borrowed: list[MappedGrant] = field(default_factory=list)
    status: int = BLKIF_RSP_ERROR


class DiskJob:
    """One access to the image, for one request or for several that follow each other on the disk.

    Attributes:
        owner: who answers the requests.
    """

    def __init__(self, owner: JobOwner, image: Image, grants: Grants, first: Transfer) -> None:
        self.owner = owner
        self.transfers = [first]
        self._image = image
        self._grants = grants
        self._operation = first.request.operation
        self._length = first.request.length

    def absorb(self, transfer: Transfer) -> bool:
        """Do another request's work too, if that is the same kind of access, and to what follows."""
        request = transfer.request
        if (
            request.operation != self._operation
            or request.operation not in (BLKIF_OP_READ, BLKIF_OP_WRITE)
            or transfer.offset != self.transfers[0].offset + self._length
            or self._length + request.length > MERGED_MOST
        ):
            return False
        self.transfers.append(transfer)
        self._length += request.length
        return True

    def run_at_once(self) -> bool:
        """Do it if it needs no waiting: whether it was done."""
        is_read = self._operation == BLKIF_OP_READ
        if not is_read and self._operation != BLKIF_OP_WRITE:
            return False
        attempt = self._image.read_at_once if is_read else self._image.write_at_once
        with self._grants.buffers(self._ranges(self.transfers), writable=is_read) as buffers:
            try:
                done = attempt(self.transfers[0].offset, buffers)
            except OSError:  # the usual way says which request it was
                done = False
        if done:
            self._succeed(self.transfers)
        return done

    def run(self) -> None:
        """Do it, and keep in each request what came of it."""
        try:
            self._access(self.transfers)
        except OSError as error:
            if len(self.transfers) > 1:
                for transfer in self.transfers:
                    self._run_alone(transfer)
            elif error.errno == errno.EOPNOTSUPP:
                self.transfers[0].status = BLKIF_RSP_EOPNOTSUPP

    def _run_alone(self, transfer: Transfer) -> None:
        try:
            self._access([transfer])
        except OSError as error:
            logger.info("an access at %d failed: %s", transfer.offset, error)

    def _access(self, transfers: Sequence[Transfer]) -> None:
        image, offset = self._image, transfers[0].offset
        if self._operation == BLKIF_OP_READ:
            with self._grants.buffers(self._ranges(transfers), writable=True) as buffers:
                image.read(offset, buffers)
        elif self._operation == BLKIF_OP_DISCARD:
            image.discard(offset, transfers[0].request.length)
        else:
            if self._operation in (BLKIF_OP_WRITE_BARRIER, BLKIF_OP_FLUSH_DISKCACHE):
                image.flush()
            if transfers[0].ranges:
                with self._grants.buffers(self._ranges(transfers), writable=False) as buffers:
                    image.write(offset, buffers)
                if self._operation != BLKIF_OP_WRITE:
                    image.flush()
        self._succeed(transfers)

    @staticmethod
    def _succeed(transfers: Sequence[Transfer]) -> None:
        for transfer in transfers:
            transfer.status = BLKIF_RSP_OKAY

    @staticmethod
    def _ranges(transfers: Sequence[Transfer]) -> Sequence[tuple[int, int]]:
        if len(transfers) == 1:
            return transfers[0].ranges
        return [one for transfer in transfers for one in transfer.ranges]
