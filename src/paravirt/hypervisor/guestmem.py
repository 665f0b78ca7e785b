# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Guest memory by virtual address: page-table walks, and copies that check as the hardware would.

Every copy walks the page tables that the vcpu runs on (the kernel's, or its processes' in user mode), page by
page, and reads or writes each byte once.  Nothing in the hypervisor's own range can be named by a guest.
All functions are called under the machine lock.
"""

import cython
from cython.cimports.libc.string import memcpy
from cython.cimports.paravirt.abi.constants import EFAULT
from cython.cimports.paravirt.hypervisor.atomics import ORDERED, fetch_or64, load64
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, i64, u64
from cython.cimports.paravirt.machine.cpu import BytePtr, U64Ptr


def frame_ptr(host: HostPtr, mfn: u64) -> BytePtr:
    """The host address of machine frame ``mfn``; the caller has checked that it exists."""
    return cython.cast(BytePtr, host.memory + (mfn << 12))


def read_pte(host: HostPtr, table_mfn: u64, index: u64) -> u64:
    """Entry ``index`` of the page table in frame ``table_mfn``."""
    return cython.cast(U64Ptr, host.memory + (table_mfn << 12))[index]


def is_canonical(address: u64) -> cython.bint:
    """Whether bits 63..47 of an address are equal."""
    return cython.cast(u64, cython.cast(i64, address << 16) >> 16) == address


def is_guest_address(va: u64) -> cython.bint:
    """What Xen asks of a guest address before it is used: not in the hole, not in the hypervisor's range."""
    return not va >> 47 or va >= cython.cast(u64, 0xFFFF880000000000)


def in_guest_range(va: u64, size: u64) -> cython.bint:
    """Whether [va, va+size) is canonical and wholly outside the hypervisor's range (L4 slots 256 to 271)."""
    end: u64 = va + size
    if end < va:
        return False
    if end <= cython.cast(u64, 0x0000800000000000):
        return True
    return va >= cython.cast(u64, 0xFFFF880000000000)


def table_of(v: VcpuPtr) -> u64:
    """The frame of the L4 table that the vcpu runs on."""
    return v.user_table if v.cpu.user else v.kernel_table


def find_l1e(v: VcpuPtr, va: u64, l1_mfn: U64Ptr, flags: U64Ptr) -> U64Ptr:
    """The L1 entry that maps ``va``, or NULL when a table above it is missing.

    ``l1_mfn`` gets the frame of the L1 table, ``flags`` the RW bit (bit 1) if all upper levels grant it.
    """
    return find_in_table(v.domain.host, table_of(v), va, l1_mfn, flags)


def find_in_table(host: HostPtr, table: u64, va: u64, l1_mfn: U64Ptr, flags: U64Ptr) -> U64Ptr:
    """The same by the L4 table in a given frame."""
    entry: u64
    granted: u64 = 2
    shift: cython.int = 39
    while shift > 12:
        entry = read_pte(host, table, (va >> shift) & 511)
        if (entry & 0x81 != 1 and shift < 39) or not entry & 1:
            return cython.NULL
        granted &= entry
        table = (entry >> 12) & cython.cast(u64, 0xFFFFFFFFFF)
        if table >= host.nr_frames:
            return cython.NULL
        shift -= 9
    l1_mfn[0] = table
    flags[0] = granted
    return cython.cast(U64Ptr, host.memory + (table << 12)) + ((va >> 12) & 511)


def translate(v: VcpuPtr, va: u64, write: cython.bint) -> BytePtr:
    """The host address behind guest address ``va``, or NULL if an access would fault.

    Sets the accessed bit, and the dirty bit for a write, as a processor does: one that runs another vcpu of the domain
    may do so at the same time, and neither undoes the other's.
    """
    return translate_by(v.domain.host, table_of(v), va, write)


def translate_by(host: HostPtr, table: u64, va: u64, write: cython.bint) -> BytePtr:
    """The same by the L4 table in a given frame."""
    l1_mfn: u64
    flags: u64
    entry: u64
    mfn: u64
    pte: U64Ptr = find_in_table(host, table, va, cython.address(l1_mfn), cython.address(flags))
    if pte == cython.NULL:
        return cython.NULL
    entry = load64(pte, ORDERED)
    flags &= entry
    if not entry & 1 or (write and not flags & 2):
        return cython.NULL
    mfn = (entry >> 12) & cython.cast(u64, 0xFFFFFFFFFF)
    if mfn >= host.nr_frames:
        return cython.NULL
    if write and not entry & 0x40:
        fetch_or64(pte, 0x60, ORDERED)
    elif not entry & 0x20:
        fetch_or64(pte, 0x20, ORDERED)
    return host.memory + ((mfn << 12) | (va & 0xFFF))


def copy_from_guest(v: VcpuPtr, dst: cython.p_void, va: u64, size: u64) -> i64:
    """Copy ``size`` bytes at guest address ``va`` to ``dst``: 0, or -EFAULT (and then dst is in part written)."""
    chunk: u64
    source: BytePtr
    target: BytePtr = cython.cast(BytePtr, dst)
    if not in_guest_range(va, size):
        return -EFAULT
    while size > 0:
        chunk = 4096 - (va & 0xFFF)
        if chunk > size:
            chunk = size
        source = translate(v, va, False)
        if source == cython.NULL:
            return -EFAULT
        memcpy(target, source, chunk)
        target += chunk
        va += chunk
        size -= chunk
    return 0


def copy_to_guest(v: VcpuPtr, va: u64, src: cython.p_const_void, size: u64) -> i64:
    """Copy ``size`` bytes at ``src`` to guest address ``va``: 0, or -EFAULT (and then part may be written)."""
    return copy_by_table(v.domain.host, table_of(v), va, src, size)


def copy_to_kernel(v: VcpuPtr, va: u64, src: cython.p_const_void, size: u64) -> i64:
    """The same to an address of the guest's kernel, be the vcpu in user mode or not; it may be running elsewhere."""
    return copy_by_table(v.domain.host, v.kernel_table, va, src, size)


def copy_by_table(host: HostPtr, table: u64, va: u64, src: cython.p_const_void, size: u64) -> i64:
    """The same by the L4 table in a given frame."""
    chunk: u64
    target: BytePtr
    source: BytePtr = cython.cast(BytePtr, src)
    if not in_guest_range(va, size):
        return -EFAULT
    while size > 0:
        chunk = 4096 - (va & 0xFFF)
        if chunk > size:
            chunk = size
        target = translate_by(host, table, va, True)
        if target == cython.NULL:
            return -EFAULT
        memcpy(target, source, chunk)
        source += chunk
        va += chunk
        size -= chunk
    return 0


def fetch_code(v: VcpuPtr, dst: BytePtr, va: u64, size: u64) -> u64:
    """Copy up to ``size`` bytes of code at ``va``; the number of bytes that could be read."""
    done: u64 = 0
    chunk: u64
    source: BytePtr
    while done < size and in_guest_range(va + done, 1):
        chunk = 4096 - ((va + done) & 0xFFF)
        if chunk > size - done:
            chunk = size - done
        source = translate(v, va + done, False)
        if source == cython.NULL:
            break
        memcpy(dst + done, source, chunk)
        done += chunk
    return done
