# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors

"""Which vcpus' timers are due next on a physical CPU, however many sleep there.

A vcpu has two timers that go on while it does not run: its singleshot timer, and the end of its SCHEDOP_poll. It stands
in the heap of its physical CPU (``p.timers``) by the earlier of the two. (The periodic timer and watchdogs are others'
matter: the former runs only while the vcpu does, and the latter are domains'.)

The heap is a pairing heap, linked through the vcpus themselves: nothing is allocated, so that setting a timer cannot
fail. A vcpu goes before all of its children, which are a list. Setting a timer puts it beside the root, and taking one
out costs in proportion to the logarithm of how many there are, over any number of operations.

All functions are called under the machine lock; times are system time, in ns.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import PcpuPtr, VcpuPtr, u64


def first_due(v: VcpuPtr) -> u64:
    """When the first of the vcpu's two timers is due; 0: neither runs."""
    if v.singleshot == 0 or (v.poll_deadline != 0 and v.poll_deadline < v.singleshot):
        return v.poll_deadline
    return v.singleshot


def goes_before(a: VcpuPtr, b: VcpuPtr) -> cython.bint:
    """The order of the heap; what is due at one time goes by domain and vcpu, so that every run is the same."""
    if a.timer_due != b.timer_due:
        return a.timer_due < b.timer_due
    if a.domain.domid != b.domain.domid:
        return a.domain.domid < b.domain.domid
    return a.id < b.id


def meld(a: VcpuPtr, b: VcpuPtr) -> VcpuPtr:
    """One heap out of two (roots without siblings, or NULL): its root."""
    first: VcpuPtr = a
    second: VcpuPtr = b
    if a == cython.NULL or b == cython.NULL:
        return b if a == cython.NULL else a
    if goes_before(b, a):
        first = b
        second = a
    second.timer_before = first
    second.timer_next = first.timer_child
    if first.timer_child != cython.NULL:
        first.timer_child.timer_before = second
    first.timer_child = second
    return first


def meld_row(v: VcpuPtr) -> VcpuPtr:
    """One heap out of a list of siblings, which begins with ``v`` or is empty: its root, or NULL.

    Neighbours are paired first, and the pairs are melded from the last to the first: this keeps later lists short.
    """
    pairs: VcpuPtr = cython.NULL
    root: VcpuPtr = cython.NULL
    one: VcpuPtr
    other: VcpuPtr
    while v != cython.NULL:
        one = v
        other = v.timer_next
        v = cython.NULL
        one.timer_before = cython.NULL
        one.timer_next = cython.NULL
        if other != cython.NULL:
            v = other.timer_next
            other.timer_before = cython.NULL
            other.timer_next = cython.NULL
        one = meld(one, other)
        one.timer_next = pairs
        pairs = one
    while pairs != cython.NULL:
        one = pairs
        pairs = one.timer_next
        one.timer_next = cython.NULL
        root = meld(root, one)
    return root


def leave_timers(v: VcpuPtr) -> cython.void:
    """The vcpu's physical CPU has its timers no more."""
    p: PcpuPtr = v.pcpu
    below: VcpuPtr
    if v.timer_due == 0:
        return
    below = meld_row(v.timer_child)
    if v.timer_before == cython.NULL:
        p.timers = below
    else:
        if v.timer_before.timer_child == v:
            v.timer_before.timer_child = v.timer_next
        else:
            v.timer_before.timer_next = v.timer_next
        if v.timer_next != cython.NULL:
            v.timer_next.timer_before = v.timer_before
        p.timers = meld(p.timers, below)
    v.timer_due = 0
    v.timer_child = cython.NULL
    v.timer_next = cython.NULL
    v.timer_before = cython.NULL


def requeue(v: VcpuPtr) -> cython.void:
    """The vcpu's timers were set: it stands in the heap where it belongs."""
    due: u64 = first_due(v)
    if due == v.timer_due:
        return
    leave_timers(v)
    if due != 0 and v.pcpu != cython.NULL:
        v.timer_due = due
        v.pcpu.timers = meld(v.pcpu.timers, v)


def set_singleshot(v: VcpuPtr, at: u64) -> cython.void:
    """The singleshot timer goes off at ``at``; 0: it is stopped."""
    v.singleshot = at
    requeue(v)


def set_poll_deadline(v: VcpuPtr, at: u64) -> cython.void:
    """SCHEDOP_poll ends at ``at`` at the latest; 0: it waits for events only, or is over."""
    v.poll_deadline = at
    requeue(v)


def join_timers(v: VcpuPtr, p: PcpuPtr) -> cython.void:
    """The vcpu lives on ``p`` from now on (NULL: nowhere), which has its timers."""
    leave_timers(v)
    v.pcpu = p
    requeue(v)


def first_timer(p: PcpuPtr) -> VcpuPtr:
    """The vcpu whose timer is due first here (at its ``timer_due``), dying domains' aside; NULL: none is set."""
    while p.timers != cython.NULL and p.timers.domain.dying:
        leave_timers(p.timers)
    return p.timers
