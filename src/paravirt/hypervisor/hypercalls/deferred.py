# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Hypercalls that an engine may answer before the hypervisor sees them (cpu.h, SHORTCUT).

An update of one L1 entry nearly always succeeds, and Linux makes one at a time.  An engine to which leaving the
guest is dear says so at once, and the hypervisor carries out what was put off before it looks at the next exit: in
order, and checked like any other update.  What differs is seen by a guest whose update is refused, since it has been
told otherwise: so only one with a long row of updates of which none was refused is served like that, and after the
first refusal it never is again.  With several vcpus one would not see what another has put off.

And it is seen by a guest that reads an entry back before its next exit.  Linux does, wherever it reaches into memory
by way of the tables: it makes pages present and looks for them there (mlock, MAP_POPULATE), and puts pages elsewhere
and looks for what it left in their places (compaction).  It does not while it serves a page fault of a process: it
looks at the entries, makes what is missing, and goes back.  So updates are put off from such a fault to the next exit
only, single updates aside: whatever takes an entry away, changes tables or tasks, or sleeps, is another exit.  And
before there are processes, when a kernel patches its code and maps what it needs, and has no such memory.
"""

import cython
from cython.cimports.paravirt.abi.constants import (
    EINVAL,
    ERESTART,
    MMU_NORMAL_PT_UPDATE,
    MMU_PT_UPDATE_PRESERVE_AD,
    HYPERVISOR_mmu_update,
    HYPERVISOR_vcpu_op,
)
from cython.cimports.paravirt.hypervisor.hypercalls.mmu_ops import update_one
from cython.cimports.paravirt.hypervisor.records import (
    ANSWER_ERROR,
    FRAME_L1,
    REFUSED_NOTHING,
    SERVES_BEFORE,
    SERVES_NOTHING,
    SERVES_NOW,
    HostPtr,
    VcpuPtr,
    i64,
    u8,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.refusals import note_refusal, refuse_frame
from cython.cimports.paravirt.hypervisor.timekeeping import signed_deadline
from cython.cimports.paravirt.hypervisor.timers import set_singleshot
from cython.cimports.paravirt.hypervisor.tsc import read_tsc
from cython.cimports.paravirt.machine.cpu import SHORTCUT_ABSENT_VCPUS, SHORTCUT_TIMER, SHORTCUT_UPDATES, U64Ptr

# How late a timer may go off, in ns: as on Xen.
TIMER_SLOP = cython.declare(u64, 50_000)
# Updates in a row, all of them good, before one may be put off.
TRUSTED = cython.declare(u32, 1000)
NEVER_TRUSTED = cython.declare(u32, 0xFFFFFFFF)


def may_put_off(v: VcpuPtr) -> cython.bint:
    """Whether updates may be put off now, of a domain's only vcpu."""
    return TRUSTED <= v.good_updates < NEVER_TRUSTED and (v.serves_fault == SERVES_NOW or not v.ran_processes)


def allowed_shortcuts(v: VcpuPtr) -> u8:
    """What an engine may answer by itself; nothing that a trace has to show."""
    allowed: u8 = SHORTCUT_ABSENT_VCPUS
    if v.domain.nr_vcpus != 1 or v.domain.host.trace_on:
        return 0
    if may_put_off(v):
        allowed |= SHORTCUT_UPDATES
    if v.expected_timer:
        v.cpu.timer_from = v.expected_timer - TIMER_SLOP
        allowed |= SHORTCUT_TIMER
    return allowed


def take_timer(v: VcpuPtr) -> cython.void:
    """The guest has set its singleshot timer, which the engine has answered: to anything that a hypercall could."""
    set_singleshot(v, signed_deadline(v.cpu.timer_set))
    v.cpu.timer_set = 0
    v.domain.host.stats.hypercall_count[HYPERVISOR_vcpu_op] += 1


def begin_exit(v: VcpuPtr) -> cython.void:
    """The guest was left: unless this is one more update, its kernel may do anything from now on."""
    if v.cpu.user:
        v.ran_processes = 1
    v.serves_fault = SERVES_BEFORE if v.serves_fault == SERVES_NOW else SERVES_NOTHING


def note_update(v: VcpuPtr, count: u32, table_mfn: u64, rc: i64) -> cython.void:
    """An mmu_update of ``count`` entries, the last of them in ``table_mfn``, came to its end with ``rc``."""
    host: HostPtr = v.domain.host
    if not takes_shortcuts(v.pcpu):
        return
    if rc < 0 and rc != -ERESTART:
        v.good_updates = NEVER_TRUSTED
        return
    if rc != 0 or count != 1 or v.in_multicall:
        return
    if v.serves_fault == SERVES_BEFORE:
        v.serves_fault = SERVES_NOW
    if v.good_updates < TRUSTED:
        v.good_updates += 1
    elif (
        may_put_off(v)
        and host.frames[table_mfn].type == FRAME_L1
        and host.frames[table_mfn].type_refs != 0
    ):
        v.pcpu.ops.defer_table(v.pcpu.engine, cython.address(v.cpu), table_mfn)


def update_now(host: HostPtr, v: VcpuPtr, request: U64Ptr) -> i64:
    """One update: 0, or why it is refused.

    The engine puts off those of L1 tables, which are no work to speak of and leave nothing over; but where it keeps
    them may be open to the guest's kernel, and anything else found there is refused: there is no way to make a part of
    it now and the rest later.
    """
    command: u64 = request[0] & 7
    mfn: u64 = request[0] >> 12
    if (
        (command != MMU_NORMAL_PT_UPDATE and command != MMU_PT_UPDATE_PRESERVE_AD)
        or mfn >= host.nr_frames
        or host.frames[mfn].type != FRAME_L1
        or host.frames[mfn].type_refs == 0
    ):
        return refuse_frame(host, mfn, -EINVAL)
    return update_one(v, request, v.domain.domid, v.domain.domid)


def carry_out_deferred(host: HostPtr, v: VcpuPtr) -> cython.void:
    """Make the updates that the engine has answered."""
    started: u64 = read_tsc()
    count: u32 = v.cpu.nr_deferred
    args: u64[6]
    request: u64[2]
    rc: i64
    i: u32
    v.cpu.nr_deferred = 0
    host.work = 0
    host.old = cython.address(v.old)
    v.hypercall = HYPERVISOR_mmu_update
    v.domain.nr_pt_updates += count
    for i in range(count):
        request[0] = v.cpu.deferred[2 * i]
        request[1] = v.cpu.deferred[2 * i + 1]
        host.refused.kind = REFUSED_NOTHING
        rc = update_now(host, v, request)
        if rc != 0:
            args[0] = request[0]
            args[1] = 1
            args[2] = 0
            args[3] = 0
            note_refusal(host, v, HYPERVISOR_mmu_update, args, ANSWER_ERROR, rc)
            note_update(v, 1, 0, rc)
    host.stats.hypercall_count[HYPERVISOR_mmu_update] += count
    host.stats.hypercall_ns[HYPERVISOR_mmu_update] += read_tsc() - started
