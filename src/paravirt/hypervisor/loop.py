# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""A physical CPU's loop, and what it does with each exit of the guest.

The loop runs in a thread of its own, without the interpreter's lock.  It holds the machine lock except while guest
code runs: ``on_exit`` takes it when the engine calls, and gives it up when the guest goes on.
"""

import cython
from cython.cimports.paravirt.hypervisor.emulate import answer_cpuid
from cython.cimports.paravirt.hypervisor.events import apply_posted, evtchn_send, set_pending
from cython.cimports.paravirt.hypervisor.frames import flush_pcpu
from cython.cimports.paravirt.hypervisor.hypercalls.deferred import (
    allowed_shortcuts,
    begin_exit,
    carry_out_deferred,
    take_timer,
    takes_shortcuts,
)
from cython.cimports.paravirt.hypervisor.hypercalls.native import hypercall
from cython.cimports.paravirt.hypervisor.records import (
    SERVER_ANSWERS,
    SERVER_LEAVES,
    DomainPtr,
    HostPtr,
    PcpuPtr,
    PortServerPtr,
    VcpuPtr,
    pthread_cond_wait,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.sched.moving import forget_vcpu, leave_engine
from cython.cimports.paravirt.hypervisor.scheduling import earliest_deadline, next_alarm, pick_next, vcpu_spins
from cython.cimports.paravirt.hypervisor.segments import reload_segments
from cython.cimports.paravirt.hypervisor.timekeeping import guest_tsc, now, run_timers, timer_was_expected
from cython.cimports.paravirt.hypervisor.trace import trace_exit
from cython.cimports.paravirt.hypervisor.traps import (
    deliver_events,
    domain_crash,
    exception,
    software_interrupt,
    system_call,
    system_enter,
)
from cython.cimports.paravirt.hypervisor.tsc import read_tsc
from cython.cimports.paravirt.machine.cpu import (
    CPU_LEAVE,
    CPU_RESUME,
    EXIT_BUDGET,
    EXIT_CPUID,
    EXIT_EXCEPTION,
    EXIT_KICKED,
    EXIT_PAUSE,
    EXIT_RDTSC,
    EXIT_SOFTINT,
    EXIT_SYSCALL,
    EXIT_SYSENTER,
    GPR_RAX,
    GPR_RCX,
    GPR_RDX,
    CpuExitPtr,
    CpuPtr,
)

PAGE_FAULT = cython.declare(u32, 14)
NEVER = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)
# Spinning of a guest that is taken for waiting.
PAUSES_BEFORE_YIELD = cython.declare(u32, 8)
# Deterministic mode: what a trap costs, in blocks.
BLOCKS_PER_TRAP = cython.declare(u64, 50)


def advance_virtual_time(host: HostPtr, v: VcpuPtr) -> cython.void:
    """Deterministic mode: the blocks that the vcpu executed since the last look are the time that passed."""
    blocks: u64 = v.cpu.blocks - v.blocks_seen
    v.blocks_seen = v.cpu.blocks
    host.virtual_ns += blocks * host.ns_per_block


def set_alarm(pcpu: PcpuPtr, v: VcpuPtr) -> cython.void:
    """See that the engine is left when the next timer, or the vcpu's turn, is due."""
    host: HostPtr = pcpu.host
    deadline: u64 = next_alarm(pcpu)
    at: u64
    if deadline == NEVER:
        if host.virtual_clock:
            pcpu.ops.set_budget(pcpu.engine, NEVER)
        return
    if host.virtual_clock:
        at = now(host)
        deadline = deadline - at if deadline > at else 0
        # The block at which the budget ends is counted and not executed: at least one other must be.
        pcpu.ops.set_budget(pcpu.engine, v.cpu.blocks + deadline // host.ns_per_block + 2)
    else:
        pcpu.ops.set_deadline(pcpu.engine, host.boot_ns + deadline)


def time_passed(pcpu: PcpuPtr, v: VcpuPtr) -> cython.void:
    """A deadline, a kick or the end of a turn: run the timers that are due, and look at the turn."""
    run_timers(pcpu)
    if pcpu.slice_end != 0 and now(pcpu.host) >= pcpu.slice_end:
        pcpu.need_resched = 1


def may_go_on(pcpu: PcpuPtr, v: VcpuPtr) -> cython.bint:
    """Whether the vcpu goes straight back into the guest after an exit."""
    return not (
        pcpu.need_resched
        or pcpu.host.stopping
        or v.pause_flags
        or v.domain.paused
        or v.domain.is_shut_down
        or v.domain.dying
    )


def do_rdtsc(host: HostPtr, v: VcpuPtr, with_aux: cython.bint) -> cython.void:
    """rdtsc on a virtual clock."""
    tsc: u64
    advance_virtual_time(host, v)
    tsc = guest_tsc(host)
    v.cpu.gpr[GPR_RAX] = cython.cast(u32, tsc)
    v.cpu.gpr[GPR_RDX] = tsc >> 32
    if with_aux:
        v.cpu.gpr[GPR_RCX] = v.cpu.tsc_aux


def carry_out(pcpu: PcpuPtr, v: VcpuPtr, exit: CpuExitPtr) -> cython.void:
    """What the exit asks for."""
    host: HostPtr = pcpu.host
    if exit.kind == EXIT_SYSCALL:
        if v.cpu.user:
            host.stats.syscall_count += 1
            system_call(host, v)
        else:
            hypercall(host, v)
    elif exit.kind == EXIT_EXCEPTION:
        exception(host, v, exit.vector, exit.error_code, exit.address)
    elif exit.kind == EXIT_SOFTINT:
        software_interrupt(host, v, exit.vector)
    elif exit.kind == EXIT_SYSENTER:
        system_enter(host, v)
    elif exit.kind == EXIT_KICKED or exit.kind == EXIT_BUDGET:
        time_passed(pcpu, v)
    elif exit.kind == EXIT_PAUSE:
        # It waits for a sibling, which cannot run beside it: soon let that go first.
        v.pauses += 1
        if v.pauses >= PAUSES_BEFORE_YIELD:
            v.pauses = 0
            vcpu_spins(v)
    else:
        domain_crash(v.domain, exit.why, exit.vector)


def run_errand(pcpu: PcpuPtr, v: VcpuPtr) -> cython.void:
    """The guest sent Domain 0 an event that native code behind its port answers: run that here, without the lock.

    Waking Domain 0's thread, and the guest's again, would take longer than most requests do.  To everybody else the
    vcpu is in guest code meanwhile.
    """
    host: HostPtr = pcpu.host
    zero: DomainPtr = host.domains[0]
    port: u32 = pcpu.errand
    server: PortServerPtr = zero.ports[port].server
    started: u64 = read_tsc()
    answer: u32
    pcpu.errand = 0
    if server == cython.NULL:  # closed since, in the same hypercall
        return
    add_atomically(cython.address(server.uses), 1)
    v.on_cpu = 1
    pthread_mutex_unlock(cython.address(host.lock))
    answer = server.serve(server)
    lock_soon(cython.address(host.lock))
    v.on_cpu = 0
    host.stats.errand_ns += read_tsc() - started
    if zero.ports[port].server != server:  # closed meanwhile
        return
    if answer & SERVER_ANSWERS:
        evtchn_send(host, zero, port)
    if answer & SERVER_LEAVES:
        set_pending(zero, port)


def on_exit(owner: cython.p_void, cpu: CpuPtr, exit: CpuExitPtr) -> cython.int:
    """The engine's handler: the guest stopped, the hypervisor acts, and the guest goes on or is descheduled."""
    pcpu: PcpuPtr = cython.cast(PcpuPtr, owner)
    v: VcpuPtr = cython.cast(VcpuPtr, cpu)
    host: HostPtr = pcpu.host
    started: u64 = read_tsc()
    before: u64
    late: cython.bint = v.cpu.nr_deferred != 0
    answer: cython.int = CPU_RESUME
    lock_soon(cython.address(host.lock))
    v.on_cpu = 0
    host.stats.exit_count += 1
    host.stats.exit_kinds[exit.kind & 15] += 1
    if takes_shortcuts(pcpu):
        begin_exit(v)
        if v.cpu.timer_set:
            take_timer(v)
    if late:
        carry_out_deferred(host, v)
    if exit.kind == EXIT_CPUID:
        answer_cpuid(host, v)
    elif exit.kind == EXIT_RDTSC:
        do_rdtsc(host, v, exit.vector)
    else:
        if host.virtual_clock:
            v.cpu.blocks += BLOCKS_PER_TRAP
            advance_virtual_time(host, v)
        # A page fault may have been for want of an update that was put off: it comes again if not.
        if not (late and exit.kind == EXIT_EXCEPTION and exit.vector == PAGE_FAULT):
            carry_out(pcpu, v, exit)
        if pcpu.errand:
            before = read_tsc()
            run_errand(pcpu, v)
            started += read_tsc() - before
        if host.trace_on:
            trace_exit(host, v, exit)
        if v.domain.posted:
            apply_posted(v.domain)
        if may_go_on(pcpu, v):
            deliver_events(v)
        if not may_go_on(pcpu, v):
            answer = CPU_LEAVE
        else:
            if exit.kind == EXIT_KICKED or exit.kind == EXIT_BUDGET:
                set_alarm(pcpu, v)
            pcpu.ops.commit(pcpu.engine)
    if takes_shortcuts(pcpu):
        v.cpu.shortcuts = allowed_shortcuts(v)
    spent: u64 = read_tsc() - started
    if exit.kind == EXIT_EXCEPTION:
        host.stats.trap_count[exit.vector & 31] += 1
        host.stats.trap_ns[exit.vector & 31] += spent
    host.stats.handler_ns += spent
    if spent > host.stats.most_handler_ns:
        host.stats.most_handler_ns = spent
    if answer == CPU_RESUME:
        v.on_cpu = 1
    pthread_mutex_unlock(cython.address(host.lock))
    return answer


def wait_for_work(pcpu: PcpuPtr) -> cython.bint:
    """Nothing can run: sleep until a timer is due or somebody wakes this physical CPU.

    Returns false when a virtual clock stands still for ever: nothing is due and nobody can wake it.
    """
    host: HostPtr = pcpu.host
    deadline: u64 = earliest_deadline(pcpu)
    started: u64 = read_tsc()
    if pcpu.slice_end != 0 and pcpu.slice_end < deadline:
        deadline = pcpu.slice_end
    if host.virtual_clock and deadline != NEVER:
        if deadline > host.virtual_ns:
            host.virtual_ns = deadline
        return True
    pcpu.idle = 1
    if deadline == NEVER:
        pthread_cond_wait(cython.address(pcpu.wake), cython.address(host.lock))
    else:
        cond_wait_until(cython.address(pcpu.wake), cython.address(host.lock), host.boot_ns + deadline)
    pcpu.idle = 0
    host.stats.idle_ns += read_tsc() - started
    return True


def enter_guest(pcpu: PcpuPtr, v: VcpuPtr) -> cython.void:
    """Load the vcpu and run it until it is descheduled.  Called, and returns, with the machine lock held."""
    host: HostPtr = pcpu.host
    started: u64
    if pcpu.current != v:
        forget_vcpu(host, v)
        leave_engine(pcpu)
        pcpu.current = v
        v.domain.visited |= cython.cast(u64, 1) << pcpu.id
        v.cpu.segs_dirty = 1
        host.stats.world_switches += 1
        flush_pcpu(pcpu)
    if v.domain.posted:
        apply_posted(v.domain)
    v.left_process = 0
    reload_segments(v)
    deliver_events(v)
    if not may_go_on(pcpu, v):
        return
    if v.expected_timer:
        timer_was_expected(v, now(host))
    set_alarm(pcpu, v)
    if takes_shortcuts(pcpu):
        v.cpu.shortcuts = allowed_shortcuts(v)
    host.stats.engine_enters += 1
    started = read_tsc()
    v.on_cpu = 1
    pthread_mutex_unlock(cython.address(host.lock))
    pcpu.ops.run(pcpu.engine, cython.address(v.cpu), on_exit, pcpu)
    pthread_mutex_lock(cython.address(host.lock))
    v.on_cpu = 0
    host.stats.engine_ns += read_tsc() - started


def run_pcpu(pcpu: PcpuPtr) -> cython.void:
    """The loop: timers, choice, guest, until the machine stops."""
    host: HostPtr = pcpu.host
    v: VcpuPtr
    pthread_mutex_lock(cython.address(host.lock))
    while not host.stopping:
        if host.service_pending and host.deterministic:
            host.service_step(host)
        run_timers(pcpu)
        v = pick_next(pcpu)
        if v == cython.NULL:
            if not host.stopping:
                wait_for_work(pcpu)
        else:
            enter_guest(pcpu, v)
    pthread_mutex_unlock(cython.address(host.lock))
