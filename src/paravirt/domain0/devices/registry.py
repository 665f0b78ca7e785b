"""The devices of one machine's domains: attached, listed, detached, and gone with their domain.

All of it runs in Domain 0's thread, :meth:`Devices.wait_until_gone` excepted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from paravirt.domain0.devices.backend import Backend, Facilities
from paravirt.domain0.devices.kinds import DeviceKind
from paravirt.domain0.devices.nodes import DeviceNodes
from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.errors import UserError


@dataclass(frozen=True)
class Device:
    """One device of a domain.

    Attributes:
        spec: what it was made from.
    """

    spec: DeviceSpec
    nodes: DeviceNodes
    backend: Backend

    @property
    def devid(self) -> int:
        """Its number among the domain's devices of its kind."""
        return self.nodes.devid


class Devices:
    """All devices of a machine.

    Attributes:
        kinds: the kinds that there are, by name.
    """

    def __init__(self, facilities: Facilities, kinds: Iterable[DeviceKind]) -> None:
        self.kinds = {kind.name: kind for kind in kinds}
        self._facilities = facilities
        self._devices: dict[tuple[int, str, int], Device] = {}
        self._nothing_left = threading.Event()
        self._nothing_left.set()

    def attach(self, domid: int, spec: DeviceSpec) -> Device:
        """Give a domain a device: it is announced in xenstore, where the guest's frontend finds it.

        Raises:
            UserError: there is no such kind of device, or the device cannot be made as described.
        """
        kind = self._kind(spec.kind)
        devid = kind.number(spec.settings, {device.devid for device in self.of(domid, spec.kind)})
        nodes = DeviceNodes(spec.kind, domid, devid)
        spec = DeviceSpec(spec.kind, kind.completed(self._facilities, nodes, spec.settings))
        backend = kind.backend(self._facilities, nodes, spec.settings)
        announcement = kind.announce(spec.settings, nodes)
        nodes.announce(self._facilities.store, announcement.frontend, announcement.backend, announcement.readonly)
        device = Device(spec, nodes, backend)
        backend.on_gone = lambda: self._gone(device)
        self._devices[domid, spec.kind, devid] = device
        self._nothing_left.clear()
        backend.start()
        return device

    def of(self, domid: int, kind: str | None = None) -> list[Device]:
        """A domain's devices, those of one kind or all, in the order in which they were attached."""
        return [
            device for (owner, its_kind, _), device in self._devices.items()
            if owner == domid and kind in (None, its_kind)
        ]  # fmt: skip

    def all(self) -> list[Device]:
        """The devices of all domains."""
        return list(self._devices.values())

    def find(self, domid: int, kind: str, devid: int) -> Device:
        """One device.

        Raises:
            UserError: there is none.
        """
        device = self._devices.get((domid, kind, devid))
        if device is None:
            raise UserError(f"The domain {domid} has no {self._kind(kind).title} {devid}.")
        return device

    def detach(self, device: Device, force: bool = False) -> None:
        """Ask the frontend to let a device go; it is gone when that has. With ``force`` it is not asked."""
        if force:
            device.backend.revoke()
        else:
            device.backend.close()

    def domain_ended(self, domid: int) -> None:
        """A domain ends: its devices go as soon as nothing is in flight. Their frames outlive the domain if need be."""
        for device in self.of(domid):
            device.backend.destroy()

    def wait_until_gone(self, patience: float | None) -> bool:
        """Wait until no device is left, at most ``patience`` seconds: whether that is so. Called from any thread."""
        return self._nothing_left.wait(patience)

    def _gone(self, device: Device) -> None:
        nodes = device.nodes
        if self._devices.pop((nodes.domid, nodes.kind, nodes.devid), None) is not None:
            nodes.remove(self._facilities.store)
        if not self._devices:
            self._nothing_left.set()

    def _kind(self, name: str) -> DeviceKind:
        kind = self.kinds.get(name)
        if kind is None:
            raise UserError(f"There is no kind of device {name!r}.")
        return kind
