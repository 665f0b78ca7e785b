# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""The FIFO event-channel ABI: sixteen queues for each vcpu, linked through the ports' event words.

Each port has a 32-bit word in pages of the guest's: PENDING, MASKED, LINKED, BUSY, and a 17-bit link to the
next port in its queue.  A vcpu's control block has the head of each of its queues, and a bit for each that
has something in it.  The guest takes events off at the head; here they are added at the tail.  We remember
the tails ourselves: links and heads are the guest's to spoil, so that they are written here, never followed.

Behaviour: public/event_channel.h; Xen 4.17, common/event_fifo.c.  All functions are called under the machine
lock.
"""

import cython
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset
from cython.cimports.paravirt.abi.constants import (
    EINVAL,
    ENOMEM,
    ENOSPC,
    EOPNOTSUPP,
    EVTCHN_FIFO_BUSY,
    EVTCHN_FIFO_LINK_MASK,
    EVTCHN_FIFO_LINKED,
    EVTCHN_FIFO_MASKED,
    EVTCHN_FIFO_PENDING,
    EVTCHN_FIFO_PRIORITY_DEFAULT,
)
from cython.cimports.paravirt.hypervisor.atomics import (
    ORDERED,
    compare_exchange32,
    load32,
    store32,
    test_and_clear_bit32,
    test_and_set_bit32,
    test_bit32,
    test_bit64,
)
from cython.cimports.paravirt.hypervisor.frames import get_page_and_type, put_page_and_type
from cython.cimports.paravirt.hypervisor.guestmem import frame_ptr
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_WRITABLE,
    DomainPtr,
    FifoQueue,
    PortPtr,
    VcpuPtr,
    i64,
    u32,
    u64,
)
from cython.cimports.paravirt.machine.cpu import U32Ptr, U64Ptr

# How often a guest may change the word of a queue's tail while we link to it.  It has four lawful ways to.
LINK_TRIES = cython.declare(cython.int, 5)
# Of the two-level ABI: evtchn_pending in shared_info.
PENDING_OFFSET = cython.declare(u32, 2048)


def event_word(d: DomainPtr, port: u32) -> U32Ptr:
    """The port's event word, or NULL while the guest has given no page for it."""
    page: u32 = port / FIFO_WORDS_PER_PAGE
    if page >= d.fifo_array_pages:
        return cython.NULL
    return cython.cast(U32Ptr, frame_ptr(d.host, d.fifo_array[page])) + port % FIFO_WORDS_PER_PAGE


def fifo_is_pending(d: DomainPtr, port: u32) -> cython.bint:
    """Whether the port's event is pending, masked or not."""
    word: U32Ptr = event_word(d, port)
    return word != cython.NULL and test_bit32(word, EVTCHN_FIFO_PENDING)


def fifo_is_linked(d: DomainPtr, port: u32) -> cython.bint:
    """Whether the port hangs in a queue, as the guest shows it."""
    word: U32Ptr = event_word(d, port)
    return word != cython.NULL and test_bit32(word, EVTCHN_FIFO_LINKED)


def fifo_clear_pending(d: DomainPtr, port: u32) -> cython.void:
    """The event is not pending any more.  It may stay in a queue: guests pass over what is not pending."""
    word: U32Ptr = event_word(d, port)
    if word != cython.NULL:
        test_and_clear_bit32(word, EVTCHN_FIFO_PENDING)


def set_link(word: U32Ptr, port: u32) -> cython.bint:
    """Let a queue's tail link to ``port``: false if the guest has taken the tail out, and the queue is empty.

    A guest that keeps changing the word gets its way after some tries, and loses the event.
    """
    old: u32 = load32(word, ORDERED)
    keep: u32 = ~((cython.cast(u32, 1) << EVTCHN_FIFO_BUSY) | cython.cast(u32, EVTCHN_FIFO_LINK_MASK))
    _: cython.int
    for _ in range(LINK_TRIES):
        if not (old >> EVTCHN_FIFO_LINKED) & 1:
            break
        if compare_exchange32(word, cython.address(old), (old & keep) | port, False, ORDERED, ORDERED):
            return True
        # BUSY forbids the guest to unmask, so that it runs out of changes to make.
        test_and_set_bit32(word, EVTCHN_FIFO_BUSY)
        old = load32(word, ORDERED)
    if (old >> EVTCHN_FIFO_BUSY) & 1:
        test_and_clear_bit32(word, EVTCHN_FIFO_BUSY)
    return (old >> EVTCHN_FIFO_LINKED) & 1


def append(d: DomainPtr, v: VcpuPtr, port: u32) -> cython.bint:
    """Put a port that was not linked at the tail of its queue: whether the queue was empty."""
    p: PortPtr = cython.address(d.ports[port])
    control: cython.pointer(FifoControl) = cython.cast(cython.pointer(FifoControl), v.fifo_control)
    queue: cython.pointer(FifoQueue) = cython.address(v.fifo_queue[p.priority])
    before: cython.pointer(FifoQueue) = cython.address(d.vcpus[p.last_vcpu].fifo_queue[p.last_priority])
    tail: U32Ptr = cython.NULL
    # The guest has taken the port out.  If it was the last one of its old queue, that is empty now, and the
    # port must not pass for its tail any longer, as it is linked again.
    if before.tail == port:
        before.tail = 0
    p.last_vcpu = v.id
    p.last_priority = p.priority
    if queue.tail != 0:
        tail = event_word(d, queue.tail)
    queue.tail = port
    if tail != cython.NULL and set_link(tail, port):
        return False
    store32(cython.address(control.head[p.priority]), port, ORDERED)
    return True


def fifo_set_pending(d: DomainPtr, v: VcpuPtr, port: u32) -> u32:
    """An event arrives: FIFO_NEWS and FIFO_UPCALL, as they apply.

    Without a word for the port the event is kept for later (``early``).  Without a control block of the vcpu
    it is pending in the word only: it is an error of the guest's to unmask before it has made one.
    """
    word: U32Ptr = event_word(d, port)
    control: cython.pointer(FifoControl) = cython.cast(cython.pointer(FifoControl), v.fifo_control)
    news: u32 = 0
    if word == cython.NULL:
        d.ports[port].early = 1
        return 0
    if not test_and_set_bit32(word, EVTCHN_FIFO_PENDING):
        news = FIFO_NEWS
    if control == cython.NULL or test_bit32(word, EVTCHN_FIFO_MASKED):
        return news
    if test_and_set_bit32(word, EVTCHN_FIFO_LINKED):
        return news
    if append(d, v, port) and not test_and_set_bit32(
        cython.address(control.ready), d.ports[port].priority
    ):
        news |= FIFO_UPCALL
    return news


def fifo_unmask(d: DomainPtr, port: u32) -> cython.bint:
    """Clear the mask bit: whether the event is pending, and so wants to be put into its queue."""
    word: U32Ptr = event_word(d, port)
    if word == cython.NULL:
        return False
    test_and_clear_bit32(word, EVTCHN_FIFO_MASKED)
    return test_bit32(word, EVTCHN_FIFO_PENDING)


def take_over(d: DomainPtr) -> i64:
    """Change from the two-level ABI to this one; what is pending in the bitmap is remembered.

    Returns 0, or -ENOMEM.
    """
    pending: U64Ptr = cython.cast(U64Ptr, d.shared_info + PENDING_OFFSET)
    port: u32
    d.fifo_array = cython.cast(U64Ptr, calloc(FIFO_MAX_PAGES, cython.sizeof(u64)))
    if d.fifo_array == cython.NULL:
        return -ENOMEM
    d.fifo_array_pages = 0
    d.fifo = 1
    for port in range(1, d.nr_ports):
        d.ports[port].priority = EVTCHN_FIFO_PRIORITY_DEFAULT
        if port < 4096 and test_bit64(pending + (port >> 6), port):
            d.ports[port].early = 1
    return 0


def fifo_init_control(d: DomainPtr, v: VcpuPtr, mfn: u64, offset: u32) -> i64:
    """Use the control block at ``offset`` in a frame of the guest's.

    The first one takes the whole domain over to this ABI.

    Returns 0; -EINVAL: not there, or not again; -ENOMEM.
    """
    rc: i64
    if offset > 4096 - FIFO_CONTROL_SIZE or offset & 7 or v.fifo_control != 0:
        return -EINVAL
    if get_page_and_type(d.host, mfn, d.domid, FRAME_WRITABLE) != 0:
        return -EINVAL
    if not d.fifo:
        rc = take_over(d)
        if rc != 0:
            put_page_and_type(d.host, mfn)
            return rc
    v.fifo_control_mfn = mfn
    v.fifo_control = cython.cast(u64, frame_ptr(d.host, mfn) + offset)
    return 0


def fifo_add_page(d: DomainPtr, mfn: u64) -> i64:
    """Take a frame of the guest's for the next 1024 event words: the first of their ports.

    -EOPNOTSUPP: the domain uses the two-level ABI; -ENOSPC: it has all pages; -EINVAL: not with this frame.
    """
    if not d.fifo:
        return -EOPNOTSUPP
    if d.fifo_array_pages >= FIFO_MAX_PAGES:
        return -ENOSPC
    if get_page_and_type(d.host, mfn, d.domid, FRAME_WRITABLE) != 0:
        return -EINVAL
    d.fifo_array[d.fifo_array_pages] = mfn
    d.fifo_array_pages += 1
    return (d.fifo_array_pages - 1) * FIFO_WORDS_PER_PAGE


def fifo_destroy(d: DomainPtr) -> cython.void:
    """Give the guest its pages back; the domain is on the two-level ABI again."""
    v: VcpuPtr
    i: u32
    if not d.fifo:
        return
    for i in range(d.nr_vcpus):
        v = d.vcpus[i]
        if v == cython.NULL:
            continue
        memset(v.fifo_queue, 0, 16 * cython.sizeof(FifoQueue))
        if v.fifo_control != 0:
            put_page_and_type(d.host, v.fifo_control_mfn)
            v.fifo_control = 0
            v.fifo_control_mfn = 0
    for i in range(d.fifo_array_pages):
        put_page_and_type(d.host, d.fifo_array[i])
    free(d.fifo_array)
    d.fifo_array = cython.NULL
    d.fifo_array_pages = 0
    d.fifo = 0
    for i in range(d.nr_ports):
        d.ports[i].early = 0
        d.ports[i].last_vcpu = 0
        d.ports[i].last_priority = 0
