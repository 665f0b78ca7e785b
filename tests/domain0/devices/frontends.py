"""A guest's half of a device, played by the test: a paused domain whose pages, grants, ports and nodes are written
as its kernel would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import paravirt
from paravirt import Machine
from paravirt.abi import grant_table as abi
from paravirt.domain0.devices.nodes import DeviceNodes
from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.grants import FRAME_SIZE
from paravirt.hypervisor.hypercalls.grant_frames import grants_of
from paravirt.hypervisor.views import Domain

HELLO = Path(paravirt.__file__).parent / "data" / "hello"
FIRST_REF = 20


class GuestFrame:
    """One frame of the guest's, as the guest itself reads and writes it."""

    def __init__(self, machine: Machine, mfn: int) -> None:
        self._memory = machine.memory
        self.mfn = mfn

    def read(self, offset: int, length: int) -> bytes:
        return self._memory.read(self.mfn * FRAME_SIZE + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._memory.write(self.mfn * FRAME_SIZE + offset, data)


class FrontendGuest:
    """A paused domain that grants frames to Domain 0 and has event channels to it."""

    def __init__(
        self, machine: Machine, memory: int = 8, name: str = "front", devices: Sequence[DeviceSpec] = ()
    ) -> None:
        self.machine = machine
        self.domain = machine.create(kernel=HELLO, memory=memory, name=name, paused=True, devices=devices)
        self.domid = self.domain.domid
        self.view: Domain = machine.host.domains[self.domid]
        # Not part of the kernel's initial mapping of itself.
        self._frames: Iterator[int] = iter([int(mfn) for mfn in self.view.p2m[: -len(self.view.p2m) // 2 : -1]])
        self._refs = iter(range(FIRST_REF, 512))

    def frame(self) -> GuestFrame:
        return GuestFrame(self.machine, next(self._frames))

    def grant(self, frame: GuestFrame, flags: int = abi.GTF_permit_access, ref: int | None = None) -> int:
        """Grant a frame to Domain 0: the reference."""
        ref = next(self._refs) if ref is None else ref
        with self.machine.host.lock:
            entry = bytes(abi.GrantEntryV1(flags, 0, frame.mfn))
            self.machine.memory.write(grants_of(self.view).entry_at(ref), entry)
        return ref

    def revoke(self, ref: int) -> None:
        """Take a grant back, without asking whether it is in use."""
        with self.machine.host.lock:
            self.machine.memory.write(grants_of(self.view).entry_at(ref), bytes(8))

    def is_mapped(self, ref: int) -> bool:
        with self.machine.host.lock:
            return bool(grants_of(self.view).read_status(ref) & (abi.GTF_reading | abi.GTF_writing))

    def port(self) -> int:
        """A port for Domain 0 to bind."""
        with self.machine.host.lock:
            return self.view.alloc_unbound(0)

    def send(self, port: int) -> None:
        """Send an event."""
        with self.machine.host.lock:
            self.view.notify(port)

    def publish(self, nodes: DeviceNodes, **values: object) -> None:
        """Write nodes into the frontend's directory; ``_`` stands for ``-``."""

        def write() -> None:
            for name, value in values.items():
                self.machine.store.set(f"{nodes.frontend}/{name.replace('_', '-')}", str(value))

        self.machine.call(write)

    def backend_node(self, nodes: DeviceNodes, name: str) -> str | None:
        """A node of the backend's."""
        value = self.machine.call(lambda: self.machine.store.get(f"{nodes.backend}/{name}"))
        return None if value is None else value.decode()
