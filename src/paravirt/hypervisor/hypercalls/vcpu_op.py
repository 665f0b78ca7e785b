# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""vcpu_op: bring vcpus up and down, their timers, and the memory they share with the hypervisor.

Behaviour: public/vcpu.h; Xen 4.17, common/domain.c and arch/x86/domain.c, for an unprivileged paravirtual
domain.
"""

import cython
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.paravirt.abi.constants import (
    EEXIST,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOMEM,
    ENOSYS,
    ENXIO,
    ERESTART,
    SHUTDOWN_poweroff,
    VCPUOP_down,
    VCPUOP_get_physid,
    VCPUOP_get_runstate_info,
    VCPUOP_initialise,
    VCPUOP_is_up,
    VCPUOP_register_runstate_memory_area,
    VCPUOP_register_vcpu_info,
    VCPUOP_register_vcpu_time_memory_area,
    VCPUOP_send_nmi,
    VCPUOP_set_periodic_timer,
    VCPUOP_set_singleshot_timer,
    VCPUOP_stop_periodic_timer,
    VCPUOP_stop_singleshot_timer,
    VCPUOP_up,
)
from cython.cimports.paravirt.hypervisor.context import Context, set_vcpu_context
from cython.cimports.paravirt.hypervisor.frames import get_page_and_type
from cython.cimports.paravirt.hypervisor.guestmem import (
    copy_from_guest,
    copy_to_guest,
    frame_ptr,
    is_guest_address,
)
from cython.cimports.paravirt.hypervisor.hypercalls.mmu_ops import continue_call
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_WRITABLE,
    VPF_BLOCKED,
    VPF_DOWN,
    VPF_POLL,
    DomainPtr,
    HostPtr,
    VcpuPtr,
    i64,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.scheduling import (
    deadline_changed,
    domain_shutdown,
    vcpu_down,
    vcpu_up,
    vcpu_wake,
)
from cython.cimports.paravirt.hypervisor.timekeeping import (
    RunstateRecord,
    get_runstate,
    next_deadline,
    now,
    run_periodic,
    signed_deadline,
    update_time_record,
)
from cython.cimports.paravirt.hypervisor.timers import set_singleshot
from cython.cimports.paravirt.machine.cpu import BytePtr, U64Ptr

# Limits of a periodic timer, in nanoseconds: 1 ms, and a quarter of what 64 bits hold.
MIN_PERIOD = cython.declare(u64, 1_000_000)
MAX_PERIOD = cython.declare(u64, 0x3FFFFFFFFFFFFFFF)
VCPU_INFO_SIZE = cython.declare(u64, 64)


def initialise(host: HostPtr, current: VcpuPtr, v: VcpuPtr, arg: u64) -> i64:
    """Give a vcpu that never ran its registers and tables.  -ERESTART: the caller is to make the call again."""
    context: BytePtr
    rc: i64
    if v.info == cython.NULL:
        return -EINVAL
    context = cython.cast(BytePtr, malloc(cython.sizeof(Context)))
    if context == cython.NULL:
        return -ENOMEM
    host.old = cython.address(current.old)
    rc = copy_from_guest(current, context, arg, cython.sizeof(Context))
    if rc == 0:
        rc = -EEXIST if v.initialised else set_vcpu_context(host, v, context)
    free(context)
    return rc


def down(v: VcpuPtr) -> i64:
    """Stop a vcpu; stopping the last one that is up powers the domain off."""
    d: DomainPtr = v.domain
    i: u32
    for i in range(d.nr_vcpus):
        if i != v.id and d.vcpus[i] != cython.NULL and not d.vcpus[i].pause_flags & VPF_DOWN:
            vcpu_down(v)
            return 0
    domain_shutdown(d, SHUTDOWN_poweroff)
    return 0


def register_runstate_area(current: VcpuPtr, v: VcpuPtr, arg: u64) -> i64:
    """Where to keep a copy of the vcpu's runstate; written at once, and at every switch to or from the vcpu.

    As in Xen it is no error if nothing is mapped there now, and 0 stops the copies.
    """
    address: u64
    record: RunstateRecord
    if copy_from_guest(current, cython.address(address), arg, 8) != 0 or not is_guest_address(address):
        return -EFAULT
    v.runstate_area = address
    get_runstate(v, cython.address(record))
    if v == current:
        # The running vcpu's own record is shown as it is kept, without the time since the last change.
        memcpy(record.time, v.runstate_time, 32)
    copy_to_guest(current, address, cython.address(record), cython.sizeof(RunstateRecord))
    return 0


def register_time_area(current: VcpuPtr, v: VcpuPtr, arg: u64) -> i64:
    """Where to keep a second copy of the vcpu's time record."""
    address: u64
    if copy_from_guest(current, cython.address(address), arg, 8) != 0 or not is_guest_address(address):
        return -EFAULT
    v.time_area = address
    update_time_record(v)
    return 0


def set_periodic_timer(current: VcpuPtr, v: VcpuPtr, arg: u64) -> i64:
    """A VIRQ_TIMER every so many nanoseconds while the vcpu is scheduled."""
    period: u64
    before: u64 = next_deadline(v)
    if copy_from_guest(current, cython.address(period), arg, 8) != 0:
        return -EFAULT
    if period < MIN_PERIOD or period > MAX_PERIOD:
        return -EINVAL
    v.periodic_period = period
    run_periodic(v, now(v.domain.host))
    deadline_changed(current, v, before)
    return 0


def set_singleshot_timer(current: VcpuPtr, v: VcpuPtr, arg: u64) -> i64:
    """One VIRQ_TIMER at a given system time; at once if that has passed.

    The flag VCPU_SSHOTTMR_future asked for -ETIME then; Xen ignores it since 4.17.2.
    """
    words: u64[2]
    before: u64 = next_deadline(v)
    if v != current:
        return -EINVAL
    if copy_from_guest(current, words, arg, 16) != 0:
        return -EFAULT
    set_singleshot(v, signed_deadline(words[0]))
    deadline_changed(current, v, before)
    return 0


def map_vcpu_info(host: HostPtr, current: VcpuPtr, v: VcpuPtr, mfn: u64, offset: u64) -> i64:
    """Move the vcpu's vcpu_info to a frame of the guest's, once and for good."""
    info: BytePtr
    if offset > 4096 - VCPU_INFO_SIZE or offset & 7:
        return -ENXIO
    if v.info_mfn != 0:
        return -EINVAL
    if v != current and not v.pause_flags & VPF_DOWN:
        return -EINVAL
    if get_page_and_type(host, mfn, v.domain.domid, FRAME_WRITABLE) != 0:
        return -EINVAL
    info = frame_ptr(host, mfn) + offset
    if v.info == cython.NULL:
        memset(info, 0, VCPU_INFO_SIZE)
        info[1] = 1
    else:
        memcpy(info, v.info, VCPU_INFO_SIZE)
    v.info = info
    v.info_mfn = mfn
    update_time_record(v)
    # Everything counts as pending, lest an event that came in between be lost: a spurious one does no harm.
    cython.cast(U64Ptr, info + 8)[0] = ~cython.cast(u64, 0)
    if not info[0]:
        info[0] = 1
        if v.pause_flags & (VPF_BLOCKED | VPF_POLL):
            vcpu_wake(v)
    return 0


def register_vcpu_info(host: HostPtr, current: VcpuPtr, v: VcpuPtr, arg: u64) -> i64:
    """VCPUOP_register_vcpu_info: {mfn, offset, reserved}."""
    words: u64[2]
    if copy_from_guest(current, words, arg, 16) != 0:
        return -EFAULT
    return map_vcpu_info(host, current, v, words[0], cython.cast(u32, words[1]))


def timer_op(current: VcpuPtr, v: VcpuPtr, command: cython.int, arg: u64) -> i64:
    """The four operations on timers."""
    if command == VCPUOP_set_singleshot_timer:
        return set_singleshot_timer(current, v, arg)
    if command == VCPUOP_stop_singleshot_timer:
        if v != current:
            return -EINVAL
        set_singleshot(v, 0)
        return 0
    if command == VCPUOP_set_periodic_timer:
        return set_periodic_timer(current, v, arg)
    v.periodic_period = 0
    return 0


def area_op(host: HostPtr, current: VcpuPtr, v: VcpuPtr, command: cython.int, arg: u64) -> i64:
    """What is shared, and what is rare."""
    record: RunstateRecord
    if command == VCPUOP_register_vcpu_info:
        return register_vcpu_info(host, current, v, arg)
    if command == VCPUOP_register_runstate_memory_area:
        return register_runstate_area(current, v, arg)
    if command == VCPUOP_register_vcpu_time_memory_area:
        return register_time_area(current, v, arg)
    if command == VCPUOP_get_runstate_info:
        get_runstate(v, cython.address(record))
        return copy_to_guest(current, arg, cython.address(record), cython.sizeof(RunstateRecord))
    if command == VCPUOP_send_nmi:
        if arg != 0:
            return -EINVAL
        if not v.nmi_pending:
            v.nmi_pending = 1
            vcpu_wake(v)
        return 0
    if command == VCPUOP_get_physid:
        # Only a hardware domain whose vcpus are pinned may know.
        return -EINVAL
    return -ENOSYS


def do_vcpu_op(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_vcpu_op(command, vcpu number, argument).  -ENOENT: the domain has no such vcpu."""
    command: cython.int = cython.cast(cython.int, args[0])
    number: u32 = cython.cast(u32, args[1])
    d: DomainPtr = v.domain
    target: VcpuPtr
    rc: i64
    if number >= d.nr_vcpus:
        return -ENOENT
    target = d.vcpus[number]
    if command == VCPUOP_is_up:
        return 0 if target.pause_flags & VPF_DOWN else 1
    if command in (
        VCPUOP_set_singleshot_timer,
        VCPUOP_stop_singleshot_timer,
        VCPUOP_set_periodic_timer,
        VCPUOP_stop_periodic_timer,
    ):
        return timer_op(v, target, command, args[2])
    if command == VCPUOP_initialise:
        rc = initialise(host, v, target, args[2])
        return continue_call(v, args, args[0], args[1], args[2], args[3]) if rc == -ERESTART else rc
    if command == VCPUOP_up:
        if not target.initialised:
            return -EINVAL
        vcpu_up(target)
        return 0
    if command == VCPUOP_down:
        return down(target)
    return area_op(host, v, target, command, args[2])
