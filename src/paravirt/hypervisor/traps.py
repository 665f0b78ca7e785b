# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Traps: how control passes into the guest's kernel, and back.

An exception of the guest, or an event for it, *bounces*: the hypervisor builds on the guest kernel's stack the
frame that the processor would have built (plus rcx and r11, which ``syscall`` destroys), and continues at the
handler that the guest registered.  The frame's CS word carries the saved event mask in its upper half, its CS has
RPL 0 when the kernel itself was interrupted, and its flags show IF as "events were not masked".  ``iret`` is the
way back.  (Interface manual, "Traps"; public/arch-x86/xen.h.)

A guest whose stack cannot take the frame, or that has no handler, is crashed: on hardware it would triple-fault.

All functions are called under the machine lock, by the physical CPU that runs the vcpu.
"""

import cython
from cython.cimports.libc.stddef import size_t
from cython.cimports.paravirt.hypervisor.emulate import emulate_forced_ud, emulate_privileged
from cython.cimports.paravirt.hypervisor.guestmem import copy_from_guest, copy_to_guest, in_guest_range
from cython.cimports.paravirt.hypervisor.m2pread import in_machine_to_phys, read_machine_to_phys
from cython.cimports.paravirt.hypervisor.mmu import write_fault
from cython.cimports.paravirt.hypervisor.records import (
    SERVES_NOTHING,
    SERVES_NOW,
    CallbackPtr,
    DomainPtr,
    HostPtr,
    TrapEntryPtr,
    VcpuPtr,
    i64,
    u8,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.scheduling import domain_shutdown
from cython.cimports.paravirt.hypervisor.segments import emulate_segment, fault, load_code_and_stack
from cython.cimports.paravirt.machine.cpu import (
    GPR_R11,
    GPR_RAX,
    GPR_RCX,
    GPR_RSP,
    SEG_CS,
    SEG_DS,
    SEG_ES,
    SEG_FS,
    SEG_GS,
    SEG_SS,
    U64Ptr,
)

FLAT_KERNEL_CS = cython.declare(u16, 0xE033)
FLAT_KERNEL_SS = cython.declare(u16, 0xE02B)
FLAT_USER_CS32 = cython.declare(u16, 0xE023)
CODE64_FLAGS = cython.declare(u32, 0x00A0FB00)  # present, DPL 3, code, readable, accessed; L and G
DATA_FLAGS = cython.declare(u32, 0x00C0F300)  # present, DPL 3, data, writable, accessed; B and G
CODE32_FLAGS = cython.declare(u32, 0x00C0FB00)

RFLAGS_TF = cython.declare(u64, 0x100)
RFLAGS_IF = cython.declare(u64, 0x200)
RFLAGS_IOPL = cython.declare(u64, 0x3000)
RFLAGS_VM = cython.declare(u64, 0x20000)
# What iret restores: CF PF AF ZF SF TF DF OF NT RF AC ID.
IRET_FLAGS = cython.declare(u64, 0x254DD5)
# Cleared on entry to a handler: TF, NT, RF, VM, AC.
CLEARED_ON_ENTRY = cython.declare(u64, 0x74100)

DR6_SINGLE_STEP = cython.declare(u64, 0x4000)
DR6_FIXED = cython.declare(u64, 0xFFFF0FF0)
# vm_assist: flags show and take the guest kernel's I/O privilege level.
ARCHITECTURAL_IOPL = cython.declare(u64, 1 << 4)
VGCF_IN_SYSCALL = cython.declare(u64, 256)
SHUTDOWN_CRASH = cython.declare(u32, 3)

# vcpu_info
UPCALL_PENDING = cython.declare(size_t, 0)
UPCALL_MASK = cython.declare(size_t, 1)
ARCH_CR2 = cython.declare(size_t, 16)

# Vectors that push an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC.
HAS_ERROR = cython.declare(
    u32, (1 << 8) | (1 << 10) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 14) | (1 << 17)
)


def domain_crash(d: DomainPtr, reason: cython.p_const_char, detail: u64) -> cython.void:
    """The guest did something that ends it.  ``reason`` is a static sentence, ``detail`` a number for it."""
    if d.crashed:
        return
    d.crashed = 1
    d.crash_reason = cython.cast(u64, cython.cast(size_t, reason))
    d.crash_detail = detail
    domain_shutdown(d, SHUTDOWN_CRASH)


def toggle_mode(v: VcpuPtr) -> cython.void:
    """Change between the guest's kernel and its processes: the page table, and the two GS bases, change places."""
    base: u64 = v.cpu.seg[SEG_GS].base
    v.cpu.user = not v.cpu.user
    v.cpu.seg[SEG_GS].base = v.gs_base_kernel
    v.gs_base_kernel = base
    v.cpu.segs_dirty = 1


def set_flat(v: VcpuPtr, seg: cython.int, selector: u16, flags: u32) -> cython.void:
    """Load one of the hypervisor's flat segments."""
    v.cpu.seg[seg].selector = selector
    v.cpu.seg[seg].flags = flags
    v.cpu.seg[seg].limit = cython.cast(u32, 0xFFFFFFFF)
    v.cpu.seg[seg].base = 0
    v.cpu.segs_dirty = 1


def push_frame(v: VcpuPtr, words: U64Ptr, count: u32) -> cython.bint:
    """Write ``count`` words below the (aligned) stack pointer and move it: false if the stack cannot take them."""
    sp: u64 = v.cpu.gpr[GPR_RSP] - 8 * cython.cast(u64, count)
    if copy_to_guest(v, sp, words, 8 * cython.cast(u64, count)) != 0:
        domain_crash(v.domain, "cannot write the bounce frame to the guest kernel's stack", sp)
        return False
    v.cpu.gpr[GPR_RSP] = sp
    return True


def finish_frame(v: VcpuPtr, words: U64Ptr, n: u32) -> cython.bint:
    """Switch to the guest kernel's mode and stack, and push the bounce frame.

    Its first ``n`` words are there; what an ``iretq`` pops follows: RIP, CS with the event mask, flags, RSP and SS.
    """
    sp: u64 = v.cpu.gpr[GPR_RSP]
    cs: u64 = v.cpu.seg[SEG_CS].selector
    ss: u64 = v.cpu.seg[SEG_SS].selector
    mask: u8 = v.info[UPCALL_MASK]
    v.serves_fault = SERVES_NOTHING
    left: cython.bint = v.cpu.user
    if left:
        toggle_mode(v)
        v.cpu.gpr[GPR_RSP] = v.kernel_sp
    else:
        cs &= ~cython.cast(u64, 3)
    v.cpu.gpr[GPR_RSP] &= ~cython.cast(u64, 15)
    words[n] = v.cpu.rip
    words[n + 1] = cs | cython.cast(u64, mask) << 32
    words[n + 2] = v.cpu.rflags & ~(RFLAGS_IF | RFLAGS_IOPL)
    if not mask:
        words[n + 2] |= RFLAGS_IF
    if v.domain.arch_vm_assist & ARCHITECTURAL_IOPL:
        words[n + 2] |= cython.cast(u64, v.iopl) << 12
    words[n + 3] = sp
    words[n + 4] = ss
    if left and v.cpu.has_shortcuts:
        v.left_process = 1
        v.cpu.process.rip = words[n]
        v.cpu.process.rflags = words[n + 2]
        v.cpu.process.rsp = sp
    return push_frame(v, words, n + 5)


def enter_handler(v: VcpuPtr, address: u64, mask_events: cython.bint) -> cython.void:
    """Continue at the guest kernel's handler at ``address``, whose frame is built."""
    if mask_events:
        v.info[UPCALL_MASK] = 1
    v.cpu.rflags &= ~CLEARED_ON_ENTRY
    v.cpu.rip = address
    set_flat(v, SEG_CS, FLAT_KERNEL_CS, CODE64_FLAGS)
    set_flat(v, SEG_SS, FLAT_KERNEL_SS, DATA_FLAGS)


def enter_kernel(
    v: VcpuPtr, address: u64, mask_events: cython.bint, has_error: cython.bint, error: u32
) -> cython.void:
    """Build the bounce frame and continue at the guest kernel's handler at ``address``, which is registered."""
    words: u64[8]
    n: u32 = 2
    words[0] = v.cpu.gpr[GPR_RCX]
    words[1] = v.cpu.gpr[GPR_R11]
    if has_error:
        words[n] = error
        n += 1
    if finish_frame(v, words, n):
        enter_handler(v, address, mask_events)


def inject_exception(v: VcpuPtr, vector: u32, error: u32, cr2: u64) -> cython.void:
    """Give the guest an exception; ``cr2`` counts for a page fault, ``error`` where the vector has an error code."""
    entry: TrapEntryPtr = cython.address(v.traps[vector])
    if vector == 14:
        error &= ~cython.cast(u32, 4)
        if v.cpu.user:
            error |= 4
        cython.cast(U64Ptr, v.info + ARCH_CR2)[0] = cr2
    if entry.address == 0:
        domain_crash(v.domain, "an exception for which the guest has no handler", vector)
        return
    enter_kernel(
        v, entry.address, entry.mask_events, (HAS_ERROR >> vector) & 1 if vector < 32 else False, error
    )


def inject_gp(v: VcpuPtr, error: u32) -> cython.void:
    """General protection."""
    inject_exception(v, 13, error, 0)


def inject_failsafe(v: VcpuPtr) -> cython.void:
    """A segment register of the guest cannot be loaded: enter its failsafe callback, which finds the selectors."""
    words: u64[11]
    if v.failsafe_callback.address == 0:
        domain_crash(
            v.domain,
            "a segment register cannot be loaded, and there is no failsafe callback",
            v.cpu.seg[SEG_CS].selector,
        )
        return
    words[0] = v.cpu.gpr[GPR_RCX]
    words[1] = v.cpu.gpr[GPR_R11]
    words[2] = v.cpu.seg[SEG_DS].selector
    words[3] = v.cpu.seg[SEG_ES].selector
    words[4] = v.cpu.seg[SEG_FS].selector
    words[5] = v.cpu.seg[SEG_GS].selector
    if finish_frame(v, words, 6):
        enter_handler(v, v.failsafe_callback.address, v.failsafe_callback.mask_events)


def deliver_events(v: VcpuPtr) -> cython.bint:
    """Before the guest goes on: if an event is pending and not masked, enter its event callback."""
    if v.nmi_pending and not v.nmi_masked:
        # Without a handler it is lost.
        v.nmi_pending = 0
        if v.traps[2].address != 0:
            v.nmi_masked = 1
            enter_kernel(v, v.traps[2].address, v.traps[2].mask_events, False, 0)
            return True
    if v.info[UPCALL_PENDING] and not v.info[UPCALL_MASK]:
        if v.event_callback.address == 0:
            domain_crash(v.domain, "an event is pending, but the guest has no event callback", 0)
            return True
        enter_kernel(v, v.event_callback.address, True, False, 0)
        return True
    return False


def software_interrupt(host: HostPtr, v: VcpuPtr, vector: u32) -> cython.void:
    """``int n``: the guest's gate decides; where its DPL forbids it, #GP at the instruction.

    ``int $0x80`` has an entry of its own in Xen, which does not look at the gate's DPL.
    """
    entry: TrapEntryPtr = cython.address(v.traps[vector & 255])
    if vector == 3 or vector == 4:
        inject_exception(v, vector, 0, 0)
    elif entry.address != 0 and (vector == 0x80 or entry.dpl >= (3 if v.cpu.user else 1)):
        enter_kernel(v, entry.address, entry.mask_events, False, 0)
    else:
        v.cpu.rip -= 2
        inject_gp(v, (vector << 3) | 2)


def single_step(v: VcpuPtr, trap_flag: u64) -> cython.void:
    """An instruction was carried out for the guest: #DB behind it, if the trap flag was set when it began.

    A handler that was entered instead has the flag clear.
    """
    if trap_flag and v.cpu.rflags & RFLAGS_TF:
        v.cpu.dr[6] |= DR6_SINGLE_STEP | DR6_FIXED
        inject_exception(v, 1, 0, 0)


def general_protection(host: HostPtr, v: VcpuPtr, error: u32) -> cython.void:
    """#GP: a privileged or segment instruction that the hypervisor carries out, or the guest's own fault."""
    trap_flag: u64 = v.cpu.rflags & RFLAGS_TF
    if error == 0:
        if emulate_segment(host, v) or emulate_privileged(host, v):
            single_step(v, trap_flag)
            return
    inject_gp(v, error)


def page_fault(host: HostPtr, v: VcpuPtr, error: u32, address: u64) -> cython.void:
    """#PF: a page-table write that the hypervisor carries out, or the guest's own fault."""
    trap_flag: u64 = v.cpu.rflags & RFLAGS_TF
    of_process: cython.bint = v.cpu.user
    if not v.cpu.user and error & 3 == 3 and in_guest_range(address, 1) and write_fault(host, v, address):
        single_step(v, trap_flag)
        return
    if host.m2p_index != 0 and in_machine_to_phys(host, v, address):
        if read_machine_to_phys(host, v, error, address):
            single_step(v, trap_flag)
            return
        error |= 1
    inject_exception(v, 14, error, address)
    if of_process:
        v.serves_fault = SERVES_NOW


def exception(host: HostPtr, v: VcpuPtr, vector: u32, error: u32, address: u64) -> cython.void:
    """An exception that the engine reports."""
    trap_flag: u64
    if vector == 14:
        page_fault(host, v, error, address)
    elif vector == 13:
        general_protection(host, v, error)
    elif vector == 6:
        trap_flag = v.cpu.rflags & RFLAGS_TF
        if emulate_forced_ud(host, v):
            single_step(v, trap_flag)
        else:
            inject_exception(v, 6, 0, 0)
    elif vector == 7:
        v.cpu.ts = 0
        v.guest_ts = 0
        inject_exception(v, 7, 0, 0)
    elif vector == 1:
        # What happened before stays until the guest clears it.
        v.cpu.dr[6] |= (address & 0xE00F) | DR6_FIXED
        inject_exception(v, 1, 0, 0)
    elif vector < 32:
        inject_exception(v, vector, error, 0)
    else:
        domain_crash(v.domain, "the engine reported an exception that no x86 has", vector)


def system_call(host: HostPtr, v: VcpuPtr) -> cython.void:
    """``syscall`` from guest user mode: bounce to the kernel's system-call callback."""
    wide: cython.bint = v.cpu.seg[SEG_CS].flags & (1 << 21) != 0
    callback: CallbackPtr = cython.address(v.syscall_callback) if wide else cython.address(v.syscall32_callback)
    v.cpu.gpr[GPR_RCX] = v.cpu.rip
    v.cpu.gpr[GPR_R11] = v.cpu.rflags
    if callback.address == 0:
        v.cpu.rip -= 2
        inject_exception(v, 6, 0, 0)
        return
    if wide:
        set_flat(v, SEG_CS, FLAT_KERNEL_CS, CODE64_FLAGS)
    else:
        set_flat(v, SEG_CS, FLAT_USER_CS32, CODE32_FLAGS)
    set_flat(v, SEG_SS, FLAT_KERNEL_SS, DATA_FLAGS)
    enter_kernel(v, callback.address, callback.mask_events, False, 0)


def system_enter(host: HostPtr, v: VcpuPtr) -> cython.void:
    """``sysenter``: bounce to the kernel's callback; without one it is a general protection fault."""
    if not v.cpu.user or v.sysenter_callback.address == 0:
        v.cpu.rip -= 2
        inject_gp(v, 0)
        return
    v.cpu.rip = 0
    set_flat(v, SEG_CS, FLAT_USER_CS32, CODE32_FLAGS)
    set_flat(v, SEG_SS, FLAT_KERNEL_SS, DATA_FLAGS)
    v.cpu.rflags &= ~RFLAGS_TF
    enter_kernel(v, v.sysenter_callback.address, v.sysenter_callback.mask_events, False, 0)


def iret(v: VcpuPtr) -> i64:
    """HYPERVISOR_iret: take rax, r11, rcx, flags, rip, cs, rflags, rsp and ss off the guest kernel's stack.

    Returns the value for rax.  A frame that cannot be read, or a return to user mode without a user page table,
    crashes the domain; selectors that cannot be loaded raise #GP, #NP or #SS at the target.
    """
    frame: u64[9]
    rc: i64
    if copy_from_guest(v, frame, v.cpu.gpr[GPR_RSP], 72) != 0:
        domain_crash(
            v.domain, "the frame of iret cannot be read from the guest kernel's stack", v.cpu.gpr[GPR_RSP]
        )
        return 0
    if frame[5] & 3 == 3:
        if v.user_table == 0:
            domain_crash(v.domain, "iret to user mode without a user page table", frame[4])
            return 0
        toggle_mode(v)
    if v.domain.arch_vm_assist & ARCHITECTURAL_IOPL:
        v.iopl = (frame[6] >> 12) & 3
    v.cpu.rip = frame[4]
    v.cpu.rflags = (frame[6] & IRET_FLAGS) | RFLAGS_IF | 2
    v.cpu.gpr[GPR_RSP] = frame[7]
    if frame[3] & VGCF_IN_SYSCALL:
        v.cpu.gpr[GPR_RCX] = frame[4]
        v.cpu.gpr[GPR_R11] = (frame[6] & ~(RFLAGS_IOPL | RFLAGS_VM)) | RFLAGS_IF
    else:
        v.cpu.gpr[GPR_R11] = frame[1]
        v.cpu.gpr[GPR_RCX] = frame[2]
    v.cpu.gpr[GPR_RAX] = frame[0]
    v.info[UPCALL_MASK] = 0 if frame[6] & RFLAGS_IF else 1
    v.nmi_masked = 0
    rc = load_code_and_stack(v, cython.cast(u16, frame[5] | 3), cython.cast(u16, frame[8] | 3))
    # The guest sees a fault as if the target's first instruction had raised it.
    fault(v, rc)
    # sysret, unlike iret, takes the single step of the system call that it ends.
    if rc == 0 and frame[3] & VGCF_IN_SYSCALL:
        single_step(v, v.cpu.rflags & RFLAGS_TF)
    return cython.cast(i64, v.cpu.gpr[GPR_RAX])
