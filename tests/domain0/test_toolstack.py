"""Machine.create's rarer arguments, and what is left of a domain that has ended."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt import Domain, Machine, ShutdownReason, UserError
from paravirt.abi.errno import ENOSPC
from paravirt.domain0.domainlimits import DomainLimits

from ..hypervisor.audited import audited
from ..oracle import kernels
from ..patience import PATIENCE

HELLO = kernels.GUESTS.parent / "src/paravirt/data/hello"


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=128) as made, audited(made):
        yield made


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("hostile", tmp_path_factory.mktemp("kernels"))


def test_a_domain_that_is_kept_stays_until_it_is_destroyed(machine: Machine, hostile: Path) -> None:
    free = machine.host.free_frames
    domain = machine.create(hostile, cmdline="crash", memory=16, keep=True)
    assert domain.wait(PATIENCE) is ShutdownReason.CRASH
    assert domain.crash_report and domain.console.closed
    assert domain.control(lambda view: view.is_shut_down and view.tot_pages) == 16 * 256
    assert machine.call(lambda: machine.store.get(f"/local/domain/{domain.domid}/name")) == b"domain-1"
    domain.destroy()
    assert domain.reason is ShutdownReason.CRASH, "it is still why it ended"
    assert machine.host.free_frames == free
    assert machine.call(lambda: machine.store.get(f"/local/domain/{domain.domid}")) is None
    with pytest.raises(UserError, match="has ended"):
        domain.pause()


@pytest.mark.parametrize("keep", [False, True])
def test_each_end_is_told_once(machine: Machine, keep: bool) -> None:
    told: list[tuple[Domain, ShutdownReason | None]] = []
    twice = threading.Event()

    def ended(domain: Domain) -> None:
        told.append((domain, domain.reason))
        if len(told) == 2:
            twice.set()

    machine.on_shutdown = ended
    first = machine.create(HELLO, memory=16, keep=keep)
    assert first.wait(PATIENCE) is ShutdownReason.POWEROFF
    second = machine.create(HELLO, memory=16, paused=True, keep=keep)
    second.destroy()
    first.destroy()
    assert twice.wait(PATIENCE)
    assert told == [(first, ShutdownReason.POWEROFF), (second, ShutdownReason.DESTROYED)]


def test_limits_and_identity(machine: Machine) -> None:
    identity = uuid.UUID("12345678-1234-5678-1234-567812345678")
    domain = machine.create(
        HELLO, memory=16, vcpus=3, paused=True, max_memory=24, online_vcpus=2, identity=identity,
        limits=DomainLimits(5, 6, 1, 7), tty="/dev/somewhere",
    )  # fmt: skip
    home = f"/local/domain/{domain.domid}"

    def read(path: str) -> bytes | None:
        return machine.call(lambda: machine.store.get(f"{home}/{path}"))

    assert read("memory/static-max") == b"24576"
    assert [read(f"cpu/{number}/availability") for number in range(3)] == [b"online", b"online", b"offline"]
    assert read("vm") == f"/vm/{identity}".encode()
    assert read("console/tty") == b"/dev/somewhere"
    view = domain.control(lambda view: view)
    assert view.state.handle == identity.bytes
    assert (view.state.max_grant_frames, view.state.maptrack.max_frames, view.state.max_grant_version) == (5, 6, 1)
    with machine.host.lock:
        ports = [view.alloc_unbound(0) for _ in range(6)]
    assert ports[-1] == -ENOSPC and max(ports) == 7, "two are the rings'"
    assert [(one.address, one.size, one.type) for one in view.state.memory_map] == [(0, 24 << 20, 1)]
    assert (view.tot_pages, view.max_pages) == (16 * 256, 17 * 256)


def test_what_a_domain_has_run(machine: Machine, hostile: Path) -> None:
    domain = machine.create(hostile, cmdline="spin", memory=16, keep=True)
    assert domain.wait(PATIENCE) is ShutdownReason.WATCHDOG
    # The watchdog ends it after a second of spinning.
    assert domain.control(lambda view: view.vcpus[0].cpu_time) > 100_000_000
    assert machine.service_time_ns() > 0
