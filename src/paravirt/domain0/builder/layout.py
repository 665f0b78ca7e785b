"""Where everything lies when a paravirtual domain starts.

A pure computation, in the order and with the rules of Xen's own builder (tools/libs/guest/xg_dom_core.c and
xg_dom_x86.c of 4.17), because kernels are built around it. Pseudo-physical memory is filled from frame 0, or
where the kernel says, upwards:

====================
========================================================================================= kernel
 its segments; the hypercall page is one of its own pages ramdisk               here, mapped, unless the
 kernel said MOD_START_PFN
list of frames        pfn to mfn, 8 bytes each; here unless the kernel named an address for it (INIT_P2M)
start_info            one page
xenstore ring         one page
console ring          one page
page tables           L4, L3s, L2s, L1s
boot stack            one page
padding               up to the end of the initial mapping
ramdisk               when it need not be mapped: mod_start is then a frame number
list of frames        with its own page tables behind it, when the kernel named an address
====================
=========================================================================================

The initial mapping shows frames 0, 1, ... at VIRT_BASE. It leaves at least 512 KiB behind the boot stack and
ends on a multiple of 4 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from paravirt.domain0.builder.image import PAGE_SIZE, KernelImage
from paravirt.errors import UserError

PAGE_SHIFT: Final = 12
TABLE_SHIFT: Final = 9
LEVELS: Final = 4
P2M_ENTRY_SIZE: Final = 8

_VADDR_MASK: Final = (1 << 48) - 1
_PADDING: Final = 512 << 10
_MAPPING_ALIGN: Final = 4 << 20
_MIB: Final = 1 << 20

#: Xen's own share of every 64-bit guest's address space (public header ``arch-x86/xen-x86_64.h``).
_HYPERVISOR_START: Final = 0xFFFF800000000000
_HYPERVISOR_END: Final = 0xFFFF880000000000
_CANONICAL_LOW_END: Final = 1 << 47
_CANONICAL_HIGH_START: Final = (1 << 64) - (1 << 47)

#: No domain is larger than 1 TiB here: beyond that a size is a typing error.
MAX_PAGES: Final = 1 << 28


@dataclass(frozen=True)
class Extent:
    """A run of pseudo-physical frames."""

    pfn: int
    pages: int

    @property
    def end(self) -> int:
        """The first frame behind it."""
        return self.pfn + self.pages


@dataclass(frozen=True)
class Tables:
    """Adjacent page tables of one level: table ``first`` of that level's numbering is in frame ``pfn``.

    Attributes:
        level: 1 for L1 to 4 for L4.
        first: number of the first table, counting from address 0: its base address in units of what a table
            spans.
        count: how many tables.
        pfn: frame of the first; the others follow.
    """

    level: int
    first: int
    count: int
    pfn: int


@dataclass(frozen=True)
class Mapping:
    """Frames ``frames`` shown from address ``virt`` on, and the page tables made for it.

    Tables that an earlier mapping has already are shared and not listed again.
    """

    virt: int
    frames: Extent
    tables: tuple[Tables, ...]

    @property
    def table_pages(self) -> int:
        """The number of frames that its own page tables take."""
        return sum(t.count for t in self.tables)


@dataclass(frozen=True)
class Layout:
    """The start of day of one domain. Frames are pseudo-physical; addresses are the guest's virtual ones.

    Attributes:
        nr_pages: the domain's size.
        virt_base, virt_end: the initial mapping.
        kernel, ramdisk, p2m, page_tables: where they are; ``p2m`` and ``page_tables`` of the initial mapping
            only, without the page tables of a separately mapped list.
        p2m_virt: the list's address.
        p2m_frames: the list with its own page tables, as start_info reports them; None when the list is in
            the initial mapping.
        mod_start: the ramdisk's address, or its frame number when it is not mapped; 0 without a ramdisk.
        mappings: the initial mapping, and the list's own one if it has one.
        used_pages: frames from 0 to the last one that means something.
    """

    nr_pages: int
    virt_base: int
    virt_end: int
    kernel: Extent
    ramdisk: Extent | None
    ramdisk_mapped: bool
    mod_start: int
    p2m: Extent
    p2m_virt: int
    p2m_frames: Extent | None
    start_info_pfn: int
    store_pfn: int
    console_pfn: int
    page_tables: Extent
    boot_stack_pfn: int
    mappings: tuple[Mapping, ...]
    used_pages: int

    def virt(self, pfn: int) -> int:
        """The address of a frame in the initial mapping."""
        return self.virt_base + (pfn << PAGE_SHIFT)

    def pfn(self, virt: int) -> int:
        """The frame that the initial mapping shows at an address."""
        return (virt - self.virt_base) >> PAGE_SHIFT


def pages_for(size: int) -> int:
    """Whole pages that hold ``size`` bytes."""
    return -(-size // PAGE_SIZE)


def compute_layout(image: KernelImage, nr_pages: int, ramdisk_size: int = 0) -> Layout:
    """Place everything for a domain of ``nr_pages`` frames.

    Args:
        image: the kernel.
        nr_pages: the domain's size in frames.
        ramdisk_size: bytes; 0 for none.

    Raises:
        UserError: the domain is too small (the sentence says how many MiB it takes), its size is absurd, or
        the
            kernel wants to be mapped where it cannot be.
    """
    if nr_pages <= 0:
        raise UserError("A domain cannot be made without memory.")
    if nr_pages > MAX_PAGES:
        raise UserError(
            f"A domain of {nr_pages >> 8} MiB is more than the {MAX_PAGES >> 8} MiB that paravirt supports."
        )
    _check_range(image.virt_base, image.virt_end, "The kernel")
    layout = _place(image, nr_pages, ramdisk_size)
    if layout.used_pages > nr_pages:
        raise UserError(_too_small(image, nr_pages, ramdisk_size, layout.used_pages))
    _check_mappings(layout)
    return layout


def _too_small(image: KernelImage, nr_pages: int, ramdisk_size: int, needed: int) -> str:
    # The list of frames grows with the domain, so a size that suffices is found by trying; it converges
    # because 512 more frames take one more.
    while (grown := _place(image, needed, ramdisk_size).used_pages) > needed:
        needed = grown
    load = "this kernel" if not ramdisk_size else "this kernel with its ramdisk"
    need_mib = -(-needed * PAGE_SIZE // _MIB)
    have_mib = nr_pages * PAGE_SIZE / _MIB
    return f"The domain has {have_mib:g} MiB of memory, but {load} needs at least {need_mib} MiB to start."


def _place(image: KernelImage, nr_pages: int, ramdisk_size: int) -> Layout:
    """The layout, without asking whether the domain is large enough for it."""
    base = image.virt_base
    kernel_pfn = (image.virt_start - base) >> PAGE_SHIFT
    kernel = Extent(kernel_pfn, pages_for(image.virt_end - image.virt_start))
    at = kernel.end
    ramdisk: Extent | None = None
    mapped = bool(ramdisk_size) and not image.mod_start_pfn
    if mapped:
        ramdisk = Extent(at, pages_for(ramdisk_size))
        at = ramdisk.end
    p2m_pages = pages_for(nr_pages * P2M_ENTRY_SIZE)
    p2m = Extent(at, p2m_pages)
    if image.init_p2m is None:
        at = p2m.end
    start_info, store, console, tables_pfn = at, at + 1, at + 2, at + 3

    initial = _initial_mapping(base, tables_pfn)
    boot_stack = tables_pfn + initial.table_pages
    at = initial.frames.end
    mappings = [initial]
    if ramdisk_size and not mapped:
        ramdisk = Extent(at, pages_for(ramdisk_size))
        at = ramdisk.end
    p2m_frames = None
    if image.init_p2m is not None:
        p2m = Extent(at, p2m_pages)
        own = _map(image.init_p2m, p2m, p2m.end, (initial,))
        mappings.append(own)
        p2m_frames = Extent(at, p2m_pages + own.table_pages)
        at = p2m_frames.end
    virt_end = base + (initial.frames.pages << PAGE_SHIFT)
    mod_start = 0
    if ramdisk is not None:
        mod_start = base + (ramdisk.pfn << PAGE_SHIFT) if mapped else ramdisk.pfn
    return Layout(
        nr_pages=nr_pages,
        virt_base=base,
        virt_end=virt_end,
        kernel=kernel,
        ramdisk=ramdisk,
        ramdisk_mapped=mapped,
        mod_start=mod_start,
        p2m=p2m,
        p2m_virt=base + (p2m.pfn << PAGE_SHIFT) if image.init_p2m is None else image.init_p2m,
        p2m_frames=p2m_frames,
        start_info_pfn=start_info,
        store_pfn=store,
        console_pfn=console,
        page_tables=Extent(tables_pfn, initial.table_pages),
        boot_stack_pfn=boot_stack,
        mappings=tuple(mappings),
        used_pages=at,
    )


def _initial_mapping(base: int, tables_pfn: int) -> Mapping:
    """Find the end of the initial mapping: it holds its own page tables, whose number depends on it."""
    fixed = (tables_pfn + 1) * PAGE_SIZE + _PADDING  # the boot stack is one page
    tables = 0
    while True:
        # The end is beyond the content even where that ends on a boundary, as in Xen.
        end = (base + fixed + tables * PAGE_SIZE) // _MAPPING_ALIGN * _MAPPING_ALIGN + _MAPPING_ALIGN
        mapping = _map(base, Extent(0, (end - base) >> PAGE_SHIFT), tables_pfn, ())
        if base + fixed + mapping.table_pages * PAGE_SIZE <= end:
            return mapping
        tables = mapping.table_pages


def _map(virt: int, frames: Extent, tables_pfn: int, others: tuple[Mapping, ...]) -> Mapping:
    """Number the page tables that show ``frames`` at ``virt``, from L4 down, leaving out those that exist."""
    first_address = virt & _VADDR_MASK
    last_address = first_address + (frames.pages << PAGE_SHIFT) - 1
    tables: list[Tables] = []
    at = tables_pfn
    for level in range(LEVELS, 0, -1):
        shift = PAGE_SHIFT + level * TABLE_SHIFT
        first, last = (first_address >> shift, last_address >> shift) if level < LEVELS else (0, 0)
        for other in others:
            for theirs in other.tables:
                if theirs.level == level:
                    first, last = _without(first, last, theirs)
        if first <= last:
            tables.append(Tables(level, first, last - first + 1, at))
            at += last - first + 1
    return Mapping(virt, frames, tuple(tables))


def _without(first: int, last: int, theirs: Tables) -> tuple[int, int]:
    """The table numbers ``first..last`` less those of ``theirs``, which reaches into one end at most."""
    their_last = theirs.first + theirs.count - 1
    if theirs.first <= first <= their_last:
        first = their_last + 1
    if theirs.first <= last <= their_last:
        last = theirs.first - 1
    return first, last


def _check_mappings(layout: Layout) -> None:
    """Both mappings must be possible at all, clear of Xen's addresses and of each other."""
    _check_range(layout.virt_base, layout.virt_end, "The kernel with all that has to be mapped behind it")
    if layout.p2m_frames is not None:
        p2m_end = layout.p2m_virt + (layout.p2m.pages << PAGE_SHIFT)
        _check_range(layout.p2m_virt, p2m_end, "The list of frames that the kernel asks for")
        if p2m_end > layout.virt_base:
            raise UserError("The list of frames that the kernel asks for would overlap the kernel itself.")


def _check_range(start: int, end: int, what: str) -> None:
    low = end <= _CANONICAL_LOW_END
    high = start >= _CANONICAL_HIGH_START and end <= 1 << 64
    if not low and not high:
        raise UserError(f"{what} would lie at {start:#x} to {end:#x}, which are no x86-64 addresses.")
    if start < _HYPERVISOR_END and end > _HYPERVISOR_START:
        raise UserError(f"{what} would lie at {start:#x} to {end:#x}, in Xen's part of the address space.")
