# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""The scheduling mechanism: which vcpus can run, how they block and wake, the switch from one to the next.

Which domain runs when, or which vcpu on engines that run those of a domain in parallel, is a policy's decision
(``sched/``), asked through the verbs of ``sched/policy.pxd``; elsewhere the vcpus inside a domain take turns
(``sched/rotate.py``). A vcpu that a hypercall deschedules stays in its engine until the handler returns:
p.need_resched tells the trap path to leave.

Behaviour: Xen 4.17, common/sched/core.c and common/domain.c. All functions are called under the machine lock.
"""

import cython
from cython.cimports.paravirt.hypervisor.records import (
    RUNSTATE_BLOCKED,
    RUNSTATE_OFFLINE,
    RUNSTATE_RUNNABLE,
    RUNSTATE_RUNNING,
    VPF_BLOCKED,
    VPF_DOWN,
    VPF_POLL,
    DomainPtr,
    HostPtr,
    PcpuPtr,
    VcpuPtr,
    u8,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.sched.moving import forget_vcpu, move_unit, where_running
from cython.cimports.paravirt.hypervisor.sched.policy import (
    CpupoolPtr,
    PcpuSchedPtr,
    UnitPtr,
)
from cython.cimports.paravirt.hypervisor.sched.pools import leaves_pool, set_policy
from cython.cimports.paravirt.hypervisor.sched.rotate import next_after, next_turn
from cython.cimports.paravirt.hypervisor.sched.units import (
    allowed,
    cpu_of,
    drop_unit,
    make_unit,
    prefers,
    runs_parallel,
    sched_of,
    set_awake,
    unit_of,
    vcpu_unit,
    waits_elsewhere,
)
from cython.cimports.paravirt.hypervisor.timekeeping import (
    change_runstate,
    init_vcpu_timers,
    next_deadline,
    now,
    run_periodic,
    set_runstate,
    time_record_stale,
    update_time_record,
)
from cython.cimports.paravirt.hypervisor.timers import first_timer, join_timers, leave_timers, set_poll_deadline
from cython.cimports.paravirt.hypervisor.watchdog import forget_watchdogs, next_watchdog
from cython.cimports.posix.unistd import write

NEVER = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)
# How late, in ns, the end of a turn may come for which nobody waits.
LATEST_TURN = cython.declare(u64, 5_000_000)


# --- policies and units -------------------------------------------------------------------------------------


def join_unit(v: VcpuPtr) -> UnitPtr:
    """The unit that a new vcpu belongs to, made unless it shares one with the domain's others; NULL without memory."""
    host: HostPtr = v.domain.host
    u: UnitPtr = cython.NULL if runs_parallel(host) else unit_of(v.domain)
    if u == cython.NULL:
        u = make_unit(v.domain)
        if u == cython.NULL:
            return cython.NULL
        if u.pool.policy == cython.NULL:
            set_policy(host, b"credit")
        u.home = u.pool.policy.pick_cpu(u)
        u.pool.policy.insert(u, now(host))
    u.nr_vcpus += 1
    v.sched = u
    return u


def wakes(u: UnitPtr, at: u64) -> cython.bint:
    """Some vcpu of the unit can run again, and waits for that; true: it should run at once."""
    set_awake(u, True)
    u.waits_since = at if at else 1
    return u.pool.policy.wake(u, at)


def idle_for(u: UnitPtr) -> PcpuPtr:
    """A physical CPU that is idle, and could take over the unit, which waits; if there is one that the unit prefers,
    that one. NULL: none."""
    host: HostPtr = u.domain.host
    found: PcpuPtr = cython.NULL
    i: u32
    for i in range(host.nr_pcpus):
        if not host.pcpus[i].idle or not waits_elsewhere(u, host.pcpus[i]):
            continue
        if prefers(u, host.pcpus[i]):
            return host.pcpus[i]
        if found == cython.NULL:
            found = host.pcpus[i]
    return found


def tickle(u: UnitPtr) -> cython.void:
    """The unit waits: if the policy moves such ones, a physical CPU that is idle looks at it."""
    p: PcpuPtr = idle_for(u) if u.pool.policy.balances else cython.NULL
    if p != cython.NULL:
        force_reschedule(p)


def offer(p: PcpuPtr, everybody: cython.bint) -> cython.void:
    """Show idle physical CPUs who waits behind the unit that runs on this one, or ``everybody`` who waits in its pool:
    one that is not idle any more had somebody else's in view, perhaps, or had just been told to look."""
    pool: CpupoolPtr = cpu_of(p).pool
    i: u32
    if pool.nr_cpus == 1 or not pool.policy.balances:
        return
    for i in range(pool.nr_awake):
        if pool.awake[i].waits_since and (everybody or pool.awake[i].home == p):
            tickle(pool.awake[i])


def fell_asleep(u: UnitPtr, at: u64) -> cython.void:
    """Tell the policy if none of the unit's vcpus can run any more: of one that blocks nobody says so."""
    if next_after(u, cython.NULL) == cython.NULL:
        set_awake(u, False)
        u.waits_since = 0
        u.pool.policy.sleep(u, at)


# --- states -------------------------------------------------------------------------------------------------


def init_domain(d: DomainPtr) -> cython.void:
    """A new domain: it has not shut down, and no watchdog watches it."""
    d.shutdown_code = SHUTDOWN_CODE_INVALID
    d.is_shut_down = 0
    forget_watchdogs(d)


def init_vcpu(v: VcpuPtr) -> cython.void:
    """A new vcpu: down, with the timers that a paravirtual vcpu starts with, and a home."""
    v.pause_flags = VPF_DOWN
    v.runstate = RUNSTATE_OFFLINE
    init_vcpu_timers(v)
    u: UnitPtr = join_unit(v)
    join_timers(v, u.home if u != cython.NULL else cython.NULL)


def remove_vcpu(v: VcpuPtr) -> cython.void:
    """The vcpu ends: no physical CPU may choose it or take it for the one that ran last."""
    u: UnitPtr = vcpu_unit(v)
    home: PcpuPtr
    leave_timers(v)
    if u != cython.NULL:
        if u.last == v:
            u.last = cython.NULL
        u.nr_vcpus -= 1
        if u.nr_vcpus == 0:
            home = u.home
            u.pool.policy.remove(u)
            drop_unit(u)
            force_reschedule(home)
        v.sched = cython.NULL
    if v.id == 0:
        forget_watchdogs(v.domain)
    forget_vcpu(v.domain.host, v)


def runnable(v: VcpuPtr) -> cython.bint:
    """Whether nothing but other vcpus keeps this one from running."""
    d: DomainPtr = v.domain
    return (
        v.pause_flags == 0
        and v.initialised
        and not d.paused
        and not d.is_shut_down
        and not d.dying
    )


def resting_state(v: VcpuPtr) -> u8:
    """The runstate of a vcpu that does not run."""
    if v.pause_flags & (VPF_BLOCKED | VPF_POLL):
        return RUNSTATE_BLOCKED
    return RUNSTATE_RUNNABLE if runnable(v) else RUNSTATE_OFFLINE


def events_need_delivery(v: VcpuPtr) -> cython.bint:
    """Whether the vcpu would take an event, or an NMI, if it went on now."""
    if v.nmi_pending and not v.nmi_masked and v.traps[2].address != 0:
        return True
    return v.info != cython.NULL and v.info[0] and not v.info[1]


# --- kicks --------------------------------------------------------------------------------------------------


def kick(p: PcpuPtr) -> cython.void:
    """Make the physical CPU leave guest code, if it is there; elsewhere it looks around before it goes on."""
    if p.current != cython.NULL and p.current.on_cpu and p.ops != cython.NULL:
        p.ops.kick(p.engine)


def force_reschedule(p: PcpuPtr) -> cython.void:
    """Make the physical CPU choose anew, as soon as it can leave its engine."""
    p.need_resched = 1
    if p.idle:
        pthread_cond_signal(cython.address(p.wake))
    else:
        kick(p)


def vcpu_kick(v: VcpuPtr) -> cython.void:
    """Make the vcpu notice something soon: if it runs, by an exit; else when the policy likes."""
    p: PcpuPtr = v.pcpu
    u: UnitPtr = vcpu_unit(v)
    urgent: cython.bint = False
    if p == cython.NULL:
        return
    if v.runstate == RUNSTATE_RUNNING and p.current == v and not p.idle:
        kick(p)
    elif runnable(v):
        if not u.awake:
            urgent = wakes(u, now(p.host))
        if cpu_of(p).running == u:
            u.turn_over = 1
            urgent = True
        elif not urgent and runs_sibling(p, u):
            # Which may wait for it.
            cpu_of(p).running.yielded = 1
            urgent = True
        elif not urgent:
            tickle(u)
        # What runs may have been given no end, because nobody else was there.
        if urgent or p.idle or p.slice_end == 0 or cpu_of(p).running == cython.NULL:
            force_reschedule(p)


def runs_sibling(p: PcpuPtr, u: UnitPtr) -> cython.bint:
    """Whether another vcpu of the same domain runs there."""
    running: UnitPtr = cpu_of(p).running
    return running != cython.NULL and running != u and running.domain == u.domain


def made_runnable(v: VcpuPtr) -> cython.void:
    """Something that kept the vcpu from running went away."""
    if runnable(v):
        if v.runstate >= RUNSTATE_BLOCKED:
            change_runstate(v, RUNSTATE_RUNNABLE, now(v.domain.host))
        vcpu_kick(v)
    elif not v.pause_flags & (VPF_BLOCKED | VPF_POLL) and v.runstate == RUNSTATE_BLOCKED:
        change_runstate(v, RUNSTATE_OFFLINE, now(v.domain.host))


def stop_running(v: VcpuPtr) -> cython.void:
    """Something keeps the vcpu from running from now on: if it runs, it stops soon, and if it waits, not any more."""
    u: UnitPtr = vcpu_unit(v)
    if v.runstate == RUNSTATE_RUNNABLE:
        change_runstate(v, RUNSTATE_OFFLINE, now(v.domain.host))
    if u != cython.NULL and u.awake and where_running(u) == cython.NULL:
        fell_asleep(u, now(v.domain.host))
    if v.runstate == RUNSTATE_RUNNING and v.pcpu != cython.NULL:
        force_reschedule(v.pcpu)


# --- what hypercalls and events do to a vcpu ----------------------------------------------------------------


def vcpu_wake(v: VcpuPtr) -> cython.void:
    """End SCHEDOP_block or SCHEDOP_poll, if the vcpu is in one, and make it look at its events soon."""
    v.pause_flags &= ~cython.cast(u32, VPF_BLOCKED | VPF_POLL)
    set_poll_deadline(v, 0)
    v.poll_port = 0
    made_runnable(v)


def vcpu_block(v: VcpuPtr) -> cython.void:
    """Block the running vcpu until an event comes; if one is there already, it goes on."""
    if events_need_delivery(v):
        return
    v.pause_flags |= VPF_BLOCKED
    v.pcpu.need_resched = 1


def vcpu_yield(v: VcpuPtr) -> cython.void:
    """The running vcpu lets others go first: a sibling, if one can run, else another domain."""
    u: UnitPtr = vcpu_unit(v)
    if next_after(u, v) != cython.NULL:
        u.turn_over = 1
    else:
        u.yielded = 1
    v.pcpu.need_resched = 1


def vcpu_spins(v: VcpuPtr) -> cython.void:
    """The running vcpu seems to wait for a sibling, which cannot run beside it: that goes first."""
    u: UnitPtr = vcpu_unit(v)
    if next_after(u, v) != cython.NULL:
        u.turn_over = 1
        v.pcpu.need_resched = 1


def vcpu_up(v: VcpuPtr) -> cython.void:
    """VCPUOP_up: the vcpu may run."""
    if v.pause_flags & VPF_DOWN:
        v.pause_flags &= ~cython.cast(u32, VPF_DOWN)
        made_runnable(v)


def vcpu_down(v: VcpuPtr) -> cython.void:
    """VCPUOP_down: the vcpu stops until it is brought up again."""
    if not v.pause_flags & VPF_DOWN:
        v.pause_flags |= VPF_DOWN
        stop_running(v)


def domain_sleep(d: DomainPtr) -> cython.void:
    """Something keeps the whole domain from running from now on."""
    i: u32
    for i in range(d.nr_vcpus):
        if d.vcpus[i] != cython.NULL:
            stop_running(d.vcpus[i])


def domain_wake(d: DomainPtr) -> cython.void:
    """Something that kept the whole domain from running went away."""
    i: u32
    for i in range(d.nr_vcpus):
        if d.vcpus[i] != cython.NULL:
            made_runnable(d.vcpus[i])


def domain_pause(d: DomainPtr) -> cython.void:
    """Stop the domain; pauses nest."""
    d.paused += 1
    if d.paused == 1:
        domain_sleep(d)


def domain_unpause(d: DomainPtr) -> cython.void:
    """Take back one pause."""
    if d.paused:
        d.paused -= 1
        if d.paused == 0:
            domain_wake(d)


def domain_pause_by_systemcontroller(d: DomainPtr) -> cython.bint:
    """A pause of the toolstack's: false, and nothing done, when there are 255 already (as in Xen)."""
    if d.controller_pauses == 255:
        return False
    d.controller_pauses += 1
    domain_pause(d)
    return True


def domain_unpause_by_systemcontroller(d: DomainPtr) -> cython.bint:
    """Take back a pause of the toolstack's: false when there is none."""
    if d.controller_pauses == 0:
        return False
    d.controller_pauses -= 1
    domain_unpause(d)
    return True


def domain_shutdown(d: DomainPtr, reason: u32) -> cython.void:
    """The domain ends for ``reason`` (SHUTDOWN_*), or for the one that SCHEDOP_shutdown_code announced.

    Its vcpus stop and Domain 0 is told; all else is Domain 0's business.
    """
    one: u64 = 1
    if d.shutdown_code == SHUTDOWN_CODE_INVALID:
        d.shutdown_code = cython.cast(u8, reason)
    if d.is_shut_down:
        return
    d.is_shut_down = 1
    domain_sleep(d)
    d.host.service_pending = 1
    if d.host.service_fd >= 0:
        # An eventfd: a counter at its limit could refuse this, but then it is readable already.
        write(d.host.service_fd, cython.address(one), 8)


# --- a physical CPU's loop ----------------------------------------------------------------------------------


def change_unit(p: PcpuPtr, u: UnitPtr, at: u64) -> cython.void:
    """The physical CPU goes from the unit that ran to another one, or to none."""
    cpu: PcpuSchedPtr = cpu_of(p)
    old: UnitPtr = cpu.running
    cpu.running = u
    cpu.started = at
    if u != cython.NULL:
        u.turn_end = 0
        u.waits_since = 0
    if old != cython.NULL and old.awake:
        old.waits_since = at if at else 1
        tickle(old)


def send_away(p: PcpuPtr, at: u64) -> cython.void:
    """The unit that ran here may not be here any more, or would rather be elsewhere.

    It does not go where another one is for the sake of its preference, if who waits there is soon brought here again.
    """
    u: UnitPtr = cpu_of(p).running
    target: PcpuPtr = u.pool.policy.pick_cpu(u)
    taken: cython.bint = cpu_of(target).running != cython.NULL or cpu_of(target).assigned != cython.NULL
    if target != p and not (taken and u.pool.policy.balances and allowed(u, p)):
        change_unit(p, cython.NULL, at)
        move_unit(u, target, at)
        force_reschedule(target)


def set_unit_affinity(u: UnitPtr, affinity: u64, preferred: u64) -> cython.void:
    """Say on which physical CPUs, at least one, the unit may run, and where it would rather; it leaves another one at
    once, or at its next exit if it runs there."""
    u.affinity = affinity
    u.preferred = preferred
    if allowed(u, u.home) and prefers(u, u.home):
        if u.waits_since:
            tickle(u)
        return
    if where_running(u) != cython.NULL:
        force_reschedule(u.home)
    else:
        move_unit(u, u.pool.policy.pick_cpu(u), now(u.domain.host))
        force_reschedule(u.home)


def choose_unit(p: PcpuPtr, at: u64) -> UnitPtr:
    """Charge the unit that ran, and ask the policy which one runs next; NULL: idle, until p.slice_end if set."""
    cpu: PcpuSchedPtr
    pool: CpupoolPtr
    u: UnitPtr
    until: u64
    i: u32
    had_in_view: cython.bint = p.slice_end != 0 or p.need_resched
    p.slice_end = 0
    if sched_of(p.host) == cython.NULL:
        return cython.NULL
    cpu = cpu_of(p)
    pool = cpu.pool
    if pool == cython.NULL or pool.policy == cython.NULL:
        return cython.NULL
    had_in_view = had_in_view and cpu.running == cython.NULL
    if cpu.running != cython.NULL:
        cpu.running.run_ns += at - cpu.since
        pool.policy.charge(cpu.running, at - cpu.since, at)
    cpu.since = at
    for i in range(pool.nr_awake, 0, -1):  # who falls asleep makes room for one that was looked at
        if pool.awake[i - 1].home == p:
            fell_asleep(pool.awake[i - 1], at)
    if cpu.running != cython.NULL and not (allowed(cpu.running, p) and prefers(cpu.running, p)):
        send_away(p, at)
    if leaves_pool(p):
        return cython.NULL
    pool.policy.tick(pool, at)
    u = pool.policy.do_schedule(p, at)
    if u != cpu.running:
        change_unit(p, u, at)
    if u == cython.NULL:
        until = pool.policy.deadline(p, at)
        p.slice_end = until if until != NEVER else 0
    else:
        offer(p, had_in_view)
    return u


def pick_next(p: PcpuPtr) -> VcpuPtr:
    """Choose what this physical CPU runs next, and do the guests' view of the switch; NULL: idle.

    Called by the physical CPU's own thread, out of guest code. p.current is the vcpu that ran last, or NULL,
    and stays so: loading the state of the next one, and p.current, are the caller's. Sets p.slice_end.
    """
    host: HostPtr = p.host
    at: u64 = now(host)
    last: VcpuPtr = p.current
    u: UnitPtr = choose_unit(p, at)
    chosen: VcpuPtr = cython.NULL
    if u != cython.NULL:
        chosen = next_turn(u, at)
        if u.turn_end != 0 and (p.slice_end == 0 or u.turn_end < p.slice_end):
            p.slice_end = u.turn_end
    p.need_resched = 0
    if last != cython.NULL and last != chosen and last.runstate == RUNSTATE_RUNNING:
        set_runstate(last, resting_state(last))
    if chosen == cython.NULL:
        return cython.NULL
    if chosen != last or chosen.runstate != RUNSTATE_RUNNING:
        set_runstate(chosen, RUNSTATE_RUNNING)
        update_time_record(chosen)
        run_periodic(chosen, at)
    elif time_record_stale(chosen, at):
        update_time_record(chosen)
    return chosen


def earliest_deadline(p: PcpuPtr) -> u64:
    """When something is next due here (timers, not turns), in system time; all ones: nothing is."""
    host: HostPtr = p.host
    deadline: u64 = next_watchdog(host)
    v: VcpuPtr = first_timer(p)
    if v != cython.NULL:
        deadline = min(deadline, v.timer_due)
    v = p.current
    if v != cython.NULL and v.runstate == RUNSTATE_RUNNING and not v.domain.dying:
        deadline = min(deadline, next_deadline(v))
        if v.expected_timer:
            deadline = min(deadline, v.expected_timer)
        if not host.virtual_clock:
            # Its time record wants renewal then.
            deadline = min(deadline, (v.time_version >> 32) << 30)
    return deadline


def nobody_waits(p: PcpuPtr) -> cython.bint:
    """Whether the pool has a physical CPU for each unit that is awake."""
    pool: CpupoolPtr
    if sched_of(p.host) == cython.NULL:
        return False
    pool = cpu_of(p).pool
    return pool != cython.NULL and pool.nr_awake <= pool.nr_cpus


def next_alarm(p: PcpuPtr) -> u64:
    """When the engine is to be left, for a timer or for the end of the turn, in system time; all ones: for neither.

    For a guest's tick, where leaving it is dear enough to foresee that, it is left anyway: the end of a turn that
    nobody waits for, which is the policy's accounting, goes with the next one.
    """
    deadline: u64 = earliest_deadline(p)
    v: VcpuPtr = p.current
    if p.slice_end == 0 or deadline <= p.slice_end:
        return deadline
    if v != cython.NULL and v.expected_timer and deadline - p.slice_end <= LATEST_TURN and nobody_waits(p):
        return deadline
    return p.slice_end


def rearm(current: VcpuPtr, p: PcpuPtr) -> cython.void:
    """What is next due on ``p`` may have changed by a hypercall of ``current``: set the alarm anew."""
    host: HostPtr = p.host
    deadline: u64
    at: u64
    if current.pcpu != p:
        # Its own loop sets the alarm.
        force_reschedule(p)
        return
    if p.ops == cython.NULL:
        return
    deadline = next_alarm(p)
    if deadline == NEVER:
        return
    if not host.virtual_clock:
        p.ops.set_deadline(p.engine, host.boot_ns + deadline)
    elif host.ns_per_block:
        at = now(host)
        deadline = deadline - at if deadline > at else 0
        p.ops.set_budget(p.engine, current.cpu.blocks + deadline / host.ns_per_block + 1)


def deadline_changed(current: VcpuPtr, v: VcpuPtr, before: u64) -> cython.void:
    """A hypercall of ``current`` changed the timers of ``v``, whose next deadline was ``before``.

    An alarm that comes too early does no harm, so that only an earlier deadline needs anything.
    """
    if v.pcpu != cython.NULL and next_deadline(v) < before:
        rearm(current, v.pcpu)
