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
    MMUEXT_SET_LDT,
    MMUEXT_TLB_FLUSH_ALL,
    MMUEXT_TLB_FLUSH_LOCAL,
    MMUEXT_TLB_FLUSH_MULTI,
    MMUEXT_UNMARK_SUPER,
    MMUEXT_UNPIN_TABLE,
    UVMF_FLUSHTYPE_MASK,
    UVMF_INVLPG,
    UVMF_TLB_FLUSH,
)
from cython.cimports.paravirt.hypervisor.frames import (
    drop_code,
    flush_domain,
    flush_page,
    get_page,
    get_page_and_type,
    get_page_type,
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
from cython.cimports.paravirt.hypervisor.hypercalls.descriptor_tables import destroy_ldt
from cython.cimports.paravirt.hypervisor.mmu import mod_entry, set_kernel_table, set_user_table
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_L1,
    FRAME_L4,
    FRAME_PINNED,
    FRAME_VALIDATED,
    FRAME_WRITABLE,
    FramePtr,
    HostPtr,
    VcpuPtr,
    i64,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.machine.cpu import U16Ptr, U64Ptr

# MMU_PT_UPDATE_NO_TRANSLATE, which for such a guest is as the plain update.
LAST_COMMAND = cython.declare(u64, 3)
# Set in the count of a batch that was interrupted and goes on.
MMU_UPDATE_PREEMPTED = cython.declare(u32, 0x80000000)


def foreign_domid(v: VcpuPtr, domid: u16, result: U16Ptr) -> i64:
    """Whose frames a call is about: 0 and ``result``, -ESRCH (no such domain) or -EPERM (not the caller's business)."""
    host: HostPtr = v.domain.host
    if domid == DOMID_SELF or domid == v.domain.domid:
        result[0] = v.domain.domid
        return 0
    if domid == DOMID_IO or domid == DOMID_XEN:
        result[0] = domid
        return 0 if v.domain.is_privileged or domid == DOMID_IO else -EPERM
    if domid >= host.max_domains or host.domains[domid] == cython.NULL:
        return -ESRCH
    if not v.domain.is_privileged:
        return -EPERM
    result[0] = domid
    return 0


def update_entry(v: VcpuPtr, address: u64, value: u64, preserve_ad: cython.bint, mapped: u16) -> i64:
    """MMU_NORMAL_PT_UPDATE: the word at machine ``address``, in a page table (then validated) or a plain frame."""
    host: HostPtr = v.domain.host
    mfn: u64 = address >> 12
    frame: FramePtr
    rc: i64
    if address & 7 or not get_page(host, mfn, v.domain.domid):
        return -EINVAL
    frame = cython.address(host.frames[mfn])
    if (
        frame.type >= FRAME_L1
        and frame.type <= FRAME_L4
        and frame.type_refs != 0
        and frame.flags & FRAME_VALIDATED
    ):
        rc = mod_entry(v, mfn, (address & 0xFFF) >> 3, value, frame.type, preserve_ad, mapped)
    else:
        rc = get_page_type(host, mfn, FRAME_WRITABLE)
        if rc == 0:
            cython.cast(U64Ptr, frame_ptr(host, mfn))[(address & 0xFFF) >> 3] = value
            drop_code(host, address, address + 8)
            put_page_type(host, mfn)
    put_page(host, mfn)
    return rc


def update_mach_phys(v: VcpuPtr, mfn: u64, pfn: u64) -> i64:
    """MMU_MACHPHYS_UPDATE: the guest says which pseudo-physical frame a frame of its own is."""
    host: HostPtr = v.domain.host
    if not get_page(host, mfn, v.domain.domid):
        return -EINVAL
    host.m2p[mfn] = pfn
    put_page(host, mfn)
    return 0


def do_mmu_update(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """A batch of {machine address | command, value}; ``done`` gets the number carried out before the first error."""
    request: u64[2]
    at: u64 = args[0]
    count: u32 = cython.cast(u32, args[1])
    done: u32 = 0
    prior: u32 = 0
    foreign: u32 = cython.cast(u32, args[3])
    mapped: u16 = 0
    command: u64
    rc: i64 = 0
    permission: i64
    if count & MMU_UPDATE_PREEMPTED:
        count &= ~MMU_UPDATE_PREEMPTED
        if args[2] != 0 and copy_from_guest(v, cython.address(prior), args[2], 4) != 0:
            return -EFAULT
    if foreign >> 16:
        # The tables' owner, plus one; for an unprivileged domain only itself.
        rc = foreign_domid(v, cython.cast(u16, (foreign >> 16) - 1), cython.address(mapped))
        if rc != 0:
            return rc
        if mapped != v.domain.domid:
            return -EPERM
    if not in_guest_range(at, cython.cast(u64, count) * 16):
        return -EFAULT
    permission = foreign_domid(v, cython.cast(u16, foreign), cython.address(mapped))
    if permission == -ESRCH:
        return permission
    while done < count:
        if copy_from_guest(v, request, at, 16) != 0:
            rc = -EFAULT
            break
        if permission != 0:
            rc = permission
            break
        command = request[0] & 7
        if command == MMU_MACHPHYS_UPDATE:
            rc = update_mach_phys(v, request[0] >> 12, request[1])
        elif command > LAST_COMMAND:
            rc = -ENOSYS
        else:
            rc = update_entry(
                v, request[0] & ~cython.cast(u64, 7), request[1], command == MMU_PT_UPDATE_PRESERVE_AD, mapped
            )
        if rc != 0:
            break
        at += 16
        done += 1
    v.domain.nr_pt_updates += done
    if args[2] != 0:
        done += prior
        copy_to_guest(v, args[2], cython.address(done), 4)
    return rc


def flush_for(v: VcpuPtr, flags: u64, va: u64) -> i64:
    """The flush that rides on update_va_mapping: none, of the page, or of everything; of some vcpus, or all."""
    kind: u64 = flags & UVMF_FLUSHTYPE_MASK
    target: u64 = flags & ~cython.cast(u64, UVMF_FLUSHTYPE_MASK)
    if kind == UVMF_TLB_FLUSH or kind == UVMF_INVLPG:
        # 0 is "this vcpu", 4 "all"; else the address of a bitmap of vcpus.
        return flush_multi(v, 0 if target == 0 or target == 4 else target, kind == UVMF_INVLPG, va)
    return 0


def do_update_va_mapping(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """Set the L1 entry that maps an address on the current page table, and flush."""
    l1_mfn: u64 = 0
    granted: u64 = 0
    frame: FramePtr
    pte: U64Ptr
    rc: i64 = -EINVAL
    flush_rc: i64
    if not in_guest_range(args[0], 1):
        return -EINVAL
    pte = find_l1e(v, args[0], cython.address(l1_mfn), cython.address(granted))
    if pte == cython.NULL or not get_page(host, l1_mfn, v.domain.domid):
        return -EINVAL
    frame = cython.address(host.frames[l1_mfn])
    if frame.type == FRAME_L1 and frame.type_refs != 0 and frame.flags & FRAME_VALIDATED:
        rc = mod_entry(v, l1_mfn, (args[0] >> 12) & 511, args[1], 1, False, v.domain.domid)
    put_page(host, l1_mfn)
    flush_rc = flush_for(v, args[2], args[0])
    return flush_rc if flush_rc != 0 else rc


def do_update_va_mapping_otherdomain(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """As above, mapping a frame of another domain: for the privileged, or for oneself."""
    mapped: u16 = 0
    rc: i64 = foreign_domid(v, cython.cast(u16, args[3]), cython.address(mapped))
    if rc != 0:
        return rc
    if mapped != v.domain.domid:
        return -EPERM
    return do_update_va_mapping(host, v, args)


def pin(v: VcpuPtr, mfn: u64, owner: u16, level: u32) -> i64:
    """MMUEXT_PIN_Ln_TABLE: validate, and stay validated until unpinned."""
    host: HostPtr = v.domain.host
    rc: i64 = get_page_and_type(host, mfn, owner, level)
    if rc != 0:
        return rc
    if host.frames[mfn].flags & FRAME_PINNED:
        put_page_and_type(host, mfn)
        return -EINVAL
    host.frames[mfn].flags |= FRAME_PINNED
    return 0


def unpin(v: VcpuPtr, mfn: u64, owner: u16) -> i64:
    """MMUEXT_UNPIN_TABLE."""
    host: HostPtr = v.domain.host
    if not get_page(host, mfn, owner):
        return -EINVAL
    if not host.frames[mfn].flags & FRAME_PINNED:
        put_page(host, mfn)
        return -EINVAL
    host.frames[mfn].flags &= ~FRAME_PINNED
    put_page_and_type(host, mfn)
    put_page(host, mfn)
    return 0


def set_ldt(v: VcpuPtr, address: u64, entries: u64) -> i64:
    """MMUEXT_SET_LDT: the local descriptor table is at a page-aligned guest address; at most 8192 entries."""
    if (address & 0xFFF and entries != 0) or entries > 8192 or not in_guest_range(address, entries * 8):
        return -EINVAL
    destroy_ldt(v)
    v.ldt_base = address if entries else 0
    v.ldt_entries = cython.cast(u32, entries)
    return 0


def clear_page(v: VcpuPtr, mfn: u64, owner: u16) -> i64:
    """MMUEXT_CLEAR_PAGE."""
    host: HostPtr = v.domain.host
    if get_page_and_type(host, mfn, owner, FRAME_WRITABLE) != 0:
        return -EINVAL
    memset(frame_ptr(host, mfn), 0, 4096)
    drop_code(host, mfn << 12, (mfn + 1) << 12)
    put_page_and_type(host, mfn)
    return 0


def copy_page(v: VcpuPtr, target: u64, source: u64, owner: u16) -> i64:
    """MMUEXT_COPY_PAGE."""
    host: HostPtr = v.domain.host
    if not get_page(host, source, owner):
        return -EINVAL
    if get_page_and_type(host, target, owner, FRAME_WRITABLE) != 0:
        put_page(host, source)
        return -EINVAL
    memcpy(frame_ptr(host, target), frame_ptr(host, source), 4096)
    drop_code(host, target << 12, (target + 1) << 12)
    put_page_and_type(host, target)
    put_page(host, source)
    return 0


def flush_multi(v: VcpuPtr, mask_address: u64, page: cython.bint, va: u64) -> i64:
    """Flush a page, or everything, for the vcpus of a bitmap in guest memory (0: without one).

    An engine empties its cache when it goes to another vcpu, so that whoever is on none now needs no flush, and
    flushing for more vcpus than asked is never wrong.
    """
    mask: u64
    if mask_address != 0 and copy_from_guest(v, cython.address(mask), mask_address, 8) != 0:
        return -EFAULT
    if page:
        if in_guest_range(va, 1):
            flush_page(v.domain, va)
    else:
        flush_domain(v.domain)
    return 0


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
    if owner != v.domain.domid:
        return -EPERM
    if command == MMUEXT_NEW_BASEPTR:
        return set_kernel_table(v, op[1])
    if command == MMUEXT_NEW_USER_BASEPTR:
        return set_user_table(v, op[1])
    if command == MMUEXT_TLB_FLUSH_LOCAL or command == MMUEXT_TLB_FLUSH_ALL:
        return flush_multi(v, 0, False, 0)
    if command == MMUEXT_INVLPG_LOCAL or command == MMUEXT_INVLPG_ALL:
        return flush_multi(v, 0, True, op[1])
    if command == MMUEXT_TLB_FLUSH_MULTI or command == MMUEXT_INVLPG_MULTI:
        # A bitmap that cannot be read is an invalid argument here, and not a fault.
        return (
            -EINVAL if op[2] == 0 or flush_multi(v, op[2], command == MMUEXT_INVLPG_MULTI, op[1]) != 0 else 0
        )
    if command == MMUEXT_FLUSH_CACHE:
        return -EACCES
    if command == MMUEXT_FLUSH_CACHE_GLOBAL:
        return -EINVAL
    if command == MMUEXT_SET_LDT:
        return set_ldt(v, op[1], cython.cast(u32, op[2]))
    return -ENOSYS


def do_mmuext_op(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """A batch of extended operations; ``done`` gets the number carried out before the first error."""
    op: u64[3]
    at: u64 = args[0]
    count: u32 = cython.cast(u32, args[1])
    done: u32 = 0
    prior: u32 = 0
    owner: u16 = 0
    rc: i64 = 0
    if count & MMU_UPDATE_PREEMPTED:
        count &= ~MMU_UPDATE_PREEMPTED
        if args[2] != 0 and copy_from_guest(v, cython.address(prior), args[2], 4) != 0:
            return -EFAULT
    rc = foreign_domid(v, cython.cast(u16, args[3]), cython.address(owner))
    if rc != 0:
        return rc
    while done < count:
        if copy_from_guest(v, op, at, 24) != 0:
            rc = -EFAULT
            break
        rc = mmuext_one(v, op, owner)
        if rc != 0:
            break
        at += 24
        done += 1
    if args[2] != 0:
        done += prior
        copy_to_guest(v, args[2], cython.address(done), 4)
    return rc
