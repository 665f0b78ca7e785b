"""Domain 0 serves its guests in turn, and gives each domain an identity."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest

import paravirt
from paravirt import Machine, ShutdownReason
from paravirt.abi.grant_table import (
    GNTTAB_RESERVED_CONSOLE,
    GNTTAB_RESERVED_XENSTORE,
    GTF_permit_access,
    GTF_reading,
    GTF_writing,
)
from paravirt.abi.io import xs_wire
from paravirt.domain0 import grants
from paravirt.domain0.grants import MappedGrant
from paravirt.domain0.ring import STORE_REPLIES, STORE_REQUESTS
from paravirt.domain0.store.wire import Message
from paravirt.domain0.toolstack import Domain
from paravirt.hypervisor.hypercalls.grant_frames import Entry, grants_of

from ..hypervisor.audited import check
from ..patience import PATIENCE, wait_for

HELLO = Path(paravirt.__file__).parent / "data" / "hello"
REQUEST = Message(xs_wire.XS_READ, 1, 0, b"name\0".ljust(16, b"\0")).encode()


class FloodingPage(MappedGrant):
    """A store page whose guest asks again and again, as fast as it is served."""

    served = 0

    def read(self, offset: int, length: int) -> bytes:
        if offset == STORE_REQUESTS.producer:
            # As much as fits: whatever was taken has been put in again.
            consumer = int.from_bytes(super().read(STORE_REQUESTS.consumer, 4), "little")
            self.write(STORE_REQUESTS.buffer, REQUEST * (STORE_REQUESTS.size // len(REQUEST)))
            type(self).served = consumer
            return struct.pack("<I", consumer + STORE_REQUESTS.size)
        if offset == STORE_REPLIES.consumer:
            return super().read(STORE_REPLIES.producer, length)
        return super().read(offset, length)


def test_one_guests_flood_does_not_starve_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert STORE_REQUESTS.size % len(REQUEST) == 0
    with Machine(memory=16) as machine:
        monkeypatch.setattr(grants, "MappedGrant", FloodingPage)
        flooding = machine.create(kernel=HELLO, memory=4, paused=True)
        monkeypatch.undo()
        connection = machine.call(lambda: machine.store.connection_of(flooding.domid))
        assert connection is not None
        assert connection.on_output is not None
        machine.call(connection.on_output)
        # The other one needs its console served, and its end noticed.
        for _ in range(3):
            other = machine.create(kernel=HELLO, memory=4)
            assert other.wait(PATIENCE) is ShutdownReason.POWEROFF
            assert b"Goodbye." in other.console.output
        assert connection.broken is None
        wait_for(lambda: FloodingPage.served > 64 * STORE_REQUESTS.size, "a flood that is served")


def identities(domain: Domain) -> tuple[bytes, bytes | None, bytes | None]:
    """What the hypervisor says, what the store says, and what stands where the store says."""
    machine = domain.machine
    with machine.host.lock:
        handle = machine.host.domains[domain.domid].state.handle
    vm = machine.call(lambda: machine.store.get(f"/local/domain/{domain.domid}/vm"))
    assert vm is not None
    return handle, vm, machine.call(lambda: machine.store.get(f"{vm.decode()}/uuid"))


def create(machine: Machine, identity: uuid.UUID | None = None) -> Domain:
    return machine.create(kernel=HELLO, memory=4, paused=True, name="one", identity=identity)


def test_every_domain_has_an_identity() -> None:
    wanted = uuid.UUID(int=0x123456789ABCDEF00FEDCBA987654321)
    with Machine(memory=32) as machine:
        found = [identities(create(machine, identity)) for identity in (wanted, None, None)]
    for handle, home, text in found:
        assert home is not None
        assert text is not None
        assert home == b"/vm/" + text
        assert uuid.UUID(text.decode()).bytes == handle
    assert found[0][0] == wanted.bytes
    assert len({handle for handle, _, _ in found}) == 3
    assert [uuid.UUID(bytes=handle).version for handle, _, _ in found[1:]] == [4, 4]


def test_identities_are_the_same_in_every_deterministic_run() -> None:
    seen = []
    for _ in range(2):
        with Machine(memory=16, deterministic=True) as machine:
            seen.append([identities(create(machine)) for _ in range(2)])
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[0][1]
    assert seen[0][0][0] != bytes(16)


def test_both_rings_are_granted_to_domain_0() -> None:
    with Machine(memory=16) as machine:
        domain = create(machine)
        home = f"/local/domain/{domain.domid}"
        frames = machine.call(
            lambda: [machine.store.get(f"{home}/{ring}/ring-ref") for ring in ("console", "store")]
        )
        with machine.host.lock:
            grants = grants_of(machine.host.domains[domain.domid])
            assert [grants.read(ref) for ref in (GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE)] == [
                Entry(GTF_permit_access | GTF_reading | GTF_writing, 0, int(frame or 0)) for frame in frames
            ]
            assert grants.read(2) == Entry(0, 0, 0)
        check(machine, "with both rings granted")
