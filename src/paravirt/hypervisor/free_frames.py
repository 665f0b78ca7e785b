# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""Which frames are free, a bit for each, and which are clean: extents are found, or are not there, 64 frames at a look.

A frame is clean that is as the host gave it: zero, without a page of the host's behind it, and nothing is left of it in
engines. What nobody had yet is clean, and so is what went back to the host at a domain's end (frames.give_back).

A guest may ask for extents that there are none of as often as it likes, and the machine's memory may be in as small
pieces as guests can make it: a search of all of it has to be short. It takes some 200 us at worst for 16 GiB.
"""

import cython
from cython.cimports.libc.stdlib import calloc
from cython.cimports.paravirt.hypervisor.free_frames import lowest_bit
from cython.cimports.paravirt.hypervisor.records import HostPtr, u32, u64
from cython.cimports.paravirt.machine.cpu import U64Ptr

NO_FRAME = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)
ALL = cython.declare(u64, 0xFFFFFFFFFFFFFFFF)
WORD_ORDER = cython.declare(u32, 6)
WORDS_OF_WORK = cython.declare(u64, 8)  # looks at so many words count as one at a page-table entry


def open_free_map(host: HostPtr) -> cython.bint:
    """Maps for all of the machine's frames, with none free and all clean: false when the host has no memory."""
    words: u64 = (host.nr_frames >> WORD_ORDER) + 1
    i: u64
    host.free_map = cython.cast(U64Ptr, calloc(words, 8))
    host.clean_map = cython.cast(U64Ptr, calloc(words, 8))
    if host.free_map == cython.NULL or host.clean_map == cython.NULL:
        return False
    for i in range(words):
        host.clean_map[i] = ALL
    return True


def note_free(host: HostPtr, mfn: u64) -> cython.void:
    """A frame has become free."""
    host.free_map[mfn >> WORD_ORDER] |= cython.cast(u64, 1) << (mfn & 63)
    host.free_frames += 1
    if mfn < host.alloc_hint:
        host.alloc_hint = mfn


def note_taken(host: HostPtr, mfn: u64) -> cython.void:
    """A free frame has become somebody's."""
    host.free_map[mfn >> WORD_ORDER] &= ~(cython.cast(u64, 1) << (mfn & 63))
    host.free_frames -= 1


def take_clean(host: HostPtr, mfn: u64) -> cython.bint:
    """Whether a frame is clean; it is not from now on."""
    bit: u64 = cython.cast(u64, 1) << (mfn & 63)
    if not host.clean_map[mfn >> WORD_ORDER] & bit:
        return False
    host.clean_map[mfn >> WORD_ORDER] &= ~bit
    return True


def note_clean(host: HostPtr, mfn: u64) -> cython.void:
    """A free frame went back to the host."""
    host.clean_map[mfn >> WORD_ORDER] |= cython.cast(u64, 1) << (mfn & 63)


def is_used(host: HostPtr, mfn: u64) -> cython.bint:
    """Whether a frame is free, and not clean."""
    word: u64 = mfn >> WORD_ORDER
    return (host.free_map[word] & ~host.clean_map[word]) >> (mfn & 63) & 1 != 0


def find_used(host: HostPtr, mfn: u64, end: u64) -> u64:
    """The first frame from ``mfn`` on that is free and not clean, or ``end``."""
    word: u64 = mfn >> WORD_ORDER
    found: u64 = 0
    if mfn < end:
        found = host.free_map[word] & ~host.clean_map[word] & ALL << (mfn & 63)
    while not found and word + 1 << WORD_ORDER < end:
        word += 1
        host.work += 1
        found = host.free_map[word] & ~host.clean_map[word]
    if not found or (word << WORD_ORDER) + lowest_bit(found) >= end:
        return end
    return (word << WORD_ORDER) + lowest_bit(found)


def whole_extents(free: u64, order: u32) -> u64:
    """Of 64 frames, the first ones of free extents of 2**order frames (below 64), aligned to their number."""
    i: u32
    for i in range(order):
        free &= free >> (cython.cast(u64, 1) << i)
    return free & ALL // ((cython.cast(u64, 1) << (cython.cast(u64, 1) << order)) - 1 if order < WORD_ORDER else 1)


def find_small(host: HostPtr, order: u32, end: u64) -> u64:
    """find_extent, of less than 64 frames."""
    word: u64 = host.alloc_hint >> WORD_ORDER
    start: u64 = word
    found: u64 = 0
    mfn: u64 = NO_FRAME
    while word << WORD_ORDER < end and not found:
        found = whole_extents(host.free_map[word], order)
        if found:
            mfn = (word << WORD_ORDER) + lowest_bit(found)
        word += 1
    host.work += (word - start) // WORDS_OF_WORK
    return mfn if found and mfn + (cython.cast(u64, 1) << order) <= end else NO_FRAME


def find_large(host: HostPtr, order: u32, end: u64) -> u64:
    """find_extent, of whole words."""
    words: u64 = cython.cast(u64, 1) << (order - WORD_ORDER)
    word: u64 = host.alloc_hint >> WORD_ORDER & ~(words - 1)
    i: u64
    while (word + words) << WORD_ORDER <= end:
        i = 0
        while i < words and host.free_map[word + i] == ALL:
            i += 1
        host.work += (i + WORDS_OF_WORK) // WORDS_OF_WORK
        if i == words:
            return word << WORD_ORDER
        word += words
    return NO_FRAME


def find_extent(host: HostPtr, order: u32, end: u64) -> u64:
    """The lowest free extent of 2**order frames, aligned to their number, that ends at ``end`` or below.

    Its first mfn, or all ones when there is none. Below host.alloc_hint no frame is free.
    """
    return find_small(host, order, end) if order < WORD_ORDER else find_large(host, order, end)
