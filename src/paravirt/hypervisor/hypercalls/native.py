# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Hypercalls: the table by number, its dispatch, multicall, and the four that only touch registers.

A guest's kernel calls with the number in rax and arguments in rdi, rsi, rdx, r10, r8, r9; the answer comes back
in rax.  A number without a native handler goes to the Python families (families.py: the host puts its trampoline in
the table); a number nobody handles is -ENOSYS.
"""

import cython
from cython.cimports.paravirt.abi.constants import (
    EFAULT,
    EINVAL,
    ENOSYS,
    SEGBASE_FS,
    SEGBASE_GS_KERNEL,
    SEGBASE_GS_USER,
    SEGBASE_GS_USER_SEL,
    HYPERVISOR_event_channel_op,
    HYPERVISOR_event_channel_op_compat,
    HYPERVISOR_fpu_taskswitch,
    HYPERVISOR_iret,
    HYPERVISOR_mmu_update,
    HYPERVISOR_mmuext_op,
    HYPERVISOR_multicall,
    HYPERVISOR_sched_op,
    HYPERVISOR_sched_op_compat,
    HYPERVISOR_set_gdt,
    HYPERVISOR_set_segment_base,
    HYPERVISOR_set_timer_op,
    HYPERVISOR_stack_switch,
    HYPERVISOR_update_descriptor,
    HYPERVISOR_update_va_mapping,
    HYPERVISOR_update_va_mapping_otherdomain,
    HYPERVISOR_vcpu_op,
)
from cython.cimports.paravirt.hypervisor.guestmem import copy_from_guest, copy_to_guest, is_canonical
from cython.cimports.paravirt.hypervisor.hypercalls.descriptor_tables import do_set_gdt, do_update_descriptor
from cython.cimports.paravirt.hypervisor.hypercalls.event_channel_op import (
    do_event_channel_op,
    do_event_channel_op_compat,
)
from cython.cimports.paravirt.hypervisor.hypercalls.mmu_ops import (
    do_mmu_update,
    do_mmuext_op,
    do_update_va_mapping,
    do_update_va_mapping_otherdomain,
)
from cython.cimports.paravirt.hypervisor.hypercalls.sched_op import (
    do_sched_op,
    do_sched_op_compat,
    do_set_timer_op,
)
from cython.cimports.paravirt.hypervisor.hypercalls.vcpu_op import do_vcpu_op
from cython.cimports.paravirt.hypervisor.promotion import note_work, work_spent
from cython.cimports.paravirt.hypervisor.records import (
    ANSWER_ERROR,
    REFUSED_NOTHING,
    HostPtr,
    VcpuPtr,
    i64,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.refusals import note_refusal
from cython.cimports.paravirt.hypervisor.segments import load_segment
from cython.cimports.paravirt.hypervisor.traps import iret
from cython.cimports.paravirt.hypervisor.tsc import read_tsc
from cython.cimports.paravirt.machine.cpu import (
    GPR_R8,
    GPR_R9,
    GPR_R10,
    GPR_R11,
    GPR_RAX,
    GPR_RCX,
    GPR_RDI,
    GPR_RDX,
    GPR_RSI,
    SEG_FS,
    SEG_GS,
    U64Ptr,
)

NR_HYPERCALLS = cython.declare(u64, 64)
# Above it are error numbers, negative.
LAST_ANSWER = cython.declare(u64, cython.cast(u64, 0xFFFFFFFFFFFFF000))
# What a call of a batch counts beside its own work, in looks at page-table entries.
WORK_OF_CALL = cython.declare(u64, 16)
# Deterministic mode: so much work takes as long as one of the guest's blocks.
WORK_PER_BLOCK = cython.declare(u64, 2)


def dispatch(host: HostPtr, v: VcpuPtr, number: u64, args: U64Ptr) -> i64:
    """Carry out one hypercall and account for its time."""
    started: u64
    answer: i64
    if number >= NR_HYPERCALLS or host.hypercalls[number] == cython.NULL:
        return -ENOSYS
    v.hypercall = cython.cast(u32, number)
    host.refused.kind = REFUSED_NOTHING
    host.refused.command = 0
    started = read_tsc()
    answer = host.hypercalls[number](host, v, args)
    if cython.cast(u64, answer) > LAST_ANSWER and number != HYPERVISOR_iret:
        note_refusal(host, v, cython.cast(u32, number), args, ANSWER_ERROR, answer)
    host.stats.hypercall_count[number] += 1
    host.stats.hypercall_ns[number] += read_tsc() - started
    return answer


def hypercall(host: HostPtr, v: VcpuPtr) -> cython.void:
    """``syscall`` from the guest's kernel."""
    args: u64[6]
    number: u64 = v.cpu.gpr[GPR_RAX]
    answer: i64
    v.cpu.gpr[GPR_RCX] = v.cpu.rip
    v.cpu.gpr[GPR_R11] = v.cpu.rflags
    args[0] = v.cpu.gpr[GPR_RDI]
    args[1] = v.cpu.gpr[GPR_RSI]
    args[2] = v.cpu.gpr[GPR_RDX]
    args[3] = v.cpu.gpr[GPR_R10]
    args[4] = v.cpu.gpr[GPR_R8]
    args[5] = v.cpu.gpr[GPR_R9]
    v.preempted = 0
    host.work = 0
    answer = dispatch(host, v, number, args)
    note_work(host)
    if host.virtual_clock:
        v.cpu.blocks += host.work // WORK_PER_BLOCK
    # iret has set every register itself, a trap that it bounced included.
    if number != HYPERVISOR_iret:
        v.cpu.gpr[GPR_RAX] = cython.cast(u64, answer)


def continue_multicall(v: VcpuPtr, at: u64, count: u64) -> i64:
    """Have the guest make a batch of the remaining calls."""
    v.cpu.gpr[GPR_RDI] = at
    v.cpu.gpr[GPR_RSI] = count
    v.cpu.rip -= 2
    return HYPERVISOR_multicall


def do_multicall(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """A batch: {op, result, args[6]} each; results are written back one by one.  A batch within one is refused.

    iret ends the batch: the registers, and the page tables if it went to user mode, are no longer the caller's.
    """
    entry: u64[8]
    answer: i64
    at: u64 = args[0]
    count: u64 = args[1] & cython.cast(u64, 0xFFFFFFFF)
    i: u64
    if v.in_multicall:
        return -EINVAL
    v.in_multicall = 1
    for i in range(count):
        host.work += WORK_OF_CALL
        if i != 0 and work_spent(host):
            v.in_multicall = 0
            return continue_multicall(v, at, count - i)
        if copy_from_guest(v, entry, at, 64) != 0:
            v.in_multicall = 0
            return -EFAULT
        answer = dispatch(host, v, entry[0], cython.address(entry[2]))
        if v.preempted:
            # The rest of this call, and of the batch, is another batch, which the guest makes at once.
            v.preempted = 0
            v.in_multicall = 0
            if copy_to_guest(v, at + 16, cython.address(entry[2]), 48) != 0:
                return -EFAULT
            return continue_multicall(v, at, count - i)
        entry[1] = cython.cast(u64, answer)
        if entry[0] == HYPERVISOR_iret:
            v.in_multicall = 0
            if not v.cpu.user:
                copy_to_guest(v, at + 8, cython.address(entry[1]), 8)
            return cython.cast(i64, v.cpu.gpr[GPR_RAX])
        if copy_to_guest(v, at + 8, cython.address(entry[1]), 8) != 0:
            v.in_multicall = 0
            return -EFAULT
        at += 64
        if v.domain.crashed:
            break
    v.in_multicall = 0
    return 0


def do_iret(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """Return from a trap: see traps.iret."""
    return iret(v)


def do_stack_switch(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """The kernel stack (ss, rsp) on which traps from user mode arrive."""
    v.kernel_ss = args[0] | 3
    v.kernel_sp = args[1]
    return 0


def do_fpu_taskswitch(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """Set or clear the guest's CR0.TS: the next floating-point instruction traps, or does not."""
    v.guest_ts = args[0] != 0
    v.cpu.ts = v.guest_ts
    return 0


def do_set_segment_base(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """Set the FS base, the user or kernel GS base, or load the user GS selector."""
    which: u32 = cython.cast(u32, args[0])
    base: u64 = args[1]
    if which == SEGBASE_GS_USER_SEL:
        # The user's GS: loaded as if swapgs stood before and after.
        v.cpu.seg[SEG_GS].base, v.gs_base_kernel = v.gs_base_kernel, v.cpu.seg[SEG_GS].base
        if load_segment(host, v, SEG_GS, cython.cast(u16, base)) != 0:
            load_segment(host, v, SEG_GS, 0)
        v.cpu.seg[SEG_GS].base, v.gs_base_kernel = v.gs_base_kernel, v.cpu.seg[SEG_GS].base
        v.cpu.segs_dirty = 1
        return 0
    if which != SEGBASE_FS and which != SEGBASE_GS_USER and which != SEGBASE_GS_KERNEL:
        return -EINVAL
    if not is_canonical(base):
        return -EINVAL
    if which == SEGBASE_FS:
        v.cpu.seg[SEG_FS].base = base
        v.cpu.segs_dirty = 1
    elif which == SEGBASE_GS_USER:
        v.gs_base_kernel = base
    else:
        v.cpu.seg[SEG_GS].base = base
        v.cpu.segs_dirty = 1
    return 0


def register_native(host: HostPtr) -> cython.void:
    """Fill the table with the handlers that run without the interpreter."""
    host.hypercalls[HYPERVISOR_mmu_update] = do_mmu_update
    host.hypercalls[HYPERVISOR_set_gdt] = do_set_gdt
    host.hypercalls[HYPERVISOR_stack_switch] = do_stack_switch
    host.hypercalls[HYPERVISOR_fpu_taskswitch] = do_fpu_taskswitch
    host.hypercalls[HYPERVISOR_sched_op_compat] = do_sched_op_compat
    host.hypercalls[HYPERVISOR_update_descriptor] = do_update_descriptor
    host.hypercalls[HYPERVISOR_multicall] = do_multicall
    host.hypercalls[HYPERVISOR_update_va_mapping] = do_update_va_mapping
    host.hypercalls[HYPERVISOR_update_va_mapping_otherdomain] = do_update_va_mapping_otherdomain
    host.hypercalls[HYPERVISOR_set_timer_op] = do_set_timer_op
    host.hypercalls[HYPERVISOR_event_channel_op_compat] = do_event_channel_op_compat
    host.hypercalls[HYPERVISOR_iret] = do_iret
    host.hypercalls[HYPERVISOR_vcpu_op] = do_vcpu_op
    host.hypercalls[HYPERVISOR_set_segment_base] = do_set_segment_base
    host.hypercalls[HYPERVISOR_mmuext_op] = do_mmuext_op
    host.hypercalls[HYPERVISOR_sched_op] = do_sched_op
    host.hypercalls[HYPERVISOR_event_channel_op] = do_event_channel_op
