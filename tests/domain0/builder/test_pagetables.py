import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from paravirt.domain0.builder.image import KernelImage
from paravirt.domain0.builder.layout import Layout, compute_layout
from paravirt.domain0.builder.pagetables import build_page_tables

from ._layouts import MIB, PAGE, image, images

ADDRESS = 0x000FFFFFFFFFF000
# Present 1, writable 2, user 4, accessed 0x20, dirty 0x40.
LEAF = 0x23
LEAF_READ_ONLY = 0x21
UPPER = 0x67


def frames_of(nr_pages: int, seed: int = 1) -> NDArray[np.uint64]:
    """A list of frames in no order, with gaps, up to beyond 4 GiB."""
    drawn = np.random.default_rng(seed).permutation(3 * nr_pages)[:nr_pages]
    return drawn.astype(np.uint64) + np.uint64(1 << 20)


class Walker:
    """A slow page-table walk, one entry at a time, over tables kept by machine frame."""

    def __init__(self, layout: Layout, p2m: NDArray[np.uint64]) -> None:
        self.tables = {
            int(p2m[pfn + index]): table
            for pfn, tables in build_page_tables(layout, p2m)
            for index, table in enumerate(tables)
        }
        self.root = int(p2m[layout.page_tables.pfn])

    def walk(self, address: int) -> int | None:
        """The leaf entry for an address, or None where nothing is mapped."""
        mfn = self.root
        for level in (4, 3, 2, 1):
            entry = int(self.tables[mfn][address >> (12 + 9 * (level - 1)) & 511])
            if not entry & 1:
                return None
            if level == 1:
                return entry
            assert entry & ~ADDRESS == UPPER
            mfn = (entry & ADDRESS) >> 12
        raise AssertionError

    def present(self) -> int:
        """The number of present leaf entries, found by going through every table once."""
        count = 0
        level_of = {self.root: 4}
        while level_of:
            mfn, level = level_of.popitem()
            for entry in self.tables[mfn]:
                if entry & 1 and level > 1:
                    level_of[int(entry & ADDRESS) >> 12] = level - 1
                elif entry & 1:
                    count += 1
        return count


def check(layout: Layout, kernel: KernelImage, p2m: NDArray[np.uint64]) -> None:
    walker = Walker(layout, p2m)
    own = set(range(layout.page_tables.pfn, layout.page_tables.end))
    if layout.p2m_frames is not None:
        own |= set(range(layout.p2m.end, layout.p2m_frames.end))
    mapped = [
        (address, pfn)
        for mapping in layout.mappings
        for pfn, address in zip(
            range(mapping.frames.pfn, mapping.frames.end), range(mapping.virt, 1 << 65, PAGE), strict=False
        )
    ]
    assert walker.present() == len(mapped)
    for address, pfn in mapped:
        entry = walker.walk(address)
        assert entry is not None
        assert (entry & ADDRESS) >> 12 == p2m[pfn]
        assert entry & ~ADDRESS == (LEAF_READ_ONLY if pfn in own else LEAF)
    assert mapped[0][0] == layout.virt_base and mapped[0][1] == 0
    if kernel.init_p2m is not None:
        assert walker.walk(kernel.init_p2m + layout.p2m.pages * PAGE) in (None, walker.walk(layout.virt_base))


@settings(max_examples=25, deadline=None)
@given(kernel=images, ramdisk=st.just(0) | st.integers(1, 3 * MIB), seed=st.integers(0, 9))
def test_every_address_walks_to_its_frame(kernel: KernelImage, ramdisk: int, seed: int) -> None:
    nr_pages = 128 * 256
    check(compute_layout(kernel, nr_pages, ramdisk), kernel, frames_of(nr_pages, seed))


def test_a_list_that_shares_no_l4_entry_a_part_and_all_with_the_kernel() -> None:
    base = 0xFFFFFFFF80000000
    nr_pages = 1 << 19
    p2m = frames_of(nr_pages)
    shared = []
    # The list of 2 GiB takes 4 MiB, two L1 tables.
    for init_p2m in (1 << 39, base - (1 << 30), base - (1 << 30) + (6 << 20), base + (512 << 20) - (4 << 20)):
        kernel = image(base=base + (512 << 20), init_p2m=init_p2m)
        layout = compute_layout(kernel, nr_pages)
        check(layout, kernel, p2m)
        assert layout.p2m_frames is not None
        shared.append(layout.p2m_frames.pages - layout.p2m.pages)
    assert shared == [4, 3, 3, 2]


def test_tables_are_in_order_from_l4_down() -> None:
    layout = compute_layout(image(size=9 * MIB), 32768)
    (pfn, tables), *rest = build_page_tables(layout, np.arange(32768, dtype=np.uint64))
    assert not rest and pfn == layout.page_tables.pfn and tables.shape == (layout.page_tables.pages, 512)
    used = [int(np.count_nonzero(table)) for table in tables]
    assert used == [1, 1, 6, *[512] * 6]
    assert int(tables[0][511]) == (pfn + 1) << 12 | UPPER
    assert int(tables[2][0]) == (pfn + 3) << 12 | UPPER
