# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Domain watchdogs: two timers that a guest must set again in time, or be shut down.

Domains that have used one are in a list (``host.watched``). It is walked when a watchdog is set or expires, which is a
matter of seconds, and not when the next deadline is looked for (``host.watchdog_due``).

Behaviour: SCHEDOP_watchdog, public header sched.h; Xen 4.17, common/sched/core.c.  Under the machine lock.
"""

import cython
from cython.cimports.paravirt.abi.constants import EINVAL, ENOSPC, SHUTDOWN_watchdog
from cython.cimports.paravirt.hypervisor.records import DomainPtr, HostPtr, i64, u8, u32, u64
from cython.cimports.paravirt.hypervisor.scheduling import domain_shutdown
from cython.cimports.paravirt.hypervisor.timekeeping import now

NEVER = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)


def find_next(host: HostPtr) -> cython.void:
    """Some watchdog was set, stopped or is over: find out anew which one is due first."""
    d: DomainPtr = host.watched
    i: u32
    host.watchdog_due = 0
    while d != cython.NULL:
        for i in range(2):
            if d.watchdog[i] and (host.watchdog_due == 0 or d.watchdog[i] < host.watchdog_due):
                host.watchdog_due = d.watchdog[i]
        d = d.next_watched


def start(d: DomainPtr, deadline: u64) -> i64:
    """Start a watchdog that is not in use: its number, 1 or 2.

    When both are in use the answer is 2**32 - ENOSPC: in Xen the error number passes through 32 unsigned bits, and
    so guests know it.
    """
    i: u32
    for i in range(2):
        if not (d.watchdogs_in_use >> i) & 1:
            d.watchdogs_in_use |= cython.cast(u8, 1 << i)
            d.watchdog[i] = deadline
            if not d.watched:
                d.watched = 1
                d.next_watched = d.host.watched
                d.host.watched = d
            find_next(d.host)
            return i + 1
    return cython.cast(u32, -ENOSPC)


def set_watchdog(d: DomainPtr, number: u32, seconds: u32) -> i64:
    """Start a watchdog (``number`` 0; the answer is that of `start`), set one again, or stop it (0 seconds).

    -EINVAL: no such number, or not started.
    """
    deadline: u64 = now(d.host) + cython.cast(u64, seconds) * 1_000_000_000
    i: u32
    if number == 0:
        return start(d, deadline)
    if number > 2:
        return -EINVAL
    i = number - 1
    if not (d.watchdogs_in_use >> i) & 1:
        return -EINVAL
    if seconds == 0:
        d.watchdogs_in_use &= ~cython.cast(u8, 1 << i)
        deadline = 0
    d.watchdog[i] = deadline
    find_next(d.host)
    return 0


def forget_watchdogs(d: DomainPtr) -> cython.void:
    """A domain begins or ends: it has no watchdogs."""
    before: DomainPtr = d.host.watched
    if not d.watched:
        return
    if before == d:
        d.host.watched = d.next_watched
    else:
        while before.next_watched != d:
            before = before.next_watched
        before.next_watched = d.next_watched
    d.watched = 0
    d.watchdogs_in_use = 0
    d.watchdog[0] = 0
    d.watchdog[1] = 0
    find_next(d.host)


def expire(d: DomainPtr, at: u64) -> cython.bint:
    """Whether one of a domain's watchdogs is due; it will not be due again.  As in Xen it stays in use."""
    i: u32
    due: cython.bint = False
    for i in range(2):
        if d.watchdog[i] and at >= d.watchdog[i]:
            d.watchdog[i] = 0
            due = True
    return due


def run_watchdogs(host: HostPtr, at: u64) -> cython.void:
    """Shut down the domains of this machine that have let a watchdog expire."""
    d: DomainPtr = host.watched
    if at < next_watchdog(host):
        return
    while d != cython.NULL:
        if expire(d, at) and not d.is_shut_down and not d.dying:
            domain_shutdown(d, SHUTDOWN_watchdog)
        d = d.next_watched
    find_next(host)


def next_watchdog(host: HostPtr) -> u64:
    """The earliest deadline of a watchdog of this machine, in system time; all ones if none runs."""
    return host.watchdog_due if host.watchdog_due else NEVER
