"""A machine with a guest whose half of a disk the test plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from paravirt import Machine
from paravirt.domain0.block.backend import BlockBackend, DiskOptions
from paravirt.domain0.block.image import Image, RawImage
from paravirt.domain0.devices.backend import Facilities
from paravirt.domain0.devices.nodes import DeviceNodes
from paravirt.domain0.iopool import IoPool

from ...hypervisor.audited import audited
from ..devices.frontends import FrontendGuest

DISK_SIZE = 1 << 20
MakeDisk = Callable[..., BlockBackend]


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=64) as made, audited(made):
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A disk of 1 MiB whose every sector is different."""
    made = tmp_path / "disk.img"
    made.write_bytes(b"".join(number.to_bytes(4, "little") * 128 for number in range(DISK_SIZE // 512)))
    return made


@pytest.fixture
def make_disk(machine: Machine, guest: FrontendGuest, path: Path) -> Iterator[MakeDisk]:
    """Makes a device for the guest: of the raw image, or another."""
    services = machine._services
    pool = IoPool(services, 4)
    facilities = Facilities(machine.store, services, machine.grants, pool, False)
    devices: list[BlockBackend] = []
    numbers = count(51712, 16)

    def make(image: Image | None = None, options: DiskOptions | None = None, readonly: bool = False) -> BlockBackend:
        def start() -> BlockBackend:
            nodes = DeviceNodes("vbd", guest.domid, next(numbers))
            nodes.announce(machine.store, {}, {})
            backend = BlockBackend(facilities, nodes, image or RawImage(path, readonly), options)
            backend.start()
            devices.append(backend)
            return backend

        return machine.call(start)

    yield make
    for device in devices:
        machine.call(device.destroy)
    pool.stop()
