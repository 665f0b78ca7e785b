"""Virtual disks as a kind of device: from a setting to the backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from paravirt.domain0.block.backend import PROTOCOL, BlockBackend, DiskOptions
from paravirt.domain0.block.opening import open_image
from paravirt.domain0.devices.backend import Backend, Facilities
from paravirt.domain0.devices.kinds import Announcement, DeviceKind
from paravirt.domain0.devices.nodes import DeviceNodes
from paravirt.domain0.devices.spec import Setting
from paravirt.domain0.xlcfg.disks import KIND, SECTOR_SIZES
from paravirt.domain0.xlcfg.vdev import vdev_number
from paravirt.errors import UserError


class DiskKind(DeviceKind):
    """Virtual disks. Their settings are those that ``xlcfg.disks`` reads."""

    name = KIND
    title = "virtual disk"

    def number(self, settings: Mapping[str, Setting], taken: Collection[int]) -> int:
        """The number that the name stands for."""
        number = vdev_number(_text(settings, "vdev"))
        if number in taken:
            raise UserError(f"The domain has a virtual disk {settings['vdev']!r} already.")
        return number

    def announce(self, settings: Mapping[str, Setting], nodes: DeviceNodes) -> Announcement:
        """The nodes that libxl writes (tools/libs/light/libxl_disk.c in Xen's tree)."""
        target, type_ = _text(settings, "target"), "cdrom" if settings.get("cdrom") else "disk"
        readonly = _is_readonly(settings)
        back = {
            "params": target,
            "removable": str(int(bool(settings.get("cdrom")))),
            "bootable": "1",
            "dev": _text(settings, "vdev"),
            "type": "phy",
            "mode": "r" if readonly else "w",
            "device-type": type_,
            "discard-enable": str(int(not readonly and settings.get("discard") is not False)),
        }
        front = {
            "virtual-device": str(nodes.devid),
            "device-type": type_,
            "protocol": PROTOCOL,
            "trusted": str(int(settings.get("trusted") is not False)),
        }
        return Announcement(front, back)

    def backend(self, facilities: Facilities, nodes: DeviceNodes, settings: Mapping[str, Setting]) -> Backend:
        """Open the image."""
        options = DiskOptions(
            is_cdrom=bool(settings.get("cdrom")),
            sector_size=_number(settings, "sector-size", SECTOR_SIZES[0]),
            discard=settings.get("discard") is not False,
            rate=_number(settings, "rate", 0),
        )
        if options.sector_size not in SECTOR_SIZES:
            raise UserError(f"A sector has 512 or 4096 bytes, not {options.sector_size}.")
        if options.rate and facilities.deterministic:
            raise UserError("A deterministic machine's disks have no rate: it has no time to measure it by.")
        image = open_image(_text(settings, "target"), _text(settings, "format"), _is_readonly(settings))
        return BlockBackend(facilities, nodes, image, options)


def _text(settings: Mapping[str, Setting], name: str) -> str:
    value = settings.get(name)
    if not isinstance(value, str):
        raise UserError(f"A virtual disk has {value!r} as its {name}.")
    return value


def _number(settings: Mapping[str, Setting], name: str, default: int) -> int:
    value = settings.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f"A virtual disk has {value!r} as its {name}.")
    return value


def _is_readonly(settings: Mapping[str, Setting]) -> bool:
    return settings.get("access") == "r" or bool(settings.get("cdrom"))
