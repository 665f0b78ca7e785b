# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Frames become page tables, and stop being such: bit by bit, so that no guest holds the machine for long.

A table is validated entry by entry from the first on, and released from the last on.  In between it is *part way*:
not validated, its ``nr_validated`` first entries hold what they refer to, and it holds a reference and a use of its
own, so that it stays what it is until somebody goes on.  An operation that has used up its time has always come on
by an entry: it answers -ERESTART, and the guest makes its hypercall again.  An L1 table is small enough to be done at
once.

What is left over without anybody to go on with it is put where ``host.old`` points: the vcpu's own place, which its
next hypercall on page tables empties first.  Behaviour: Xen 4.17, arch/x86/mm.c.

All functions are called under the machine lock.
"""

import cython
from cython.cimports.paravirt.abi.constants import EINVAL, ERESTART
from cython.cimports.paravirt.hypervisor.frames import (
    drop_page_type,
    get_page,
    get_page_and_type_part,
    put_page,
    put_page_type,
    release_table,
)
from cython.cimports.paravirt.hypervisor.guestmem import frame_ptr
from cython.cimports.paravirt.hypervisor.mmu import (
    adjust_entry,
    clear_reserved_slots,
    disallowed_flags,
    get_l1_entry,
    is_guest_l4_slot,
    put_l1_entry,
)
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_L1,
    FRAME_L4,
    FRAME_NONE,
    FRAME_PARTIAL,
    FRAME_PARTIAL_SET,
    FRAME_PINNED,
    FRAME_SEGDESC,
    FRAME_VALIDATED,
    DomainPtr,
    FramePtr,
    HostPtr,
    OldTablePtr,
    i64,
    u8,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.refusals import refuse_entry
from cython.cimports.paravirt.hypervisor.segments import check_descriptor
from cython.cimports.paravirt.machine.cpu import U64Ptr

# Entries that a hypercall may look at before it is preempted: about half a millisecond's work.
WORK_LIMIT = cython.declare(u64, 65536)
PRESENT = cython.declare(u64, 0x1)
RW = cython.declare(u64, 0x2)
ADDRESS = cython.declare(u64, 0x000FFFFFFFFFF000)
MAX_LINEAR = cython.declare(cython.int, 32767)


def work_spent(host: HostPtr) -> cython.bint:
    """Whether the operation in progress should stop where it is."""
    return host.work >= WORK_LIMIT and not host.whole


def note_work(host: HostPtr) -> cython.void:
    """A stretch of work is over, and the machine lock is about to be free: keep the longest."""
    if host.work > host.stats.most_work:
        host.stats.most_work = host.work


def leave_over(host: HostPtr, mfn: u64, above: u64, partial: cython.bint) -> cython.void:
    """A table with a reference, and a use of its own or ours, is to be released next."""
    host.old.mfn = mfn
    host.old.above = above
    host.old.partial = partial


def put_old_table(host: HostPtr, old: OldTablePtr) -> i64:
    """Go on with releasing what was left over: 0 when nothing is any more, else -ERESTART."""
    rc: i64
    if old.mfn == 0:
        return 0
    rc = drop_page_type(host, old.mfn, old.partial, old.above)
    if rc != 0:
        old.partial = True
        return rc
    put_page(host, old.mfn)
    old.mfn = 0
    old.above = 0
    return 0


def keep_as_pin(host: HostPtr, mfn: u64) -> cython.void:
    """A reference and a use of a table become its pin, to be released bit by bit later; a pinned one needs no other."""
    if host.frames[mfn].flags & FRAME_PINNED:
        put_page_type(host, mfn)
        put_page(host, mfn)
    else:
        host.frames[mfn].flags |= FRAME_PINNED


def keep_old_as_pin(host: HostPtr, old: OldTablePtr) -> cython.void:
    """The same for what is left over of a vcpu's last hypercall: what is part way is found by its own mark."""
    if old.mfn != 0 and old.partial:
        put_page(host, old.mfn)
    elif old.mfn != 0:
        if old.above != 0 and host.frames[old.above].type == host.frames[old.mfn].type:
            host.frames[old.mfn].linear += 1
            host.frames[old.above].linear -= 1
        keep_as_pin(host, old.mfn)
    old.mfn = 0
    old.above = 0


# --- entries ------------------------------------------------------------------------------------------------------


def get_linear(host: HostPtr, table_mfn: u64, value: u64, level: u8, domid: u16) -> cython.bint:
    """Take what an entry holds that names a table of its own level, to read page tables by: false if it may not.

    Such an entry is read-only.  A table of which others have such entries can have none of others itself, so that no
    circle of them arises; naming itself counts as nothing.
    """
    mfn: u64 = (value & ADDRESS) >> 12
    above: FramePtr = cython.address(host.frames[table_mfn])
    frame: FramePtr
    if value & RW:
        return False
    if mfn == table_mfn:
        return True
    if above.owner != domid or not get_page(host, mfn, domid):
        return False
    frame = cython.address(host.frames[mfn])
    if (
        above.linear < 0
        or above.linear == MAX_LINEAR
        or frame.linear > 0
        or frame.linear == -MAX_LINEAR - 1
        or frame.type_refs >= cython.cast(u32, 0x7FFFFFFF)
        or frame.type != level
        or not frame.flags & FRAME_VALIDATED
        or frame.type_refs == 0
    ):
        put_page(host, mfn)
        return False
    above.linear += 1
    frame.linear -= 1
    frame.type_refs += 1
    return True


def get_table_entry(
    host: HostPtr, table_mfn: u64, value: u64, level: u8, domid: u16, partial_set: cython.bint, retain: cython.bint
) -> i64:
    """Check a present entry for an L2, L3 or L4 table and take what it holds: 0 or a negative error number.

    ``partial_set``: the reference is held already.  ``retain``: keep it when the table below is only part way.
    """
    rc: i64
    if value & disallowed_flags(level):
        return -EINVAL
    rc = get_page_and_type_part(host, (value & ADDRESS) >> 12, domid, level - 1, partial_set, retain)
    if rc == -EINVAL and get_linear(host, table_mfn, value, level, domid):
        rc = 0
    return rc


def put_table_entry(host: HostPtr, table_mfn: u64, value: u64, partial_set: cython.bint) -> i64:
    """Give back what an entry of an L2, L3 or L4 table holds: 0, or -ERESTART, to be called again."""
    mfn: u64 = (value & ADDRESS) >> 12
    rc: i64
    if not value & PRESENT or mfn == table_mfn:
        return 0
    rc = drop_page_type(host, mfn, partial_set, table_mfn)
    if rc == 0:
        put_page(host, mfn)
    return rc


def defer_table_entry(host: HostPtr, table_mfn: u64, value: u64) -> cython.void:
    """The same for an entry that has been overwritten: what it held is left over."""
    mfn: u64 = (value & ADDRESS) >> 12
    if value & PRESENT and mfn != table_mfn:
        leave_over(host, mfn, table_mfn, False)


# --- promotion ----------------------------------------------------------------------------------------------------


def promote_l1(host: HostPtr, mfn: u64) -> i64:
    """Validate an L1 table: 0, or the first bad entry's error, and then nothing is held."""
    table: U64Ptr = cython.cast(U64Ptr, frame_ptr(host, mfn))
    owner: u16 = host.frames[mfn].owner
    index: u64
    rc: i64
    host.work += 512
    for index in range(512):
        if table[index] & PRESENT:
            rc = get_l1_entry(host, table[index], owner)
            if rc != 0:
                refuse_entry(host, FRAME_L1, mfn, index, table[index], rc)
                while index > 0:
                    index -= 1
                    put_l1_entry(host, table[index])
                return rc
            table[index] = adjust_entry(table[index], 1)
    return 0


def stand_at(host: HostPtr, mfn: u64, index: u64, partial_set: cython.bint) -> cython.void:
    """Note how many entries of a table hold what they refer to, and whether the next one a table that is part way."""
    host.frames[mfn].nr_validated = cython.cast(u16, index)
    if partial_set:
        host.frames[mfn].flags |= FRAME_PARTIAL_SET
    else:
        host.frames[mfn].flags &= ~FRAME_PARTIAL_SET


def stop_promotion(host: HostPtr, mfn: u64, index: u64, partial_set: cython.bint) -> cython.void:
    """An entry was refused: the table is released again as far as it had come.

    If the table below it was refused half way, that is what is left over so far: this one's entry holds it now.
    """
    if host.old.mfn != 0:
        partial_set = True
    if index == 0 and not partial_set:
        return
    stand_at(host, mfn, index, partial_set)
    leave_over(host, mfn, 0, True)


def promote_table(host: HostPtr, mfn: u64, level: u8) -> i64:
    """Validate an L2, L3 or L4 table from where it stands on: 0, -ERESTART or the first bad entry's error."""
    table: U64Ptr = cython.cast(U64Ptr, frame_ptr(host, mfn))
    frame: FramePtr = cython.address(host.frames[mfn])
    start: u64 = frame.nr_validated
    partial_set: cython.bint = frame.flags & FRAME_PARTIAL_SET != 0
    index: u64
    rc: i64
    for index in range(start, 512):
        if index > start:
            partial_set = False
        if level == FRAME_L4 and not is_guest_l4_slot(index):
            continue
        if level != FRAME_L4 and index > start and work_spent(host):
            stand_at(host, mfn, index, False)
            return -ERESTART
        if not table[index] & PRESENT:
            continue
        rc = get_table_entry(host, mfn, table[index], level, frame.owner, partial_set, level > 2)
        if rc == -ERESTART:
            stand_at(host, mfn, index, True)
            return rc
        if rc < 0:
            stop_promotion(host, mfn, index, partial_set)
            return refuse_entry(host, level, mfn, index, table[index], rc)
        table[index] = adjust_entry(table[index], level)
    host.work += 512
    if level == FRAME_L4:
        clear_reserved_slots(host, mfn)
    return 0


def validate_page(host: HostPtr, mfn: u64, type: u8) -> i64:
    """Check what a frame must hold to be of ``type``, from where it stands on, and note the outcome in its record.

    0: it is validated.  -ERESTART: it is part way.  Another error: it is of no type, or left over.
    """
    frame: FramePtr = cython.address(host.frames[mfn])
    descriptors: U64Ptr
    domain: DomainPtr
    index: u64
    rc: i64 = 0
    if type == FRAME_SEGDESC:
        descriptors = cython.cast(U64Ptr, frame_ptr(host, mfn))
        domain = host.domains[frame.owner]
        for index in range(512):
            if not check_descriptor(domain, descriptors + index):
                rc = refuse_entry(host, FRAME_SEGDESC, mfn, index, descriptors[index], -EINVAL)
                break
    else:
        if frame.nr_validated == 0:
            release_table(host, mfn)
        rc = promote_l1(host, mfn) if type == FRAME_L1 else promote_table(host, mfn, type)
    if rc == 0:
        frame.flags |= FRAME_VALIDATED
    elif rc == -ERESTART or host.old.mfn == mfn:
        frame.refs += 1
        frame.flags |= FRAME_PARTIAL
    else:
        frame.type_refs = 0
        frame.type = FRAME_NONE
    return rc


# --- demotion -----------------------------------------------------------------------------------------------------


def demote_l1(host: HostPtr, mfn: u64) -> cython.void:
    """Give back what the entries of an L1 table hold."""
    table: U64Ptr = cython.cast(U64Ptr, frame_ptr(host, mfn))
    index: u64
    host.work += 512
    for index in range(512):
        if table[index] & PRESENT:
            put_l1_entry(host, table[index])


def demote_table(host: HostPtr, mfn: u64, level: u8) -> i64:
    """Give back what the entries of an L2, L3 or L4 table hold, from where it stands down: 0 or -ERESTART."""
    table: U64Ptr = cython.cast(U64Ptr, frame_ptr(host, mfn))
    frame: FramePtr = cython.address(host.frames[mfn])
    partial_set: cython.bint = frame.flags & FRAME_PARTIAL_SET != 0
    index: u64 = frame.nr_validated
    if not partial_set:
        index -= 1
    while True:
        if level != FRAME_L4 or is_guest_l4_slot(index):
            if put_table_entry(host, mfn, table[index], partial_set) != 0:
                stand_at(host, mfn, index, True)
                return -ERESTART
        partial_set = False
        if index == 0:
            host.work += 512
            stand_at(host, mfn, 0, False)
            return 0
        if level != FRAME_L4 and work_spent(host):
            stand_at(host, mfn, index, False)
            return -ERESTART
        index -= 1


def devalidate_page(host: HostPtr, mfn: u64, was_partial: u8) -> i64:
    """The last use of a page table ends: give back what its entries hold.  0 or -ERESTART."""
    frame: FramePtr = cython.address(host.frames[mfn])
    rc: i64 = 0
    if not was_partial:
        stand_at(host, mfn, 512, False)
    if frame.type == FRAME_L1:
        demote_l1(host, mfn)
    else:
        rc = demote_table(host, mfn, frame.type)
    if rc == 0:
        release_table(host, mfn)
    return rc
