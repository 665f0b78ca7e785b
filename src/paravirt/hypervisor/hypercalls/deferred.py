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

An iret to just where the process was left may be answered while nothing but such calls came in between: whatever else
a kernel does with tables, descriptors or bases is an exit.
"""

import cython
from cython.cimports.paravirt.abi.constants import (
    EINVAL,
    ERESTART,
    MMU_NORMAL_PT_UPDATE,
    MMU_PT_UPDATE_PRESERVE_AD,
    HYPERVISOR_iret,
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
from cython.cimports.paravirt.machine.cpu import (
    SEG_CS,
    SEG_SS,
    SHORTCUT_ABSENT_VCPUS,
    SHORTCUT_RETURN,
    SHORTCUT_TIMER,
    SHORTCUT_UPDATES,
    U64Ptr,
)

RFLAGS_IF = cython.declare(u64, 0x200)
# Of a process's flags: TF, IF, IOPL, NT, VM, VIF, VIP.
RETURN_FLAGS = cython.declare(u64, 0x1A7300)
LOWER_HALF = cython.declare(u64, 1 << 47)
LONG_MODE = cython.declare(u32, 1 << 21)
# vm_assist: flags take the guest kernel's I/O privilege level.
ARCHITECTURAL_IOPL = cython.declare(u64, 1 << 4)
# How late a timer may go off, in ns: as on Xen.
TIMER_SLOP = cython.declare(u64, 50_000)
# Updates in a row, all of them good, before one may be put off.
TRUSTED = cython.declare(u32, 1000)
NEVER_TRUSTED = cython.declare(u32, 0xFFFFFFFF)


def may_put_off(v: VcpuPtr) -> cython.bint:
    """Whether updates may be put off now, of a domain's only vcpu."""
    return TRUSTED <= v.good_updates < NEVER_TRUSTED and (v.serves_fault == SERVES_NOW or not v.ran_processes)


def may_return(v: VcpuPtr) -> cython.bint:
    """Whether an iret to where the process was left would change nothing but mode, registers and the event mask.

    What is asked for beyond that: an ordinary process, of 64 bits, with no base in GS, that is not stepped through; and
    a vcpu_info that will not move.
    """
    return (
        v.left_process
        and not v.cpu.user
        and v.gs_base_kernel == 0
        and v.info_mfn != 0
        and not v.nmi_masked
        and v.cpu.process.rflags & RETURN_FLAGS == RFLAGS_IF
        and v.cpu.process.rip < LOWER_HALF
        and v.cpu.process.cs.flags & LONG_MODE != 0
        and not v.domain.arch_vm_assist & ARCHITECTURAL_IOPL
    )


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
    if may_return(v):
        v.cpu.vcpu_info = (v.info_mfn << 12) | (cython.cast(size_t, v.info) & 0xFFF)
        allowed |= SHORTCUT_RETURN
    return allowed


def take_timer(v: VcpuPtr) -> cython.void:
    """The guest has set its singleshot timer, which the engine has answered: to anything that a hypercall could."""
    set_singleshot(v, signed_deadline(v.cpu.timer_set))
    v.cpu.timer_set = 0
    v.domain.host.stats.hypercall_count[HYPERVISOR_vcpu_op] += 1


def take_return(v: VcpuPtr) -> cython.void:
    """The guest's kernel has gone back to its process, which the engine has answered: see traps.iret."""
    v.cpu.returned = 0
    v.gs_base_kernel = v.cpu.kernel_gs
    v.domain.host.stats.hypercall_count[HYPERVISOR_iret] += 1


def begin_exit(v: VcpuPtr) -> cython.void:
    """The guest was left: unless this is one more update, its kernel may do anything from now on."""
    if v.cpu.returned:
        take_return(v)
    v.left_process = 0
    if v.cpu.user:
        v.ran_processes = 1
        v.cpu.process.cs = v.cpu.seg[SEG_CS]
        v.cpu.process.ss = v.cpu.seg[SEG_SS]
    else:
        v.cpu.process.cs.flags = 0  # a process that is entered, and left before it runs, was not left like this
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
