# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# ruff: noqa: F821
"""Requests that need no waiting, carried out without the interpreter: reads of what is in the host's page cache, and
writes that it takes, with frames that stay mapped.

Whoever learns of requests first carries them out: as a rule the thread of the physical CPU whose guest sent the event,
before the guest goes on (``hypervisor/loop.py``), so that nobody need be woken; else Domain 0's.  What is anything else
than such a request, or wrong, is left in the ring to ``queue.py``, which holds the ring from then on, until it has
nothing to do and hands it over again.  So this module refuses much and forgives nothing: it says no, and never why.

As everywhere, each field of the guest's is read once, into a copy that is then checked; the compiler is told that it
may not read it again (XSA-155).
"""

import cython
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.libc.stdlib import calloc, free, realloc
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.paravirt.abi.constants import (
    BLKIF_MAX_SEGMENTS_PER_REQUEST,
    BLKIF_OP_INDIRECT,
    BLKIF_OP_READ,
    BLKIF_OP_WRITE,
)
from cython.cimports.paravirt.hypervisor.frames import drop_code_everywhere
from cython.cimports.paravirt.hypervisor.records import (
    SERVER_ANSWERS,
    SERVER_LEAVES,
    HostPtr,
    PortServerPtr,
    pthread_mutex_lock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
)
from cython.cimports.paravirt.hypervisor.timekeeping import now
from cython.cimports.paravirt.hypervisor.views.host import Host
from cython.cimports.paravirt.machine.cpu import BytePtr, U32Ptr, U64Ptr, VoidPtr

from paravirt.errors import HypervisorBug


def place(ring: RingPtr, offset: u64) -> BytePtr:
    """Where a byte of the ring is; what follows may be in another page."""
    return ring.host.memory + ring.pages[offset // PAGE] + offset % PAGE


def load_index(ring: RingPtr, offset: u32) -> u32:
    """One of the guest's indices."""
    return load_once(cython.cast(U32Ptr, place(ring, offset)))


def store_index(ring: RingPtr, offset: u32, value: u32) -> cython.void:
    """One of ours, for the guest to see after all that was stored before; what follows is loaded after it."""
    full_barrier()
    cython.cast(U32Ptr, place(ring, offset))[0] = value
    full_barrier()


def take_entry(ring: RingPtr, entry: BytePtr) -> cython.void:
    """Copy the next request, which may lie across a border of pages."""
    at: u64 = HEADER + cython.cast(u64, ring.req_cons & (ring.entries - 1)) * ENTRY
    first: u64 = PAGE - at % PAGE
    if first > ENTRY:
        first = ENTRY
    memcpy(entry, place(ring, at), first)
    if first < ENTRY:
        memcpy(entry + first, place(ring, at + first), ENTRY - first)
    copied()


def respond(ring: RingPtr, access: AccessPtr) -> cython.void:
    """Put in the answer that it went well."""
    answer: u8[16]
    at: u64 = HEADER + cython.cast(u64, ring.rsp_prod & (ring.entries - 1)) * ENTRY
    first: u64 = PAGE - at % PAGE
    if first > ANSWER:
        first = ANSWER
    memset(answer, 0, ANSWER)
    memcpy(answer, access.entry + 8, 8)
    answer[8] = access.operation
    memcpy(place(ring, at), answer, first)
    if first < ANSWER:
        memcpy(place(ring, at + first), answer + first, ANSWER - first)
    ring.rsp_prod += 1


def kept_frame(ring: RingPtr, ref: u32) -> BytePtr:
    """The frame behind a grant, if it stays mapped; else NULL."""
    if ref >= ring.nr_frames or ring.frames[ref] == 0:
        return cython.NULL
    return ring.host.memory + cython.cast(u64, ring.frames[ref]) * PAGE


def parse(ring: RingPtr, access: AccessPtr) -> cython.bint:
    """What the copied entry asks for: whether it is something for this module."""
    sector: u64 = cython.cast(U64Ptr, access.entry + 16)[0]
    described: BytePtr
    access.operation = access.entry[0]
    if access.operation == BLKIF_OP_INDIRECT:
        access.operation = access.entry[1]
        access.nr_segments = access.entry[2] | cython.cast(u32, access.entry[3]) << 8
        described = kept_frame(ring, cython.cast(U32Ptr, access.entry + 28)[0])
        if described == cython.NULL or access.nr_segments > MOST_SEGMENTS:
            return False
        memcpy(access.segments, described, access.nr_segments * 8)
        copied()
    else:
        access.nr_segments = access.entry[1]
        if access.nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST:
            return False
        memcpy(access.segments, access.entry + 24, access.nr_segments * 8)
    if access.operation != BLKIF_OP_READ and not (access.operation == BLKIF_OP_WRITE and ring.may_write):
        return False
    if access.nr_segments == 0 or sector > ring.size // ring.unit:
        return False
    access.offset = sector * ring.unit
    return True


def gather(ring: RingPtr, access: AccessPtr) -> cython.bint:
    """Where the segments are in memory: whether all of them are, and on the disk too."""
    i: u32
    first: u8
    last: u8
    frame: BytePtr
    start: BytePtr
    length: u64
    end: BytePtr = cython.NULL
    access.nr_parts = 0
    access.length = 0
    for i in range(access.nr_segments):
        first = access.segments[8 * i + 4]
        last = access.segments[8 * i + 5]
        frame = kept_frame(ring, cython.cast(U32Ptr, access.segments + 8 * i)[0])
        if frame == cython.NULL or last >= 8 or first > last:
            return False
        start = frame + cython.cast(u64, first) * 512
        length = cython.cast(u64, last - first + 1) * 512
        if start == end:
            access.parts[access.nr_parts - 1].iov_len += length
        else:
            access.parts[access.nr_parts].iov_base = start
            access.parts[access.nr_parts].iov_len = length
            access.nr_parts += 1
        end = start + length
        access.length += length
    return access.offset + access.length <= ring.size and (access.offset | access.length) % ring.sector_size == 0


def transfer(ring: RingPtr, access: AccessPtr) -> cython.bint:
    """Move the bytes: whether all of them were, at once. Those that were may be moved again."""
    host: HostPtr = ring.host
    started: u64
    slept: cython.long
    moved: i64
    start: u64
    i: u32
    if access.operation == BLKIF_OP_WRITE:
        started, slept = now(host), times_slept()
        moved = pwritev(ring.fd, access.parts, access.nr_parts, access.offset)
        if now(host) - started > SLOW_NS and times_slept() != slept:  # on a busy host it may just have been interrupted
            ring.may_write = 0
            ring.was_slow = 1
    else:
        moved = preadv2(ring.fd, access.parts, access.nr_parts, access.offset, RWF_NOWAIT)
        for i in range(access.nr_parts):
            start = cython.cast(BytePtr, access.parts[i].iov_base) - host.memory
            drop_code_everywhere(host, start, start + access.parts[i].iov_len)
    return moved == cython.cast(i64, access.length)


def serve_requests(ring: RingPtr) -> u32:
    """Answer what can be answered; when that is not all, the ring is no longer held here."""
    access: Access
    waiting: u32
    begin: u32 = ring.rsp_prod
    budget: u64 = MOST_BYTES
    is_done: cython.bint = lseek(ring.fd, 0, SEEK_END) // 512 * 512 == cython.cast(i64, ring.size)
    while is_done:
        waiting = load_index(ring, REQ_PROD) - ring.req_cons
        if waiting == 0:
            store_index(ring, REQ_EVENT, ring.req_cons + 1)
            if load_index(ring, REQ_PROD) == ring.req_cons:
                break
            continue
        if waiting > ring.entries or ring.rsp_prod - begin >= MOST_REQUESTS or budget == 0:
            is_done = False
            break
        take_entry(ring, access.entry)
        if not (parse(ring, cython.address(access)) and gather(ring, cython.address(access))):
            is_done = False
        elif transfer(ring, cython.address(access)):
            ring.req_cons += 1
            respond(ring, cython.address(access))
            budget = budget - access.length if budget > access.length else 0
            if access.operation == BLKIF_OP_WRITE:
                ring.write_requests += 1
                ring.written_bytes += access.length
            else:
                ring.read_requests += 1
                ring.read_bytes += access.length
        else:
            is_done = False
    if not is_done:
        ring.holder = LEFT_TO_PYTHON
    if ring.rsp_prod == begin:
        return 0 if is_done else SERVER_LEAVES
    store_index(ring, RSP_PROD, ring.rsp_prod)
    # All are answered that were taken: the guest gets an event always (BackRing.publish).
    return SERVER_ANSWERS if is_done else SERVER_ANSWERS | SERVER_LEAVES


def serve_event(server: PortServerPtr) -> u32:
    """The server of the ring's port: answers, and gives the use of it back."""
    ring: RingPtr = cython.cast(RingPtr, server)
    answer: u32 = SERVER_LEAVES
    if pthread_mutex_trylock(cython.address(ring.lock)) == 0:
        if ring.holder == HELD_HERE:
            answer = serve_requests(ring)
        pthread_mutex_unlock(cython.address(ring.lock))
    give_back(ring)
    return answer


def give_back(ring: RingPtr) -> cython.void:
    """One use less; the last one frees it."""
    if add_atomically(cython.address(ring.server.uses), -1) == 0:
        pthread_mutex_destroy(cython.address(ring.lock))
        free(ring.frames)
        free(ring)


class DirectRing:
    """A block ring, for requests that need no waiting.  Python holds it until :meth:`hand_over`.

    Parameters:
        host: the hypervisor, for its memory and engines.
        pages: machine addresses of the ring's pages, which stay mapped.
        entries: of the ring.
        fd: the file or block device whose bytes are the disk's.
        unit: bytes that a sector number counts.
        sector_size: bytes of which all accesses are multiples.
    """

    def __init__(self, host: Host, pages: object, entries: int, fd: int, unit: int, sector_size: int) -> None:
        ring: RingPtr = cython.cast(RingPtr, calloc(1, cython.sizeof(Ring)))
        if ring == cython.NULL:
            raise MemoryError
        self.ring = ring
        self.keeper = host
        ring.server.serve = serve_event
        ring.server.uses = 1
        pthread_mutex_init(cython.address(ring.lock), cython.NULL)
        ring.host = host.rec
        for number, address in enumerate(pages):
            ring.pages[cython.cast(u32, number)] = address
        ring.entries = entries
        ring.fd = fd
        ring.unit = unit
        ring.sector_size = sector_size

    def __dealloc__(self) -> None:
        if self.ring != cython.NULL:
            give_back(self.ring)

    @property
    def address(self) -> int:
        """Of the PortServer, for ``Domain.serve_port``."""
        return cython.cast(uintptr_t, self.ring)

    def keep(self, ref: int, address: int) -> None:
        """The frame behind a grant stays mapped, writable, at this machine address; Python holds the ring."""
        ring: RingPtr = self.ring
        index: u32 = ref
        room: u32
        grown: VoidPtr
        if index >= ring.nr_frames:
            room = (index | 511) + 1
            grown = realloc(ring.frames, cython.cast(u64, room) * cython.sizeof(u32))
            if grown == cython.NULL:
                return
            ring.frames = cython.cast(U32Ptr, grown)
            memset(ring.frames + ring.nr_frames, 0, cython.cast(u64, room - ring.nr_frames) * cython.sizeof(u32))
            ring.nr_frames = room
        ring.frames[index] = cython.cast(u64, address) // PAGE

    def hand_over(self, position: tuple, size: int, may_write: bool) -> None:
        """Requests are answered here from now on.

        Parameters:
            position: how many requests were taken, and answered: the same, as 32-bit indices of requests and responses.
            size: bytes of the disk.
            may_write: the image may be written, and is quick about it at present.

        Raises:
            HypervisorBug: Python does not hold it; what is there of it is somebody else's position.
        """
        ring: RingPtr = self.ring
        with cython.nogil:
            pthread_mutex_lock(cython.address(ring.lock))
        if ring.holder != HELD_BY_PYTHON:
            pthread_mutex_unlock(cython.address(ring.lock))
            raise HypervisorBug("a ring is handed over by who does not hold it")
        ring.req_cons, ring.rsp_prod = position
        ring.size = size
        ring.may_write = may_write
        ring.was_slow = 0
        ring.holder = HELD_HERE
        pthread_mutex_unlock(cython.address(ring.lock))

    def take_back(self) -> object:
        """Python holds the ring from now on: (requests taken, answered, whether a write was slow); None: it did."""
        ring: RingPtr = self.ring
        with cython.nogil:
            pthread_mutex_lock(cython.address(ring.lock))
        was_held = ring.holder != HELD_BY_PYTHON
        ring.holder = HELD_BY_PYTHON
        pthread_mutex_unlock(cython.address(ring.lock))
        return (ring.req_cons, ring.rsp_prod, bool(ring.was_slow)) if was_held else None

    def serve(self) -> object:
        """Answer what can be answered: (whether the guest is to get an event, whether Python is to go on).

        None: a physical CPU's thread is at it, and may wait for the host's disk, for which nobody else is to wait. It
        may have looked for requests for the last time: come again.
        """
        answer: u32 = SERVER_LEAVES
        is_busy: cython.bint = True
        ring: RingPtr = self.ring
        with cython.nogil:
            if pthread_mutex_trylock(cython.address(ring.lock)) == 0:
                is_busy = False
                if ring.holder == HELD_HERE:
                    answer = serve_requests(ring)
                pthread_mutex_unlock(cython.address(ring.lock))
        return None if is_busy else (bool(answer & SERVER_ANSWERS), bool(answer & SERVER_LEAVES))

    @property
    def position(self) -> int:
        """How many requests were taken, as a 32-bit index; it may be different a moment later."""
        return self.ring.req_cons

    def counts(self) -> tuple:
        """Requests and bytes read, requests and bytes written, here."""
        ring: RingPtr = self.ring
        return ring.read_requests, ring.read_bytes, ring.write_requests, ring.written_bytes
