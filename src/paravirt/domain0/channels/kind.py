"""Channels as a kind of device: from a setting to the backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from paravirt.domain0.channels.backend import ChannelBackend
from paravirt.domain0.channels.ends import HostEnd, SocketEnd, TerminalEnd
from paravirt.domain0.devices.backend import Backend, Facilities
from paravirt.domain0.devices.kinds import Announcement, DeviceKind
from paravirt.domain0.devices.nodes import DeviceNodes
from paravirt.domain0.devices.spec import Setting
from paravirt.domain0.store.layout import CONSOLE_LIMIT
from paravirt.domain0.xlcfg.channels import KIND, PTY, SOCKET, check_channel
from paravirt.errors import UserError

MOST: Final = 9
"""Linux takes the last digit of the number for all of it."""

PROTOCOL: Final = "vt100"


class ChannelKind(DeviceKind):
    """Channels. Their settings are those that ``xlcfg.channels`` reads."""

    name = KIND
    title = "channel"

    def number(self, settings: Mapping[str, Setting], taken: Collection[int]) -> int:
        """The first that is free; 0 is the domain's console."""
        number = next(number for number in range(1, len(taken) + 2) if number not in taken)
        if number > MOST:
            raise UserError(f"A domain has up to {MOST} channels.")
        return number

    def announce(self, settings: Mapping[str, Setting], nodes: DeviceNodes) -> Announcement:
        """The nodes that libxl writes (libxl__device_console_add in tools/libs/light/libxl_console.c)."""
        name, connection = str(settings["name"]), str(settings["connection"])
        back = {"protocol": PROTOCOL, "name": name, "connection": connection}
        output = connection
        if connection == SOCKET:
            back["path"] = str(settings["path"])
            output = f"chardev:libxl-channel{nodes.devid}"
        readonly = {"name": name, "limit": str(CONSOLE_LIMIT), "type": "ioemu", "output": output, "tty": ""}
        return Announcement({"protocol": PROTOCOL}, back, readonly)

    def backend(self, facilities: Facilities, nodes: DeviceNodes, settings: Mapping[str, Setting]) -> Backend:
        """Open the host's end."""
        check_channel(settings)
        if facilities.deterministic:
            raise UserError("A deterministic machine has no channels: programs have their own time.")
        end: HostEnd
        if settings["connection"] == PTY:
            end = TerminalEnd(facilities.services)
        else:
            end = SocketEnd(facilities.services, Path(str(settings["path"])))
        return ChannelBackend(facilities, nodes, end)
