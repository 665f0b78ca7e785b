# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
"""The policy in use until a fairer one is chosen: all runnable vcpus of a physical CPU take turns.

A domain lives on one physical CPU.  Its vcpus share an engine there, so that a vcpu which waits for a sibling
would burn its whole turn: turns are at most 1 ms long, and an event for a sibling ends the turn at once.  The
policy keeps no state of its own: the order is that of domain and vcpu numbers, and p.current says whose turn it is.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import DomainPtr, HostPtr, PcpuPtr, VcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.scheduling import runnable

SLICE = cython.declare(u64, 1_000_000)
ALL = cython.declare(u32, 0xFFFFFFFF)


def scan(p: PcpuPtr, domid: u32, first: u32, last: u32) -> VcpuPtr:
    """The first runnable vcpu of domain ``domid`` at home on ``p``, of numbers first to last-1; or NULL."""
    d: DomainPtr = p.host.domains[domid]
    i: u32
    v: VcpuPtr
    if d == cython.NULL or d.is_service:
        return cython.NULL
    if last > d.nr_vcpus:
        last = d.nr_vcpus
    for i in range(first, last):
        v = d.vcpus[i]
        if v != cython.NULL and v.pcpu == p and runnable(v):
            return v
    return cython.NULL


def next_after(p: PcpuPtr, v: VcpuPtr) -> VcpuPtr:
    """The runnable vcpu whose turn comes after that of ``v`` (NULL: the first one), ``v`` itself excluded."""
    host: HostPtr = p.host
    start: u32 = 0
    domid: u32
    found: VcpuPtr
    if v != cython.NULL:
        start = v.domain.domid
        found = scan(p, start, v.id + 1, ALL)
        if found != cython.NULL:
            return found
        start += 1
    for domid in range(start, host.max_domains):
        found = scan(p, domid, 0, ALL)
        if found != cython.NULL:
            return found
    if v == cython.NULL:
        return cython.NULL
    start = v.domain.domid
    for domid in range(start):
        found = scan(p, domid, 0, ALL)
        if found != cython.NULL:
            return found
    return scan(p, start, 0, v.id)


def rotate_init(host: HostPtr) -> cython.void:
    """Nothing to prepare."""


def rotate_deinit(host: HostPtr) -> cython.void:
    """Nothing to give back."""


def rotate_pick_cpu(v: VcpuPtr) -> PcpuPtr:
    """Where the domain's other vcpus are; for a new domain, the physical CPU that is home to the fewest vcpus."""
    host: HostPtr = v.domain.host
    d: DomainPtr = v.domain
    best: PcpuPtr = cython.NULL
    least: u32 = ALL
    count: u32
    i: u32
    j: u32
    n: u32
    for i in range(d.nr_vcpus):
        if d.vcpus[i] != cython.NULL and d.vcpus[i].pcpu != cython.NULL:
            return d.vcpus[i].pcpu
    for n in range(host.nr_pcpus):
        count = 0
        for i in range(host.max_domains):
            d = host.domains[i]
            if d == cython.NULL:
                continue
            for j in range(d.nr_vcpus):
                if d.vcpus[j] != cython.NULL and d.vcpus[j].pcpu == host.pcpus[n]:
                    count += 1
        if count < least:
            least = count
            best = host.pcpus[n]
    return best


def rotate_insert(v: VcpuPtr) -> cython.void:
    """Give the vcpu a home."""
    if v.pcpu == cython.NULL:
        v.pcpu = rotate_pick_cpu(v)


def rotate_remove(v: VcpuPtr) -> cython.void:
    """Nothing to forget: it is no longer found once it has left its domain."""


def rotate_wake(v: VcpuPtr, at: u64) -> cython.bint:
    """It should run at once if a sibling runs, or if what runs was given no end."""
    p: PcpuPtr = v.pcpu
    return p.current == cython.NULL or p.current.domain == v.domain or p.slice_end == 0


def rotate_sleep(v: VcpuPtr, at: u64) -> cython.void:
    """Nothing to do: it is simply passed over."""


def rotate_yield(v: VcpuPtr) -> cython.void:
    """Nothing to do: p.need_resched ends its turn."""


def rotate_do_schedule(p: PcpuPtr, at: u64) -> VcpuPtr:
    """Go on with what runs until its turn is over; then the next one.  No end is set for a vcpu that is alone."""
    current: VcpuPtr = p.current
    other: VcpuPtr = next_after(p, current)
    stays: cython.bint = current != cython.NULL and current.pcpu == p and runnable(current)
    if other == cython.NULL:
        p.slice_end = 0
        return current if stays else cython.NULL
    if stays and not p.need_resched and (p.slice_end == 0 or at < p.slice_end):
        if p.slice_end == 0:
            p.slice_end = at + SLICE
        return current
    # With a third one waiting, or the last one able to go on, the turn has an end.
    p.slice_end = at + SLICE if stays or next_after(p, other) != cython.NULL else 0
    return other


def rotate_tick(p: PcpuPtr, at: u64) -> cython.void:
    """Nothing is accounted."""


rotate.name = b"rotate"
rotate.init = rotate_init
rotate.deinit = rotate_deinit
rotate.insert = rotate_insert
rotate.remove = rotate_remove
rotate.pick_cpu = rotate_pick_cpu
rotate.wake = rotate_wake
rotate.sleep = rotate_sleep
rotate.yield_cpu = rotate_yield
rotate.do_schedule = rotate_do_schedule
rotate.tick = rotate_tick
