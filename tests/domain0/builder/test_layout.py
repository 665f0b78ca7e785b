import re
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paravirt.domain0.builder.image import KernelImage
from paravirt.domain0.builder.layout import MAX_PAGES, Layout, compute_layout
from paravirt.errors import UserError

from ._kernels import VIRT_BASE
from ._layouts import MIB, PAGE, image, images

MASK48 = (1 << 48) - 1


def extents(layout: Layout) -> dict[str, tuple[int, int]]:
    """Everything that has frames of its own: first frame and number."""
    found = {
        "kernel": (layout.kernel.pfn, layout.kernel.pages),
        "start_info": (layout.start_info_pfn, 1),
        "xenstore": (layout.store_pfn, 1),
        "console": (layout.console_pfn, 1),
        "page tables": (layout.page_tables.pfn, layout.page_tables.pages),
        "boot stack": (layout.boot_stack_pfn, 1),
        "list of frames": (layout.p2m.pfn, layout.p2m.pages),
    }
    if layout.ramdisk is not None:
        found["ramdisk"] = (layout.ramdisk.pfn, layout.ramdisk.pages)
    if layout.p2m_frames is not None:
        tables = layout.p2m_frames.pages - layout.p2m.pages
        found["tables of the list"] = (layout.p2m.end, tables)
    return found


def tables_needed(*ranges: tuple[int, int]) -> int:
    """Count the page tables that map address ranges, one page at a time."""
    needed: set[tuple[int, int]] = {(4, 0)}
    for start, end in ranges:
        for address in range(start, end, PAGE):
            needed |= {(level, (address & MASK48) >> (12 + 9 * level)) for level in (1, 2, 3)}
    return len(needed)


def test_linux_as_xen_places_it() -> None:
    """Debian's 6.1 cloud kernel with 256 MiB and a 5 MB ramdisk, worked out by hand from Xen's rules."""
    kernel = image(start=16 * MIB, size=0x2E00000, init_p2m=1 << 39, mod_start_pfn=True)
    layout = compute_layout(kernel, 65536, 5_000_000)
    assert extents(layout) == {
        "kernel": (0x1000, 0x2E00),
        "start_info": (0x3E00, 1),
        "xenstore": (0x3E01, 1),
        "console": (0x3E02, 1),
        "page tables": (0x3E03, 1 + 1 + 1 + 32),
        "boot stack": (0x3E26, 1),
        "ramdisk": (0x4000, 1221),
        "list of frames": (0x4000 + 1221, 128),
        "tables of the list": (0x4000 + 1221 + 128, 3),
    }
    assert layout.virt_end == VIRT_BASE + 64 * MIB
    assert not layout.ramdisk_mapped and layout.mod_start == 0x4000
    assert layout.p2m_virt == 1 << 39
    assert layout.p2m_frames is not None and layout.p2m_frames.pages == 131
    assert layout.used_pages == 0x4000 + 1221 + 131


def test_grub_as_xen_places_it() -> None:
    """A kernel at address 0 without wishes: ramdisk and list of frames lie in the initial mapping."""
    layout = compute_layout(image(base=0, size=0x613DC8), 65536, 5_000_000)
    assert extents(layout) == {
        "kernel": (0, 1556),
        "ramdisk": (1556, 1221),
        "list of frames": (2777, 128),
        "start_info": (2905, 1),
        "xenstore": (2906, 1),
        "console": (2907, 1),
        "page tables": (2908, 9),
        "boot stack": (2917, 1),
    }
    assert layout.ramdisk_mapped and layout.mod_start == 1556 * PAGE
    assert layout.p2m_frames is None and layout.p2m_virt == 2777 * PAGE
    assert (layout.virt_end, layout.used_pages) == (12 * MIB, 3072)


def test_the_end_goes_beyond_a_boundary_that_is_met_exactly() -> None:
    """Kernel, list, three pages, stack and 512 KiB make 4 MiB sharp before page tables: Xen maps 8 MiB."""
    pages = 1024 - 128 - 1 - 3 - 16
    assert compute_layout(image(size=pages * PAGE), 8192).virt_end == VIRT_BASE + 8 * MIB
    # Two L1 tables, three above them: with 6 pages less everything fits into 4 MiB.
    assert compute_layout(image(size=(pages - 5) * PAGE), 8192).virt_end == VIRT_BASE + 4 * MIB
    assert compute_layout(image(size=(pages - 4) * PAGE), 8192).virt_end == VIRT_BASE + 8 * MIB


@settings(max_examples=300, deadline=None)
@given(kernel=images, mib=st.integers(1, 1024), ramdisk=st.just(0) | st.integers(1, 30 * MIB))
def test_any_layout(kernel: KernelImage, mib: int, ramdisk: int) -> None:
    nr_pages = mib * 256
    try:
        layout = compute_layout(kernel, nr_pages, ramdisk)
    except UserError as error:
        assume("needs at least" not in str(error))
        raise
    placed = extents(layout)

    frames = sorted(placed.values())
    for (pfn, pages), (next_pfn, _) in pairwise(frames):
        assert pfn + pages <= next_pfn
    assert frames[-1][0] + frames[-1][1] <= layout.used_pages <= nr_pages
    assert layout.p2m.pages * PAGE >= nr_pages * 8 > (layout.p2m.pages - 1) * PAGE

    mapped = (layout.virt_end - layout.virt_base) // PAGE
    inside = {"kernel", "start_info", "xenstore", "console", "page tables", "boot stack"}
    if kernel.init_p2m is None:
        inside.add("list of frames")
    if ramdisk and not kernel.mod_start_pfn:
        inside.add("ramdisk")
    for name, (pfn, pages) in placed.items():
        assert (pfn + pages <= mapped) == (name in inside), name
        if name not in inside:
            assert pfn >= mapped
    assert layout.mod_start == (
        0
        if layout.ramdisk is None
        else layout.virt(layout.ramdisk.pfn)
        if layout.ramdisk_mapped
        else layout.ramdisk.pfn
    )

    initial = (layout.virt_base, layout.virt_end)
    assert layout.page_tables.pages == tables_needed(initial)
    if kernel.init_p2m is not None:
        own = (kernel.init_p2m, kernel.init_p2m + layout.p2m.pages * PAGE)
        assert placed["tables of the list"][1] == tables_needed(initial, own) - tables_needed(initial)


@settings(max_examples=100, deadline=None)
@given(kernel=images, ramdisk=st.just(0) | st.integers(1, 5 * MIB))
def test_the_initial_mapping_is_the_smallest_that_fits(kernel: KernelImage, ramdisk: int) -> None:
    layout = compute_layout(kernel, 32768, ramdisk)
    content = layout.virt(layout.page_tables.pfn) + PAGE + 512 * 1024

    def fits(end: int) -> bool:
        return content < end and content + tables_needed((layout.virt_base, end)) * PAGE <= end

    assert layout.virt_end % (4 * MIB) == 0
    assert fits(layout.virt_end) and not fits(layout.virt_end - 4 * MIB)
    assert layout.boot_stack_pfn == layout.page_tables.end


@settings(max_examples=100, deadline=None)
@given(kernel=images, ramdisk=st.just(0) | st.integers(1, 30 * MIB))
def test_the_sentence_on_too_little_memory_names_what_suffices(kernel: KernelImage, ramdisk: int) -> None:
    with pytest.raises(UserError, match="The domain has 1 MiB of memory, but this kernel") as caught:
        compute_layout(kernel, 256, ramdisk)
    found = re.search(r"at least (\d+) MiB", str(caught.value))
    assert found is not None
    mib = int(found[1])
    compute_layout(kernel, mib * 256, ramdisk)
    with pytest.raises(UserError, match="needs at least"):
        compute_layout(kernel, mib * 256 - 256, ramdisk)


@pytest.mark.parametrize(
    ("kernel", "sentence"),
    [
        (image(base=0xFFFF800000000000), "in Xen's part of the address space"),
        (image(base=0xFFFF87FFFFFFF000), "in Xen's part of the address space"),
        (image(base=0xFFFF7FFFFFC00000), "The kernel would lie at"),
        (image(base=0x800000000000), "The kernel would lie at"),
        (image(base=0x7FFFFFFFF000, size=1), "has to be mapped behind it would lie at"),
        (image(base=(1 << 64) - 4 * MIB, size=3 * MIB), "behind it would lie at"),
        (image(size=1 << 40), "The kernel would lie at"),
        (image(init_p2m=0x800000000000), "The list of frames that the kernel asks for would lie at"),
        (image(init_p2m=VIRT_BASE - PAGE), "would overlap the kernel"),
    ],
)
def test_kernels_that_want_to_be_where_they_cannot(kernel: KernelImage, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        compute_layout(kernel, 65536)


def test_absurd_sizes() -> None:
    with pytest.raises(UserError, match="without memory"):
        compute_layout(image(), 0)
    with pytest.raises(UserError, match="more than the 1048576 MiB"):
        compute_layout(image(), MAX_PAGES + 1)
    assert compute_layout(image(init_p2m=1 << 39), MAX_PAGES).p2m.pages == MAX_PAGES // 512
    with pytest.raises(UserError, match="behind it would lie at"):
        compute_layout(image(), MAX_PAGES)
    with pytest.raises(UserError, match=r"with its ramdisk needs at least 10506\d\d MiB"):
        compute_layout(image(mod_start_pfn=True), 65536, 1 << 40)
