# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""sched_op: yield, block, poll, shutdown, watchdog; the older sched_op_compat; set_timer_op.

Behaviour: public/sched.h; Xen 4.17, common/sched/core.c, compat.c and common/domain.c.
"""

import cython
from cython.cimports.paravirt.abi.constants import (
    EFAULT,
    EINVAL,
    ENOSYS,
    EPERM,
    ESRCH,
    SCHEDOP_block,
    SCHEDOP_pin_override,
    SCHEDOP_poll,
    SCHEDOP_remote_shutdown,
    SCHEDOP_shutdown,
    SCHEDOP_shutdown_code,
    SCHEDOP_watchdog,
    SCHEDOP_yield,
)
from cython.cimports.paravirt.hypervisor.events import in_use, is_pending, port_is_valid
from cython.cimports.paravirt.hypervisor.guestmem import copy_from_guest, is_guest_address
from cython.cimports.paravirt.hypervisor.records import (
    VPF_POLL,
    DomainPtr,
    HostPtr,
    VcpuPtr,
    i64,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.scheduling import (
    SHUTDOWN_CODE_INVALID,
    deadline_changed,
    domain_shutdown,
    events_need_delivery,
    rearm,
    vcpu_block,
    vcpu_yield,
)
from cython.cimports.paravirt.hypervisor.timekeeping import next_deadline, now, signed_deadline
from cython.cimports.paravirt.hypervisor.timers import set_poll_deadline, set_singleshot
from cython.cimports.paravirt.hypervisor.watchdog import set_watchdog
from cython.cimports.paravirt.machine.cpu import U32Ptr, U64Ptr

MAX_POLL_PORTS = cython.declare(u32, 128)
# What set_timer_op makes of a deadline absurdly far away, in nanoseconds from now.
MIDDLE_GROUND = cython.declare(u64, 100_000_000)


def block(v: VcpuPtr) -> cython.void:
    """SCHEDOP_block: unmask events and wait for one, unless one is pending already."""
    if v.info != cython.NULL:
        v.info[1] = 0
    vcpu_block(v)


def poll_ports(v: VcpuPtr, ports: u64, count: u32, last: U32Ptr) -> i64:
    """Look at a guest's list of ports: 1 if one is pending, 0 if none is, or a negative error.

    ``last`` gets the last port looked at.
    """
    d: DomainPtr = v.domain
    i: u32
    for i in range(count):
        if copy_from_guest(v, last, ports + 4 * cython.cast(u64, i), 4) != 0:
            return -EFAULT
        if not port_is_valid(d, last[0]) or not in_use(cython.address(d.ports[last[0]])):
            return -EINVAL
        if is_pending(d, last[0]):
            return 1
    return 0


def poll(v: VcpuPtr, arg: u64) -> i64:
    """SCHEDOP_poll: wait until one of some ports is pending, an event is delivered, or a time has come.

    Always 0 then: the guest looks for itself which it was.
    """
    words: u64[3]
    count: u32
    port: u32 = 0
    found: i64
    if copy_from_guest(v, words, arg, 24) != 0:
        return -EFAULT
    count = cython.cast(u32, words[1])
    if count > MAX_POLL_PORTS:
        return -EINVAL
    if not is_guest_address(words[0]):
        return -EFAULT
    if events_need_delivery(v):
        return 0
    found = poll_ports(v, words[0], count, cython.address(port))
    if found != 0:
        return 0 if found > 0 else found
    # With several ports any event for the domain ends the wait.
    v.poll_port = port if count == 1 else 0
    set_poll_deadline(v, signed_deadline(words[2]) if words[2] != 0 else 0)
    v.pause_flags |= VPF_POLL
    v.pcpu.need_resched = 1
    return 0


def remote_shutdown(host: HostPtr, v: VcpuPtr, arg: u64) -> i64:
    """SCHEDOP_remote_shutdown: for a privileged domain only, its own shutdown included."""
    words: u32[2]
    domid: u32
    if copy_from_guest(v, words, arg, 8) != 0:
        return -EFAULT
    domid = words[0] & 0xFFFF
    if domid >= host.max_domains or host.domains[domid] == cython.NULL or host.domains[domid].dying:
        return -ESRCH
    if not v.domain.is_privileged:
        return -EPERM
    domain_shutdown(host.domains[domid], words[1] & 0xFF)
    return 0


def do_sched_op(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_sched_op(command, argument)."""
    command: cython.int = cython.cast(cython.int, args[0])
    words: u32[2]
    rc: i64
    if command == SCHEDOP_yield:
        vcpu_yield(v)
        return 0
    if command == SCHEDOP_block:
        block(v)
        return 0
    if command == SCHEDOP_poll:
        return poll(v, args[1])
    if command in (SCHEDOP_shutdown, SCHEDOP_shutdown_code):
        if copy_from_guest(v, words, args[1], 4) != 0:
            return -EFAULT
        if command == SCHEDOP_shutdown:
            domain_shutdown(v.domain, words[0] & 0xFF)
        elif v.domain.shutdown_code == SHUTDOWN_CODE_INVALID:
            v.domain.shutdown_code = words[0] & 0xFF
        return 0
    if command == SCHEDOP_watchdog:
        if copy_from_guest(v, words, args[1], 8) != 0:
            return -EFAULT
        rc = set_watchdog(v.domain, words[0], words[1])
        rearm(v, v.pcpu)
        return rc
    if command == SCHEDOP_remote_shutdown:
        return remote_shutdown(host, v, args[1])
    if command == SCHEDOP_pin_override:
        # For the hardware domain, which is not one of our guests.
        return -EPERM
    return -ENOSYS


def do_sched_op_compat(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_sched_op_compat(command, argument): three commands, with the shutdown reason by value."""
    command: cython.int = cython.cast(cython.int, args[0])
    if command == SCHEDOP_yield:
        vcpu_yield(v)
    elif command == SCHEDOP_block:
        block(v)
    elif command == SCHEDOP_shutdown:
        domain_shutdown(v.domain, args[1] & 0xFF)
    else:
        return -ENOSYS
    return 0


def do_set_timer_op(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_set_timer_op(system time, or 0: stop): one VIRQ_TIMER, as a singleshot timer.

    Times that wrapped, or lie more than 13 days ahead, come from old kernels that mean either "at once" or
    "never": as in Xen they get the middle ground of 100 ms.
    """
    timeout: u64 = args[0]
    at: u64 = now(host)
    before: u64 = next_deadline(v)
    ahead: i64 = cython.cast(i64, timeout - at)
    if timeout == 0:
        set_singleshot(v, 0)
        return 0
    if cython.cast(i64, timeout) < 0 or (ahead > 0 and cython.cast(u32, ahead >> 50) != 0):
        timeout = at + MIDDLE_GROUND
    set_singleshot(v, timeout)
    deadline_changed(v, v, before)
    return 0
