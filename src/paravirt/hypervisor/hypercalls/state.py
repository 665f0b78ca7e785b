"""What the rare hypercalls remember about a domain, in Python only.

The compiled core keeps what its own paths need; everything else that a guest can set by a rare hypercall, or that
the toolstack sets for one, is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .maptrack import MapTrack

if TYPE_CHECKING:
    from paravirt.hypervisor.hypercalls.grant_frames import GrantFrames


@dataclass(frozen=True)
class MemoryRange:
    """One entry of a domain's memory map, as the BIOS function E820 has it: bytes, and the type."""

    address: int
    size: int
    type: int


@dataclass
class DomainState:
    """One domain's part; it lives and dies with the domain.

    Attributes:
        handle: the domain's unique identifier (16 bytes), which XENVER_guest_handle gives.
        is_console: whether console_io is open to it. A release build of Xen has it closed for all but domain 0.
        memory_map: the map that the toolstack, or the domain itself, set; without one, asking is -ENOSYS.
        pirqs: physical interrupt numbers that the domain reserved by PHYSDEVOP_get_free_pirq.
        max_grant_frames: how many frames its grant table may have.
        max_grant_version: the highest version that its grant table may have.
        grants: its grant table; made when first asked for.
        maptrack: its mappings of grants.
    """

    handle: bytes = bytes(16)
    is_console: bool = False
    memory_map: list[MemoryRange] = field(default_factory=list)
    pirqs: set[int] = field(default_factory=set)
    max_grant_frames: int = 64
    max_grant_version: int = 2
    grants: GrantFrames | None = None
    maptrack: MapTrack = field(default_factory=MapTrack)
