"""The CPU that guests see: one table, for the plain ``cpuid`` and the one with Xen's prefix alike.

It offers what the Unicorn engine executes, less what it executes slowly (ERMS), what needs state that is not kept
(XSAVE, AVX), what a paravirtual guest must not see (paging and interrupt features), and what would make a run depend
on the host (RDRAND, RDSEED).

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


def _policy() -> dict[tuple[int, int | None], Registers]:
    ebx, edx, ecx = _text(VENDOR)
    xen_ebx, xen_ecx, xen_edx = _text(b"XenVMMXenVMM")
    brand = _text(BRAND)
    table: dict[tuple[int, int | None], Registers] = {
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
