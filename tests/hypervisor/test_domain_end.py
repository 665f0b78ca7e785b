"""The end of a domain goes on bit by bit, and in between every count is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paravirt import Machine
from paravirt.hypervisor.audit import require_clean

from ..oracle import kernels


class Watched:
    """A domain's view that has the machine audited before each part of its end."""

    def __init__(self, view: Any) -> None:
        self.view = view
        self.parts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.view, name)

    def destroy_part(self) -> bool:
        self.parts += 1
        gone: bool = self.view.destroy_part()
        require_clean(self.view.host, f"after part {self.parts}")
        return gone


def test_a_large_domain_ends_in_parts_and_leaves_nothing(tmp_path: Path) -> None:
    kernel = kernels.build("hello", tmp_path)
    with Machine(memory=256) as machine:
        before = machine.host.free_frames
        domain = machine.create(kernel=kernel, memory=128, paused=True)
        watched: Any = Watched(domain._view)
        domain._view = watched
        domain.destroy()
        assert domain.ended
        assert watched.parts > 4
        assert machine.host.free_frames == before
        assert domain.domid not in machine.host.domains
        again = machine.create(kernel=kernel, memory=128)
        again.console.expect("ello", 60)
