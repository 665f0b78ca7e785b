"""The toolstack: a machine and its domains, for programs and commands alike.

from paravirt import Machine

with Machine(memory=512) as machine:
    domain = machine.create(kernel="vmlinuz", ramdisk="initrd.img", cmdline="console=hvc0", memory=256)
    domain.console.expect("login:", timeout=60)
    domain.console.send("root\\n")
    domain.wait()
"""

from __future__ import annotations

from paravirt.domain0.toolstack.domain import Domain, ShutdownReason
from paravirt.domain0.toolstack.machine import Machine

__all__ = ["Domain", "Machine", "ShutdownReason"]
