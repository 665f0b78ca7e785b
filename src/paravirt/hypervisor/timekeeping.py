# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""Time as guests see it: system time, time records, the wall clock, runstates and per-vcpu timers.

System time counts nanoseconds since the machine's boot. It is CLOCK_MONOTONIC less its value at boot, or,
with a virtual clock, a number that the machine's loop advances. A guest computes it by itself from its time
record (``vcpu_time_info``) and the TSC: ``system_time + ((tsc - tsc_timestamp) << tsc_shift) *
tsc_to_system_mul >> 32``. With a virtual clock the guest's TSC runs at exactly 1 GHz.

Behaviour: public headers xen.h and vcpu.h; Xen 4.17, arch/x86/time.c and common/sched/core.c. All functions
are called under the machine lock.
"""

import cython
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.paravirt.abi.constants import (
    VIRQ_TIMER,
    XEN_RUNSTATE_UPDATE,
    VMASST_TYPE_runstate_update_flag,
)
from cython.cimports.paravirt.hypervisor.events import send_virq
from cython.cimports.paravirt.hypervisor.guestmem import copy_to_kernel
from cython.cimports.paravirt.hypervisor.records import (
    RUNSTATE_RUNNING,
    VPF_POLL,
    DomainPtr,
    HostPtr,
    PcpuPtr,
    VcpuPtr,
    i32,
    u8,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.scheduling import vcpu_wake
from cython.cimports.paravirt.hypervisor.timers import first_due, first_timer, set_poll_deadline, set_singleshot
from cython.cimports.paravirt.hypervisor.tsc import read_tsc
from cython.cimports.paravirt.hypervisor.watchdog import run_watchdogs
from cython.cimports.paravirt.machine.cpu import U32Ptr, U64Ptr, i64
from cython.cimports.posix.time import CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec

# A declared C name for "no deadline"; plain ints of this size do not survive Cython's constant folding.
NEVER = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)
SECOND = cython.declare(u64, 1_000_000_000)
MILLISECOND = cython.declare(u64, 1_000_000)
# Time records are renewed whenever 2**30 ns of system time are over: about the second that Xen takes.
EPOCH_SHIFT = cython.declare(cython.int, 30)
# A periodic tick of 100 Hz is what a paravirtual vcpu starts with.
DEFAULT_PERIOD = cython.declare(u64, 10_000_000)
# Periods of a guest's tick within which it is expected to go on.
SHORTEST_TICK = cython.declare(u64, 200_000)
LONGEST_TICK = cython.declare(u64, 20_000_000)
# How far a record may be ahead of the host's clock before it is simply set back.
MAX_SLEW = cython.declare(u64, 1_000_000)


# --- clocks -------------------------------------------------------------------------------------------------


def host_ns() -> u64:
    """CLOCK_MONOTONIC, in nanoseconds."""
    ts: timespec
    clock_gettime(CLOCK_MONOTONIC, cython.address(ts))
    return cython.cast(u64, ts.tv_sec) * SECOND + cython.cast(u64, ts.tv_nsec)


def now(host: HostPtr) -> u64:
    """System time: nanoseconds since boot."""
    if host.virtual_clock:
        return host.virtual_ns
    return host_ns() - host.boot_ns


def guest_tsc(host: HostPtr) -> u64:
    """What RDTSC gives a guest: the host's counter, or virtual nanoseconds."""
    if host.virtual_clock:
        return host.virtual_ns
    return read_tsc()


def sample(ns: U64Ptr, tsc: U64Ptr) -> cython.void:
    """Read CLOCK_MONOTONIC and the TSC at one moment: the tightest of a few tries, in case of preemption."""
    _: cython.int
    before: u64
    after: u64
    at: u64
    best: u64 = NEVER
    for _ in range(5):
        before = read_tsc()
        at = host_ns()
        after = read_tsc()
        if after - before < best:
            best = after - before
            ns[0] = at
            tsc[0] = before + (best >> 1)
        if best < 1000:
            break


def scale_delta(delta: u64, mul: u32, shift: i32) -> u64:
    """Ticks to nanoseconds, by the guest's formula.  ``shift`` is within -63..63."""
    if shift < 0:
        delta >>= -shift
    else:
        delta <<= shift
    return cython.cast(u64, (cython.cast(u128, delta) * mul) >> 32)


def set_scale(host: HostPtr, ns: u64, ticks: u64) -> cython.void:
    """Set the machine's tsc_mul and tsc_shift from a measurement: ``ticks`` took ``ns`` nanoseconds.

    As in Xen the multiplier uses all its bits: it is at least 2**31.
    """
    numerator: u128 = ns
    denominator: u128 = ticks
    mul: u128
    shift: i32 = 0
    if ns == 0 or ticks == 0:
        return
    while numerator >= denominator:
        denominator <<= 1
        shift += 1
    while 2 * numerator < denominator:
        numerator <<= 1
        shift -= 1
    mul = ((numerator << 32) + (denominator >> 1)) / denominator
    if mul >> 32:
        mul = 0xFFFFFFFF
    host.tsc_mul = cython.cast(u32, mul)
    host.tsc_shift = shift


def calibrate(host: HostPtr) -> cython.void:
    """Measure the TSC's frequency: over 2 ms at first, which errs by up to 0.1 per mille, over all the time since boot
    in later calls.

    Sets boot_ns too where it is not set yet. If the TSC jumped (the host slept), the long baseline starts
    anew.
    """
    ns: u64
    tsc: u64
    later_ns: u64
    later_tsc: u64
    elapsed: u64
    measured: u64
    pause: timespec
    if host.virtual_clock:
        host.tsc_mul = 0x80000000
        host.tsc_shift = 1
        return
    sample(cython.address(ns), cython.address(tsc))
    if host.boot_tsc == 0 or host.tsc_mul == 0:
        if host.boot_ns == 0:
            host.boot_ns = ns
        pause.tv_sec = 0
        pause.tv_nsec = 2_000_000
        nanosleep(cython.address(pause), cython.NULL)
        sample(cython.address(later_ns), cython.address(later_tsc))
        set_scale(host, later_ns - ns, later_tsc - tsc)
        host.measured_ns = later_ns - ns
        elapsed = ns - host.boot_ns
        host.boot_tsc = tsc - cython.cast(
            u64, cython.cast(u128, elapsed) * (later_tsc - tsc) / (later_ns - ns)
        )
        return
    elapsed = ns - host.boot_ns
    if elapsed < 2 * MILLISECOND:
        return
    host.measured_ns = elapsed
    measured = scale_delta(tsc - host.boot_tsc, host.tsc_mul, host.tsc_shift)
    if tsc > host.boot_tsc and measured > elapsed - elapsed / 64 and measured < elapsed + elapsed / 64:
        set_scale(host, elapsed, tsc - host.boot_tsc)
    else:
        # Keep the frequency; pretend that the counter has run at it since boot.
        host.boot_tsc = tsc - cython.cast(
            u64,
            ((cython.cast(u128, elapsed) << 32) / host.tsc_mul) >> host.tsc_shift
            if host.tsc_shift >= 0
            else ((cython.cast(u128, elapsed) << 32) / host.tsc_mul) << -host.tsc_shift,
        )


# --- records in guest memory --------------------------------------------------------------------------------


def time_record_stale(v: VcpuPtr, at: u64) -> cython.bint:
    """Whether the vcpu's time record is from an earlier epoch than system time ``at``."""
    return (v.time_version >> 32) != ((at >> EPOCH_SHIFT) + 1)


def write_record(v: VcpuPtr, record: TimeRecordPtr) -> cython.void:
    """Publish a time record, in vcpu_info and in the registered area: version odd, fields, version even."""
    target: TimeRecordPtr = cython.cast(TimeRecordPtr, v.info + 32)
    version: U32Ptr = cython.address(target.version)
    begin: u32 = (cython.cast(u32, v.time_version) + 1) | 1
    atomic_store32(version, begin, RELEASE)
    atomic_fence(RELEASE)
    target.tsc_timestamp = record.tsc_timestamp
    target.system_time = record.system_time
    target.tsc_to_system_mul = record.tsc_to_system_mul
    target.tsc_shift = record.tsc_shift
    target.flags = record.flags
    target.pad0 = 0
    target.pad1[0] = 0
    target.pad1[1] = 0
    atomic_store32(version, begin + 1, RELEASE)
    # The upper half remembers the epoch, so that the guest cannot make us renew its record all the time.
    v.time_version = cython.cast(u32, begin + 1) | (((record.system_time >> EPOCH_SHIFT) + 1) << 32)
    if v.time_area:
        record.version = begin
        if copy_to_kernel(v, v.time_area, record, cython.sizeof(TimeRecord)) == 0:
            record.version = begin + 1
            copy_to_kernel(v, v.time_area, cython.address(record.version), 4)


def update_time_record(v: VcpuPtr) -> cython.void:
    """Renew the vcpu's time record from the clocks.

    The time that a guest computes never goes back over an update: where its extrapolation is ahead of the
    host's clock (which others slew), the record goes on from there a little slower, to meet it a second
    later. XEN_PVCLOCK_TSC_STABLE_BIT is not set: Xen does so only where the TSC is its own clock source.
    """
    host: HostPtr = v.domain.host
    record: TimeRecord
    old: TimeRecord
    ns: u64
    tsc: u64
    ahead: u64
    if v.info == cython.NULL:
        return
    memset(cython.address(record), 0, cython.sizeof(TimeRecord))
    if host.virtual_clock:
        record.tsc_timestamp = host.virtual_ns
        record.system_time = host.virtual_ns
        record.tsc_to_system_mul = 0x80000000
        record.tsc_shift = 1
        write_record(v, cython.address(record))
        return
    if host.tsc_mul == 0:
        calibrate(host)
    sample(cython.address(ns), cython.address(tsc))
    if ns - host.boot_ns > 2 * host.measured_ns:
        # A guest's time that is slow by what the first milliseconds showed would be behind its timers a second later.
        calibrate(host)
        sample(cython.address(ns), cython.address(tsc))
    ns -= host.boot_ns
    record.tsc_timestamp = tsc
    record.system_time = ns
    record.tsc_to_system_mul = host.tsc_mul
    record.tsc_shift = host.tsc_shift
    # The old record is guest memory, but a false one misleads only the guest that wrote it.
    memcpy(cython.address(old), v.info + 32, cython.sizeof(TimeRecord))
    if v.time_version and tsc >= old.tsc_timestamp and old.tsc_shift > -32 and old.tsc_shift < 32:
        ahead = (
            old.system_time + scale_delta(tsc - old.tsc_timestamp, old.tsc_to_system_mul, old.tsc_shift) - ns
        )
        if ahead < MAX_SLEW:
            record.system_time = ns + ahead
            record.tsc_to_system_mul -= cython.cast(
                u32, cython.cast(u128, record.tsc_to_system_mul) * ahead / SECOND
            )
    write_record(v, cython.address(record))


def update_wallclock(d: DomainPtr) -> cython.void:
    """Write the wall-clock time at which system time was zero into the domain's shared info."""
    base: i64 = d.host.wall_offset_ns + d.time_offset * cython.cast(i64, SECOND)
    field: U32Ptr
    version: u32
    seconds: u64
    if d.shared_info == cython.NULL:
        return
    if base < 0:
        base = 0
    seconds = cython.cast(u64, base) / SECOND
    # wc_version, wc_sec, wc_nsec, wc_sec_hi
    field = cython.cast(U32Ptr, d.shared_info + 3072)
    version = (atomic_load32(field, RELAXED) + 1) | 1
    atomic_store32(field, version, RELEASE)
    atomic_fence(RELEASE)
    field[1] = cython.cast(u32, seconds)
    field[2] = cython.cast(u32, cython.cast(u64, base) % SECOND)
    field[3] = cython.cast(u32, seconds >> 32)
    atomic_store32(field, version + 1, RELEASE)


# --- runstates ----------------------------------------------------------------------------------------------


def change_runstate(v: VcpuPtr, new_state: u8, at: u64) -> cython.void:
    """Account the time since the last change to the state being left, and enter ``new_state``."""
    if v.runstate == new_state:
        return
    if at > v.runstate_since:
        v.runstate_time[v.runstate & 3] += at - v.runstate_since
        v.runstate_since = at
    v.runstate = new_state


def get_runstate(v: VcpuPtr, record: RunstateRecordPtr) -> cython.void:
    """The vcpu's runstate with the times counted up to this moment (``vcpu_runstate_info``)."""
    at: u64 = now(v.domain.host)
    memset(record, 0, cython.sizeof(RunstateRecord))
    record.state = v.runstate
    record.state_entry_time = v.runstate_since
    memcpy(record.time, v.runstate_time, 32)
    if at > v.runstate_since:
        record.time[v.runstate & 3] += at - v.runstate_since


def update_runstate_area(v: VcpuPtr) -> cython.void:
    """Copy the runstate to the area that the vcpu registered, if any.

    With the runstate_update_flag assist, XEN_RUNSTATE_UPDATE is set in state_entry_time while the copy is
    made.
    """
    record: RunstateRecord
    flagged: cython.bint
    if v.runstate_area == 0:
        return
    memset(cython.address(record), 0, cython.sizeof(RunstateRecord))
    record.state = v.runstate
    record.state_entry_time = v.runstate_since
    memcpy(record.time, v.runstate_time, 32)
    flagged = (v.domain.arch_vm_assist >> VMASST_TYPE_runstate_update_flag) & 1
    if flagged:
        record.state_entry_time |= cython.cast(u64, XEN_RUNSTATE_UPDATE)
        if copy_to_kernel(v, v.runstate_area + 8, cython.address(record.state_entry_time), 8) != 0:
            return
        atomic_fence(RELEASE)
    copy_to_kernel(v, v.runstate_area, cython.address(record), cython.sizeof(RunstateRecord))
    if flagged:
        atomic_fence(RELEASE)
        record.state_entry_time &= ~cython.cast(u64, XEN_RUNSTATE_UPDATE)
        copy_to_kernel(v, v.runstate_area + 8, cython.address(record.state_entry_time), 8)


def set_runstate(v: VcpuPtr, new_state: u8) -> cython.void:
    """Enter a runstate now and show it to the guest: what a context switch does to both vcpus."""
    if v.runstate == new_state:
        return
    change_runstate(v, new_state, now(v.domain.host))
    if not v.domain.dying:
        update_runstate_area(v)


# --- timers -------------------------------------------------------------------------------------------------


def signed_deadline(at: u64) -> u64:
    """A guest's deadline as we store it: 0 means none there, so a time that is not in the future at all is 1.

    Xen's times are signed: what has the top bit set lies in the past.
    """
    return 1 if cython.cast(i64, at) <= 0 else at


def init_vcpu_timers(v: VcpuPtr) -> cython.void:
    """The timers of a new paravirtual vcpu: a periodic tick of 10 ms, nothing else."""
    v.periodic_period = DEFAULT_PERIOD
    v.periodic_last = 0
    set_singleshot(v, 0)
    set_poll_deadline(v, 0)
    v.runstate_since = now(v.domain.host)


def run_periodic(v: VcpuPtr, at: u64) -> cython.void:
    """Send the periodic tick if it is due.  Only a vcpu that is scheduled has a running periodic timer."""
    if v.periodic_period and at >= v.periodic_last + v.periodic_period:
        v.periodic_last = at
        send_virq(v, VIRQ_TIMER)


def expect_timer(v: VcpuPtr, at: u64) -> cython.void:
    """The singleshot timer goes off: when its guest will have it go off next, if it ticks while the vcpu computes.

    Until then an engine may answer by itself that the timer is set (deferred.py): it is left by then anyway.
    """
    period: u64 = v.singleshot - v.last_timer
    v.last_timer = v.singleshot
    v.expected_timer = 0
    if v.cpu.has_shortcuts and v.runstate == RUNSTATE_RUNNING and SHORTEST_TICK <= period <= LONGEST_TICK:
        if v.singleshot + period > at + SHORTEST_TICK:
            v.expected_timer = v.singleshot + period


def timer_was_expected(v: VcpuPtr, at: u64) -> cython.void:
    """At system time ``at`` nothing is expected any more of a timer that should have been set until then."""
    if v.expected_timer <= at:
        v.expected_timer = 0


def run_vcpu_timers(v: VcpuPtr, at: u64) -> cython.void:
    """Let the vcpu's timers expire that are due at system time ``at``."""
    if v.singleshot and at >= v.singleshot:
        expect_timer(v, at)
        set_singleshot(v, 0)
        send_virq(v, VIRQ_TIMER)
    if v.poll_deadline and at >= v.poll_deadline:
        set_poll_deadline(v, 0)
        if v.pause_flags & VPF_POLL:
            vcpu_wake(v)
    if v.runstate == RUNSTATE_RUNNING:
        run_periodic(v, at)


def run_timers(p: PcpuPtr) -> cython.void:
    """Let everything expire that is due on this physical CPU; renew the running vcpu's time record."""
    host: HostPtr = p.host
    at: u64 = now(host)
    v: VcpuPtr = first_timer(p)
    while v != cython.NULL and v.timer_due <= at:
        run_vcpu_timers(v, at)
        v = first_timer(p)
    run_watchdogs(host, at)
    v = p.current
    if v != cython.NULL and v.runstate == RUNSTATE_RUNNING and not v.domain.dying:
        run_periodic(v, at)
        timer_was_expected(v, at)
        if time_record_stale(v, at):
            calibrate(host)
            update_time_record(v)


def next_deadline(v: VcpuPtr) -> u64:
    """When the vcpu's next timer expires, in system time; all ones if none runs."""
    deadline: u64 = first_due(v)
    tick: u64
    if deadline == 0:
        deadline = NEVER
    if v.periodic_period and v.runstate == RUNSTATE_RUNNING:
        tick = v.periodic_last + v.periodic_period
        if tick < deadline:
            deadline = tick
    return deadline
