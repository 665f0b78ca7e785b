"""The settings of xl.cfg that list devices: how each entry is read, and how libxl's JSON has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.xlcfg.channels import channel_to_libxl, parse_channel
from paravirt.domain0.xlcfg.disks import disk_to_libxl, parse_disk
from paravirt.domain0.xlcfg.vifs import parse_vif, vif_to_libxl


@dataclass(frozen=True)
class DeviceSetting:
    """One setting that lists devices (``disk``, ``vif``).

    Attributes:
        parse: an entry of the list as a device. What is wrong with it is a UserError, to which the reader of the file
            adds file, line and setting.
        libxl_name: the list's name in libxl's JSON (``disks``, ``nics``).
        to_libxl: a device in libxl's JSON.
    """

    parse: Callable[[str], DeviceSpec]
    libxl_name: str
    to_libxl: Callable[[DeviceSpec], dict[str, Any]]


DEVICE_SETTINGS: Final[dict[str, DeviceSetting]] = {
    "disk": DeviceSetting(parse_disk, "disks", disk_to_libxl),
    "vif": DeviceSetting(parse_vif, "nics", vif_to_libxl),
    "channel": DeviceSetting(parse_channel, "channels", channel_to_libxl),
}
"""By the setting's name. Those of ``keys.DEVICES`` that are not here are refused."""
