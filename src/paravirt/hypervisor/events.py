# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Event channels: the ports of each domain, and how an event reaches a vcpu (public/event_channel.h).

A port is unbound (waiting for a peer), one end of a channel between two domains, a virtual interrupt, or an
interrupt between two vcpus.  An event sets a bit; unless that is masked, the vcpu that the port notifies gets an
upcall.  This module has the two-level ABI (bitmaps in shared_info); the FIFO ABI is in events_fifo.

The guest changes the same words with locked instructions, which this engine's are not against host threads.  So
bits are set at once only when the domain is outside guest code; otherwise the event is *posted* in the port and
applied at the domain's next exit.  Domain 0 is Python and has no shared words: its ports keep the bit.

All functions are called under the machine lock.
"""

import cython
from cython.cimports.libc.stdlib import free, realloc
from cython.cimports.libc.string import memset
from cython.cimports.paravirt.abi.constants import EINVAL, ENOSPC, ESRCH
from cython.cimports.paravirt.hypervisor.events_fifo import (
    fifo_clear_pending,
    fifo_destroy,
    fifo_is_pending,
    fifo_set_pending,
    fifo_unmask,
)
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
from cython.cimports.paravirt.hypervisor.scheduling import vcpu_wake
from cython.cimports.paravirt.machine.cpu import U64Ptr
from cython.cimports.posix.unistd import write

# Ports come into being in buckets of this many: a number within the last bucket is valid even while it is free.
BUCKET = cython.declare(u32, 64)
DEFAULT_PRIORITY = cython.declare(u8, 7)
ONE = cython.declare(u64, 1)


def port_is_valid(d: DomainPtr, port: u64) -> cython.bint:
    """Whether the domain has a port of that number, in use or not."""
    return port < d.nr_ports


def grow_ports(d: DomainPtr) -> cython.bint:
    """Make one more bucket of ports: false if the host has no memory for it."""
    grown: PortPtr = cython.cast(PortPtr, realloc(d.ports, (d.nr_ports + BUCKET) * cython.sizeof(Port)))
    i: u32
    if grown == cython.NULL:
        return False
    memset(grown + d.nr_ports, 0, BUCKET * cython.sizeof(Port))
    for i in range(d.nr_ports, d.nr_ports + BUCKET):
        grown[i].priority = DEFAULT_PRIORITY
    d.ports = grown
    if d.nr_ports == 0:
        grown[0].state = PORT_RESERVED
    d.nr_ports += BUCKET
    return True


def alloc_port(d: DomainPtr) -> i64:
    """The lowest free port, still free: its number, or -ENOSPC."""
    port: u32
    for port in range(1, d.max_ports):
        if port >= d.nr_ports and not grow_ports(d):
            return -ENOSPC
        if d.ports[port].state == PORT_FREE:
            d.ports[port].priority = DEFAULT_PRIORITY
            return port
    return -ENOSPC


def free_port(d: DomainPtr, port: u32) -> cython.void:
    """The port is of no use any more."""
    p: PortPtr = cython.address(d.ports[port])
    p.state = PORT_FREE
    p.pending = 0
    p.notify_vcpu = 0
    p.remote_domid = 0
    p.remote_port = 0
    p.virq = 0
    if d.shared_info != cython.NULL:
        if d.fifo:
            fifo_clear_pending(d, port)
        else:
            pending_word(d, port)[0] &= ~(ONE << (port & 63))


# --- pending bits -----------------------------------------------------------------------------------------------


def pending_word(d: DomainPtr, port: u32) -> U64Ptr:
    """Of the two-level ABI: the word of shared_info.evtchn_pending that has the port's bit."""
    return cython.cast(U64Ptr, d.shared_info + 2048) + (port >> 6)


def mask_word(d: DomainPtr, port: u32) -> U64Ptr:
    """Of the two-level ABI: the word of shared_info.evtchn_mask that has the port's bit."""
    return cython.cast(U64Ptr, d.shared_info + 2560) + (port >> 6)


def is_pending(d: DomainPtr, port: u32) -> cython.bint:
    """Whether an event is pending at the port, masked or not."""
    if d.ports[port].pending:
        return True
    if d.is_service:
        return False
    if d.fifo:
        return fifo_is_pending(d, port)
    return (pending_word(d, port)[0] >> (port & 63)) & 1


def mark_pending(v: VcpuPtr) -> cython.void:
    """The vcpu has something to look at: it gets an upcall when it takes one."""
    if v.info == cython.NULL or v.info[0]:
        return
    v.info[0] = 1
    vcpu_wake(v)


def wake_pollers(d: DomainPtr, port: u32) -> cython.void:
    """An event came for vcpus that wait in SCHEDOP_poll for this port, or for several."""
    i: u32
    v: VcpuPtr
    for i in range(d.nr_vcpus):
        v = d.vcpus[i]
        if v != cython.NULL and v.pause_flags & VPF_POLL and (v.poll_port == 0 or v.poll_port == port):
            vcpu_wake(v)


def quiescent(d: DomainPtr) -> cython.bint:
    """Whether no vcpu of the domain is in guest code now."""
    i: u32
    p: PcpuPtr
    for i in range(d.host.nr_pcpus):
        p = d.host.pcpus[i]
        if p.current != cython.NULL and p.current.domain == d and p.current.on_cpu:
            return False
    return True


def notify_service(host: HostPtr, d: DomainPtr, port: u32) -> cython.void:
    """An event for Domain 0: its thread waits at the eventfd."""
    d.ports[port].pending = 1
    host.service_pending = 1
    if host.service_fd >= 0:
        # An eventfd: a counter at its limit could refuse this, but then it is readable already.
        write(host.service_fd, cython.address(ONE), 8)


def deliver(d: DomainPtr, port: u32) -> cython.void:
    """Set the port's bit, with the domain outside guest code."""
    p: PortPtr = cython.address(d.ports[port])
    v: VcpuPtr = d.vcpus[p.notify_vcpu] if p.notify_vcpu < d.nr_vcpus else cython.NULL
    word: U64Ptr
    selector: U64Ptr
    if v == cython.NULL:
        return
    if d.fifo:
        fifo_set_pending(d, v, port)
        return
    word = pending_word(d, port)
    if (word[0] >> (port & 63)) & 1:
        return
    word[0] |= ONE << (port & 63)
    if not (mask_word(d, port)[0] >> (port & 63)) & 1 and v.info != cython.NULL:
        selector = cython.cast(U64Ptr, v.info + 8)
        if not (selector[0] >> (port >> 6)) & 1:
            selector[0] |= ONE << (port >> 6)
            mark_pending(v)
    wake_pollers(d, port)


def set_pending(d: DomainPtr, port: u32) -> cython.void:
    """An event arrives at a port."""
    p: PcpuPtr
    i: u32
    if d.dying:
        return
    if d.is_service:
        notify_service(d.host, d, port)
    elif quiescent(d):
        deliver(d, port)
    else:
        d.ports[port].pending = 1
        d.posted = 1
        for i in range(d.host.nr_pcpus):
            p = d.host.pcpus[i]
            if p.current != cython.NULL and p.current.domain == d and p.current.on_cpu:
                p.ops.kick(p.engine)


def apply_posted(d: DomainPtr) -> cython.void:
    """The domain has left guest code: set the bits that were posted."""
    port: u32
    d.posted = 0
    for port in range(d.nr_ports):
        if d.ports[port].pending:
            d.ports[port].pending = 0
            deliver(d, port)


# --- operations -------------------------------------------------------------------------------------------------


def evtchn_send(host: HostPtr, d: DomainPtr, port: u32) -> i64:
    """Send an event through a port: 0, or -EINVAL for a port that has nobody to send to."""
    p: PortPtr
    if not port_is_valid(d, port):
        return -EINVAL
    p = cython.address(d.ports[port])
    if p.state == PORT_INTERDOMAIN:
        if p.remote_domid < host.max_domains and host.domains[p.remote_domid] != cython.NULL:
            set_pending(host.domains[p.remote_domid], p.remote_port)
        return 0
    if p.state == PORT_IPI:
        set_pending(d, port)
        return 0
    if p.state == PORT_UNBOUND:
        return 0  # silently dropped: the peer has gone, or has not come yet
    return -EINVAL


def send_virq(v: VcpuPtr, virq: u32) -> i64:
    """A virtual interrupt for a vcpu: 0; nothing happens where nobody bound it."""
    port: u32 = v.virq_port[virq]
    if port != 0:
        set_pending(v.domain, port)
    return 0


def alloc_unbound(d: DomainPtr, remote: u16) -> i64:
    """A port of ``d`` that ``remote`` may bind to: its number, or -ENOSPC."""
    port: i64 = alloc_port(d)
    if port < 0:
        return port
    d.ports[port].state = PORT_UNBOUND
    d.ports[port].remote_domid = remote
    return port


def bind_interdomain(d: DomainPtr, remote: u16, remote_port: u32) -> i64:
    """Join a port of ``d`` to another domain's unbound one: the local port, or -ESRCH, -EINVAL, -ENOSPC.

    The local end is pending at once, in case the peer sent before anybody listened.
    """
    host: HostPtr = d.host
    r: DomainPtr = host.domains[remote] if remote < host.max_domains else cython.NULL
    port: i64
    if r == cython.NULL:
        return -ESRCH
    port = alloc_port(d)
    if port < 0:
        return port
    if (not port_is_valid(r, remote_port) or r.ports[remote_port].state != PORT_UNBOUND
            or r.ports[remote_port].remote_domid != d.domid):
        return -EINVAL
    d.ports[port].state = PORT_INTERDOMAIN
    d.ports[port].remote_domid = remote
    d.ports[port].remote_port = remote_port
    r.ports[remote_port].state = PORT_INTERDOMAIN
    r.ports[remote_port].remote_domid = d.domid
    r.ports[remote_port].remote_port = cython.cast(u32, port)
    set_pending(d, cython.cast(u32, port))
    return port


def close_port(d: DomainPtr, port: u32) -> i64:
    """Close a port: 0 or -EINVAL.  The other end of a channel becomes unbound again."""
    host: HostPtr = d.host
    p: PortPtr
    r: DomainPtr
    i: u32
    if not port_is_valid(d, port):
        return -EINVAL
    p = cython.address(d.ports[port])
    if p.state == PORT_FREE or p.state == PORT_RESERVED:
        return -EINVAL
    if p.state == PORT_INTERDOMAIN and p.remote_domid < host.max_domains:
        r = host.domains[p.remote_domid]
        if r != cython.NULL and port_is_valid(r, p.remote_port):
            r.ports[p.remote_port].state = PORT_UNBOUND
            r.ports[p.remote_port].remote_domid = d.domid
            r.ports[p.remote_port].remote_port = 0
    elif p.state == PORT_VIRQ:
        for i in range(d.nr_vcpus):
            if d.vcpus[i] != cython.NULL and d.vcpus[i].virq_port[p.virq] == port:
                d.vcpus[i].virq_port[p.virq] = 0
    free_port(d, port)
    return 0


def unmask(d: DomainPtr, port: u32) -> i64:
    """Clear a port's mask bit, and deliver what was held back: 0 or -EINVAL."""
    v: VcpuPtr
    word: U64Ptr
    selector: U64Ptr
    if not port_is_valid(d, port):
        return -EINVAL
    v = d.vcpus[d.ports[port].notify_vcpu] if d.ports[port].notify_vcpu < d.nr_vcpus else cython.NULL
    if v == cython.NULL:
        return 0
    if d.fifo:
        fifo_unmask(d, v, port)
        return 0
    word = mask_word(d, port)
    if not (word[0] >> (port & 63)) & 1:
        return 0
    word[0] &= ~(ONE << (port & 63))
    if (pending_word(d, port)[0] >> (port & 63)) & 1 and v.info != cython.NULL:
        selector = cython.cast(U64Ptr, v.info + 8)
        if not (selector[0] >> (port >> 6)) & 1:
            selector[0] |= ONE << (port >> 6)
            mark_pending(v)
    return 0


def destroy_all_ports(d: DomainPtr) -> cython.void:
    """The domain ends: close everything and give the memory back."""
    port: u32
    for port in range(1, d.nr_ports):
        close_port(d, port)
    fifo_destroy(d)
    free(d.ports)
    d.ports = cython.NULL
    d.nr_ports = 0
