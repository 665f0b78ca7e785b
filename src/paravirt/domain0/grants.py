"""Grants as Domain 0's backends use them: mapped as memory views, and copied in batches.

A driver domain has grant mappings in its address space, and GNTTABOP_copy.  Domain 0 here has no page tables, so that
a mapping is a view of the machine's memory; but it counts as one of domain 0's in every other respect: the entry says
that it is in use, the frame has a reference and, if it may be written, a use as writable memory, and a granter that
ends keeps the frame until it is unmapped.

All of it is called without the machine lock, from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType

from paravirt.abi.grant_table import (
    GNTMAP_host_map,
    GNTMAP_readonly,
    GNTST_bad_copy_arg,
    GNTST_bad_domain,
    GNTST_general_error,
    GNTST_no_space,
)
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.grant_copy import read_granted, write_granted
from paravirt.hypervisor.hypercalls.grant_active import (
    GrantStatus,
    Part,
    acquire_for_copy,
    find_granter,
    kinds,
    pin_for_mapping,
    put_frame,
    release_for_copy,
    take_frame,
    unpin,
)
from paravirt.hypervisor.hypercalls.maptrack import Mapping, MapTrack
from paravirt.hypervisor.views import Domain, Host

FRAME_SIZE = 4096
DOMAIN_0 = 0


def _flags(readonly: bool) -> int:
    return GNTMAP_host_map | (GNTMAP_readonly if readonly else 0)


class GrantError(Exception):
    """A grant cannot be used, by the guest's fault; ``status`` is what Xen says, GNTST_*."""

    def __init__(self, domid: int, ref: int, status: int) -> None:
        super().__init__(f"grant {ref} of domain {domid} cannot be used: status {status}")
        self.status = status


class MappedGrant:
    """One granted frame while it is mapped; made by :meth:`Grants.map`.

    Attributes:
        domid, ref: whose grant it is.
        readonly: it may be read only.
        address: its machine address, while it is mapped.
        view: its 4096 bytes, live and read-only.  What is there may change at any moment: read each field once.  Do
            not keep a part of it longer than the mapping.
    """

    def __init__(self, grants: Grants, domain: Domain, mapping: Mapping, handle: int, mfn: int) -> None:
        self._grants = grants
        self._domain = domain
        self._handle: int | None = handle
        self._mfn = mfn
        self.address = mfn * FRAME_SIZE
        self._memory = domain.host.memory
        self.domid, self.ref = mapping.domid, mapping.ref
        self.readonly = bool(mapping.flags & GNTMAP_readonly)
        self.view = self._memory.view(mfn).data

    def read(self, offset: int, length: int) -> bytes:
        """A copy of untrusted bytes.

        Raises:
            HypervisorBug: they are not all in the frame, or it is not mapped any more.
        """
        if self._handle is None or not 0 <= offset <= offset + length <= FRAME_SIZE:
            self._at(offset, length)
        return bytes(self.view[offset : offset + length])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes for the guest to see.

        Raises:
            HypervisorBug: not all go into the frame, it is mapped read-only, or not any more.
        """
        size = memoryview(data).nbytes
        if self.readonly:
            raise HypervisorBug("a grant that is mapped read-only is written")
        self._memory.write(self._at(offset, size), data)

    @contextmanager
    def writable(self) -> Iterator[memoryview]:
        """The frame as a writable view, for I/O into it (``readinto``, ``recv_into``), until the block's end.

        Raises:
            HypervisorBug: it is mapped read-only, or not any more.
        """
        if self.readonly:
            raise HypervisorBug("a grant that is mapped read-only is written")
        with self._memory.dma(self._at(0, FRAME_SIZE) // FRAME_SIZE) as view:
            yield view

    def unmap(self) -> None:
        """Give the frame back; once is enough.

        Raises:
            HypervisorBug: some object still refers to :attr:`view`.
        """
        self._grants.unmap_all([self])

    def __enter__(self) -> MappedGrant:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmap()

    def _at(self, offset: int, length: int) -> int:
        if self._handle is None:
            raise HypervisorBug("a grant that is not mapped any more is used")
        if not 0 <= offset <= offset + length <= FRAME_SIZE:
            raise HypervisorBug(f"bytes {offset} to {offset + length} of a granted frame are used")
        return self._mfn * FRAME_SIZE + offset

    def _release(self) -> None:
        """With the machine lock held."""
        if self._handle is None:
            return
        try:
            self.view.release()
        except BufferError as error:
            raise HypervisorBug("a view of a granted frame is in use when the frame is unmapped") from error
        put_frame(self._domain.host, self._mfn, self.readonly)
        unpin(self._domain, self.ref, kinds(_flags(self.readonly)))
        self._grants._track.give(self._handle)
        self._handle = None


class Grants:
    """Domain 0's use of the other domains' grants, on one machine.

    Attributes:
        host: the machine's hypervisor.
    """

    def __init__(self, host: Host) -> None:
        self._host = self.host = host

    def map(self, domid: int, ref: int, *, readonly: bool = False) -> MappedGrant:
        """Map one grant; unmap it, or use it in a ``with`` statement.

        Raises:
            GrantError: the domain does not grant it so.
        """
        return self.map_all(domid, [ref], readonly=readonly)[0]

    def map_all(self, domid: int, refs: Sequence[int], *, readonly: bool = False) -> list[MappedGrant]:
        """Map several grants of a domain, all or none.

        Raises:
            GrantError: the domain does not grant one of them so.
        """
        mapped: list[MappedGrant] = []
        with self._host.lock:
            try:
                for ref in refs:
                    mapped.append(self._map(domid, ref, readonly))
            except GrantError:
                self._unmap(mapped)
                raise
        return mapped

    def unmap_all(self, grants: Sequence[MappedGrant]) -> None:
        """Give several frames back; those that are not mapped any more do not matter.

        Raises:
            HypervisorBug: some object still refers to the view of one: that and those behind it stay mapped.
        """
        with self._host.lock:
            self._unmap(grants)

    def ranges(self, parts: Iterable[tuple[MappedGrant, int, int]], *, writable: bool) -> list[tuple[int, int]]:
        """Where parts of mapped frames, by (grant, offset, length), are in the machine's memory: [start, end).

        Parts that follow each other there come as one.

        Raises:
            HypervisorBug: a part is not in its frame, or is to be written and mapped read-only.
        """
        ranges: list[tuple[int, int]] = []
        first = last = -1
        for grant, offset, length in parts:
            if not 0 <= offset <= offset + length <= FRAME_SIZE or (writable and grant.readonly):
                raise HypervisorBug("a part that is not in its frame, or one to be written that is mapped read-only")
            start = grant.address + offset
            if start != last:
                if first != last:
                    ranges.append((first, last))
                first = start
            last = start + length
        if first != last:
            ranges.append((first, last))
        return ranges

    def buffers(
        self, ranges: Sequence[tuple[int, int]], *, writable: bool
    ) -> AbstractContextManager[Sequence[memoryview]]:
        """What :meth:`ranges` found, as views for one I/O, until the block's end.

        The grants stay mapped meanwhile: that is the caller's care.
        """
        memory = self._host.memory
        return memory.dma_ranges(ranges) if writable else nullcontext(memory.view_ranges(ranges))

    def copy_from(self, domid: int, parts: Sequence[tuple[int, int, int]]) -> list[bytes | GrantError]:
        """Bytes out of granted frames, by (reference, offset, length); for each, them or why not."""
        host, results = self._host, list[bytes | GrantError]()
        with host.lock, self._held(domid):
            find = self._plain_entries(domid)
            for ref, offset, length in parts:
                entry = find(ref) if 0 <= offset <= offset + length <= FRAME_SIZE else None
                data = None if entry is None else read_granted(host, entry, DOMAIN_0, domid, offset, length)
                results.append(self._copy_from(domid, ref, offset, length) if data is None else data)
        return results

    def _copy_from(self, domid: int, ref: int, offset: int, length: int) -> bytes | GrantError:
        def read(part: Part) -> bytes:
            return self._host.memory.read(part.mfn * FRAME_SIZE + offset, length)

        return self._copy(domid, ref, offset, length, True, read)

    def copy_to(
        self, domid: int, parts: Sequence[tuple[int, int, bytes | bytearray | memoryview]]
    ) -> list[GrantError | None]:
        """Bytes into granted frames, by (reference, offset, data); for each, why not, or None."""
        host, results = self._host, list[GrantError | None]()
        with host.lock, self._held(domid):
            find = self._plain_entries(domid)
            for ref, offset, data in parts:
                is_within = isinstance(data, bytes) and 0 <= offset <= offset + len(data) <= FRAME_SIZE
                entry = find(ref) if is_within else None
                if entry is not None and write_granted(host, entry, DOMAIN_0, domid, offset, bytes(data)):
                    results.append(None)
                else:
                    results.append(self._copy_to(domid, ref, offset, data))
        return results

    def _copy_to(
        self, domid: int, ref: int, offset: int, data: bytes | bytearray | memoryview
    ) -> GrantError | None:
        def write(part: Part) -> bytes:
            self._host.memory.write(part.mfn * FRAME_SIZE + offset, data)
            return b""

        done = self._copy(domid, ref, offset, memoryview(data).nbytes, False, write)
        return done if isinstance(done, GrantError) else None

    def _plain_entries(self, domid: int) -> Callable[[int], int | None]:
        """Where a domain's entries of version 1 are that nobody uses, by their references, while the machine lock is
        held."""
        domain = find_granter(self._host, domid)
        grants = None if domain is None else domain.state.grants
        if grants is None or grants.version != 1 or grants.is_closed:
            return lambda ref: None
        count, active, entry_at = grants.nr_entries, grants.active, grants.entry_at
        return lambda ref: entry_at(ref) if ref < count and ref not in active else None

    @property
    def _track(self) -> MapTrack:
        return self._host.domains[DOMAIN_0].state.maptrack

    def _held(self, domid: int) -> AbstractContextManager[object]:
        """The domain is out of guest code for a whole batch: being held for every word anew would cost it more."""
        domain = find_granter(self._host, domid)
        return nullcontext() if domain is None else self._host.quiesced(domain)

    def _granter(self, domid: int, ref: int) -> Domain:
        domain = find_granter(self._host, domid)
        if domain is None:
            raise GrantError(domid, ref, GNTST_bad_domain)
        return domain

    def _map(self, domid: int, ref: int, readonly: bool) -> MappedGrant:
        domain = self._granter(domid, ref)
        flags = _flags(readonly)
        handle = self._track.take()
        if handle is None:
            raise GrantError(domid, ref, GNTST_no_space)
        try:
            mfn = pin_for_mapping(domain, ref, DOMAIN_0, flags).mfn
        except GrantStatus as end:
            self._track.give(handle)
            raise GrantError(domid, ref, end.status) from None
        if not take_frame(self._host, mfn, domid, readonly):
            unpin(domain, ref, kinds(flags))
            self._track.give(handle)
            raise GrantError(domid, ref, GNTST_general_error)
        mapping = self._track.mappings[handle] = Mapping(domid, ref, flags)
        return MappedGrant(self, domain, mapping, handle, mfn)

    def _unmap(self, grants: Sequence[MappedGrant]) -> None:
        for grant in grants:
            grant._release()
        self._host.reap()

    def _copy(
        self, domid: int, ref: int, offset: int, length: int, readonly: bool, carry_out: Callable[[Part], bytes]
    ) -> bytes | GrantError:
        try:
            domain = self._granter(domid, ref)
            if not 0 <= offset <= offset + length <= FRAME_SIZE:
                return GrantError(domid, ref, GNTST_bad_copy_arg)
            part = acquire_for_copy(domain, ref, DOMAIN_0, readonly)
        except GrantError as error:
            return error
        except GrantStatus as end:
            return GrantError(domid, ref, end.status)
        try:
            if offset < part.start or offset + length > part.start + part.length:
                return GrantError(domid, ref, GNTST_general_error)
            owner = self._host.frame_info(part.mfn)[0]
            if not take_frame(self._host, part.mfn, owner, readonly):
                return GrantError(domid, ref, GNTST_general_error)
            try:
                return carry_out(part)
            finally:
                put_frame(self._host, part.mfn, readonly)
        finally:
            release_for_copy(domain, ref, part, readonly)
