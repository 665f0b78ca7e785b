# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Page tables: the guest writes them, the hypervisor validates each change before the hardware can see it.

A guest's page tables are the ones that the processor uses (direct paging).  Each present entry of a validated
table holds what it refers to: an L1 entry a reference to the frame it maps, and a use as *writable* if it maps it
writable; an Ln entry a use of the frame below as L(n-1) table.  A change takes the references of the new entry
first, stores it, and then gives back those of the old one, so that a refused change leaves no trace.

Superpages are refused (bit 7 of L2 and L3 entries), and so are the cacheability bits, as Xen refuses them for a
domain without hardware.  Present entries get the USER bit, because on real hardware a 64-bit guest's kernel runs
in ring 3; bit 52 remembers that the guest had not set it.

All functions are called under the machine lock.
"""

import cython
from cython.cimports.paravirt.abi.constants import DOMID_IO, EAGAIN, EBUSY, EINVAL, EPERM
from cython.cimports.paravirt.hypervisor.atomics import ORDERED, load64
from cython.cimports.paravirt.hypervisor.frames import (
    drop_page_type,
    flush_domain,
    flush_pcpu,
    get_page,
    get_page_and_type_part,
    put_page,
    share_out,
    take_page_type,
)
from cython.cimports.paravirt.hypervisor.guestmem import fetch_code, find_l1e, frame_ptr, read_pte
from cython.cimports.paravirt.hypervisor.hypercalls.descriptor_tables import destroy_ldt
from cython.cimports.paravirt.hypervisor.promotion import (
    defer_table_entry,
    get_table_entry,
    leave_over,
    put_old_table,
)
from cython.cimports.paravirt.hypervisor.ptwrite import WritePlan, finish_write, plan_write
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_L1,
    FRAME_L4,
    FRAME_READONLY,
    FRAME_VALIDATED,
    FRAME_WRITABLE,
    FRAME_XEN,
    DomainPtr,
    FramePtr,
    HostPtr,
    VcpuPtr,
    i64,
    u8,
    u16,
    u64,
)
from cython.cimports.paravirt.hypervisor.refusals import note_refused_write, refuse_entry, refuse_frame
from cython.cimports.paravirt.machine.cpu import FLUSH_USER, U64Ptr
from cython.cimports.paravirt.machine.decode import Insn, decode

PRESENT = cython.declare(u64, 0x1)
RW = cython.declare(u64, 0x2)
USER = cython.declare(u64, 0x4)
ACCESSED_DIRTY = cython.declare(u64, 0x60)
GLOBAL = cython.declare(u64, 0x100)
GUEST_KERNEL = cython.declare(u64, cython.cast(u64, 1) << 52)
ADDRESS = cython.declare(u64, 0x000FFFFFFFFFF000)
# The frame number that stands for none, where an entry has room for 40 bits of it.
NO_MFN = cython.declare(u64, 0xFFFFFFFFFF)
# Changes of these bits alone take and give no reference: accessed, dirty, user, global, the available ones, NX.
HARMLESS = cython.declare(u64, (cython.cast(u64, 0xFFF) << 52) | 0xF64)

# vm_assist: emulated page-table writes; no machine-to-phys table for processes.
WRITABLE_PAGETABLES = cython.declare(u64, 1 << 2)
M2P_STRICT = cython.declare(u64, cython.cast(u64, 1) << 32)

FIRST_RESERVED_SLOT = cython.declare(u64, 256)
LAST_RESERVED_SLOT = cython.declare(u64, 271)


def disallowed_flags(level: u8) -> u64:
    """Bits that a present entry of an L``level`` table must not have (PWT, PCD, PAT or PSE; GLOBAL above L1)."""
    return 0x98 if level == 1 else 0x198


def is_guest_l4_slot(index: u64) -> cython.bint:
    """Whether a guest may set this entry of an L4 table: all but the hypervisor's sixteen."""
    return index < FIRST_RESERVED_SLOT or index > LAST_RESERVED_SLOT


def adjust_entry(value: u64, level: u8) -> u64:
    """The entry as it is stored: USER added when present (see the module's head)."""
    if not value & PRESENT:
        return value
    if level > 1:
        return value | USER
    if not value & USER:
        value |= GUEST_KERNEL | USER
    if not value & GUEST_KERNEL:
        value |= GLOBAL
    return value


def get_l1_entry(host: HostPtr, value: u64, mapped_domid: u16) -> i64:
    """Check a present L1 entry and take what it holds.

    0, -EINVAL (bits that it must not have, or the frame that stands for none), -EPERM (no such frame), -EBUSY (not
    ``mapped_domid``'s, or not writable).
    """
    mfn: u64 = (value & ADDRESS) >> 12
    frame: FramePtr
    if value & disallowed_flags(1):
        return -EINVAL
    if mfn >= host.nr_frames or host.frames[mfn].owner == DOMID_IO:
        return -EINVAL if mfn == NO_MFN else -EPERM
    frame = cython.address(host.frames[mfn])
    if not get_page(host, mfn, mapped_domid):
        return -EBUSY
    if value & RW:
        if (frame.flags & FRAME_XEN and frame.flags & FRAME_READONLY) or take_page_type(
            host, mfn, FRAME_WRITABLE
        ) != 0:
            put_page(host, mfn)
            return -EBUSY
    return 0


def put_l1_entry(host: HostPtr, value: u64) -> cython.void:
    """Give back what a present entry of an L1 table holds."""
    mfn: u64 = (value & ADDRESS) >> 12
    if not value & PRESENT or mfn >= host.nr_frames:
        return
    if value & RW:
        drop_page_type(host, mfn, False, 0)
    put_page(host, mfn)


def clear_reserved_slots(host: HostPtr, l4_mfn: u64) -> cython.void:
    """A new L4 table: in the hypervisor's slots is what the engine needs, and nothing that a guest wrote.

    Under m2p_strict the machine-to-phys table is there from the first, until processes run on the table; without it
    only once the kernel does.
    """
    table: U64Ptr = cython.cast(U64Ptr, frame_ptr(host, l4_mfn))
    owner: DomainPtr = host.domains[host.frames[l4_mfn].owner]
    slot: u64
    for slot in range(FIRST_RESERVED_SLOT, LAST_RESERVED_SLOT + 1):
        table[slot] = host.reserved_l4[slot - FIRST_RESERVED_SLOT]
    if owner.arch_vm_assist & M2P_STRICT:
        table[FIRST_RESERVED_SLOT + host.m2p_index] = m2p_entry(host)


def m2p_entry(host: HostPtr) -> u64:
    """The L4 entry that shows the machine-to-phys table, read-only."""
    return (host.m2p_l3_mfn << 12) | 0x65


def show_machine_to_phys(v: VcpuPtr, l4_mfn: u64, shown: cython.bint) -> cython.void:
    """The table is about to be used: the machine-to-phys table appears in its slot, read-only, or is hidden."""
    host: HostPtr = v.domain.host
    pte: U64Ptr = cython.cast(U64Ptr, frame_ptr(host, l4_mfn)) + FIRST_RESERVED_SLOT + host.m2p_index
    value: u64 = m2p_entry(host) if shown else 0
    if pte[0] != value:
        put_entry(v, pte, value, False)


def hide_machine_to_phys(v: VcpuPtr, l4_mfn: u64) -> cython.void:
    """Processes are about to run on the table: under m2p_strict they do not see the machine-to-phys table."""
    if v.domain.arch_vm_assist & M2P_STRICT:
        show_machine_to_phys(v, l4_mfn, False)


def put_entry(v: VcpuPtr, pte: U64Ptr, value: u64, preserve_ad: cython.bint) -> cython.void:
    """Store an entry through the engine's door, keeping accessed and dirty bits that are already set if asked.

    Another vcpu may run on the table, and its processor set these bits at any time.
    """
    old: u64 = load64(pte, ORDERED)
    while not v.pcpu.ops.store_pte(
        v.pcpu.engine, pte, old, value | (old & ACCESSED_DIRTY) if preserve_ad else value
    ):
        old = load64(pte, ORDERED)


def store(
    host: HostPtr, v: VcpuPtr, table_mfn: u64, index: u64, value: u64, preserve_ad: cython.bint
) -> cython.void:
    """The same for an entry by its table's frame."""
    put_entry(v, cython.cast(U64Ptr, frame_ptr(host, table_mfn)) + index, value, preserve_ad)


def store_expected(
    host: HostPtr, v: VcpuPtr, table_mfn: u64, index: u64, value: u64, preserve_ad: cython.bint, expected: U64Ptr
) -> cython.bint:
    """Store it only if it still is ``expected`` (NULL: whatever it is); false: it is not, and nothing was stored."""
    if expected == cython.NULL:
        store(host, v, table_mfn, index, value, preserve_ad)
        return True
    return v.pcpu.ops.store_pte(
        v.pcpu.engine, cython.cast(U64Ptr, frame_ptr(host, table_mfn)) + index, expected[0], value
    )


def mod_entry(
    v: VcpuPtr,
    table_mfn: u64,
    index: u64,
    value: u64,
    level: u8,
    preserve_ad: cython.bint,
    mapped_domid: u16,
    expected: U64Ptr,
) -> i64:
    """Change one entry of a validated table: 0 or a negative error number, and then nothing has changed.

    ``mapped_domid`` owns the frames that an L1 entry may map (normally the table's owner).  What an entry of a higher
    level held is left over, at ``host.old``, for the caller to release when it has done with the table.  -ERESTART:
    the table below is part way, and the same change must be made again.  ``expected``: the L1 entry that the new one
    was made from, or NULL; -EAGAIN: a processor has set a bit in it since.
    """
    host: HostPtr = v.domain.host
    owner: u16 = host.frames[table_mfn].owner
    old: u64 = read_pte(host, table_mfn, index)
    rc: i64
    if level == 4 and not is_guest_l4_slot(index):
        return refuse_entry(host, level, table_mfn, index, value, -EINVAL)
    if value & PRESENT:
        if value & disallowed_flags(level):
            return refuse_entry(host, level, table_mfn, index, value, -EINVAL)
        if old & PRESENT and not (old ^ value) & ~HARMLESS:
            value = adjust_entry(value, level)
            return 0 if store_expected(host, v, table_mfn, index, value, preserve_ad, expected) else -EAGAIN
        if level == 1:
            rc = get_l1_entry(host, value, mapped_domid)
            if rc == 0 and mapped_domid != owner:
                share_out(host, (value & ADDRESS) >> 12)
        else:
            rc = get_table_entry(host, table_mfn, value, level, owner, False, False)
        if rc != 0:
            return refuse_entry(host, level, table_mfn, index, value, rc)
        value = adjust_entry(value, level)
    if not store_expected(host, v, table_mfn, index, value, preserve_ad, expected):
        put_l1_entry(host, value)
        return -EAGAIN
    if level == 1:
        put_l1_entry(host, old)
    elif old & PRESENT:
        defer_table_entry(host, table_mfn, old)
        # Guest memory is read through the tables, and never through a translation that the tables have no more:
        # guest code must not see another memory than the hypervisor does.
        flush_domain(v.domain)
    return 0


def put_base(v: VcpuPtr, old: u64) -> i64:
    """A vcpu has left an L4 table: 0, or -ERESTART when something of it is left over."""
    host: HostPtr = v.domain.host
    if old == 0:
        return 0
    leave_over(host, old, 0, False)
    return put_old_table(host, host.old)


def take_base(v: VcpuPtr, mfn: u64) -> i64:
    """Take a use of an L4 table for a vcpu to run on: 0, -ERESTART, or -EINVAL and the errors of validation."""
    host: HostPtr = v.domain.host
    return refuse_frame(host, mfn, get_page_and_type_part(host, mfn, v.domain.domid, FRAME_L4, False, False))


def set_kernel_table(v: VcpuPtr, mfn: u64) -> i64:
    """MMUEXT_NEW_BASEPTR: run the guest's kernel on the L4 table in ``mfn``.  Made again, it is done with at once."""
    old: u64 = v.kernel_table
    rc: i64 = 0
    if mfn != old:
        rc = take_base(v, mfn)
        if rc != 0:
            return rc
        # The new table may have something else where the LDT is.
        destroy_ldt(v)
        show_machine_to_phys(v, mfn, True)
        v.kernel_table = mfn
        v.cpu.kernel_cr3 = mfn << 12
        rc = put_base(v, old)
    flush_pcpu(v.pcpu)
    return rc


def set_user_table(v: VcpuPtr, mfn: u64) -> i64:
    """MMUEXT_NEW_USER_BASEPTR: run the guest's processes on the L4 table in ``mfn`` (0: none)."""
    old: u64 = v.user_table
    rc: i64 = 0
    if mfn != old:
        if mfn != 0:
            rc = take_base(v, mfn)
            if rc != 0:
                return rc
            hide_machine_to_phys(v, mfn)
        v.user_table = mfn
        v.cpu.user_cr3 = mfn << 12
        rc = put_base(v, old)
    v.pcpu.ops.flush_tlb(v.pcpu.engine, FLUSH_USER)
    return rc


def write_fault(host: HostPtr, v: VcpuPtr, address: u64) -> cython.bint:
    """The guest's kernel wrote to a page that it maps read-only: if that is an L1 table of its own, carry it out.

    The instruction is decoded, the new entry validated like one that came by hypercall, and the instruction
    finished.  Returns false when this is not such a write, or a refused one: then the guest gets its page fault.
    """
    code: cython.uchar[16]
    insn: Insn
    plan: WritePlan
    l1_mfn: u64 = 0
    granted: u64 = 0
    target: u64
    old: u64
    new: u64 = 0
    length: u64
    index: u64
    rc: i64 = -EAGAIN
    frame: FramePtr
    pte: U64Ptr
    if not v.domain.arch_vm_assist & WRITABLE_PAGETABLES:
        return False
    pte = find_l1e(v, address, cython.address(l1_mfn), cython.address(granted))
    if pte == cython.NULL or pte[0] & (PRESENT | RW) != PRESENT:
        return False
    target = (pte[0] & ADDRESS) >> 12
    if target >= host.nr_frames:
        return False
    frame = cython.address(host.frames[target])
    if (
        frame.type != FRAME_L1
        or frame.type_refs == 0
        or not frame.flags & FRAME_VALIDATED
        or frame.owner != v.domain.domid
    ):
        return False
    length = fetch_code(v, code, v.cpu.rip, 15)
    if decode(code, length, v.cpu.seg[1].flags & (1 << 21) != 0, cython.address(insn)) < 0:
        return False
    index = (address & 0xFFF) >> 3
    while rc == -EAGAIN:
        old = read_pte(host, target, index)
        if plan_write(v, cython.address(insn), address, old, cython.address(new), cython.address(plan)) != 0:
            return False
        rc = mod_entry(v, target, index, new, 1, False, v.domain.domid, cython.address(old))
    if rc != 0:
        note_refused_write(host, v, target, index, new, rc)
        return False
    finish_write(v, cython.address(insn), cython.address(plan))
    host.stats.ptwr_count += 1
    return True
