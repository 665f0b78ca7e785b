# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Domain watchdogs: two timers that a guest must set again in time, or be shut down.

Behaviour: SCHEDOP_watchdog, public header sched.h; Xen 4.17, common/sched/core.c.  Under the machine lock.
"""

import cython
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.paravirt.abi.constants import EINVAL, ENOMEM, ENOSPC, SHUTDOWN_watchdog
from cython.cimports.paravirt.hypervisor.records import DomainPtr, HostPtr, i64, u32, u64
from cython.cimports.paravirt.hypervisor.sched.state import (
    MachineStatePtr,
    Watchdogs,
    WatchdogsPtr,
    make_state,
    state_of,
)
from cython.cimports.paravirt.hypervisor.scheduling import domain_shutdown
from cython.cimports.paravirt.hypervisor.timekeeping import now


def find(d: DomainPtr) -> WatchdogsPtr:
    """The watchdogs of a domain, or NULL."""
    state: MachineStatePtr = state_of(d.host)
    entry: WatchdogsPtr = cython.NULL
    if state != cython.NULL:
        entry = state.watchdogs
    while entry != cython.NULL and entry.domain != d:
        entry = cython.cast(WatchdogsPtr, entry.next)
    return entry


def make(d: DomainPtr) -> WatchdogsPtr:
    """Watchdogs for a domain that has none; NULL when there is no memory."""
    state: MachineStatePtr = make_state(d.host)
    entry: WatchdogsPtr
    if state == cython.NULL:
        return cython.NULL
    entry = cython.cast(WatchdogsPtr, calloc(1, cython.sizeof(Watchdogs)))
    if entry == cython.NULL:
        return cython.NULL
    entry.domain = d
    entry.next = state.watchdogs
    state.watchdogs = entry
    return entry


def start(d: DomainPtr, deadline: u64) -> i64:
    """Start a watchdog that is not in use: its number, 1 or 2, or -ENOMEM.

    When both are in use the answer is 2**32 - ENOSPC: in Xen the error number passes through 32 unsigned bits, and
    so guests know it.
    """
    entry: WatchdogsPtr = find(d)
    i: u32
    if entry == cython.NULL:
        entry = make(d)
    if entry == cython.NULL:
        return -ENOMEM
    for i in range(2):
        if not (entry.in_use >> i) & 1:
            entry.in_use |= cython.cast(u32, 1) << i
            entry.deadline[i] = deadline
            return i + 1
    return cython.cast(u32, -ENOSPC)


def set_watchdog(d: DomainPtr, number: u32, seconds: u32) -> i64:
    """Start a watchdog (``number`` 0; the answer is that of `start`), set one again, or stop it (0 seconds).

    -EINVAL: no such number, or not started.
    """
    deadline: u64 = now(d.host) + cython.cast(u64, seconds) * 1_000_000_000
    entry: WatchdogsPtr
    i: u32
    if number == 0:
        return start(d, deadline)
    if number > 2:
        return -EINVAL
    i = number - 1
    entry = find(d)
    if entry == cython.NULL or not (entry.in_use >> i) & 1:
        return -EINVAL
    if seconds == 0:
        entry.in_use &= ~(cython.cast(u32, 1) << i)
        entry.deadline[i] = 0
    else:
        entry.deadline[i] = deadline
    return 0


def forget_watchdogs(d: DomainPtr) -> cython.void:
    """A domain begins or ends: it has no watchdogs."""
    state: MachineStatePtr = state_of(d.host)
    entry: WatchdogsPtr
    before: WatchdogsPtr = cython.NULL
    if state == cython.NULL:
        return
    entry = state.watchdogs
    while entry != cython.NULL and entry.domain != d:
        before = entry
        entry = cython.cast(WatchdogsPtr, entry.next)
    if entry == cython.NULL:
        return
    if before == cython.NULL:
        state.watchdogs = cython.cast(WatchdogsPtr, entry.next)
    else:
        before.next = entry.next
    free(entry)


def expire(entry: WatchdogsPtr, at: u64) -> cython.bint:
    """Whether one of a domain's watchdogs is due; it will not be due again.  As in Xen it stays in use."""
    i: u32
    due: cython.bint = False
    for i in range(2):
        if entry.deadline[i] and at >= entry.deadline[i]:
            entry.deadline[i] = 0
            due = True
    return due


def run_watchdogs(host: HostPtr, at: u64) -> cython.void:
    """Shut down the domains of this machine that have let a watchdog expire."""
    state: MachineStatePtr = state_of(host)
    entry: WatchdogsPtr
    if state == cython.NULL:
        return
    entry = state.watchdogs
    while entry != cython.NULL:
        if expire(entry, at) and not entry.domain.is_shut_down and not entry.domain.dying:
            domain_shutdown(entry.domain, SHUTDOWN_watchdog)
        entry = cython.cast(WatchdogsPtr, entry.next)


def next_watchdog(host: HostPtr) -> u64:
    """The earliest deadline of a watchdog of this machine, in system time; all ones if there is none."""
    state: MachineStatePtr = state_of(host)
    entry: WatchdogsPtr = cython.NULL
    deadline: u64 = ~cython.cast(u64, 0)
    i: u32
    if state != cython.NULL:
        entry = state.watchdogs
    while entry != cython.NULL:
        for i in range(2):
            if entry.deadline[i] and entry.deadline[i] < deadline:
                deadline = entry.deadline[i]
        entry = cython.cast(WatchdogsPtr, entry.next)
    return deadline
