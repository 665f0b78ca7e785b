# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Event channels: the ports of each domain, and how an event reaches a vcpu.

A port is unbound (waiting for a peer), one end of a channel between two domains, a virtual interrupt, or an
interrupt between two vcpus.  An event sets the port's pending bit; unless the port is masked, the vcpu that
it notifies gets an upcall.  This module has the two-level ABI (bitmaps in shared_info); the FIFO ABI's words
and queues are events_fifo's.

A guest changes the same words with locked instructions, and on some engines those are not locked against
other threads of the host.  So an event for a domain that is in guest code is only *posted*, in the port, and
applied at the domain's next exit.  Domain 0 is Python and shares no words: its ports keep the bit.

Behaviour: public/event_channel.h; Xen 4.17, common/event_channel.c and event_2l.c.  All functions are called
under the machine lock.
"""

import cython
from cython.cimports.libc.stdlib import free, realloc
from cython.cimports.libc.string import memset
from cython.cimports.paravirt.abi.constants import (
    EACCES,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ESRCH,
    EVTCHN_2L_NR_CHANNELS,
    EVTCHN_FIFO_NR_CHANNELS,
    EVTCHN_FIFO_PRIORITY_DEFAULT,
    EVTCHN_FIFO_PRIORITY_MIN,
    NR_VIRQS,
    VIRQ_DEBUG,
    VIRQ_TIMER,
    VIRQ_XENOPROF,
    VIRQ_XENPMU,
)
from cython.cimports.paravirt.hypervisor.atomics import (
    ORDERED,
    exchange8,
    test_and_clear_bit64,
    test_and_set_bit64,
    test_bit64,
)
from cython.cimports.paravirt.hypervisor.events_fifo import (
    FIFO_NEWS,
    FIFO_UPCALL,
    FIFO_WORDS_PER_PAGE,
    fifo_add_page,
    fifo_clear_pending,
    fifo_destroy,
    fifo_is_linked,
    fifo_is_pending,
    fifo_set_pending,
    fifo_unmask,
)
from cython.cimports.paravirt.hypervisor.promotion import work_spent
from cython.cimports.paravirt.hypervisor.records import (
    PORT_FREE,
    PORT_INTERDOMAIN,
    PORT_IPI,
    PORT_RESERVED,
    PORT_UNBOUND,
    PORT_VIRQ,
    VPF_POLL,
    DomainPtr,
    HostPtr,
    PcpuPtr,
    Port,
    PortPtr,
    VcpuPtr,
    i64,
    u8,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.scheduling import kick, vcpu_wake
from cython.cimports.paravirt.machine.cpu import U64Ptr
from cython.cimports.posix.unistd import write

# Ports come into being in buckets of this many: a number in the last bucket is valid even while it is free.
BUCKET = cython.declare(u32, 64)
# What the closing of a port is worth, in looks at page-table entries (promotion.WORK_LIMIT).
WORK_OF_CLOSE = cython.declare(u64, 64)
# Where the two-level ABI's words are: in shared_info, and the selector in vcpu_info.
PENDING_OFFSET = cython.declare(u32, 2048)
MASK_OFFSET = cython.declare(u32, 2560)
SELECTOR_OFFSET = cython.declare(u32, 8)


# --- the table of ports -------------------------------------------------------------------------------------


def port_is_valid(d: DomainPtr, port: u64) -> cython.bint:
    """Whether the domain has a port of that number, in use or not."""
    return port < d.nr_ports


def in_use(p: PortPtr) -> cython.bint:
    """Whether the port is bound, or waits to be."""
    return p.state != PORT_FREE and p.state != PORT_RESERVED


def virq_is_global(virq: u32) -> cython.bint:
    """Whether a virtual interrupt is the whole domain's (found through vcpu 0), and not each vcpu's own."""
    return virq != VIRQ_TIMER and virq != VIRQ_DEBUG and virq != VIRQ_XENOPROF and virq != VIRQ_XENPMU


def port_limit(d: DomainPtr) -> u32:
    """The first number that no port of the domain can have: the ABI's limit, or the toolstack's."""
    most: u32 = EVTCHN_FIFO_NR_CHANNELS if d.fifo or d.is_service else EVTCHN_2L_NR_CHANNELS
    # The toolstack sets no limit for Domain 0, which has ports for every guest.
    return most if d.is_service or d.max_ports > most else d.max_ports


def ensure_ports(d: DomainPtr, count: u32) -> cython.bint:
    """Have at least ``count`` ports: false if the host has no memory for them.  Port 0 is never given out."""
    grown: PortPtr
    i: u32
    while d.nr_ports < count:
        grown = cython.cast(PortPtr, realloc(d.ports, (d.nr_ports + BUCKET) * cython.sizeof(Port)))
        if grown == cython.NULL:
            return False
        d.ports = grown
        memset(grown + d.nr_ports, 0, BUCKET * cython.sizeof(Port))
        for i in range(d.nr_ports, d.nr_ports + BUCKET):
            grown[i].priority = EVTCHN_FIFO_PRIORITY_DEFAULT
        if d.nr_ports == 0:
            grown[0].state = PORT_RESERVED
        d.nr_ports += BUCKET
    return True


def alloc_port(d: DomainPtr) -> i64:
    """The lowest free port, not yet marked as used; -ENOSPC; -ENOMEM; -EINVAL: the domain is dying.

    A FIFO port that still hangs in a queue is not free: the guest has to take it out first.
    """
    limit: u32 = port_limit(d)
    port: u32
    if d.dying:
        return -EINVAL
    for port in range(1, limit):
        if port >= d.nr_ports and not ensure_ports(d, port + 1):
            return -ENOMEM
        if d.ports[port].state == PORT_FREE and not (d.fifo and fifo_is_linked(d, port)):
            d.ports[port].priority = EVTCHN_FIFO_PRIORITY_DEFAULT
            return port
    return -ENOSPC


def free_port(d: DomainPtr, port: u32) -> cython.void:
    """A port in use becomes free; what is pending at it is forgotten."""
    p: PortPtr = cython.address(d.ports[port])
    if d.fifo:
        fifo_clear_pending(d, port)
    elif not d.is_service:
        test_and_clear_bit64(pending_word(d, port), port)
    p.state = PORT_FREE
    p.pending = 0
    p.early = 0
    p.notify_vcpu = 0
    p.remote_domid = 0
    p.remote_port = 0
    p.virq = 0
    p.server = cython.NULL


# --- pending bits -------------------------------------------------------------------------------------------


def pending_word(d: DomainPtr, port: u32) -> U64Ptr:
    """Of the two-level ABI: the word of shared_info.evtchn_pending that has the port's bit."""
    return cython.cast(U64Ptr, d.shared_info + PENDING_OFFSET) + (port >> 6)


def mask_word(d: DomainPtr, port: u32) -> U64Ptr:
    """Of the two-level ABI: the word of shared_info.evtchn_mask that has the port's bit."""
    return cython.cast(U64Ptr, d.shared_info + MASK_OFFSET) + (port >> 6)


def is_pending(d: DomainPtr, port: u32) -> cython.bint:
    """Whether an event is pending, or about to be, at a guest's port in use, masked or not."""
    if d.ports[port].pending:
        return True
    if d.fifo:
        return fifo_is_pending(d, port)
    return test_bit64(pending_word(d, port), port)


def notified_vcpu(d: DomainPtr, port: u32) -> VcpuPtr:
    """The vcpu that a port notifies; NULL: the domain has none."""
    return d.vcpus[d.ports[port].notify_vcpu] if d.ports[port].notify_vcpu < d.nr_vcpus else cython.NULL


def mark_pending(v: VcpuPtr) -> cython.void:
    """The vcpu has something to look at: it gets an upcall as soon as it takes one."""
    if exchange8(v.info, 1, ORDERED) == 0:
        vcpu_wake(v)


def select_word(v: VcpuPtr, port: u32) -> cython.void:
    """Of the two-level ABI: an unmasked port is pending, in the word that the vcpu's selector is to show."""
    # Without a vcpu_info there is no upcall.  Registering one makes everything count as pending.
    if v.info == cython.NULL:
        return
    if not test_and_set_bit64(cython.cast(U64Ptr, v.info + SELECTOR_OFFSET), port >> 6):
        mark_pending(v)


def wake_pollers(d: DomainPtr, port: u32) -> cython.void:
    """An event came for vcpus that wait in SCHEDOP_poll for this port, or for several."""
    i: u32
    v: VcpuPtr
    for i in range(d.nr_vcpus):
        v = d.vcpus[i]
        if v != cython.NULL and v.pause_flags & VPF_POLL and (v.poll_port == 0 or v.poll_port == port):
            vcpu_wake(v)


def deliver(d: DomainPtr, port: u32) -> cython.void:
    """Set the port's bit, and tell those who should know."""
    v: VcpuPtr = notified_vcpu(d, port)
    news: u32
    if v == cython.NULL:
        return
    if d.fifo:
        news = fifo_set_pending(d, v, port)
        if news & FIFO_UPCALL and v.info != cython.NULL:
            mark_pending(v)
        if news & FIFO_NEWS:
            wake_pollers(d, port)
        return
    if test_and_set_bit64(pending_word(d, port), port):
        return
    if not test_bit64(mask_word(d, port), port):
        select_word(v, port)
    wake_pollers(d, port)


# --- how an event arrives -----------------------------------------------------------------------------------


def domain_quiescent(d: DomainPtr) -> cython.bint:
    """Whether words may be changed that guest code of the domain changes too: none of its vcpus is in guest code now,
    or the engine's locked instructions are what they say."""
    i: u32
    p: PcpuPtr
    for i in range(d.host.nr_pcpus):
        p = d.host.pcpus[i]
        if p.ops != cython.NULL and p.ops.parallel:
            return True
        if p.current != cython.NULL and p.current.domain == d and p.current.on_cpu:
            return False
    return True


def notify_service(d: DomainPtr, port: u32) -> cython.void:
    """An event for Domain 0, whose thread waits at the eventfd, and then takes all events at once."""
    host: HostPtr = d.host
    one: u64 = 1
    d.ports[port].pending = 1
    if host.service_pending:
        return
    host.service_pending = 1
    if host.service_fd >= 0:
        # An eventfd: a counter at its limit could refuse this, but then it is readable already.
        write(host.service_fd, cython.address(one), 8)


def post(d: DomainPtr, port: u32) -> cython.void:
    """Note the event, and make the domain exit soon.  d.posted bounds the ports to look at then."""
    i: u32
    p: PcpuPtr
    d.ports[port].pending = 1
    if d.posted <= port:
        d.posted = port + 1
    for i in range(d.host.nr_pcpus):
        p = d.host.pcpus[i]
        if p.current != cython.NULL and p.current.domain == d:
            kick(p)


def set_pending(d: DomainPtr, port: u32) -> cython.void:
    """An event arrives at a valid port; it is lost on a port that is not in use."""
    if d.dying or not in_use(cython.address(d.ports[port])):
        return
    if d.is_service:
        notify_service(d, port)
    elif domain_quiescent(d):
        deliver(d, port)
    else:
        post(d, port)


def apply_posted(d: DomainPtr) -> cython.void:
    """The domain has left guest code: set the bits that were posted."""
    end: u32 = d.posted if d.posted < d.nr_ports else d.nr_ports
    port: u32
    d.posted = 0
    for port in range(1, end):
        if d.ports[port].pending:
            d.ports[port].pending = 0
            deliver(d, port)


def send_virq(v: VcpuPtr, virq: u32) -> i64:
    """A virtual interrupt for a vcpu, or for its whole domain if it is such a one.

    Returns 0; nothing happens where nobody bound it.
    """
    if virq_is_global(virq):
        return send_global_virq(v.domain, virq)
    if v.virq_port[virq] != 0:
        set_pending(v.domain, v.virq_port[virq])
    return 0


def send_global_virq(d: DomainPtr, virq: u32) -> i64:
    """A virtual interrupt for a domain: 0, or -EINVAL if there is no such one, or it is each vcpu's own."""
    if virq >= NR_VIRQS or not virq_is_global(virq):
        return -EINVAL
    if d.nr_vcpus and d.vcpus[0] != cython.NULL and d.vcpus[0].virq_port[virq] != 0:
        set_pending(d, d.vcpus[0].virq_port[virq])
    return 0


def evtchn_send(host: HostPtr, d: DomainPtr, port: u32) -> i64:
    """Send an event through a port of ``d``: 0, or -EINVAL for a port that is not there to send through."""
    p: PortPtr
    peer: DomainPtr
    if not port_is_valid(d, port):
        return -EINVAL
    p = cython.address(d.ports[port])
    if p.state == PORT_INTERDOMAIN:
        peer = host.domains[p.remote_domid]
        if peer != cython.NULL and port_is_valid(peer, p.remote_port):
            set_pending(peer, p.remote_port)
        return 0
    if p.state == PORT_IPI:
        set_pending(d, port)
        return 0
    # Through an unbound port it is dropped in silence: the peer has gone, or has not come yet.
    return 0 if p.state == PORT_UNBOUND else -EINVAL


def send_from_guest(v: VcpuPtr, port: u32) -> i64:
    """The same by a running vcpu, whose thread does what Domain 0 has to do then itself, if that is native."""
    d: DomainPtr = v.domain
    peer: DomainPtr
    p: PortPtr
    if port_is_valid(d, port) and d.ports[port].state == PORT_INTERDOMAIN and not v.pcpu.errand:
        p = cython.address(d.ports[port])
        peer = d.host.domains[p.remote_domid]
        if peer != cython.NULL and port_is_valid(peer, p.remote_port):
            if peer.ports[p.remote_port].server != cython.NULL:
                v.pcpu.errand = p.remote_port
                return 0
    return evtchn_send(d.host, d, port)


def unmask(d: DomainPtr, port: u32) -> i64:
    """Clear the mask bit of a port, and tell of what was held back: 0; -EINVAL: the port is not valid."""
    v: VcpuPtr
    if not port_is_valid(d, port):
        return -EINVAL
    v = notified_vcpu(d, port)
    if not in_use(cython.address(d.ports[port])) or v == cython.NULL:
        return 0
    if d.fifo:
        if fifo_unmask(d, port):
            deliver(d, port)
    elif test_and_clear_bit64(mask_word(d, port), port) and test_bit64(pending_word(d, port), port):
        select_word(v, port)
    return 0


# --- binding and closing ------------------------------------------------------------------------------------


def alloc_unbound(d: DomainPtr, remote: u16) -> i64:
    """A port of ``d`` that domain ``remote`` may bind to: its number, or alloc_port's error."""
    port: i64 = alloc_port(d)
    if port >= 0:
        d.ports[port].state = PORT_UNBOUND
        d.ports[port].remote_domid = remote
    return port


def bind_interdomain(d: DomainPtr, remote: u16, remote_port: u32) -> i64:
    """Join a new port of ``d`` to another domain's unbound one.

    The local end is pending at once, in case the peer sent before anybody listened.

    Returns the local port; -ESRCH: no such domain; -EINVAL: no port there that waits for us, or it ends; or
    alloc_port's error.
    """
    host: HostPtr = d.host
    peer: DomainPtr = host.domains[remote] if remote < host.max_domains else cython.NULL
    port: i64
    if peer == cython.NULL:
        return -ESRCH
    port = alloc_port(d)
    if port < 0:
        return port
    if (
        peer.dying
        or not port_is_valid(peer, remote_port)
        or peer.ports[remote_port].state != PORT_UNBOUND
        or peer.ports[remote_port].remote_domid != d.domid
    ):
        return -EINVAL
    d.ports[port].state = PORT_INTERDOMAIN
    d.ports[port].remote_domid = remote
    d.ports[port].remote_port = remote_port
    peer.ports[remote_port].state = PORT_INTERDOMAIN
    peer.ports[remote_port].remote_port = cython.cast(u32, port)
    set_pending(d, cython.cast(u32, port))
    return port


def bind_virq(d: DomainPtr, virq: u32, vcpu: u32) -> i64:
    """A port for a virtual interrupt: global ones are bound on vcpu 0, and may be moved later (bind_vcpu).

    Returns the port; -EINVAL: no such virtual interrupt, or not on this vcpu; -ENOENT: no such vcpu; -EEXIST:
    it is bound already; or alloc_port's error.
    """
    port: i64
    if virq >= NR_VIRQS or (virq_is_global(virq) and vcpu != 0):
        return -EINVAL
    if vcpu >= d.nr_vcpus:
        return -ENOENT
    if d.vcpus[vcpu].virq_port[virq] != 0:
        return -EEXIST
    port = alloc_port(d)
    if port >= 0:
        d.ports[port].state = PORT_VIRQ
        d.ports[port].notify_vcpu = vcpu
        d.ports[port].virq = cython.cast(u16, virq)
        d.vcpus[vcpu].virq_port[virq] = cython.cast(u32, port)
    return port


def bind_ipi(d: DomainPtr, vcpu: u32) -> i64:
    """A port by which vcpus interrupt ``vcpu``: its number, -ENOENT (no such vcpu), or alloc_port's error."""
    port: i64
    if vcpu >= d.nr_vcpus:
        return -ENOENT
    port = alloc_port(d)
    if port >= 0:
        d.ports[port].state = PORT_IPI
        d.ports[port].notify_vcpu = vcpu
    return port


def bind_vcpu(d: DomainPtr, port: u32, vcpu: u32) -> i64:
    """Let a port notify another vcpu from now on: 0; -ENOENT: no such vcpu; -EINVAL: not that port.

    What belongs to one vcpu cannot be moved: its own virtual interrupts, and interrupts between vcpus.
    """
    p: PortPtr
    if vcpu >= d.nr_vcpus:
        return -ENOENT
    if not port_is_valid(d, port):
        return -EINVAL
    p = cython.address(d.ports[port])
    if (
        p.state != PORT_UNBOUND
        and p.state != PORT_INTERDOMAIN
        and not (p.state == PORT_VIRQ and virq_is_global(p.virq))
    ):
        return -EINVAL
    p.notify_vcpu = vcpu
    return 0


def close_port(d: DomainPtr, port: u32) -> i64:
    """Close a port: 0, or -EINVAL if it is not in use.  The other end of a channel is unbound again."""
    host: HostPtr = d.host
    p: PortPtr
    peer: DomainPtr
    i: u32
    if not port_is_valid(d, port) or not in_use(cython.address(d.ports[port])):
        return -EINVAL
    p = cython.address(d.ports[port])
    if p.state == PORT_INTERDOMAIN:
        peer = host.domains[p.remote_domid]
        if peer != cython.NULL and port_is_valid(peer, p.remote_port):
            peer.ports[p.remote_port].state = PORT_UNBOUND
            peer.ports[p.remote_port].remote_domid = d.domid
            peer.ports[p.remote_port].remote_port = 0
    elif p.state == PORT_VIRQ:
        for i in range(d.nr_vcpus):
            if d.vcpus[i] != cython.NULL and d.vcpus[i].virq_port[p.virq] == port:
                d.vcpus[i].virq_port[p.virq] = 0
    free_port(d, port)
    return 0


def set_priority(d: DomainPtr, port: u32, priority: u32) -> i64:
    """The queue in which a port's later events go: 0 (first) to 15.

    Returns 0; -EINVAL: no such port, or priority; -ENOSYS: the two-level ABI has none; -EACCES: a free port.
    """
    if not port_is_valid(d, port):
        return -EINVAL
    if not d.fifo:
        return -ENOSYS
    if not in_use(cython.address(d.ports[port])):
        return -EACCES
    if priority > EVTCHN_FIFO_PRIORITY_MIN:
        return -EINVAL
    d.ports[port].priority = cython.cast(u8, priority)
    return 0


def expand_array(d: DomainPtr, mfn: u64) -> i64:
    """One more page of FIFO event words; what came before there was a word for it arrives now.

    Returns 0, or fifo_add_page's errors.
    """
    first: i64 = fifo_add_page(d, mfn)
    port: u32
    if first < 0:
        return first
    for port in range(cython.cast(u32, first), cython.cast(u32, first) + FIFO_WORDS_PER_PAGE):
        if port < d.nr_ports and d.ports[port].early:
            d.ports[port].early = 0
            deliver(d, port)
    return 0


def reset_ports(d: DomainPtr) -> cython.bint:
    """Close ports until the time is over; after the last one go back to the two-level ABI: is it done?

    d.next_evtchn says where a reset that is in progress goes on; 0: there is none.
    """
    if d.next_evtchn == 0:
        d.next_evtchn = 1
    while d.next_evtchn < d.nr_ports:
        if work_spent(d.host):
            return False
        close_port(d, d.next_evtchn)
        d.next_evtchn += 1
        d.host.work += WORK_OF_CLOSE
    d.next_evtchn = 0
    fifo_destroy(d)
    return True


def destroy_ports(d: DomainPtr) -> cython.bint:
    """The same for a domain that ends: the memory is given back with the last one."""
    if not reset_ports(d):
        return False
    free(d.ports)
    d.ports = cython.NULL
    d.nr_ports = 0
    d.posted = 0
    return True
