"""paravirt: Xen, in Python.

A paravirtualising hypervisor that runs as an ordinary program and boots unmodified Xen PV guests.

    from paravirt import Machine

    with Machine(memory=512) as machine:
        domain = machine.create(kernel="vmlinuz", ramdisk="initrd.img", cmdline="console=hvc0")
        domain.console.expect("login:", timeout=60)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paravirt.errors import GuestError, HypervisorBug, ParavirtError, UserError

if TYPE_CHECKING:
    from paravirt.domain0.toolstack import Domain, Machine, ShutdownReason

__all__ = ["Domain", "GuestError", "HypervisorBug", "Machine", "ParavirtError", "ShutdownReason", "UserError"]
__version__ = "0.1.0"

_LAZY = ("Domain", "Machine", "ShutdownReason")


def __getattr__(name: str) -> Any:
    # The machine brings numpy and the engine along; thin clients do without.
    if name in _LAZY:
        from paravirt.domain0 import toolstack

        return getattr(toolstack, name)
    raise AttributeError(f"module 'paravirt' has no attribute {name!r}")
