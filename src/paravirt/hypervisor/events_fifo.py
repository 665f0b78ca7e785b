# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""The FIFO event-channel ABI (public/event_channel.h): sixteen queues for each vcpu, linked through event words.

Each port has a 32-bit word in pages of the guest's: PENDING, MASKED, LINKED, BUSY and a 17-bit link to the next port
in its queue.  A vcpu's control block has the heads of its queues and a bit for each that is not empty.  The guest
consumes from the head; we add at the tail.  Links are the guest's to spoil, so that they are written and never
followed here.

All functions are called under the machine lock, with the domain outside guest code (see events.py).
"""

import cython
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.paravirt.abi.constants import EACCES, EINVAL, ENOMEM, ENOSPC, EOPNOTSUPP
from cython.cimports.paravirt.hypervisor.events import mark_pending, wake_pollers
from cython.cimports.paravirt.hypervisor.frames import get_page_and_type, put_page_and_type
from cython.cimports.paravirt.hypervisor.guestmem import frame_ptr
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_WRITABLE,
    PORT_FREE,
    PORT_RESERVED,
    DomainPtr,
    FifoQueue,
    VcpuPtr,
    i64,
    u8,
    u32,
    u64,
)
from cython.cimports.paravirt.machine.cpu import U32Ptr, U64Ptr

PENDING = cython.declare(u32, 0x80000000)
MASKED = cython.declare(u32, 0x40000000)
LINKED = cython.declare(u32, 0x20000000)
BUSY = cython.declare(u32, 0x10000000)
LINK_MASK = cython.declare(u32, 0x1FFFF)
WORDS_PER_PAGE = cython.declare(u32, 1024)
MAX_PAGES = cython.declare(u32, 128)
LOWEST_PRIORITY = cython.declare(u32, 15)
DEFAULT_PRIORITY = cython.declare(u8, 7)


def fifo_word(d: DomainPtr, port: u32) -> U32Ptr:
    """The port's event word, or NULL while the guest has given no page for it."""
    page: u32 = port // WORDS_PER_PAGE
    if page >= d.fifo_array_pages:
        return cython.NULL
    return cython.cast(U32Ptr, frame_ptr(d.host, d.fifo_array[page])) + port % WORDS_PER_PAGE


def fifo_is_pending(d: DomainPtr, port: u32) -> cython.bint:
    """Whether the port's event is pending, masked or not."""
    word: U32Ptr = fifo_word(d, port)
    return word != cython.NULL and word[0] & PENDING != 0


def fifo_clear_pending(d: DomainPtr, port: u32) -> cython.void:
    """The port is closed: its event is not pending any more (it may still hang in a queue)."""
    word: U32Ptr = fifo_word(d, port)
    if word != cython.NULL:
        word[0] &= ~PENDING


def fifo_queue_event(d: DomainPtr, v: VcpuPtr, port: u32, word: U32Ptr) -> cython.void:
    """Put a pending, unmasked, unlinked event at the tail of its queue."""
    queue: cython.pointer(FifoQueue) = cython.address(v.fifo_queue[d.ports[port].priority & 15])
    ready: U32Ptr = cython.cast(U32Ptr, cython.cast(U64Ptr, v.fifo_control))
    tail: U32Ptr
    linked: cython.bint = False
    bit: u32 = cython.cast(u32, 1) << (d.ports[port].priority & 15)
    if v.fifo_control == 0:
        return
    word[0] = (word[0] & ~LINK_MASK) | LINKED
    if queue.tail != 0:
        tail = fifo_word(d, queue.tail)
        # Only while the guest has not consumed the tail does it take a successor.
        if tail != cython.NULL and tail[0] & LINKED and queue.tail != port:
            tail[0] = (tail[0] & ~(LINK_MASK | BUSY)) | port
            linked = True
    if not linked:
        ready[2 + (d.ports[port].priority & 15)] = port
    queue.tail = port
    d.ports[port].last_vcpu = v.id
    d.ports[port].last_priority = d.ports[port].priority
    if not linked and not ready[0] & bit:
        ready[0] |= bit
        mark_pending(v)


def fifo_set_pending(d: DomainPtr, v: VcpuPtr, port: u32) -> cython.void:
    """An event arrives.  Before the guest gave a page for the port, it is remembered in the port."""
    word: U32Ptr = fifo_word(d, port)
    was_pending: cython.bint
    if word == cython.NULL:
        d.ports[port].early = 1
        return
    was_pending = word[0] & PENDING != 0
    word[0] |= PENDING
    if not word[0] & (MASKED | LINKED):
        fifo_queue_event(d, v, port, word)
    if not was_pending:
        wake_pollers(d, port)


def fifo_unmask(d: DomainPtr, v: VcpuPtr, port: u32) -> cython.void:
    """EVTCHNOP_unmask."""
    word: U32Ptr = fifo_word(d, port)
    if word == cython.NULL:
        return
    word[0] &= ~MASKED
    if word[0] & PENDING:
        fifo_set_pending(d, v, port)


def fifo_init_control(d: DomainPtr, mfn: u64, offset: u32, v: VcpuPtr) -> i64:
    """EVTCHNOP_init_control: use the control block at ``offset`` of a frame of the guest's: 0 or -EINVAL.

    The first one takes the domain over to this ABI; what was pending in the bitmaps is remembered.
    """
    port: u32
    pending: U64Ptr
    if offset & 7 or offset > 4096 - 72 or v.fifo_control != 0:
        return -EINVAL
    if get_page_and_type(d.host, mfn, d.domid, FRAME_WRITABLE) != 0:
        return -EINVAL
    if not d.fifo:
        d.fifo_array = cython.cast(U64Ptr, calloc(MAX_PAGES, 8))
        if d.fifo_array == cython.NULL:
            put_page_and_type(d.host, mfn)
            return -ENOMEM
        d.fifo = 1
        pending = cython.cast(U64Ptr, d.shared_info + 2048)
        for port in range(1, d.nr_ports):
            d.ports[port].priority = DEFAULT_PRIORITY
            if (pending[port >> 6] >> (port & 63)) & 1:
                d.ports[port].early = 1
    v.fifo_control_mfn = mfn
    v.fifo_control = cython.cast(u64, frame_ptr(d.host, mfn) + offset)
    return 0


def fifo_expand_array(d: DomainPtr, mfn: u64) -> i64:
    """EVTCHNOP_expand_array: one more page of event words: 0, -EOPNOTSUPP, -ENOSPC or -EINVAL."""
    port: u32
    first: u32
    if not d.fifo:
        return -EOPNOTSUPP
    if d.fifo_array_pages >= MAX_PAGES:
        return -ENOSPC
    if get_page_and_type(d.host, mfn, d.domid, FRAME_WRITABLE) != 0:
        return -EINVAL
    first = d.fifo_array_pages * WORDS_PER_PAGE
    d.fifo_array[d.fifo_array_pages] = mfn
    d.fifo_array_pages += 1
    for port in range(first, first + WORDS_PER_PAGE):
        if port < d.nr_ports and d.ports[port].early:
            d.ports[port].early = 0
            if d.ports[port].notify_vcpu < d.nr_vcpus:
                fifo_set_pending(d, d.vcpus[d.ports[port].notify_vcpu], port)
    return 0


def fifo_set_priority(d: DomainPtr, port: u32, priority: u32) -> i64:
    """EVTCHNOP_set_priority, of a valid port: 0, -EINVAL or -EACCES (a port that is not in use)."""
    if priority > LOWEST_PRIORITY:
        return -EINVAL
    if d.ports[port].state == PORT_FREE or d.ports[port].state == PORT_RESERVED:
        return -EACCES
    d.ports[port].priority = cython.cast(u8, priority)
    return 0


def fifo_destroy(d: DomainPtr) -> cython.void:
    """Give the guest's pages back; the domain is on the two-level ABI again."""
    i: u32
    v: VcpuPtr
    if not d.fifo:
        return
    for i in range(d.nr_vcpus):
        v = d.vcpus[i]
        if v != cython.NULL and v.fifo_control != 0:
            put_page_and_type(d.host, v.fifo_control_mfn)
            v.fifo_control = 0
            v.fifo_control_mfn = 0
    for i in range(d.fifo_array_pages):
        put_page_and_type(d.host, d.fifo_array[i])
    free(d.fifo_array)
    d.fifo_array = cython.NULL
    d.fifo_array_pages = 0
    d.fifo = 0
