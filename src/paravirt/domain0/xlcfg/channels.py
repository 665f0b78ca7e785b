"""The entries of xl.cfg's ``channel`` list (docs/man/xl.cfg.5.pod.in and docs/misc/channel.txt in Xen's tree)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from paravirt.domain0.devices.spec import DeviceSpec, Setting
from paravirt.errors import UserError

KIND: Final = "console"
PTY: Final = "pty"
SOCKET: Final = "socket"
LONGEST_PATH: Final = 107
"""Bytes of a unix socket's name (sun_path in Linux, less its end)."""

_BACKENDS: Final = ("0", "Domain-0")


def parse_channel(text: str) -> DeviceSpec:
    """A channel from an entry of the list; a relative path is one of the present folder's.

    Raises:
        UserError: it is none, or asks for what paravirt does not do.
    """
    settings: dict[str, Setting] = {}
    for word in text.split(","):
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise UserError(f"{word.strip()!r} does not say what it sets (as connection=... does).")
        if name == "backend":
            if value not in _BACKENDS:
                raise UserError(f"backend={value}: channels are served by Domain 0 only.")
        elif name == "path":
            settings[name] = os.path.abspath(value) if value else ""  # noqa: PTH100 - xl does without pathlib
        elif name in ("name", "connection"):
            settings[name] = value
        else:
            raise UserError(f"{name!r} is nothing that a channel has.")
    check_channel(settings)
    return DeviceSpec(KIND, settings)


def channel_spec(name: str, path: str | os.PathLike[str] | None = None) -> DeviceSpec:
    """A channel of this name, joined to a unix socket at ``path``, or to a pseudo terminal.

    Raises:
        UserError: the name or the path cannot be used.
    """
    settings: dict[str, Setting] = {"name": name, "connection": PTY}
    if path is not None:
        settings |= {"connection": SOCKET, "path": os.path.abspath(path)}  # noqa: PTH100 - xl does without pathlib
    check_channel(settings)
    return DeviceSpec(KIND, settings)


def check_channel(settings: Mapping[str, Setting]) -> None:
    """Hold a channel's settings to what they can be.

    Raises:
        UserError: one of them is missing, or wrong.
    """
    name, connection, path = (settings.get(key, "") for key in ("name", "connection", "path"))
    if not isinstance(name, str) or not name or not name.isprintable():
        raise UserError("A channel needs a name (name=...).")
    if connection not in (PTY, SOCKET):
        raise UserError(f"A channel is joined to {PTY!r} or {SOCKET!r} (connection=...), not to {connection!r}.")
    if connection == PTY and path:
        raise UserError(f"A channel that is joined to a pseudo terminal has no path, such as {path!r}.")
    if connection == SOCKET:
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise UserError("A channel that is joined to a socket needs a path (path=...).")
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise UserError(f"The path of a socket has up to {LONGEST_PATH} bytes, and {path!r} has more.")


def channel_to_libxl(spec: DeviceSpec) -> dict[str, Any]:
    """A channel in libxl's JSON."""
    settings = spec.settings
    if settings["connection"] == PTY:
        return {"name": settings["name"], "connection.pty": {}}
    return {"name": settings["name"], "connection.socket": {"path": settings["path"]}}
