# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""The hypercalls of direct paging: mmu_update, update_va_mapping, mmuext_op (public/xen.h)."""

import cython
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.paravirt.abi.constants import (
    DOMID_IO,
    DOMID_SELF,
    DOMID_XEN,
    EACCES,
    EFAULT,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ERESTART,
    ESRCH,
    MMU_MACHPHYS_UPDATE,
    MMU_PT_UPDATE_PRESERVE_AD,
    MMUEXT_CLEAR_PAGE,
    MMUEXT_COPY_PAGE,
    MMUEXT_FLUSH_CACHE,
    MMUEXT_FLUSH_CACHE_GLOBAL,
    MMUEXT_INVLPG_ALL,
    MMUEXT_INVLPG_LOCAL,
    MMUEXT_INVLPG_MULTI,
    MMUEXT_MARK_SUPER,
    MMUEXT_NEW_BASEPTR,
    MMUEXT_NEW_USER_BASEPTR,
    MMUEXT_PIN_L1_TABLE,
    MMUEXT_PIN_L4_TABLE,
    MMUEXT_TLB_FLUSH_LOCAL,
    MMUEXT_TLB_FLUSH_MULTI,
    MMUEXT_UNMARK_SUPER,
    MMUEXT_UNPIN_TABLE,
    UVMF_ALL,
    UVMF_FLUSHTYPE_MASK,
    UVMF_INVLPG,
    UVMF_LOCAL,
    UVMF_TLB_FLUSH,
)
from cython.cimports.paravirt.hypervisor.frames import (
    drop_code,
    flush_pcpu,
    get_page,
    get_page_and_type,
    get_page_and_type_part,
    get_page_type,
    may_hold,
    put_page,
    put_page_and_type,
    put_page_type,
)
from cython.cimports.paravirt.hypervisor.guestmem import (
    copy_from_guest,
    copy_to_guest,
    find_l1e,
    frame_ptr,
    in_guest_range,
)
from cython.cimports.paravirt.hypervisor.hypercalls.deferred import note_update
from cython.cimports.paravirt.hypervisor.hypercalls.descriptor_tables import destroy_ldt
from cython.cimports.paravirt.hypervisor.mmu import mod_entry, set_kernel_table, set_user_table
from cython.cimports.paravirt.hypervisor.promotion import leave_over, put_old_table, work_spent
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_L1,
    FRAME_L4,
    FRAME_PINNED,
    FRAME_VALIDATED,
    FRAME_WRITABLE,
    FramePtr,
    HostPtr,
    PcpuPtr,
    VcpuPtr,
    i32,
    i64,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.refusals import refuse_entry, refuse_frame
from cython.cimports.paravirt.machine.cpu import GPR_R10, GPR_RDI, GPR_RDX, GPR_RSI, U16Ptr, U32Ptr, U64Ptr

# MMU_PT_UPDATE_NO_TRANSLATE, which for such a guest is as the plain update.
LAST_COMMAND = cython.declare(u64, 3)
# Set in the count of a batch that was interrupted and goes on.
MMU_UPDATE_PREEMPTED = cython.declare(u32, 0x80000000)
ALL_VCPUS = cython.declare(u64, cython.cast(u64, 0xFFFFFFFFFFFFFFFF))
# Of mmuext_op's commands this one has no meaning.
NO_COMMAND = cython.declare(u32, 14)
# What a request or an operation counts, in looks at page-table entries.
WORK_OF_UPDATE = cython.declare(u64, 32)
WORK_OF_OPERATION = cython.declare(u64, 64)


def page_owner(v: VcpuPtr, domid: u16, result: U16Ptr) -> i64:
    """Whose frames a call is about: 0 and ``result``, or -ESRCH (no such domain; oneself, but for DOMID_SELF)."""
    host: HostPtr = v.domain.host
    result[0] = v.domain.domid if domid == DOMID_SELF else domid
    if domid == DOMID_SELF or domid == DOMID_IO or domid == DOMID_XEN:
        return 0
    if domid == v.domain.domid:
        return -ESRCH
    return 0 if domid < host.max_domains and host.domains[domid] != cython.NULL else -ESRCH


def may_touch(v: VcpuPtr, domid: u16) -> cython.bint:
    """Whether the caller may handle a domain's page tables and frames: its own, or as the control domain."""
    return domid == v.domain.domid or v.domain.is_privileged


def continue_call(v: VcpuPtr, args: U64Ptr, at: u64, count: u64, done: u64, domid: u64) -> i64:
    """Have the guest make the hypercall in progress again, with these arguments."""
    args[0] = at
    args[1] = count
    args[2] = done
    args[3] = domid
    v.preempted = 1
    if not v.in_multicall:
        v.cpu.gpr[GPR_RDI] = at
        v.cpu.gpr[GPR_RSI] = count
        v.cpu.gpr[GPR_RDX] = done
        v.cpu.gpr[GPR_R10] = domid
        v.cpu.rip -= 2  # to the syscall instruction
    return v.hypercall


def begin_batch(v: VcpuPtr, args: U64Ptr, done: U32Ptr) -> i64:
    """What both batches begin with: 0, to go on; 1 when the call is over, its answer in args[3]; else preempted.

    Tables that are left over from this vcpu's last call are released first.  A call that had nothing else to do any
    more carried its answer in place of the domain.
    """
    host: HostPtr = v.domain.host
    prior: u32 = 0
    host.old = cython.address(v.old)
    if put_old_table(host, host.old) != 0:
        return -ERESTART
    if cython.cast(u32, args[1]) == MMU_UPDATE_PREEMPTED and args[0] == 0:
        return 1
    if cython.cast(u32, args[1]) & MMU_UPDATE_PREEMPTED and args[2] != 0:
        copy_from_guest(v, cython.address(prior), args[2], 4)
    done[0] = prior
    return 0


def end_batch(v: VcpuPtr, args: U64Ptr, at: u64, left: u32, done: u32, rc: i64) -> i64:
    """What both end with: say how many were done, and go on later with the rest, or with what is left over."""
    host: HostPtr = v.domain.host
    listed: u64 = args[2]
    if rc == -ERESTART:
        rc = continue_call(v, args, at, left | MMU_UPDATE_PREEMPTED, args[2], args[3])
    elif put_old_table(host, host.old) != 0:
        rc = continue_call(v, args, 0, MMU_UPDATE_PREEMPTED, 0, cython.cast(u64, rc))
    if listed != 0:
        copy_to_guest(v, listed, cython.address(done), 4)
    return rc


def update_entry(v: VcpuPtr, address: u64, value: u64, preserve_ad: cython.bint, owner: u16, mapped: u16) -> i64:
    """MMU_NORMAL_PT_UPDATE: the word at machine ``address``, in a page table (then validated) or a plain frame.

    ``owner`` is whose table it is, ``mapped`` whose frames an L1 entry may map.
    """
    host: HostPtr = v.domain.host
    mfn: u64 = address >> 12
    index: u64 = (address & 0xFFF) >> 3
    frame: FramePtr
    rc: i64 = -EINVAL
    if not get_page(host, mfn, owner):
        return refuse_entry(host, FRAME_L1, mfn, index, value, -EINVAL)
    frame = cython.address(host.frames[mfn])
    if frame.type_refs != 0 and frame.type <= FRAME_L4 and frame.flags & FRAME_VALIDATED:
        if frame.type == FRAME_L1 or mapped == owner:
            rc = mod_entry(v, mfn, index, value, frame.type, preserve_ad, mapped, cython.NULL)
    elif get_page_type(host, mfn, FRAME_WRITABLE) == 0:
        cython.cast(U64Ptr, frame_ptr(host, mfn))[index] = value
        drop_code(host, address, address + 8)
        put_page_type(host, mfn)
        rc = 0
    put_page(host, mfn)
    return rc if rc == 0 else refuse_entry(host, FRAME_L1, mfn, index, value, rc)


def update_mach_phys(v: VcpuPtr, mfn: u64, pfn: u64, owner: u16) -> i64:
    """MMU_MACHPHYS_UPDATE: the guest says which pseudo-physical frame a frame of its own is."""
    host: HostPtr = v.domain.host
    if owner != DOMID_IO and not may_touch(v, owner):
        return -EPERM
    if not get_page(host, mfn, owner):
        return refuse_frame(host, mfn, -EINVAL)
    host.m2p[mfn] = pfn
    put_page(host, mfn)
    return 0


def update_one(v: VcpuPtr, request: U64Ptr, tables: u16, frames: u16) -> i64:
    """One request: {machine address | command, value}."""
    command: u64 = request[0] & 7
    if command == MMU_MACHPHYS_UPDATE:
        return -EPERM if tables != v.domain.domid else update_mach_phys(v, request[0] >> 12, request[1], frames)
    if command > LAST_COMMAND:
        return -ENOSYS
    # Frames that are not memory are refused one by one, as they are mapped.
    if (frames != DOMID_IO and not may_touch(v, frames)) or not may_touch(v, tables):
        return -EPERM
    return update_entry(
        v, request[0] & ~cython.cast(u64, 7), request[1], command == MMU_PT_UPDATE_PRESERVE_AD, tables, frames
    )


def update_batch(v: VcpuPtr, args: U64Ptr, at: u64, count: u32, tables: u16, done: u32) -> i64:
    """The requests of do_mmu_update, until one fails or the time is over."""
    host: HostPtr = v.domain.host
    request: u64[2]
    frames: u16 = 0
    i: u32 = 0
    rc: i64 = page_owner(v, cython.cast(u16, args[3]), cython.address(frames))
    while rc == 0 and i < count:
        if put_old_table(host, host.old) != 0 or (i != 0 and work_spent(host)):
            rc = -ERESTART
        elif copy_from_guest(v, request, at, 16) != 0:
            rc = -EFAULT
        else:
            host.work += WORK_OF_UPDATE
            rc = update_one(v, request, tables, frames)
            if rc != 0:
                host.refused.command = cython.cast(u32, request[0] & 7) + 1
        if rc == 0:
            at += 16
            i += 1
    v.domain.nr_pt_updates += i
    note_update(v, count, request[0] >> 12, rc)
    return end_batch(v, args, at, count - i, done + i, rc)


def do_mmu_update(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """A batch of {machine address | command, value}; ``done`` gets the number carried out before the first error."""
    tables: u16 = v.domain.domid
    owner: u32 = cython.cast(u32, args[3]) >> 16
    done: u32 = 0
    rc: i64 = begin_batch(v, args, cython.address(done))
    if rc == -ERESTART:
        return continue_call(v, args, args[0], args[1], args[2], args[3])
    if rc != 0:
        return cython.cast(i32, args[3])
    if not in_guest_range(args[0] & ~cython.cast(u64, 0xFFF), 1):
        return -EFAULT
    if owner != 0:
        # Whose the tables are, plus one.
        owner -= 1
        if owner >= host.max_domains or host.domains[owner] == cython.NULL:
            return -ESRCH
        tables = cython.cast(u16, owner)
    return update_batch(v, args, args[0], cython.cast(u32, args[1]) & ~MMU_UPDATE_PREEMPTED, tables, done)


def flush_for(v: VcpuPtr, flags: u64, va: u64) -> i64:
    """The flush that rides on update_va_mapping: none, of the page, or of everything; of some vcpus, or all."""
    kind: u64 = flags & UVMF_FLUSHTYPE_MASK
    target: u64 = flags & ~cython.cast(u64, UVMF_FLUSHTYPE_MASK)
    if kind != UVMF_TLB_FLUSH and kind != UVMF_INVLPG:
        return 0
    # "This vcpu", "all", or the address of a bitmap of vcpus.
    if target == UVMF_LOCAL or target == UVMF_ALL:
        flush_vcpus(v, ALL_VCPUS, kind == UVMF_INVLPG, va)
        return 0
    return flush_listed(v, target, kind == UVMF_INVLPG, va)


def update_va_mapping(v: VcpuPtr, args: U64Ptr, mapped: u16) -> i64:
    """Set the L1 entry that maps an address on the current page table, and flush."""
    host: HostPtr = v.domain.host
    l1_mfn: u64 = 0
    granted: u64 = 0
    frame: FramePtr
    pte: U64Ptr
    rc: i64
    if not may_touch(v, mapped):
        return -EPERM
    if not in_guest_range(args[0] & ~cython.cast(u64, 0xFFF), 1):
        return -EINVAL
    pte = find_l1e(v, args[0], cython.address(l1_mfn), cython.address(granted))
    if pte == cython.NULL or not get_page(host, l1_mfn, v.domain.domid):
        return -EINVAL
    frame = cython.address(host.frames[l1_mfn])
    if frame.type != FRAME_L1 or frame.type_refs == 0 or not frame.flags & FRAME_VALIDATED:
        rc = -EINVAL
    else:
        rc = mod_entry(v, l1_mfn, (args[0] >> 12) & 511, args[1], 1, False, mapped, cython.NULL)
    put_page(host, l1_mfn)
    return flush_for(v, args[2], args[0]) if rc == 0 else rc


def do_update_va_mapping(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_update_va_mapping(address, entry, flags)."""
    return update_va_mapping(v, args, v.domain.domid)


def do_update_va_mapping_otherdomain(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """As above, mapping a frame of another domain: for the privileged, or for oneself."""
    mapped: u16 = 0
    rc: i64 = page_owner(v, cython.cast(u16, args[3]), cython.address(mapped))
    return update_va_mapping(v, args, mapped) if rc == 0 else rc


def pin(v: VcpuPtr, mfn: u64, owner: u16, level: u32) -> i64:
    """MMUEXT_PIN_Ln_TABLE: validate, and stay validated until unpinned."""
    host: HostPtr = v.domain.host
    rc: i64 = get_page_and_type_part(host, mfn, owner, level, False, False)
    if rc != 0:
        return refuse_frame(host, mfn, rc)
    if host.frames[mfn].flags & FRAME_PINNED:
        put_page_and_type(host, mfn)
        return refuse_frame(host, mfn, -EINVAL)
    host.frames[mfn].flags |= FRAME_PINNED
    return 0


def unpin(v: VcpuPtr, mfn: u64, owner: u16) -> i64:
    """MMUEXT_UNPIN_TABLE.  The pin's use is left over, and released before the next operation."""
    host: HostPtr = v.domain.host
    if not get_page(host, mfn, owner):
        return refuse_frame(host, mfn, -EINVAL)
    if not host.frames[mfn].flags & FRAME_PINNED:
        put_page(host, mfn)
        return refuse_frame(host, mfn, -EINVAL)
    host.frames[mfn].flags &= ~FRAME_PINNED
    leave_over(host, mfn, 0, False)
    put_page(host, mfn)
    return 0


def set_ldt(v: VcpuPtr, address: u64, entries: u64) -> i64:
    """MMUEXT_SET_LDT: the local descriptor table is at a page-aligned guest address; at most 8192 entries."""
    if entries == 0:
        address = 0
    if address & 0xFFF or entries > 8192 or not in_guest_range(address, 1):
        return -EINVAL
    if address != v.ldt_base or entries != v.ldt_entries:
        destroy_ldt(v)
        v.ldt_base = address
        v.ldt_entries = cython.cast(u32, entries)
    return 0


def clear_page(v: VcpuPtr, mfn: u64, owner: u16) -> i64:
    """MMUEXT_CLEAR_PAGE."""
    host: HostPtr = v.domain.host
    if get_page_and_type(host, mfn, owner, FRAME_WRITABLE) != 0:
        return refuse_frame(host, mfn, -EINVAL)
    memset(frame_ptr(host, mfn), 0, 4096)
    drop_code(host, mfn << 12, (mfn + 1) << 12)
    put_page_and_type(host, mfn)
    return 0


def copy_page(v: VcpuPtr, target: u64, source: u64, owner: u16) -> i64:
    """MMUEXT_COPY_PAGE."""
    host: HostPtr = v.domain.host
    if not get_page(host, source, owner):
        return refuse_frame(host, source, -EINVAL)
    if get_page_and_type(host, target, owner, FRAME_WRITABLE) != 0:
        put_page(host, source)
        return refuse_frame(host, target, -EINVAL)
    memcpy(frame_ptr(host, target), frame_ptr(host, source), 4096)
    drop_code(host, target << 12, (target + 1) << 12)
    put_page_and_type(host, target)
    put_page(host, source)
    return 0


def flush_vcpus(v: VcpuPtr, mask: u64, page: cython.bint, va: u64) -> cython.void:
    """Flush a page, or everything, for the first 64 vcpus of the domain that ``mask`` names, or for all.

    An engine empties its cache when it goes to another vcpu, so that whoever is on none now needs no flush.
    """
    host: HostPtr = v.domain.host
    pcpu: PcpuPtr
    i: u32
    if page and not in_guest_range(va, 1):
        return
    for i in range(host.nr_pcpus):
        pcpu = host.pcpus[i]
        if may_hold(pcpu, v.domain) and (mask == ALL_VCPUS or (mask >> (pcpu.current.id & 63)) & 1):
            if page:
                pcpu.ops.flush_page(pcpu.engine, va)
            else:
                flush_pcpu(pcpu)


def flush_listed(v: VcpuPtr, mask_address: u64, page: cython.bint, va: u64) -> i64:
    """The same for the vcpus of a bitmap in guest memory, of as many words as the domain has vcpus for, or -EFAULT.

    Flushing for more vcpus than asked is never wrong: the words are taken together.
    """
    mask: u64 = 0
    word: u64
    i: u32
    for i in range((v.domain.nr_vcpus + 63) // 64):
        if copy_from_guest(v, cython.address(word), mask_address + 8 * i, 8) != 0:
            return -EFAULT
        mask |= word
    flush_vcpus(v, mask, page, va)
    return 0


def flush_op(v: VcpuPtr, command: u32, op: U64Ptr) -> i64:
    """MMUEXT_TLB_FLUSH_* and MMUEXT_INVLPG_*."""
    page: cython.bint = (
        command == MMUEXT_INVLPG_LOCAL or command == MMUEXT_INVLPG_ALL or command == MMUEXT_INVLPG_MULTI
    )
    if command == MMUEXT_TLB_FLUSH_MULTI or command == MMUEXT_INVLPG_MULTI:
        # A bitmap that cannot be read is an invalid argument here, and not a fault.
        return 0 if flush_listed(v, op[2], page, op[1]) == 0 else -EINVAL
    if command == MMUEXT_TLB_FLUSH_LOCAL or command == MMUEXT_INVLPG_LOCAL:
        flush_vcpus(v, cython.cast(u64, 1) << (v.id & 63), page, op[1])
    else:
        flush_vcpus(v, ALL_VCPUS, page, op[1])
    return 0


def mmuext_own(v: VcpuPtr, command: u32, op: U64Ptr) -> i64:
    """The operations that a domain does for itself only."""
    if command == MMUEXT_NEW_BASEPTR:
        return set_kernel_table(v, op[1])
    if command == MMUEXT_NEW_USER_BASEPTR:
        return set_user_table(v, op[1])
    if MMUEXT_TLB_FLUSH_LOCAL <= command <= MMUEXT_INVLPG_ALL:
        return flush_op(v, command, op)
    if command == MMUEXT_FLUSH_CACHE:
        return -EACCES
    if command == MMUEXT_FLUSH_CACHE_GLOBAL:
        return -EINVAL
    return set_ldt(v, op[1], cython.cast(u32, op[2]))


def mmuext_one(v: VcpuPtr, op: U64Ptr, owner: u16) -> i64:
    """One operation: op[0] command, op[1] mfn or linear address, op[2] count, mask or source mfn."""
    command: u32 = cython.cast(u32, op[0])
    if command <= MMUEXT_PIN_L4_TABLE:
        return pin(v, op[1], owner, command - cython.cast(u32, MMUEXT_PIN_L1_TABLE) + 1)
    if command == MMUEXT_UNPIN_TABLE:
        return unpin(v, op[1], owner)
    if command == MMUEXT_CLEAR_PAGE:
        return clear_page(v, op[1], owner)
    if command == MMUEXT_COPY_PAGE:
        return copy_page(v, op[1], op[2], owner)
    if command == MMUEXT_MARK_SUPER or command == MMUEXT_UNMARK_SUPER:
        return -EOPNOTSUPP
    if command > MMUEXT_FLUSH_CACHE_GLOBAL or command == NO_COMMAND:
        return -ENOSYS
    return mmuext_own(v, command, op) if owner == v.domain.domid else -EPERM


def mmuext_batch(v: VcpuPtr, args: U64Ptr, at: u64, count: u32, owner: u16, done: u32) -> i64:
    """The operations of do_mmuext_op, until one fails or the time is over."""
    host: HostPtr = v.domain.host
    op: u64[3]
    i: u32 = 0
    rc: i64 = 0
    while rc == 0 and i < count:
        if put_old_table(host, host.old) != 0 or (i != 0 and work_spent(host)):
            rc = -ERESTART
        elif copy_from_guest(v, op, at, 24) != 0:
            rc = -EFAULT
        else:
            host.work += WORK_OF_OPERATION
            rc = mmuext_one(v, op, owner)
            if rc != 0:
                host.refused.command = cython.cast(u32, op[0]) + 1
        if rc == 0:
            at += 24
            i += 1
    return end_batch(v, args, at, count - i, done + i, rc)


def do_mmuext_op(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """A batch of extended operations; ``done`` gets the number carried out before the first error."""
    owner: u16 = 0
    done: u32 = 0
    rc: i64 = begin_batch(v, args, cython.address(done))
    if rc == -ERESTART:
        return continue_call(v, args, args[0], args[1], args[2], args[3])
    if rc != 0:
        return cython.cast(i32, args[3])
    if not in_guest_range(args[0] & ~cython.cast(u64, 0xFFF), 1):
        return -EFAULT
    rc = page_owner(v, cython.cast(u16, args[3]), cython.address(owner))
    if rc != 0:
        return rc
    if not may_touch(v, owner):
        return -EPERM
    return mmuext_batch(v, args, args[0], cython.cast(u32, args[1]) & ~MMU_UPDATE_PREEMPTED, owner, done)
