# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
"""Domain watchdogs: two timers that a guest must set again in time, or be shut down.

Behaviour: SCHEDOP_watchdog, public header sched.h; Xen 4.17, common/sched/core.c.

Few domains ever use one, so their state is not part of the domain's record but of a list here.  The list is the
only thing shared by the machines of one process: entries are claimed and given back atomically, never unlinked,
and each is used only under the lock of the machine that claimed it.
"""

import cython
from cython.cimports.libc.stdlib import calloc
from cython.cimports.paravirt.abi.constants import EINVAL, ENOMEM, ENOSPC, SHUTDOWN_watchdog
from cython.cimports.paravirt.hypervisor.records import DomainPtr, HostPtr, i64, u32, u64
from cython.cimports.paravirt.hypervisor.scheduling import domain_shutdown
from cython.cimports.paravirt.hypervisor.timekeeping import now


def find(d: DomainPtr) -> WatchdogsPtr:
    """The entry of a domain, or NULL."""
    entry: WatchdogsPtr = cython.cast(WatchdogsPtr, load_pointer(cython.address(first), SEQUENTIAL))
    while entry != cython.NULL:
        if load_pointer(cython.address(entry.host), SEQUENTIAL) == d.host and entry.domain == d:
            return entry
        entry = cython.cast(WatchdogsPtr, entry.next)
    return cython.NULL


def claim(d: DomainPtr) -> WatchdogsPtr:
    """An entry for a domain that has none: a free one, or a new one.  NULL when there is no memory."""
    entry: WatchdogsPtr = cython.cast(WatchdogsPtr, load_pointer(cython.address(first), SEQUENTIAL))
    expected: cython.p_void
    while entry != cython.NULL:
        expected = cython.NULL
        if compare_exchange(
            cython.address(entry.host), cython.address(expected), d.host, False, SEQUENTIAL, SEQUENTIAL
        ):
            entry.domain = d
            entry.domid = d.domid
            entry.in_use = 0
            return entry
        entry = cython.cast(WatchdogsPtr, entry.next)
    entry = cython.cast(WatchdogsPtr, calloc(1, cython.sizeof(Watchdogs)))
    if entry == cython.NULL:
        return cython.NULL
    entry.host = d.host
    entry.domain = d
    entry.domid = d.domid
    expected = load_pointer(cython.address(first), SEQUENTIAL)
    entry.next = expected
    while not compare_exchange(
        cython.address(first), cython.address(expected), entry, False, SEQUENTIAL, SEQUENTIAL
    ):
        entry.next = expected
    return entry


def set_watchdog(d: DomainPtr, number: u32, seconds: u32) -> i64:
    """Start a watchdog (``number`` 0: its number, 1 or 2, is returned), set one again, or stop it (0 seconds).

    -EINVAL: no such number, or not started.  -ENOSPC: both are in use.
    """
    deadline: u64 = now(d.host) + cython.cast(u64, seconds) * 1_000_000_000
    entry: WatchdogsPtr
    i: u32
    if number > 2:
        return -EINVAL
    entry = find(d)
    if number == 0:
        if entry == cython.NULL:
            entry = claim(d)
            if entry == cython.NULL:
                return -ENOMEM
        for i in range(2):
            if not (entry.in_use >> i) & 1:
                entry.in_use |= cython.cast(u32, 1) << i
                entry.deadline[i] = deadline
                return i + 1
        return -ENOSPC
    i = number - 1
    if entry == cython.NULL or not (entry.in_use >> i) & 1:
        return -EINVAL
    if seconds == 0:
        entry.in_use &= ~(cython.cast(u32, 1) << i)
        entry.deadline[i] = 0
    else:
        entry.deadline[i] = deadline
    return 0


def forget_watchdogs(d: DomainPtr) -> cython.void:
    """Stop the watchdogs of a domain that begins or ends, and give back their entry."""
    entry: WatchdogsPtr = find(d)
    while entry != cython.NULL:
        entry.in_use = 0
        entry.deadline[0] = 0
        entry.deadline[1] = 0
        entry.domain = cython.NULL
        store_pointer(cython.address(entry.host), cython.NULL, SEQUENTIAL)
        entry = find(d)


def run_watchdogs(host: HostPtr, at: u64) -> cython.void:
    """Shut down the domains of this machine that have let a watchdog expire."""
    entry: WatchdogsPtr = cython.cast(WatchdogsPtr, load_pointer(cython.address(first), SEQUENTIAL))
    d: DomainPtr
    i: u32
    while entry != cython.NULL:
        if load_pointer(cython.address(entry.host), SEQUENTIAL) == host and entry.in_use:
            d = host.domains[entry.domid] if entry.domid < host.max_domains else cython.NULL
            if d == cython.NULL or d != entry.domain:
                entry.in_use = 0
                entry.domain = cython.NULL
                store_pointer(cython.address(entry.host), cython.NULL, SEQUENTIAL)
            else:
                for i in range(2):
                    if (entry.in_use >> i) & 1 and entry.deadline[i] and at >= entry.deadline[i]:
                        # As in Xen the watchdog stays in use, but its timer has run out.
                        entry.deadline[i] = 0
                        if not d.is_shut_down and not d.dying:
                            domain_shutdown(d, SHUTDOWN_watchdog)
        entry = cython.cast(WatchdogsPtr, entry.next)


def next_watchdog(host: HostPtr) -> u64:
    """The earliest deadline of a watchdog of this machine, in system time; all ones if there is none."""
    entry: WatchdogsPtr = cython.cast(WatchdogsPtr, load_pointer(cython.address(first), SEQUENTIAL))
    deadline: u64 = ~cython.cast(u64, 0)
    i: u32
    while entry != cython.NULL:
        if load_pointer(cython.address(entry.host), SEQUENTIAL) == host:
            for i in range(2):
                if (entry.in_use >> i) & 1 and entry.deadline[i] and entry.deadline[i] < deadline:
                    deadline = entry.deadline[i]
        entry = cython.cast(WatchdogsPtr, entry.next)
    return deadline
