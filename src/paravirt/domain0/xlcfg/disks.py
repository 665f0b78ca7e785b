"""The entries of xl.cfg's ``disk`` list (docs/man/xl-disk-configuration.5.pod.in and libxlu_disk_l.l in Xen's tree).

An entry has positional parameters (target, format, vdev, access), parameters with names, and marks; ``target=`` takes
all that follows it. Beyond what xl knows there are formats ``overlay``, ``zstd`` and ``extents``, and the parameters
``sector-size`` and ``rate``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, Final

from paravirt.domain0.devices.spec import DeviceSpec, Setting
from paravirt.domain0.xlcfg.vdev import vdev_number
from paravirt.errors import UserError

KIND: Final = "vbd"
FORMATS: Final = ("raw", "qcow", "qcow2", "vhd", "qed", "empty", "overlay", "zstd", "extents")
EMPTY: Final = "empty"
SECTOR_SIZES: Final = (512, 4096)

_SETTINGS: Final = ("format", "access", "cdrom", "discard", "rate", "sector-size", "trusted")
_PREFIX: Final = re.compile(r"(raw|qcow2?|vhd|tapdisk|tap2?|aio|ioemu|file|phy):(?=.)", re.DOTALL)
_SCRIPTED: Final = re.compile(r"(iscsi|e?nbd|drbd):")
_NAMED: Final = re.compile(r"([a-z][-a-z0-9_]*)=([^,]*),?")
_MARK: Final = re.compile(r"(cdrom|direct-io-safe|discard|no-discard|colo|no-colo|trusted|untrusted)(?:,|$)")
_POSITIONAL: Final = re.compile(r"[^=,]*,|[^=,]+,?")
_ACCESS: Final = {"r": "r", "ro": "r", "w": "w", "rw": "w", "": "w"}
_BACKENDTYPES: Final = ("phy", "qdisk")
_COLO: Final = ("colo-host", "colo-port", "colo-export", "active-disk", "hidden-disk")
_RATE: Final = re.compile(r"([0-9]{1,12})([KMG]?)B?(/s)?", re.IGNORECASE)
_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30}


class _Entry:
    """One entry, as it is read."""

    def __init__(self) -> None:
        self.values: dict[str, Setting] = {}
        self.backendtype = ""
        self._had_prefix = False

    def read(self, text: str) -> None:
        """Take the text apart."""
        while text := text.lstrip(" \t\n"):
            if text.startswith("target="):
                self._set("target", text.removeprefix("target=").removesuffix(","))
                return
            text = text[self._one(text) :]

    def _one(self, text: str) -> int:
        """Read one parameter: how long it is."""
        if found := _NAMED.match(text):
            self._named(found[1], found[2])
        elif found := _MARK.match(text):
            self._mark(found[1])
        elif _SCRIPTED.match(text):
            raise UserError(f"Disks that a script connects are not supported: {text!r}.")
        elif "target" not in self.values and (found := _PREFIX.match(text)):
            self._had_prefix = True
            if found[1] in FORMATS:
                self._format(found[1])
        elif found := _POSITIONAL.match(text):
            self._positional(found[0].removesuffix(","))
        else:
            raise UserError(f"This is not a disk's description: {text!r}.")
        return found.end()

    def _positional(self, text: str) -> None:
        if "target" not in self.values:
            self._set("target", text)
        elif not self._had_prefix and "format" not in self.values:
            if not self.values["target"] and self._vdev_and_type(text):
                self._format(EMPTY)
            else:
                self._format(text)
        elif "vdev" not in self.values:
            if not self._vdev_and_type(text):
                self._set("vdev", text)
        elif "access" not in self.values:
            self._access(text)
        else:
            raise UserError(f"There are too many parameters: {text!r}.")

    def _vdev_and_type(self, text: str) -> bool:
        """An old way to name a CD-ROM: ``hdc:cdrom``."""
        vdev, colon, kind = text.rpartition(":")
        if not colon:
            return False
        if kind not in ("cdrom", "disk"):
            raise UserError(f"There is no kind of disk {kind!r}; there are 'disk' and 'cdrom'.")
        self._set("vdev", vdev)
        self.values["cdrom"] = kind == "cdrom"
        return True

    def _named(self, name: str, value: str) -> None:
        handler = _HANDLERS.get(name)
        if name in _COLO:
            raise UserError(f"Disks for high availability (colo) are not supported: {name}={value}.")
        if handler is None:
            raise UserError(f"There is no parameter {name!r}.")
        if value:  # an empty one is its default
            handler(self, value)

    def _mark(self, name: str) -> None:
        if name == "cdrom":
            self._once("cdrom", True, name)
        elif name in ("discard", "no-discard"):
            self._once("discard", name == "discard", name)
        elif name == "colo":
            raise UserError("Disks for high availability (colo) are not supported.")
        elif name in ("trusted", "untrusted"):
            self._once("trusted", name == "trusted", name)

    def _set(self, name: str, value: str) -> None:
        if self.values.get(name):
            raise UserError(f"The {name} is given twice: {self.values[name]!r} and {value!r}.")
        self.values[name] = value

    def _once(self, name: str, value: Setting, text: str) -> None:
        if self.values.setdefault(name, value) != value:
            raise UserError(f"The disk is to be two things at once: {text!r} is not what was said before it.")

    def _format(self, text: str) -> None:
        value = text or "raw"
        if value not in FORMATS:
            raise UserError(f"There is no format {value!r}; there are {', '.join(FORMATS)}.")
        if self.values.get("format", value) != value:
            raise UserError(f"The format is given twice: {self.values['format']!r} and {value!r}.")
        self.values["format"] = value

    def _access(self, text: str) -> None:
        if text not in _ACCESS:
            raise UserError(f"There is no access {text!r}; there are 'r' ('ro') and 'w' ('rw').")
        if text:
            self._once("access", _ACCESS[text], text)

    def _devtype(self, text: str) -> None:
        if text not in ("cdrom", "disk"):
            raise UserError(f"There is no kind of disk {text!r}; there are 'disk' and 'cdrom'.")
        self._once("cdrom", text == "cdrom", text)

    def _backend(self, text: str) -> None:
        if text not in ("0", "Domain-0"):
            raise UserError(f"The backend can only be Domain-0, not {text!r}.")

    def _backendtype(self, text: str) -> None:
        if text not in _BACKENDTYPES:
            raise UserError(f"The backendtype {text!r} is not supported; all disks have one backend, as phy or qdisk.")
        self.backendtype = text

    def _script(self, text: str) -> None:
        if text != "block":
            raise UserError(f"Disks that a script connects are not supported: {text!r}.")

    def _specification(self, text: str) -> None:
        if text != "xen":
            raise UserError(f"The specification can only be xen, not {text!r}.")

    def _sector_size(self, text: str) -> None:
        if text not in [str(size) for size in SECTOR_SIZES]:
            raise UserError(f"A sector has 512 or 4096 bytes, not {text!r}.")
        self._once("sector-size", int(text), text)

    def _rate(self, text: str) -> None:
        found = _RATE.fullmatch(text)
        if not found or not int(found[1]):
            raise UserError(f"A rate is a number of bytes each second, such as 10MB/s, not {text!r}.")
        self._once("rate", int(found[1]) << _UNITS[found[2].upper()], text)

    def _grant_usage(self, text: str) -> None:
        raise UserError(f"Only disks of virtio have a choice whether grants are used, and there are none: {text!r}.")


_HANDLERS: Final[dict[str, Callable[[_Entry, str], None]]] = {
    "format": _Entry._format,
    "vdev": lambda entry, text: entry._set("vdev", text),
    "access": _Entry._access,
    "devtype": _Entry._devtype,
    "backend": _Entry._backend,
    "backendtype": _Entry._backendtype,
    "script": _Entry._script,
    "specification": _Entry._specification,
    "grant_usage": _Entry._grant_usage,
    "sector-size": _Entry._sector_size,
    "rate": _Entry._rate,
}


def parse_disk(text: str) -> DeviceSpec:
    """The disk that an entry describes; a relative target is one of the present folder's.

    Raises:
        UserError: it describes none.
    """
    entry = _Entry()
    entry.read(text)
    values = entry.values
    target, cdrom = values.get("target") or "", bool(values.get("cdrom"))
    if not values.get("vdev"):
        raise UserError(f"The disk {text!r} has no vdev.")
    vdev_number(str(values["vdev"]))
    if not target and not cdrom:
        raise UserError(f"The disk {text!r} has no target.")
    if values.get("format") == EMPTY and target:
        raise UserError(f"The disk {text!r} has a target, and is empty.")
    values["format"] = values.get("format", "raw") if target else EMPTY
    values["target"] = os.path.abspath(str(target)) if target else ""  # noqa: PTH100 - xl does without pathlib
    if entry.backendtype == "phy" and values["format"] != "raw":
        raise UserError(f"The backendtype phy is for raw disks, not for the format {values['format']!r}.")
    if cdrom:
        values["access"] = "r"
    values.setdefault("access", "w")
    return DeviceSpec(KIND, values)


def disk_spec(target: str | os.PathLike[str], vdev: str = "xvda", **settings: Setting) -> DeviceSpec:
    """A disk as a program describes it; ``_`` in the settings' names stands for ``-``.

    Raises:
        UserError: there is no such setting.
    """
    values: dict[str, Setting] = {"format": "raw", "access": "w", "vdev": vdev}
    for name, value in settings.items():
        if name.replace("_", "-") not in _SETTINGS:
            raise UserError(f"A disk has no setting {name!r}.")
        values[name.replace("_", "-")] = value
    values["target"] = os.path.abspath(target)  # noqa: PTH100 - xl does without pathlib
    return DeviceSpec(KIND, values)


def disk_to_libxl(spec: DeviceSpec) -> dict[str, Any]:
    """A libxl_device_disk; fields that have their default are left out."""
    settings = spec.settings
    result: dict[str, Any] = {"pdev_path": settings["target"]} if settings["target"] else {}
    result |= {"vdev": settings["vdev"], "format": settings["format"]}
    if settings.get("cdrom"):
        result |= {"removable": 1, "is_cdrom": 1}
    elif settings["access"] == "w":
        result["readwrite"] = 1
    if "discard" in settings:
        result["discard_enable"] = str(settings["discard"])
    if settings.get("trusted") is False:
        result["trusted"] = "False"
    return result
