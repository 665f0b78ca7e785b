"""Operations on virtual devices of every kind: what ``xl``'s verbs about disks and network interfaces ask for."""

from __future__ import annotations

from typing import Any

from paravirt.domain0.daemon.requests import Request, operation
from paravirt.domain0.devices.registry import Device
from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.store.server import Store


@operation("devices")
def devices(request: Request) -> list[dict[str, Any]]:
    """A domain's devices of a ``kind``, each with its directories in xenstore, and their nodes as texts."""
    managed, kind = request.domain(), request.string("kind")
    machine = request.machine
    return machine.call(lambda: [_row(machine.store, device) for device in machine.devices.of(managed.domid, kind)])


@operation("device-counts")
def counts(request: Request) -> list[dict[str, Any]]:
    """For each device of all domains, what its backend has counted."""
    machine = request.machine
    return machine.call(
        lambda: [
            {"domid": device.nodes.domid, "kind": device.nodes.kind, "counts": dict(device.backend.counted())}
            for device in machine.devices.all()
        ]
    )


def _row(store: Store, device: Device) -> dict[str, Any]:
    nodes = device.nodes
    return {
        "devid": nodes.devid,
        "domid": nodes.domid,
        "settings": device.spec.settings,
        "backend": nodes.backend,
        "frontend": nodes.frontend,
        "backend_nodes": _texts(store, nodes.backend),
        "frontend_nodes": _texts(store, nodes.frontend),
    }


def _texts(store: Store, directory: str) -> dict[str, str]:
    values = {name: store.get(f"{directory}/{name}") for name in store.directory(directory)}
    return {name: value.decode("utf-8", "replace") for name, value in values.items() if value is not None}


@operation("device-attach")
def attach(request: Request) -> dict[str, Any]:
    """Give a domain a ``device``: the number that it has."""
    managed = request.domain()
    spec = DeviceSpec.from_json(request.object("device"))
    device = request.machine.call(lambda: request.machine.devices.attach(managed.domid, spec))
    return {"devid": device.devid}


@operation("device-detach")
def detach(request: Request) -> None:
    """Take a device from a domain, as soon as its frontend lets it go, or at once with ``force``."""
    managed, kind, devid = request.domain(), request.string("kind"), request.integer("devid")
    force, all_devices = request.flag("force"), request.machine.devices
    request.machine.call(lambda: all_devices.detach(all_devices.find(managed.domid, kind, devid), force))
