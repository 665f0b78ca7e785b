# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""Descriptor tables: set_gdt and update_descriptor (public/xen.h).

A frame that holds descriptors has the type *segment descriptor*: each descriptor in it was checked, and the guest
maps it read-only.  The first 14 pages of the GDT are the guest's; the hypervisor's own descriptors follow.  A page of
the LDT becomes such a frame when a selector first names a descriptor in it, and stays one until the LDT or the page
table that the vcpu runs on is changed; what the guest maps at its address meanwhile does not matter.
"""

import cython
from cython.cimports.paravirt.abi.constants import EFAULT, EINVAL, FIRST_RESERVED_GDT_ENTRY
from cython.cimports.paravirt.hypervisor.frames import (
    drop_code,
    get_page,
    get_page_and_type,
    get_page_type,
    put_page,
    put_page_and_type,
    put_page_type,
)
from cython.cimports.paravirt.hypervisor.guestmem import copy_from_guest, find_in_table, frame_ptr, in_guest_range
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_SEGDESC,
    FRAME_WRITABLE,
    FramePtr,
    HostPtr,
    VcpuPtr,
    i64,
    u8,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.refusals import refuse_entry, refuse_frame
from cython.cimports.paravirt.hypervisor.segments import check_descriptor
from cython.cimports.paravirt.machine.cpu import U64Ptr


def destroy_gdt(v: VcpuPtr) -> cython.void:
    """Give the frames of the vcpu's GDT back."""
    i: u32
    for i in range(16):
        if v.gdt_frames[i] != 0:
            put_page_and_type(v.domain.host, v.gdt_frames[i])
            v.gdt_frames[i] = 0
    v.gdt_entries = 0


def map_ldt_page(v: VcpuPtr, page: u32) -> cython.bint:
    """Take a page of the LDT into use: false if none is mapped there, or it cannot hold descriptors."""
    l1_mfn: u64
    flags: u64
    mfn: u64
    pte: U64Ptr
    va: u64 = v.ldt_base + (cython.cast(u64, page) << 12)
    if not in_guest_range(va, 1):
        return False
    # The table is where the kernel mapped it.
    pte = find_in_table(v.domain.host, v.kernel_table, va, cython.address(l1_mfn), cython.address(flags))
    if pte == cython.NULL or not pte[0] & 1:
        return False
    mfn = (pte[0] >> 12) & cython.cast(u64, 0xFFFFFFFFFF)
    if get_page_and_type(v.domain.host, mfn, v.domain.domid, FRAME_SEGDESC) != 0:
        return False
    v.ldt_frames[page] = mfn
    return True


def destroy_ldt(v: VcpuPtr) -> cython.void:
    """Give the frames of the vcpu's LDT back; those that are still in use are taken again when they are next named."""
    i: u32
    for i in range(16):
        if v.ldt_frames[i] != 0:
            put_page_and_type(v.domain.host, v.ldt_frames[i])
            v.ldt_frames[i] = 0


def set_gdt(v: VcpuPtr, frames: U64Ptr, entries: u32) -> i64:
    """Use the frames (mfns, 512 descriptors each) as the vcpu's GDT: 0 or -EINVAL, and then the old one stays."""
    host: HostPtr = v.domain.host
    pages: u32 = (entries + 511) // 512
    i: u32
    undo: u32
    if entries > FIRST_RESERVED_GDT_ENTRY:
        return -EINVAL
    for i in range(pages):
        if get_page_and_type(host, frames[i], v.domain.domid, FRAME_SEGDESC) != 0:
            for undo in range(i):
                put_page_and_type(host, frames[undo])
            return refuse_frame(host, frames[i], -EINVAL)
    destroy_gdt(v)
    for i in range(pages):
        v.gdt_frames[i] = frames[i]
    v.gdt_entries = entries
    return 0


def do_set_gdt(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_set_gdt(frame_list, entries)."""
    frames: u64[16]
    entries: u32 = cython.cast(u32, args[1])
    if entries > FIRST_RESERVED_GDT_ENTRY:
        return -EINVAL
    if copy_from_guest(v, frames, args[0], ((entries + 511) // 512) * 8) != 0:
        return -EFAULT
    return set_gdt(v, frames, entries)


def do_update_descriptor(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_update_descriptor(machine address, descriptor): in a descriptor frame, or a plain one."""
    address: u64 = args[0]
    descriptor: u64 = args[1]
    mfn: u64 = address >> 12
    index: u64 = (address & 0xFFF) >> 3
    type: u8 = FRAME_WRITABLE
    frame: FramePtr
    if address & 7 or not check_descriptor(v.domain, cython.address(descriptor)):
        return refuse_entry(host, FRAME_SEGDESC, mfn, index, descriptor, -EINVAL)
    if not get_page(host, mfn, v.domain.domid):
        return refuse_entry(host, FRAME_SEGDESC, mfn, index, descriptor, -EINVAL)
    frame = cython.address(host.frames[mfn])
    if frame.type == FRAME_SEGDESC and frame.type_refs != 0:
        type = FRAME_SEGDESC
    if get_page_type(host, mfn, type) != 0:
        put_page(host, mfn)
        return refuse_entry(host, FRAME_SEGDESC, mfn, index, descriptor, -EINVAL)
    cython.cast(U64Ptr, frame_ptr(host, mfn))[index] = descriptor
    drop_code(host, address, address + 8)
    put_page_type(host, mfn)
    put_page(host, mfn)
    return 0
