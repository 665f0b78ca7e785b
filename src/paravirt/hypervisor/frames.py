# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""The frame table: who owns a frame, what it is used as, and how many uses there are.

The paper's section 3.3.3: every frame has one owner and, at any time, one type; the type may change only when no
use under the old one is left.  So a page table, once validated, cannot be written behind the hypervisor's back:
a writable mapping of it would need the type *writable*.

``refs`` counts every use; a frame whose count falls to zero goes back to the free pool.  ``type_refs`` counts the
uses under ``type``.  A page table is validated when the first use as such arrives, and gives back what its
entries hold when the last one goes.  promotion.py knows how; this module only counts.

Translations.  A frame that leaves the type *writable*, or its owner, may still be reachable through an engine's
stale translation.  Each full flush of an engine advances the flush clock; a frame is stamped when its last
writable use ends, and nothing new is made of it before every engine has flushed since.

All functions are called under the machine lock.
"""

import cython
from cython.cimports.libc.string import memset
from cython.cimports.paravirt.abi.constants import DOMID_INVALID, DOMID_XEN, EINVAL, ERESTART
from cython.cimports.paravirt.hypervisor.free_frames import (
    find_extent,
    find_used,
    is_used,
    note_clean,
    note_free,
    note_taken,
    take_clean,
)
from cython.cimports.paravirt.hypervisor.promotion import devalidate_page, put_old_table, validate_page
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_ALLOCATED,
    FRAME_KEPT,
    FRAME_L1,
    FRAME_L4,
    FRAME_NONE,
    FRAME_PARTIAL,
    FRAME_PARTIAL_SET,
    FRAME_READONLY,
    FRAME_VALIDATED,
    FRAME_WRITABLE,
    FRAME_XEN,
    DomainPtr,
    FramePtr,
    HostPtr,
    OldTablePtr,
    PcpuPtr,
    i64,
    u8,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.machine.cpu import FLUSH_ALL
from cython.cimports.posix.mman import MADV_REMOVE, madvise

NO_FRAME = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)
# What clearing a frame counts, in looks at page-table entries.
WORK_OF_CLEARING = cython.declare(u64, 64)
# Frames that go back to the host at a time.
RUN = cython.declare(u64, 512)


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
    """Give a reference back; the last one frees the frame, unless it is one that the hypervisor shared and still uses:
    that is no domain's then."""
    frame: FramePtr = cython.address(host.frames[mfn])
    owner: DomainPtr
    frame.refs -= 1
    if frame.refs == 0 and frame.flags & FRAME_KEPT:
        frame.owner = DOMID_XEN
        frame.refs = 1
        frame.type = FRAME_NONE
        frame.type_refs = 0
        frame.flags = FRAME_ALLOCATED | FRAME_XEN | FRAME_READONLY
        frame.tlb_stamp = host.flush_clock
        host.m2p[mfn] = NO_FRAME
    elif frame.refs == 0:
        owner = host.domains[frame.owner] if frame.owner < host.max_domains else cython.NULL
        if owner != cython.NULL and not frame.flags & FRAME_XEN:
            owner.tot_pages -= 1
        frame.owner = DOMID_INVALID
        frame.type = FRAME_NONE
        frame.flags = 0
        frame.tlb_stamp = host.flush_clock
        note_free(host, mfn)
        host.m2p[mfn] = NO_FRAME


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


def owner_of(host: HostPtr, mfn: u64) -> DomainPtr:
    """The domain that owns a frame; NULL: none that lives."""
    owner: u16 = host.frames[mfn].owner
    return host.domains[owner] if owner < host.max_domains else cython.NULL


def may_map(pcpu: PcpuPtr, owner: DomainPtr) -> cython.bint:
    """Whether an engine may hold translations to frames of ``owner`` (NULL: of whoever had them before)."""
    return owner == cython.NULL or owner.shared_out or may_hold(pcpu, owner)


def share_out(host: HostPtr, mfn: u64) -> cython.void:
    """Another domain maps a frame: from now on translations to its owner's frames may be in any engine."""
    owner: DomainPtr = owner_of(host, mfn)
    if owner != cython.NULL:
        owner.shared_out = 1


def flush_frame(host: HostPtr, mfn: u64) -> cython.void:
    """Before something new is made of a frame: flush the engines that may still reach it by what it was."""
    owner: DomainPtr = owner_of(host, mfn)
    stamp: u64 = host.frames[mfn].tlb_stamp
    i: u32
    for i in range(host.nr_pcpus):
        if host.pcpus[i].flush_clock <= stamp and may_map(host.pcpus[i], owner):
            flush_pcpu(host.pcpus[i])


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


def may_run_code(pcpu: PcpuPtr, owner: DomainPtr) -> cython.bint:
    """Whether an engine may run code that it has from frames of ``owner`` (NULL: of whoever had them before).

    One that the domain left drops all of it before the domain comes back (:func:`arrive`).
    """
    return (
        owner == cython.NULL
        or owner.shared_out
        or owner.nr_vcpus == 0
        or owner.vcpus[0] == cython.NULL
        or owner.vcpus[0].pcpu == pcpu
    )


def drop_code(host: HostPtr, start: u64, end: u64) -> cython.void:
    """Machine bytes [start, end) of one frame were written here: engines drop the code that they translated from it."""
    owner: DomainPtr = owner_of(host, start >> 12)
    i: u32
    for i in range(host.nr_pcpus):
        if may_run_code(host.pcpus[i], owner):
            host.pcpus[i].ops.invalidate_code(host.pcpus[i].engine, start, end)


def drop_code_everywhere(host: HostPtr, start: u64, end: u64) -> cython.void:
    """The same for bytes that change their owner: every engine does it."""
    i: u32
    for i in range(host.nr_pcpus):
        host.pcpus[i].ops.invalidate_code(host.pcpus[i].engine, start, end)


def arrive(pcpu: PcpuPtr, d: DomainPtr) -> cython.void:
    """The domain comes to a physical CPU: the engine drops code that it translated when the domain was here before.

    The domain may have changed it elsewhere meanwhile, which this engine did not see.
    """
    host: HostPtr = d.host
    mfn: u64 = d.first_mfn
    start: u64
    if pcpu.ops.parallel or not d.visited >> pcpu.id & 1:
        return
    d.visited &= ~(cython.cast(u64, 1) << pcpu.id)
    while mfn < d.end_mfn:
        start = mfn
        while mfn < d.end_mfn and host.frames[mfn].owner == d.domid:
            mfn += 1
        if mfn > start:
            pcpu.ops.invalidate_code(pcpu.engine, start << 12, mfn << 12)
        mfn += 1


def release_table(host: HostPtr, mfn: u64) -> cython.void:
    """A frame stops being a page table, or becomes one: engines forget what they made of its contents."""
    owner: DomainPtr = owner_of(host, mfn)
    i: u32
    for i in range(host.nr_pcpus):
        if may_run_code(host.pcpus[i], owner):
            host.pcpus[i].ops.release_table(host.pcpus[i].engine, mfn)


def take_page_type(host: HostPtr, mfn: u64, type: u8) -> i64:
    """Take a use of a frame as ``type``; the caller holds a reference.

    Returns 0; -EINVAL when it is in use as something else or does not validate; other errors as validation says;
    -ERESTART when the time is over (see promotion.py), and then the use is not the caller's.
    """
    frame: FramePtr = cython.address(host.frames[mfn])
    was_partial: cython.bint = False
    rc: i64
    if frame.type_refs >= cython.cast(u32, 0x7FFFFFFF):
        return -EINVAL
    if frame.type_refs == 0:
        if frame.type != type:
            flush_frame(host, mfn)
            frame.type = type
            frame.flags &= ~FRAME_VALIDATED
            if type == FRAME_WRITABLE:
                frame.flags |= FRAME_VALIDATED
        frame.type_refs = 1
        if frame.flags & FRAME_VALIDATED:
            return 0
        frame.flags &= ~FRAME_PARTIAL_SET
        frame.nr_validated = 0
        frame.linear = 0
    elif frame.type != type:
        return -EINVAL
    elif frame.flags & FRAME_VALIDATED:
        frame.type_refs += 1
        return 0
    elif frame.flags & FRAME_PARTIAL:
        # Somebody got part of the way: go on, with the reference and the use that it holds itself.
        frame.flags &= ~FRAME_PARTIAL
        was_partial = True
    else:
        return -EINVAL
    rc = validate_page(host, mfn, type)
    if was_partial:
        put_page(host, mfn)
    return rc


def drop_page_type(host: HostPtr, mfn: u64, partial_set: cython.bint, above: u64) -> i64:
    """Give a use under the present type back; the last use of a page table releases what it refers to.

    ``partial_set``: the use is the frame's own, because it is part way, and it is to be released.  ``above``: the table
    whose entry held the use, or 0.  0; or -ERESTART (the frame is part way, and holds the use itself).  A frame of
    descriptors stays a checked one until it is used as something else: nobody can write to it before.
    """
    frame: FramePtr = cython.address(host.frames[mfn])
    flags: u8 = frame.flags
    linear: cython.bint = above != 0 and host.frames[above].type == frame.type
    rc: i64
    if partial_set and not flags & FRAME_PARTIAL:
        return 0
    if frame.type_refs == 1 and FRAME_L1 <= frame.type <= FRAME_L4 and flags & (FRAME_VALIDATED | FRAME_PARTIAL):
        frame.flags &= ~(FRAME_VALIDATED | FRAME_PARTIAL)
        rc = devalidate_page(host, mfn, flags & FRAME_PARTIAL)
        if linear and flags & FRAME_VALIDATED:
            frame.linear += 1
            host.frames[above].linear -= 1
        if rc == 0:
            frame.tlb_stamp = host.flush_clock
            frame.type_refs = 0
        else:
            frame.refs += 1
            frame.flags |= FRAME_PARTIAL
        if flags & FRAME_PARTIAL:
            put_page(host, mfn)
        return rc
    if frame.type_refs == 1:
        frame.tlb_stamp = host.flush_clock
    frame.type_refs -= 1
    if linear:
        frame.linear += 1
        host.frames[above].linear -= 1
    return 0


def get_page_type(host: HostPtr, mfn: u64, type: u8) -> i64:
    """take_page_type, without a stop on the way: 0, or a public error number."""
    old: OldTablePtr = host.old
    rc: i64
    host.old = cython.address(host.spare)
    host.whole += 1
    rc = take_page_type(host, mfn, type)
    if host.old.mfn == mfn:
        # What is left over of it goes with a reference of its own: the caller still has his.
        host.frames[mfn].refs += 1
    put_old_table(host, host.old)
    host.whole -= 1
    host.old = old
    return rc


def put_page_type(host: HostPtr, mfn: u64) -> cython.void:
    """drop_page_type of a whole use, without a stop on the way."""
    host.whole += 1
    drop_page_type(host, mfn, False, 0)
    host.whole -= 1


def get_page_and_type_part(
    host: HostPtr, mfn: u64, domid: u16, type: u8, partial_set: cython.bint, retain: cython.bint
) -> i64:
    """A reference and a use as ``type``: 0, -EINVAL (not that owner's), or take_page_type's error.

    ``partial_set``: the reference is the caller's already, and stays so.  ``retain``: it becomes the caller's also
    when the frame is only part way.
    """
    rc: i64
    if not partial_set and not get_page(host, mfn, domid):
        return -EINVAL
    rc = take_page_type(host, mfn, type)
    if rc != 0 and not partial_set and host.old.mfn != mfn and not (retain and rc == -ERESTART):
        put_page(host, mfn)
    return rc


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


def note_owner(host: HostPtr, mfn: u64, domid: u16) -> cython.void:
    """A frame becomes ``domid``'s."""
    owner: DomainPtr = cython.NULL
    host.frames[mfn].owner = domid
    owner = owner_of(host, mfn)
    if owner == cython.NULL:
        return
    if owner.end_mfn == 0 or mfn < owner.first_mfn:
        owner.first_mfn = mfn
    if mfn >= owner.end_mfn:
        owner.end_mfn = mfn + 1


def claim(host: HostPtr, mfn: u64, domid: u16) -> cython.void:
    """Make a free frame ``domid``'s: zeroed, without type, with the one reference of its allocation."""
    frame: FramePtr = cython.address(host.frames[mfn])
    flush_stale(host, frame.tlb_stamp)
    frame.refs = 1
    frame.type_refs = 0
    frame.type = FRAME_NONE
    frame.flags = FRAME_ALLOCATED
    note_owner(host, mfn, domid)
    frame.nr_validated = 0
    frame.linear = 0
    note_taken(host, mfn)
    host.work += WORK_OF_CLEARING
    if take_clean(host, mfn):
        return
    memset(host.memory + (mfn << 12), 0, 4096)
    drop_code_everywhere(host, mfn << 12, (mfn + 1) << 12)


def alloc_frame(host: HostPtr, domid: u16) -> u64:
    """One free frame for ``domid``: its mfn, or all ones when the machine has none left."""
    mfn: u64 = find_extent(host, 0, host.nr_frames)
    if mfn == NO_FRAME:
        return NO_FRAME
    claim(host, mfn, domid)
    host.alloc_hint = mfn + 1
    return mfn


def give_back(host: HostPtr, mfn: u64, end: u64) -> u64:
    """Find the first free frames from ``mfn`` on, below ``end``, that were used, and give their memory back to the
    host, which has zeros in its place when somebody wants it: the frame behind them.

    Where the host does not take it back the frames stay as they are, and are cleared when they are claimed.
    """
    start: u64 = find_used(host, mfn, end)
    mfn = start
    while mfn < end and mfn - start < RUN and is_used(host, mfn):
        flush_stale(host, host.frames[mfn].tlb_stamp)  # what is written there later would not be zero
        mfn += 1
    host.work += (mfn - start) * WORK_OF_CLEARING
    if mfn == start or madvise(host.memory + (start << 12), (mfn - start) << 12, MADV_REMOVE) != 0:
        return mfn
    drop_code_everywhere(host, start << 12, mfn << 12)
    while start < mfn:
        note_clean(host, start)
        start += 1
    return mfn


def release_allocation(host: HostPtr, mfn: u64, domid: u16) -> cython.bint:
    """Drop the reference that the allocation itself holds: false if ``domid`` does not hold that."""
    frame: FramePtr
    if mfn >= host.nr_frames:
        return False
    frame = cython.address(host.frames[mfn])
    if frame.owner != domid or not frame.flags & FRAME_ALLOCATED:
        return False
    frame.flags &= ~FRAME_ALLOCATED
    put_page(host, mfn)
    return True


def unshare_frame(host: HostPtr, mfn: u64, domid: u16) -> cython.void:
    """The hypervisor stops using a frame that it shared with ``domid``: it is freed when nobody has it mapped."""
    frame: FramePtr = cython.address(host.frames[mfn])
    if frame.owner == domid and frame.flags & FRAME_KEPT:
        frame.flags &= ~FRAME_KEPT
        put_page_type(host, mfn)
    if frame.flags & FRAME_ALLOCATED:
        frame.flags &= ~FRAME_ALLOCATED
        put_page(host, mfn)


def steal_frame(host: HostPtr, mfn: u64, domid: u16) -> cython.bint:
    """Take a frame in no use from its domain, contents and all: false if it is not the domain's, or in use.

    It is nobody's then, with the reference of its allocation, until :func:`assign_frame` or a put_page.
    """
    frame: FramePtr
    if mfn >= host.nr_frames:
        return False
    frame = cython.address(host.frames[mfn])
    if frame.owner != domid or frame.flags & FRAME_XEN or not frame.flags & FRAME_ALLOCATED or frame.refs != 1:
        return False
    flush_all(host)
    frame.owner = DOMID_XEN
    frame.type = FRAME_NONE
    frame.flags = FRAME_ALLOCATED
    host.domains[domid].tot_pages -= 1
    return True


def assign_frame(host: HostPtr, mfn: u64, domid: u16) -> cython.void:
    """Give a stolen frame to a domain."""
    note_owner(host, mfn, domid)
    drop_code_everywhere(host, mfn << 12, (mfn + 1) << 12)
    host.domains[domid].tot_pages += 1
