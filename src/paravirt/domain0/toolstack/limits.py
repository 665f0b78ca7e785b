"""Sizes that the toolstack reckons with."""

from __future__ import annotations

from typing import Final

MIB: Final = 1 << 20
KIB_PER_MIB: Final = 1024
FRAMES_PER_MIB: Final = 256
MAX_MEMORY_MIB: Final = 1 << 20
MAX_VCPUS: Final = 32
"""vcpu_info fits in shared_info for this many; a guest may register it elsewhere, but builds with these."""

MAXMEM_SLACK: Final = 256
"""Frames that a domain may have beyond its target (LIBXL_MAXMEM_CONSTANT, 1 MiB)."""
