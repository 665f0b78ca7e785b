"""The page tables with which a paravirtual domain starts.

They map machine frames directly: an entry holds an mfn, not a pfn. Frames that are page tables are mapped
read-only, without which they could not be pinned. The flags are those that Xen's builder writes
(tools/libs/guest/xg_dom_x86.c): leaf entries have neither the user nor the dirty bit. It is the hypervisor
that adds the user bit to a 64-bit kernel's entries when it validates the table.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from paravirt.domain0.builder.layout import LEVELS, PAGE_SHIFT, TABLE_SHIFT, Layout, Mapping, Tables

PAGE_PRESENT: Final = 0x01
PAGE_RW: Final = 0x02
PAGE_USER: Final = 0x04
PAGE_ACCESSED: Final = 0x20
PAGE_DIRTY: Final = 0x40

LEAF: Final = PAGE_PRESENT | PAGE_RW | PAGE_ACCESSED
UPPER: Final = PAGE_PRESENT | PAGE_RW | PAGE_USER | PAGE_ACCESSED | PAGE_DIRTY

_ENTRIES: Final = 1 << TABLE_SHIFT
_VADDR_MASK: Final = (1 << 48) - 1


def build_page_tables(layout: Layout, p2m: NDArray[np.uint64]) -> list[tuple[int, NDArray[np.uint64]]]:
    """Make the contents of all initial page tables.

    Args:
        layout: where the tables are and what they map.
        p2m: machine frame by pseudo-physical frame, at least ``layout.used_pages`` long.

    Returns:
        For each mapping the first frame of its tables and their entries, shape (tables, 512): the tables of
        one mapping are in adjacent frames. The L4 is the first table of the first mapping.
    """
    built = [
        (_first_frame(mapping), np.zeros((mapping.table_pages, _ENTRIES), np.uint64))
        for mapping in layout.mappings
    ]
    runs = [
        (tables, entries[tables.pfn - pfn : tables.pfn - pfn + tables.count].reshape(-1))
        for (pfn, entries), mapping in zip(built, layout.mappings, strict=True)
        for tables in mapping.tables
    ]
    for mapping in layout.mappings:
        first_page = (mapping.virt & _VADDR_MASK) >> PAGE_SHIFT
        frames = np.arange(mapping.frames.pfn, mapping.frames.end)
        flags = np.where(_holds_tables(frames, layout), LEAF & ~PAGE_RW, LEAF).astype(np.uint64)
        _fill(runs, 1, first_page, (p2m[frames] << np.uint64(PAGE_SHIFT)) | flags)
        for tables in mapping.tables:
            if tables.level < LEVELS:
                mfns = p2m[tables.pfn : tables.pfn + tables.count]
                entries = (mfns << np.uint64(PAGE_SHIFT)) | np.uint64(UPPER)
                _fill(runs, tables.level + 1, tables.first, entries)
    return built


def _first_frame(mapping: Mapping) -> int:
    return mapping.tables[0].pfn if mapping.tables else 0


def _holds_tables(frames: NDArray[np.int64], layout: Layout) -> NDArray[np.bool_]:
    """Which frames are page tables, of any mapping."""
    result = np.zeros(len(frames), bool)
    for mapping in layout.mappings:
        for tables in mapping.tables:
            result |= (frames >= tables.pfn) & (frames < tables.pfn + tables.count)
    return result


def _fill(
    runs: list[tuple[Tables, NDArray[np.uint64]]], level: int, first: int, entries: NDArray[np.uint64]
) -> None:
    """Store a level's entries, from number ``first`` (counting from address 0), where its tables are."""
    for tables, store in runs:
        if tables.level != level:
            continue
        start = tables.first * _ENTRIES
        low = max(first, start)
        high = min(first + len(entries), start + len(store))
        if low < high:
            store[low - start : high - start] = entries[low - first : high - first]
