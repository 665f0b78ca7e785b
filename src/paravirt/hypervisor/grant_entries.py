# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Page-table entries that map granted frames: the one way in which another domain's frame gets into an L1 table.

Such an entry holds what every L1 entry holds: a reference to the frame, and a use as writable if it maps it so.
Therefore it may be overwritten, or its table released, like any other, and mmu.py need not know that it came from a
grant.  What a guest cannot do is to make one, or to make it writable, since the frame is not its own.

Behaviour: Xen 4.17, arch/x86/pv/grant_table.c (release build).  All functions are called under the machine lock.
"""

import cython
from cython.cimports.paravirt.abi.constants import GNTMAP_application_map, GNTMAP_contains_pte, GNTMAP_readonly
from cython.cimports.paravirt.hypervisor.frames import get_page, put_page, share_out
from cython.cimports.paravirt.hypervisor.guestmem import find_l1e, frame_ptr, in_guest_range
from cython.cimports.paravirt.hypervisor.mmu import adjust_entry, put_l1_entry, store
from cython.cimports.paravirt.hypervisor.records import FRAME_L1, FRAME_VALIDATED, FramePtr, HostPtr, VcpuPtr, u64
from cython.cimports.paravirt.hypervisor.views.vcpu import Vcpu
from cython.cimports.paravirt.machine.cpu import U64Ptr

PRESENT_RW = cython.declare(u64, 0x3)
ADDRESS = cython.declare(u64, 0x000FFFFFFFFFF000)
PRESENT_ACCESSED_DIRTY_NX = cython.declare(u64, (cython.cast(u64, 1) << 63) | 0x61)
AVAIL_SHIFT = cython.declare(u64, 16)  # GNTMAP_guest_avail0: three of these bits have a place in an entry, from 9 on


def find_grant_entry(v: VcpuPtr, address: u64, by_entry: cython.bint, table_mfn: U64Ptr) -> U64Ptr:
    """The entry that a request names, by its machine address or by what it maps: NULL, unless of an L1 in use."""
    host: HostPtr = v.domain.host
    mfn: u64 = address >> 12
    granted: u64 = 0
    frame: FramePtr
    entry: U64Ptr = cython.NULL
    if by_entry:
        if address & 7:
            return cython.NULL
    else:
        if not in_guest_range(address, 1):
            return cython.NULL
        entry = find_l1e(v, address, cython.address(mfn), cython.address(granted))
        if entry == cython.NULL:
            return cython.NULL
    if not get_page(host, mfn, v.domain.domid):
        return cython.NULL
    put_page(host, mfn)  # what it is used as keeps it
    frame = cython.address(host.frames[mfn])
    if frame.type != FRAME_L1 or frame.type_refs == 0 or not frame.flags & FRAME_VALIDATED:
        return cython.NULL
    if by_entry:
        entry = cython.cast(U64Ptr, frame_ptr(host, mfn)) + ((address & 0xFFF) >> 3)
    table_mfn[0] = mfn
    return entry


def grant_entry(mfn: u64, flags: u64) -> u64:
    """The entry that maps a granted frame as GNTMAP_* ask."""
    value: u64 = (mfn << 12) | PRESENT_ACCESSED_DIRTY_NX | (((flags >> AVAIL_SHIFT) & 7) << 9)
    if flags & GNTMAP_application_map:
        value |= 4
    if not flags & GNTMAP_readonly:
        value |= 2
    return adjust_entry(value, 1)


def map_granted(vcpu: Vcpu, address: u64, mfn: u64, flags: u64) -> bool:
    """Map a granted frame where a request says.  False: there is no such entry.

    The caller has taken what the new entry holds; what the old one held is given back.
    """
    v: VcpuPtr = vcpu.rec
    table: u64 = 0
    old: u64
    entry: U64Ptr = find_grant_entry(v, address, flags & GNTMAP_contains_pte != 0, cython.address(table))
    if entry == cython.NULL:
        return False
    old = entry[0]
    share_out(v.domain.host, mfn)
    store(v.domain.host, v, table, (cython.cast(u64, entry) & 0xFFF) >> 3, grant_entry(mfn, flags), False)
    put_l1_entry(v.domain.host, old)
    return True


def unmap_granted(vcpu: Vcpu, address: u64, mfn: u64, flags: u64, new_address: u64) -> bool:
    """Take a granted frame's mapping away, or put the entry of another address in its place.

    What the entry held stays the caller's to give back, after a flush.  False: the entry does not map that frame in
    that way, or there is none.

    Args:
        new_address: whose entry moves here; 0: the entry becomes empty.
    """
    v: VcpuPtr = vcpu.rec
    host: HostPtr = v.domain.host
    by_entry: cython.bint = flags & GNTMAP_contains_pte != 0
    table: u64 = 0
    moved: u64 = 0
    entry: U64Ptr
    if new_address:
        if by_entry:
            return False
        entry = find_grant_entry(v, new_address, False, cython.address(table))
        if entry == cython.NULL:
            return False
        moved = entry[0]
        store(host, v, table, (cython.cast(u64, entry) & 0xFFF) >> 3, 0, False)
    entry = find_grant_entry(v, address, by_entry, cython.address(table))
    if (
        entry == cython.NULL
        or (entry[0] & ADDRESS) >> 12 != mfn
        or (entry[0] ^ grant_entry(mfn, flags)) & PRESENT_RW
    ):
        put_l1_entry(host, moved)
        return False
    store(host, v, table, (cython.cast(u64, entry) & 0xFFF) >> 3, moved, False)
    return True

