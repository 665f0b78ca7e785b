"""Kernels of any shape for the layout, without a file behind them, and strategies that draw them."""

from __future__ import annotations

from hypothesis import strategies as st

from paravirt.domain0.builder.image import KernelImage, Segment
from paravirt.domain0.builder.notes import XenNotes
from paravirt.domain0.builder.symbols import SymbolTable

from ._kernels import VIRT_BASE

PAGE = 4096
MIB = 1 << 20


def image(
    *,
    base: int = VIRT_BASE,
    start: int = 0,
    size: int = 0x5000,
    init_p2m: int | None = None,
    mod_start_pfn: bool = False,
    hypercall_page: int | None = None,
) -> KernelImage:
    """A kernel of ``size`` bytes that starts ``start`` bytes above its base."""
    data = memoryview(b"kernel")[: min(size, 6)]
    return KernelImage(
        segments=(Segment(base + start, start, data, size),),
        virt_start=base + start,
        virt_end=base + start + size,
        virt_base=base,
        paddr_offset=0,
        entry=base + start,
        init_p2m=init_p2m,
        hypercall_page=hypercall_page,
        mod_start_pfn=mod_start_pfn,
        notes=XenNotes(),
        symbols=SymbolTable(),
    )


#: Bases at which kernels are linked: at 0, where Linux is, at the foot of the upper half, and oddly aligned.
BASES = (0, VIRT_BASE, 0xFFFF880000000000, 0x7FFF000, 0x7FC0000000, 0x7F0000000000)

images = st.builds(
    image,
    base=st.sampled_from(BASES),
    start=st.sampled_from([0, PAGE, 16 * MIB]),
    size=st.integers(1, 40 * MIB) | st.integers(1, 700).map(lambda pages: pages * PAGE),
    init_p2m=st.none(),
    mod_start_pfn=st.booleans(),
) | st.builds(
    image,
    base=st.just(VIRT_BASE),
    start=st.sampled_from([0, 16 * MIB]),
    size=st.integers(1, 40 * MIB),
    # Another L4 slot, the same one, the same L3, the same L2 as the kernel; across the ends of tables.
    init_p2m=st.sampled_from(
        [0, 1 << 39, (1 << 39) - PAGE, (1 << 30) - PAGE, VIRT_BASE - (1 << 30), VIRT_BASE - (8 << 20)]
    ),
    mod_start_pfn=st.booleans(),
)
