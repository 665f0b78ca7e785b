# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""The policy in use until a fairer one is chosen: all runnable vcpus of a physical CPU take turns.

A domain lives on one physical CPU. Its vcpus share an engine there, so that a vcpu which waits for a sibling
would burn its whole turn: turns are at most 1 ms long, and an event for a sibling ends the turn at once. The
policy keeps no state of its own: the order is that of domain and vcpu numbers, and p.current says whose turn
it is.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import HostPtr, PcpuPtr, VcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.sched.state import MachineStatePtr, state_of
from cython.cimports.paravirt.hypervisor.scheduling import runnable

SLICE = cython.declare(u64, 1_000_000)
NONE = cython.declare(u32, 0xFFFFFFFF)


def next_after(p: PcpuPtr, v: VcpuPtr) -> VcpuPtr:
    """The runnable vcpu whose turn comes after that of ``v`` (NULL: the first one), ``v`` itself excluded."""
    state: MachineStatePtr = state_of(p.host)
    other: VcpuPtr
    start: u32 = 0
    i: u32
    if state == cython.NULL:
        return cython.NULL
    if v != cython.NULL:
        while start < state.count and state.vcpus[start] != v:
            start += 1
        start += 1
    for i in range(state.count):
        other = state.vcpus[(start + i) % state.count]
        if other != v and other.pcpu == p and runnable(other):
            return other
    return cython.NULL


def rotate_init(host: HostPtr) -> cython.void:
    """Nothing to prepare."""


def rotate_deinit(host: HostPtr) -> cython.void:
    """Nothing to give back."""


def rotate_pick_cpu(v: VcpuPtr) -> PcpuPtr:
    """Where the domain's other vcpus are; for a new domain, where the fewest vcpus are at home."""
    host: HostPtr = v.domain.host
    state: MachineStatePtr = state_of(host)
    best: PcpuPtr = cython.NULL
    least: u32 = NONE
    count: u32
    vcpus: u32 = 0
    i: u32
    n: u32
    if state != cython.NULL:
        vcpus = state.count
    for i in range(vcpus):
        if state.vcpus[i].domain == v.domain and state.vcpus[i].pcpu != cython.NULL:
            return state.vcpus[i].pcpu
    for n in range(host.nr_pcpus):
        count = 0
        for i in range(vcpus):
            if state.vcpus[i].pcpu == host.pcpus[n]:
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
    """Go on with what runs until its turn is over; then the next.  A vcpu that is alone has no end set."""
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
