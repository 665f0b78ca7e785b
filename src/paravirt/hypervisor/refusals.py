# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""What a guest was last refused: kept, as things were then, for the report on a crash.

A guest that is refused a change of its page tables seldom looks at the answer: it goes on, and falls over something
that is not there.  So each vcpu keeps its last refusal.  Whoever finds the frame or the entry that cannot be had notes
it at ``host.refused`` (the first one counts: what follows from it is refused for no reason of its own), and whoever
gives the guest its answer puts the rest to it.  Nothing is done for requests that succeed.

All functions are called under the machine lock.
"""

import cython
from cython.cimports.paravirt.abi.constants import ERESTART
from cython.cimports.paravirt.hypervisor.records import (
    ANSWER_ERROR,
    FRAME_L1,
    FRAME_L4,
    NO_HYPERCALL,
    REFUSED_FRAME,
    REFUSED_NOTHING,
    HostPtr,
    VcpuPtr,
    i64,
    u8,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.timekeeping import now
from cython.cimports.paravirt.machine.cpu import U64Ptr

ADDRESS = cython.declare(u64, 0x000FFFFFFFFFF000)


def refuse_frame(host: HostPtr, mfn: u64, error: i64) -> i64:
    """Note that a frame cannot be had: the same error, for the caller to return.

    0, and -ERESTART, which says that an operation is not at its end yet, are no refusals.
    """
    if error < 0 and error != -ERESTART and host.refused.kind == REFUSED_NOTHING:
        host.refused.kind = REFUSED_FRAME
        host.refused.mfn = mfn
        if mfn < host.nr_frames:
            host.refused.frame = host.frames[mfn]
    return error


def refuse_entry(host: HostPtr, kind: u8, table_mfn: u64, index: u64, value: u64, error: i64) -> i64:
    """Note that an entry of a table (``kind``: a level, or FRAME_SEGDESC) cannot be as asked: the error."""
    if error < 0 and error != -ERESTART and host.refused.kind == REFUSED_NOTHING:
        host.refused.kind = kind
        host.refused.at = table_mfn << 12 | index << 3
        host.refused.entry = value
        host.refused.mfn = (value & ADDRESS) >> 12
        if table_mfn < host.nr_frames:
            host.refused.table = host.frames[table_mfn]
        if FRAME_L1 <= kind <= FRAME_L4 and host.refused.mfn < host.nr_frames:
            host.refused.frame = host.frames[host.refused.mfn]
    return error


def note_refusal(host: HostPtr, v: VcpuPtr, number: u32, args: U64Ptr, how: u32, answer: i64) -> cython.void:
    """The vcpu gets ``answer`` (of the kind ``how``) for a hypercall, or for a part of one."""
    i: u32
    host.refused.hypercall = number
    host.refused.how = how
    host.refused.answer = answer
    host.refused.time = now(host)
    host.refused.rip = v.cpu.rip
    for i in range(4):
        host.refused.args[i] = args[i]
    v.refused = host.refused
    host.refused.kind = REFUSED_NOTHING
    host.refused.command = 0


def note_refused_write(host: HostPtr, v: VcpuPtr, table_mfn: u64, index: u64, value: u64, error: i64) -> cython.void:
    """A plain write of the vcpu's to a page table is not carried out: the guest gets its page fault."""
    none: u64[4]
    i: u32
    for i in range(4):
        none[i] = 0
    host.refused.kind = REFUSED_NOTHING
    host.refused.command = 0
    refuse_entry(host, FRAME_L1, table_mfn, index, value, error)
    note_refusal(host, v, NO_HYPERCALL, none, ANSWER_ERROR, error)
