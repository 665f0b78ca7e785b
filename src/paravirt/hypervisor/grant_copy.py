# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Copies of bytes out of granted frames and into them, as Domain 0's backends make them for every packet.

A whole use of a grant in one step: it begins, the bytes are copied, it ends.  That is short only for a grant as nearly
all are, an entry of version 1 that permits access and that nobody uses; of every other kind
:mod:`paravirt.hypervisor.hypercalls.grant_active` takes care, which says what the rules are.

All functions are called under the machine lock, for an entry of a domain that is quiesced.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.string import memcpy
from cython.cimports.paravirt.abi.constants import (
    GTF_permit_access,
    GTF_reading,
    GTF_readonly,
    GTF_type_mask,
    GTF_writing,
)
from cython.cimports.paravirt.hypervisor.atomics import ORDERED, compare_exchange32, fetch_and32, load32
from cython.cimports.paravirt.hypervisor.frames import (
    drop_code,
    get_page,
    get_page_and_type,
    put_page,
    put_page_and_type,
)
from cython.cimports.paravirt.hypervisor.records import FRAME_WRITABLE, HostPtr, u32, u64
from cython.cimports.paravirt.hypervisor.views.host import Host
from cython.cimports.paravirt.machine.cpu import U32Ptr

PAGE_SHIFT = cython.declare(u64, 12)


def begin_use(word: U32Ptr, user: u32, readonly: cython.bint) -> cython.bint:
    """Have an entry say that it is in use: false if it is not a plain one, or not ``user``'s to use so."""
    found: u32 = load32(word, ORDERED)
    wanted: u32 = found | GTF_reading if readonly else found | GTF_reading | GTF_writing
    if found & GTF_type_mask != GTF_permit_access or found >> 16 != user or found & (GTF_reading | GTF_writing):
        return False
    if found & GTF_readonly and not readonly:
        return False
    return compare_exchange32(word, cython.address(found), wanted, False, ORDERED, ORDERED)


def end_use(word: U32Ptr) -> cython.void:
    """It is not in use any more."""
    fetch_and32(word, ~cython.cast(u32, GTF_reading | GTF_writing), ORDERED)


def read_granted(host: Host, entry: int, user: int, owner: int, offset: int, length: int) -> bytes | None:
    """The bytes at ``offset`` of the frame that ``owner`` grants to ``user``; None: the grant is not plain, or refused.

    Args:
        entry: the machine address of the entry, of version 1, of a grant that is not in use.
        offset, length: within a frame.
    """
    rec: HostPtr = host.rec
    word: U32Ptr = cython.cast(U32Ptr, rec.memory + cython.cast(u64, entry))
    mfn: u64
    at: u64 = offset
    data: bytes | None = None
    if not begin_use(word, user, True):
        return None
    mfn = load32(word + 1, ORDERED)
    if get_page(rec, mfn, owner):
        data = PyBytes_FromStringAndSize(
            cython.cast(cython.p_char, rec.memory + (mfn << PAGE_SHIFT) + at), cython.cast(cython.Py_ssize_t, length)
        )
        put_page(rec, mfn)
    end_use(word)
    return data


def write_granted(host: Host, entry: int, user: int, owner: int, offset: int, data: bytes) -> bool:
    """Store bytes at ``offset`` of the frame that ``owner`` grants to ``user``; False: as None there."""
    rec: HostPtr = host.rec
    word: U32Ptr = cython.cast(U32Ptr, rec.memory + cython.cast(u64, entry))
    mfn: u64
    start: u64
    size: u64 = len(data)
    done: cython.bint = False
    if not begin_use(word, user, False):
        return False
    mfn = load32(word + 1, ORDERED)
    if get_page_and_type(rec, mfn, owner, FRAME_WRITABLE) == 0:
        start = (mfn << PAGE_SHIFT) + cython.cast(u64, offset)
        memcpy(rec.memory + start, PyBytes_AS_STRING(data), size)
        drop_code(rec, start, start + size)
        put_page_and_type(rec, mfn)
        done = True
    end_use(word)
    return done
