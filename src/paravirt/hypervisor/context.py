# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""Starting a vcpu: everything that a ``vcpu_guest_context`` says, checked and put in force.

The caller copies the context out of guest memory first. Behaviour: public/arch-x86/xen.h and vcpu.h; Xen
4.17, arch/x86/domain.c (arch_set_info_guest), for a 64-bit paravirtual domain. Under the machine lock.
"""

import cython
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.paravirt.abi.constants import (
    EINVAL,
    EOPNOTSUPP,
    ERESTART,
    VGCF_failsafe_disables_events,
    VGCF_i387_valid,
    VGCF_in_kernel,
    VGCF_online,
    VGCF_syscall_disables_events,
)
from cython.cimports.paravirt.hypervisor.emulate import cr4_of_guests
from cython.cimports.paravirt.hypervisor.guestmem import is_canonical
from cython.cimports.paravirt.hypervisor.hypercalls.descriptor_tables import destroy_gdt, set_gdt
from cython.cimports.paravirt.hypervisor.mmu import hide_machine_to_phys, show_machine_to_phys, take_base
from cython.cimports.paravirt.hypervisor.promotion import put_old_table
from cython.cimports.paravirt.hypervisor.records import (
    VPF_DOWN,
    HostPtr,
    VcpuPtr,
    i64,
    u8,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.scheduling import vcpu_up
from cython.cimports.paravirt.hypervisor.segments import fault, load_code_and_stack, load_segment
from cython.cimports.paravirt.hypervisor.timekeeping import update_wallclock
from cython.cimports.paravirt.machine.cpu import (
    GPR_R8,
    GPR_R9,
    GPR_R10,
    GPR_R11,
    GPR_R12,
    GPR_R13,
    GPR_R14,
    GPR_R15,
    GPR_RAX,
    GPR_RBP,
    GPR_RBX,
    GPR_RCX,
    GPR_RDI,
    GPR_RDX,
    GPR_RSI,
    GPR_RSP,
    SEG_CS,
    SEG_DS,
    SEG_ES,
    SEG_FS,
    SEG_GS,
    SEG_SS,
    BytePtr,
    U16Ptr,
    U32Ptr,
)

CR0_TS = cython.declare(u64, 8)
# CF PF AF ZF SF TF DF OF NT RF AC ID; IF and bit 1 are always set, IOPL is kept apart, VM and VIF never.
RFLAGS_KEPT = cython.declare(u64, 0x254DD5)


def check_context(c: ContextPtr) -> i64:
    """The checks that come before anything changes: canonical addresses, a sound LDT."""
    i: cython.int
    if (
        not is_canonical(c.regs.rip)
        or not is_canonical(c.regs.rsp)
        or not is_canonical(c.kernel_sp)
        or not is_canonical(c.fs_base)
        or not is_canonical(c.gs_base_kernel)
        or not is_canonical(c.gs_base_user)
        or not is_canonical(c.event_callback_eip)
        or not is_canonical(c.syscall_callback_eip)
        or not is_canonical(c.failsafe_callback_eip)
    ):
        return -EINVAL
    for i in range(256):
        if not is_canonical(c.traps[i].address):
            return -EINVAL
    # The LDT must lie where a guest may have something: below the hole, or above the hypervisor.
    if c.ldt_base >> 47 and c.ldt_base < cython.cast(u64, 0xFFFF880000000000):
        return -EINVAL
    if c.ldt_base & 0xFFF or c.ldt_ents > 8192:
        return -EINVAL
    return 0


def same_tables(v: VcpuPtr, c: ContextPtr) -> cython.bint:
    """A vcpu that was initialised before may get new registers, but no other page and descriptor tables."""
    i: cython.int
    if c.ctrlreg[3] != v.kernel_table << 12 or c.ctrlreg[1] != v.user_table << 12:
        return False
    if v.user_table == 0 and not c.flags & VGCF_in_kernel:
        return False
    for i in range(16):
        if c.gdt_frames[i] != v.gdt_frames[i]:
            return False
    return c.gdt_ents == v.gdt_entries and c.ldt_base == v.ldt_base and c.ldt_ents == v.ldt_entries


def load_registers(v: VcpuPtr, c: ContextPtr) -> cython.void:
    """General registers, flags and mode."""
    v.cpu.gpr[GPR_R15] = c.regs.r15
    v.cpu.gpr[GPR_R14] = c.regs.r14
    v.cpu.gpr[GPR_R13] = c.regs.r13
    v.cpu.gpr[GPR_R12] = c.regs.r12
    v.cpu.gpr[GPR_R11] = c.regs.r11
    v.cpu.gpr[GPR_R10] = c.regs.r10
    v.cpu.gpr[GPR_R9] = c.regs.r9
    v.cpu.gpr[GPR_R8] = c.regs.r8
    v.cpu.gpr[GPR_RAX] = c.regs.rax
    v.cpu.gpr[GPR_RBX] = c.regs.rbx
    v.cpu.gpr[GPR_RCX] = c.regs.rcx
    v.cpu.gpr[GPR_RDX] = c.regs.rdx
    v.cpu.gpr[GPR_RSI] = c.regs.rsi
    v.cpu.gpr[GPR_RDI] = c.regs.rdi
    v.cpu.gpr[GPR_RBP] = c.regs.rbp
    v.cpu.gpr[GPR_RSP] = c.regs.rsp
    v.cpu.rip = c.regs.rip
    v.cpu.rflags = (c.regs.rflags & RFLAGS_KEPT) | 0x202
    v.iopl = (c.regs.rflags >> 12) & 3
    v.cpu.user = 0 if c.flags & VGCF_in_kernel else 1
    v.cpu.process.cs.flags = 0  # no process that an engine knows of was left
    v.kernel_ss = c.kernel_ss | 3
    v.kernel_sp = c.kernel_sp
    # Of the control registers only CR0.TS, and in CR4 what we offer, are the guest's.
    v.guest_ts = 1 if c.ctrlreg[0] & CR0_TS else 0
    v.cpu.ts = v.guest_ts
    guests: u64 = cr4_of_guests(v.domain.host)
    v.cr4 = (v.cr4 & ~guests) | (c.ctrlreg[4] & guests)


def load_callbacks(v: VcpuPtr, c: ContextPtr) -> cython.void:
    """The trap table, and the callbacks that the context can name (the others come by callback_op)."""
    i: cython.int
    for i in range(256):
        v.traps[i].address = c.traps[i].address
        v.traps[i].cs = c.traps[i].cs | 3
        v.traps[i].dpl = c.traps[i].flags & 3
        v.traps[i].mask_events = (c.traps[i].flags >> 2) & 1
    v.event_callback.address = c.event_callback_eip
    v.event_callback.mask_events = 1
    v.failsafe_callback.address = c.failsafe_callback_eip
    v.failsafe_callback.mask_events = 1 if c.flags & VGCF_failsafe_disables_events else 0
    v.syscall_callback.address = c.syscall_callback_eip
    v.syscall_callback.mask_events = 1 if c.flags & VGCF_syscall_disables_events else 0


def load_debug_registers(v: VcpuPtr, c: ContextPtr) -> cython.void:
    """Debug registers, each by the rules of set_debugreg; what these refuse stays at its reset value."""
    i: cython.int
    field: u64
    control: u64 = c.debugreg[7]
    refused: cython.bint = False
    for i in range(4):
        v.cpu.dr[i] = 0
        # Addresses in the hypervisor's range are nobody's to watch.
        if not c.debugreg[i] >> 47 or c.debugreg[i] >= cython.cast(u64, 0xFFFF880000000000):
            v.cpu.dr[i] = c.debugreg[i]
    v.cpu.dr[6] = cython.cast(u64, 0xFFFF0FF0)
    if not c.debugreg[6] >> 32:
        v.cpu.dr[6] |= c.debugreg[6] & 0xE00F
    # DR7: no general detect; I/O breakpoints need CR4.DE; LE, GE and bit 10 are always set.
    if control >> 32 or control & 0x2000:
        refused = True
    control = (control & cython.cast(u64, 0xFFFF03FF)) | 0x400
    for i in range(4):
        field = (control >> (16 + 4 * i)) & 3
        if control & (cython.cast(u64, 3) << (2 * i)) and field == 2 and not v.cr4 & 8:
            refused = True
    v.cpu.dr[7] = 0x400 if refused else control


def load_fpu(v: VcpuPtr, c: ContextPtr) -> cython.void:
    """The FXSAVE image of the context, or the state after reset; an image no processor takes is no image."""
    image: u8[512]
    mxcsr: U32Ptr = cython.cast(U32Ptr, cython.address(image[24]))
    if v.pcpu == cython.NULL or v.pcpu.ops == cython.NULL:
        return
    memset(image, 0, 512)
    memcpy(image, c.fpu, 512)
    if not c.flags & VGCF_i387_valid or mxcsr[0] >> 16:
        memset(image, 0, 512)
        cython.cast(U16Ptr, cython.address(image[0]))[0] = 0x37F
        mxcsr[0] = 0x1F80
    if v.cpu.engine_state == cython.NULL:
        v.cpu.engine_state = v.pcpu.ops.new_state(v.pcpu.engine, cython.address(v.cpu))
    v.pcpu.ops.set_fxsave(v.pcpu.engine, cython.address(v.cpu), image)


def leave_kernel_table(host: HostPtr, v: VcpuPtr) -> i64:
    """A vcpu that never ran gives up the table that it got: 0, or -ERESTART when something of it is left over."""
    if v.kernel_table != 0:
        v.old.mfn = v.kernel_table
        v.old.above = 0
        v.old.partial = 0
        v.kernel_table = 0
        v.cpu.kernel_cr3 = 0
    return put_old_table(host, cython.address(v.old))


def take_page_tables(host: HostPtr, v: VcpuPtr, kernel: u64, user: u64, with_user: cython.bint) -> i64:
    """Take a use of the L4 tables to run on: 0, -ERESTART, or -EINVAL and the errors of validation.

    When this is preempted the vcpu keeps a kernel table that it has got, for the next try.
    """
    rc: i64 = 0
    if v.kernel_table != kernel or kernel == 0:
        rc = leave_kernel_table(host, v)
        if rc == 0:
            rc = take_base(v, kernel)
        if rc != 0:
            return rc
        v.kernel_table = kernel
        v.cpu.kernel_cr3 = kernel << 12
    if with_user:
        rc = take_base(v, user)
    return rc


def take_tables(host: HostPtr, v: VcpuPtr, c: ContextPtr) -> i64:
    """Take the references for GDT and page tables; -ERESTART: to be called again; another error: none is kept.

    What of a refused table is not yet released is left over, and the next hypercall on page tables goes on with it.
    """
    kernel: u64 = c.ctrlreg[3] >> 12
    user: u64 = c.ctrlreg[1] >> 12
    rc: i64
    if put_old_table(host, host.old) != 0:
        return -ERESTART
    rc = set_gdt(v, c.gdt_frames, cython.cast(u32, c.gdt_ents))
    if rc == 0:
        rc = take_page_tables(host, v, kernel, user, c.ctrlreg[1] != 0)
    if rc != 0:
        destroy_gdt(v)
        if rc != -ERESTART:
            put_old_table(host, host.old)
            leave_kernel_table(host, v)
        return rc
    show_machine_to_phys(v, kernel, True)
    if user != 0:
        hide_machine_to_phys(v, user)
    v.user_table = user
    v.cpu.user_cr3 = user << 12
    v.ldt_base = c.ldt_base
    v.ldt_entries = cython.cast(u32, c.ldt_ents)
    return 0


def load_segments(host: HostPtr, v: VcpuPtr, c: ContextPtr) -> cython.void:
    """Segment registers and bases.

    A data segment that cannot be loaded is tried again when a processor takes the vcpu up, and ends in the guest's
    failsafe callback then; a code or stack segment that cannot be loaded is a fault of the first instruction.
    """
    user_base: u64
    v.cpu.seg[SEG_CS].selector = c.regs.cs | 3
    v.cpu.seg[SEG_SS].selector = cython.cast(u16, c.regs.ss) | 3
    if load_segment(host, v, SEG_DS, cython.cast(u16, c.regs.ds)) != 0:
        v.cpu.seg[SEG_DS].selector = cython.cast(u16, c.regs.ds)
    if load_segment(host, v, SEG_ES, cython.cast(u16, c.regs.es)) != 0:
        v.cpu.seg[SEG_ES].selector = cython.cast(u16, c.regs.es)
    if load_segment(host, v, SEG_FS, cython.cast(u16, c.regs.fs)) != 0:
        v.cpu.seg[SEG_FS].selector = cython.cast(u16, c.regs.fs)
    if not c.regs.fs & 0xFFFC:
        v.cpu.seg[SEG_FS].base = c.fs_base
    if load_segment(host, v, SEG_GS, cython.cast(u16, c.regs.gs)) != 0:
        v.cpu.seg[SEG_GS].selector = cython.cast(u16, c.regs.gs)
    # A selector sets the base of the processes' GS; only without one does the context's count.
    user_base = v.cpu.seg[SEG_GS].base if c.regs.gs & 0xFFFC else c.gs_base_user
    if v.cpu.user:
        v.cpu.seg[SEG_GS].base = user_base
        v.gs_base_kernel = c.gs_base_kernel
    else:
        v.cpu.seg[SEG_GS].base = c.gs_base_kernel
        v.gs_base_kernel = user_base
    v.cpu.segs_dirty = 1
    fault(v, load_code_and_stack(v, c.regs.cs | 3, cython.cast(u16, c.regs.ss) | 3))


def set_vcpu_context(host: HostPtr, v: VcpuPtr, context: cython.p_const_uchar) -> i64:
    """Put a ``vcpu_guest_context`` (5168 bytes, a copy of ours) in force.

    0; -EINVAL for addresses, descriptor tables or page tables that the domain may not have; -EOPNOTSUPP when an
    initialised vcpu would change tables; -ERESTART, to be called again: its page tables take longer to validate. The
    vcpu is up afterwards if VGCF_online says so, and down otherwise.
    """
    c: ContextPtr = cython.cast(ContextPtr, cython.cast(BytePtr, context))
    rc: i64 = check_context(c)
    if rc != 0:
        return rc
    if v.initialised:
        if not same_tables(v, c):
            return -EOPNOTSUPP
    else:
        if not c.flags & VGCF_in_kernel and not c.ctrlreg[1]:
            return -EINVAL
        if v.id == 0:
            v.domain.arch_vm_assist = c.vm_assist
        rc = take_tables(host, v, c)
        if rc != 0:
            return rc
    load_registers(v, c)
    load_callbacks(v, c)
    load_debug_registers(v, c)
    load_fpu(v, c)
    load_segments(host, v, c)
    if not v.initialised:
        v.initialised = 1
        if v.id == 0:
            update_wallclock(v.domain)
    if c.flags & VGCF_online:
        vcpu_up(v)
    else:
        v.pause_flags |= VPF_DOWN
    return 0
