"""The CPU that guests see: one table, for the plain ``cpuid`` and the one with Xen's prefix alike.

It offers what the Unicorn engine executes, less what it executes slowly (ERMS), what needs state that is not kept
(XSAVE, AVX), what a paravirtual guest must not see (paging and interrupt features), and what would make a run depend
on the host (RDRAND, RDSEED).

Where processes see the host's own ``cpuid`` all the same, as on some hosts of the KVM engine, they use the vector state
that it has.  The guest's kernel must keep that from one process to the next: there the table offers XSAVE.

The signature is that of an in-order processor (Intel family 6, model 28), the plainest one that has 64-bit mode.  It
says the truth about speculation, of which an emulated CPU has none: Linux then leaves out retpolines, buffer clearing
and the like, without being told to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ANY: Final = 0xFFFFFFFF
"""In the table: whatever ecx says."""

Registers = tuple[int, int, int, int]
Policy = dict[tuple[int, int | None], Registers]


def _bits(*numbers: int) -> int:
    value = 0
    for number in numbers:
        value |= 1 << number
    return value


def _text(text: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(text[i : i + 4], "little") for i in range(0, len(text), 4))


VENDOR: Final = b"GenuineIntel"
BRAND: Final = b"paravirt virtual CPU".ljust(48, b"\0")
SIGNATURE: Final = 0x000106CA
"""Family 6, model 28, stepping 10."""

# Leaf 1, edx: FPU DE TSC MSR PAE MCE CX8 APIC MCA CMOV PAT CLFSH MMX FXSR SSE SSE2.
FEATURES_EDX: Final = _bits(0, 2, 4, 5, 6, 7, 8, 9, 14, 15, 16, 19, 23, 24, 25, 26)
# Leaf 1, ecx: SSE3 PCLMULQDQ SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES HYPERVISOR.
FEATURES_ECX: Final = _bits(0, 1, 9, 13, 19, 20, 22, 23, 25, 31)
# Leaf 7, ebx: BMI1 BMI2 ADX.
FEATURES_7_EBX: Final = _bits(3, 8, 19)
# Leaf 0x80000001, ecx: LAHF ABM PREFETCHW; edx: SYSCALL NX RDTSCP LM.
EXTENDED_ECX: Final = _bits(0, 5, 8)
EXTENDED_EDX: Final = _bits(11, 20, 27, 29)

XEN_VERSION: Final = 4 << 16 | 17
XEN_FEAT1_MMU_PT_UPDATE_PRESERVE_AD: Final = 1
CACHE_LINE_EBX: Final = 8 << 8 | 1 << 16


def _policy() -> Policy:
    ebx, edx, ecx = _text(VENDOR)
    xen_ebx, xen_ecx, xen_edx = _text(b"XenVMMXenVMM")
    brand = _text(BRAND)
    table: Policy = {
        (0, None): (7, ebx, ecx, edx),
        (1, None): (SIGNATURE, CACHE_LINE_EBX, FEATURES_ECX, FEATURES_EDX),
        (7, 0): (0, FEATURES_7_EBX, 0, 0),
        (0x40000000, None): (0x40000005, xen_ebx, xen_ecx, xen_edx),
        (0x40000001, None): (XEN_VERSION, 0, 0, 0),
        (0x40000002, None): (1, 0x40000000, XEN_FEAT1_MMU_PT_UPDATE_PRESERVE_AD, 0),
        (0x80000000, None): (0x80000008, 0, 0, 0),
        (0x80000001, None): (0, 0, EXTENDED_ECX, EXTENDED_EDX),
        (0x80000008, None): (48 << 8 | 40, 0, 0, 0),
    }
    for i in range(3):
        first, second, third, fourth = brand[4 * i : 4 * i + 4]
        table[0x80000002 + i, None] = (first, second, third, fourth)
    return table


POLICY: Final[Mapping[tuple[int, int | None], Registers]] = _policy()
"""(leaf, subleaf or None for any) -> (eax, ebx, ecx, edx)."""

XSAVE: Final = _bits(26, 27)
"""Leaf 1, ecx: XSAVE, and that it is switched on. Xen tells a guest's kernel both before it has done that itself."""
# Whose state is AVX or AVX-512. Leaf 1, ecx: FMA AVX F16C. Leaf 7, ebx: AVX2 AVX512 F, DQ, IFMA, CD, BW, VL;
# ecx: AVX512_VBMI and _VBMI2, GFNI VAES VPCLMULQDQ AVX512_VNNI, _BITALG, _VPOPCNTDQ; edx: AVX512_4VNNIW, _4FMAPS,
# _VP2INTERSECT.
VECTOR_1_ECX: Final = _bits(12, 28, 29)
VECTOR_7: Final = (0, _bits(5, 16, 17, 21, 28, 30, 31), _bits(1, 6, 8, 9, 10, 11, 12, 14), _bits(2, 3, 8))
XCR0_KEPT: Final = _bits(0, 1, 2, 5, 6, 7)
"""x87, SSE, AVX; the three parts of AVX-512."""
XSAVE_LEAF: Final = 13
XSAVEOPT: Final = 1
XSAVE_LEAST: Final = 576
"""Bytes of a save area with x87 and SSE, and the header behind them."""


def with_vector_state(native: Mapping[tuple[int, int], Registers]) -> tuple[int, Policy]:
    """The policy for a host whose own leaves 1, 7 and 13 processes see: what XCR0 may hold, and the table.

    XCR0 0 and the plain table, where the host does not have XSAVE switched on. XSAVEC and XSAVES are not offered, as
    the kernel needs neither.
    """
    table = dict(POLICY)
    if not native or native[1, 0][2] & XSAVE != XSAVE:
        return 0, table
    states = native[XSAVE_LEAF, 0][0] & XCR0_KEPT
    eax, ebx, ecx, edx = table[1, None]
    table[1, None] = eax, ebx, ecx | XSAVE | native[1, 0][2] & VECTOR_1_ECX, edx
    ours, theirs = table[7, 0], native[7, 0]
    wide = tuple(a | b & allowed for a, b, allowed in zip(ours, theirs, VECTOR_7, strict=True))
    table[7, 0] = wide[0], wide[1], wide[2], wide[3]
    _, ebx, ecx, edx = table[0, None]
    table[0, None] = XSAVE_LEAF, ebx, ecx, edx
    size = max([XSAVE_LEAST, *(sum(native[XSAVE_LEAF, state][:2]) for state in range(2, 8) if states >> state & 1)])
    table[XSAVE_LEAF, 0] = states, size, size, 0
    table[XSAVE_LEAF, 1] = native[XSAVE_LEAF, 1][0] & XSAVEOPT, 0, 0, 0
    for state in range(2, 8):
        if states >> state & 1:
            table[XSAVE_LEAF, state] = *native[XSAVE_LEAF, state][:2], 0, 0
    return states, table
