# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""The frame table: who owns a frame, what it is used as, and how many uses there are.

The paper's section 3.3.3: every frame has one owner and, at any time, one type; the type may change only when no
use under the old one is left.  So a page table, once validated, cannot be written behind the hypervisor's back:
a writable mapping of it would need the type *writable*.

``refs`` counts every use; a frame whose count falls to zero goes back to the free pool.  ``type_refs`` counts the
uses under ``type``.  A page table is validated when the first use as such arrives, and gives back what its
entries hold when the last one goes.  mmu.py knows how; this module only counts.

Translations.  A frame that leaves the type *writable*, or its owner, may still be reachable through an engine's
stale translation.  Each full flush of an engine advances the flush clock; a frame is stamped when its last
writable use ends, and nothing new is made of it before every engine has flushed since.

All functions are called under the machine lock.
"""

import cython
from cython.cimports.libc.string import memset
from cython.cimports.paravirt.abi.constants import DOMID_INVALID, EINVAL
from cython.cimports.paravirt.hypervisor.mmu import devalidate_table, validate_table
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_ALLOCATED,
    FRAME_L1,
    FRAME_L4,
    FRAME_NONE,
    FRAME_READONLY,
    FRAME_VALIDATED,
    FRAME_WRITABLE,
    FRAME_XEN,
    DomainPtr,
    FramePtr,
    HostPtr,
    PcpuPtr,
    i64,
    u8,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.machine.cpu import FLUSH_ALL

NO_FRAME = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)


def get_page(host: HostPtr, mfn: u64, domid: u16) -> cython.bint:
    """Take a reference to a frame that ``domid`` owns: false if it does not exist or is somebody else's."""
    frame: FramePtr
    if mfn >= host.nr_frames:
        return False
    frame = cython.address(host.frames[mfn])
    if frame.owner != domid or frame.refs == 0 or frame.refs >= cython.cast(u32, 0x7FFFFFFF):
        return False
    frame.refs += 1
    return True


def put_page(host: HostPtr, mfn: u64) -> cython.void:
    """Give a reference back; the last one frees the frame."""
    frame: FramePtr = cython.address(host.frames[mfn])
    owner: DomainPtr
    frame.refs -= 1
    if frame.refs == 0:
        owner = host.domains[frame.owner] if frame.owner < host.max_domains else cython.NULL
        if owner != cython.NULL and not frame.flags & FRAME_XEN:
            owner.tot_pages -= 1
        frame.owner = DOMID_INVALID
        frame.type = FRAME_NONE
        frame.flags = 0
        frame.tlb_stamp = host.flush_clock
        host.free_frames += 1
        host.m2p[mfn] = NO_FRAME
        if mfn < host.alloc_hint:
            host.alloc_hint = mfn


def flush_pcpu(pcpu: PcpuPtr) -> cython.void:
    """Empty one engine's translation cache."""
    host: HostPtr = pcpu.host
    host.flush_clock += 1
    host.stats.flush_count += 1
    pcpu.ops.flush_tlb(pcpu.engine, FLUSH_ALL)
    pcpu.flush_clock = host.flush_clock


def flush_all(host: HostPtr) -> cython.void:
    """Empty every engine's translation cache."""
    i: u32
    for i in range(host.nr_pcpus):
        flush_pcpu(host.pcpus[i])


def flush_stale(host: HostPtr, stamp: u64) -> cython.void:
    """Flush the engines that did not do so after ``stamp``."""
    i: u32
    for i in range(host.nr_pcpus):
        if host.pcpus[i].flush_clock <= stamp:
            flush_pcpu(host.pcpus[i])


def may_hold(pcpu: PcpuPtr, d: DomainPtr) -> cython.bint:
    """Whether an engine may hold translations of the domain's: it empties its cache when it goes to another vcpu."""
    return pcpu.current != cython.NULL and pcpu.current.domain == d


def flush_domain(d: DomainPtr) -> cython.void:
    """Empty the translation cache of every engine that a vcpu of the domain is on."""
    i: u32
    for i in range(d.host.nr_pcpus):
        if may_hold(d.host.pcpus[i], d):
            flush_pcpu(d.host.pcpus[i])


def flush_page(d: DomainPtr, va: u64) -> cython.void:
    """Drop the translation of one address from every engine that a vcpu of the domain is on."""
    i: u32
    for i in range(d.host.nr_pcpus):
        if may_hold(d.host.pcpus[i], d):
            d.host.pcpus[i].ops.flush_page(d.host.pcpus[i].engine, va)


def drop_code(host: HostPtr, start: u64, end: u64) -> cython.void:
    """Machine bytes [start, end) were written here: every engine drops the code that it translated from them."""
    i: u32
    for i in range(host.nr_pcpus):
        host.pcpus[i].ops.invalidate_code(host.pcpus[i].engine, start, end)


def release_table(host: HostPtr, mfn: u64) -> cython.void:
    """A frame stops being a page table, or becomes one: every engine forgets what it made of its contents."""
    i: u32
    for i in range(host.nr_pcpus):
        host.pcpus[i].ops.release_table(host.pcpus[i].engine, mfn)


def get_page_type(host: HostPtr, mfn: u64, type: u8) -> i64:
    """Take a use of a frame as ``type``; the caller holds a reference.

    Returns 0; -EINVAL when it is in use as something else or does not validate; other errors as validation says.
    """
    frame: FramePtr = cython.address(host.frames[mfn])
    rc: i64
    if frame.type_refs >= cython.cast(u32, 0x7FFFFFFF):
        return -EINVAL
    if frame.type_refs != 0:
        if frame.type != type or not frame.flags & FRAME_VALIDATED:
            return -EINVAL
        frame.type_refs += 1
        return 0
    if frame.type != type:
        flush_stale(host, frame.tlb_stamp)
        frame.type = type
        frame.flags &= ~FRAME_VALIDATED
    frame.type_refs = 1
    if type == FRAME_WRITABLE:
        frame.flags |= FRAME_VALIDATED
        return 0
    if not frame.flags & FRAME_VALIDATED:
        rc = validate_table(host, mfn, type)
        if rc != 0:
            frame.type_refs = 0
            frame.type = FRAME_NONE
            return rc
        frame.flags |= FRAME_VALIDATED
    return 0


def put_page_type(host: HostPtr, mfn: u64) -> cython.void:
    """Give a use under the present type back; the last use of a page table releases what it refers to.

    A frame of descriptors stays a checked one until it is used as something else: nobody can write to it before.
    """
    frame: FramePtr = cython.address(host.frames[mfn])
    if frame.type_refs == 1:
        if frame.type >= FRAME_L1 and frame.type <= FRAME_L4 and frame.flags & FRAME_VALIDATED:
            frame.flags &= ~FRAME_VALIDATED
            devalidate_table(host, mfn, frame.type)
        frame.tlb_stamp = host.flush_clock
    frame.type_refs -= 1


def get_page_and_type(host: HostPtr, mfn: u64, domid: u16, type: u8) -> i64:
    """A reference and a use as ``type``: 0, or -EINVAL (not that owner's), or get_page_type's error."""
    rc: i64
    if not get_page(host, mfn, domid):
        return -EINVAL
    rc = get_page_type(host, mfn, type)
    if rc != 0:
        put_page(host, mfn)
    return rc


def put_page_and_type(host: HostPtr, mfn: u64) -> cython.void:
    """Give both back."""
    put_page_type(host, mfn)
    put_page(host, mfn)


def claim(host: HostPtr, mfn: u64, domid: u16) -> cython.void:
    """Make a free frame ``domid``'s: zeroed, without type, with the one reference of its allocation."""
    frame: FramePtr = cython.address(host.frames[mfn])
    flush_stale(host, frame.tlb_stamp)
    frame.refs = 1
    frame.type_refs = 0
    frame.type = FRAME_NONE
    frame.flags = FRAME_ALLOCATED
    frame.owner = domid
    frame.partial = 0
    host.free_frames -= 1
    if mfn >= host.never_used:
        # Still as the host gave it: zero, and without a page of the host's behind it.
        host.never_used = mfn + 1
        return
    memset(host.memory + (mfn << 12), 0, 4096)
    drop_code(host, mfn << 12, (mfn + 1) << 12)


def alloc_frame(host: HostPtr, domid: u16) -> u64:
    """One free frame for ``domid``: its mfn, or all ones when the machine has none left."""
    return alloc_frames(host, domid, 1)


def alloc_frames(host: HostPtr, domid: u16, count: u64) -> u64:
    """``count`` contiguous frames for ``domid``: the first mfn, or all ones when there is no such extent."""
    mfn: u64 = host.alloc_hint
    run: u64 = 0
    first_free: u64 = NO_FRAME
    i: u64
    if count == 0 or count > host.free_frames:
        return NO_FRAME
    while mfn < host.nr_frames:
        if host.frames[mfn].owner == DOMID_INVALID and host.frames[mfn].refs == 0:
            if first_free == NO_FRAME:
                first_free = mfn
                host.alloc_hint = mfn
            run += 1
            if run == count:
                if mfn + 1 - count == host.alloc_hint:
                    host.alloc_hint = mfn + 1
                for i in range(mfn + 1 - count, mfn + 1):
                    claim(host, i, domid)
                return mfn + 1 - count
        else:
            run = 0
        mfn += 1
    return NO_FRAME


def release_allocation(host: HostPtr, mfn: u64, domid: u16) -> cython.bint:
    """Drop the reference that the allocation itself holds: false if ``domid`` does not hold that."""
    frame: FramePtr
    if mfn >= host.nr_frames:
        return False
    frame = cython.address(host.frames[mfn])
    if frame.owner != domid or not frame.flags & FRAME_ALLOCATED:
        return False
    frame.flags &= ~FRAME_ALLOCATED
    if frame.flags & FRAME_XEN and not frame.flags & FRAME_READONLY:
        # The hypervisor's own use of a frame that it shares with the domain.
        put_page_type(host, mfn)
    put_page(host, mfn)
    return True
