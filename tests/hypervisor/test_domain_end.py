"""The end of a domain goes on bit by bit, and in between every count is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paravirt import Machine
from paravirt.abi.errno import EINVAL
from paravirt.hypervisor.audit import require_clean
from paravirt.hypervisor.views import Host
from paravirt.machine.memory import Memory
from paravirt.machine.unicorn.engine import UnicornEngine

from ..oracle import kernels
from ..patience import PATIENCE

WORK_LIMIT = 65536  # promotion.py: what one part of the end may do, in looks at page-table entries
WORK_OF_CLOSE = 64  # events.py
MOST_PORTS = 4095  # of the two-level ABI, without port 0


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
        again.console.expect("ello", PATIENCE)


def test_very_many_ports_are_closed_in_parts() -> None:
    """Between the parts a peer goes on: the ports that it has to the other end tell that this is going."""
    memory = Memory(256)
    host = Host(memory, [UnicornEngine(memory.address, memory.size, True)], virtual_clock=True)
    ending, peer = (host.create_domain(domid, 16, 1) for domid in (1, 2))
    for domain in (ending, peer):
        domain.max_ports = MOST_PORTS + 1
    offered = [ending.alloc_unbound(peer.domid) for _ in range(MOST_PORTS)]
    assert offered == list(range(1, MOST_PORTS + 1))
    bound = [peer.bind_interdomain(ending.domid, port) for port in offered[:-1]]
    assert min(bound) > 0
    assert not ending.destroy_part()
    assert ending.vcpus, "nothing else goes before the ports have gone"
    require_clean(host, "after the first part")
    assert host.stats()["most_work"] <= WORK_LIMIT + WORK_OF_CLOSE
    # What was open is closed to its peer in the first part, or later; nothing new is joined to it.
    assert peer.bind_interdomain(ending.domid, offered[-1]) == -EINVAL
    assert peer.notify(bound[0]) == peer.notify(bound[-1]) == 0
    parts = 2
    while not ending.destroy_part():
        parts += 1
    assert parts > MOST_PORTS * WORK_OF_CLOSE // WORK_LIMIT
    assert host.stats()["most_work"] <= WORK_LIMIT + WORK_OF_CLOSE
    require_clean(host, "after the last part")
    again = host.create_domain(1, 16, 1)
    for port in bound[::1000]:
        assert peer.notify(port) == 0
        assert again.bind_interdomain(peer.domid, port) > 0  # unbound again, for a domain of that number
    peer.destroy()
    again.destroy()
    require_clean(host, "at the end")
