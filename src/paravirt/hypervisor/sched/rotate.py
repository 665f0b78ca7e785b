# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors

"""The turns that a domain's vcpus take on the one engine that they share, where they do not run in parallel.

A vcpu that waits for a sibling would burn its whole turn: turns are at most 1 ms long, and a yield, an event for
a sibling or spinning ends the turn at once. The order is that of the vcpus' numbers.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import DomainPtr, VcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.sched.policy import UnitPtr
from cython.cimports.paravirt.hypervisor.sched.units import vcpu_unit
from cython.cimports.paravirt.hypervisor.scheduling import runnable

TURN = cython.declare(u64, 1_000_000)


def next_after(u: UnitPtr, v: VcpuPtr) -> VcpuPtr:
    """The vcpu whose turn comes after that of ``v`` (NULL: the first one), ``v`` itself excluded; or NULL."""
    d: DomainPtr = u.domain
    start: u32 = 0 if v == cython.NULL else v.id + 1
    other: VcpuPtr
    i: u32
    for i in range(d.nr_vcpus):
        other = d.vcpus[(start + i) % d.nr_vcpus]
        if other != cython.NULL and other != v and vcpu_unit(other) == u and runnable(other):
            return other
    return cython.NULL


def next_turn(u: UnitPtr, at: u64) -> VcpuPtr:
    """Go on with the vcpu that had the last turn until it is over; then the next one. NULL: none can run.

    A vcpu that is alone has no end of its turn.
    """
    last: VcpuPtr = u.last
    other: VcpuPtr = next_after(u, last)
    stays: cython.bint = last != cython.NULL and runnable(last)
    over: cython.bint = u.turn_over
    u.turn_over = 0
    if other == cython.NULL:
        u.turn_end = 0
        return last if stays else cython.NULL
    if stays and not over and (u.turn_end == 0 or at < u.turn_end):
        if u.turn_end == 0:
            u.turn_end = at + TURN
        return last
    # With a third one waiting, or the last one able to go on, the turn has an end.
    u.turn_end = at + TURN if stays or next_after(u, other) != cython.NULL else 0
    u.last = other
    return other
