"""Entries of xl.cfg's ``vif`` list (docs/man/xl-network-configuration.5.pod in Xen's tree).

Light: ``xl`` imports this.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

from paravirt.domain0.devices.spec import DeviceSpec, Setting
from paravirt.errors import UserError

KIND: Final = "vif"
SCRIPTS: Final = ("vif-bridge", "vif-route", "vif-nat")
"""What Xen comes with, and what each stands for here: how the interface is joined to others."""

DEFAULT_BRIDGE: Final = "xenbr0"
DEFAULT_MTU: Final = 1500
SMALLEST_MTU, LARGEST_MTU = 68, 65517
DEFAULT_INTERVAL: Final = 50_000
"""Microseconds in which a rate is measured."""

MAC: Final = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
_SCRIPT_FOLDERS: Final = ("", "/etc/xen/scripts")
_RATE: Final = re.compile(r"([0-9]+)([GMK]?)([bB])/s(?:@([0-9]+)([mu]?)s?)?")
_SCALE: Final = {"": 1, "K": 1000, "M": 1000_000, "G": 1000_000_000}
_IFNAME: Final = re.compile(r"[^\s/:]{1,15}")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_BACKENDS: Final = ("0", "Domain-0")
_LARGEST_RATE: Final = (1 << 64) - 1


def parse_vif(text: str) -> DeviceSpec:
    """A network interface from an entry of the list; an empty one is one with all defaults.

    Raises:
        UserError: it is none, or asks for what paravirt does not do.
    """
    settings: dict[str, Setting] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, equals, value = word.partition("=")
        if word in ("trusted", "untrusted"):
            settings["trusted"] = word == "trusted"
            continue
        if not equals:
            raise UserError(f"{word!r} does not say what it sets (as mac=... does).")
        _take(settings, name.strip(), value.strip())
    return DeviceSpec(KIND, settings)


def vif_spec(**settings: Setting) -> DeviceSpec:
    """A network interface, with the settings of an entry of the list by their names.

    Raises:
        UserError: one of them is wrong.
    """
    words = [f"{name}={value}" for name, value in settings.items() if value is not None and name != "trusted"]
    if "trusted" in settings:
        words.append("trusted" if settings["trusted"] else "untrusted")
    return parse_vif(",".join(words))


def _take(settings: dict[str, Setting], name: str, value: str) -> None:
    if name == "netdev":  # an old name
        name = "gatewaydev"
    if name == "mac":
        if not MAC.fullmatch(value):
            raise UserError(f"{value!r} is not an Ethernet address.")
        settings[name] = _mac(value)
    elif name == "ip":
        settings[name] = _addresses(value)
    elif name == "script":
        settings[name] = _script(value)
    elif name == "rate":
        settings["rate"], settings["rate-interval"] = parse_rate(value)
    elif name == "type":
        if value != "vif":
            raise UserError(f"type={value}: only paravirtual guests run here, whose interfaces are of type vif.")
    elif name == "model":
        raise UserError(f"model={value}: no network card is emulated; a paravirtual guest has its own driver.")
    elif name in ("bridge", "vifname", "gatewaydev"):
        if not _IFNAME.fullmatch(value):
            raise UserError(f"{value!r} cannot be the name of an interface ({name}).")
        settings[name] = value
    elif name in ("devid", "mtu"):
        low, high = (SMALLEST_MTU, LARGEST_MTU) if name == "mtu" else (0, 255)
        if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
            raise UserError(f"{name}={value}: {low} to {high} are possible.")
        settings[name] = int(value)
    elif name == "backend":
        if value not in _BACKENDS:
            raise UserError(f"backend={value}: network interfaces are served by Domain 0 only.")
    elif name in ("forwarddev", "accel", "vlan") or name.startswith("colo_"):
        raise UserError(f"{name}: this is not done by paravirt.")
    else:
        raise UserError(f"{name!r} is nothing that a network interface has.")


def parse_rate(text: str) -> tuple[int, int]:
    """A rate like ``10MB/s@20ms`` as bytes in each interval, and the interval in microseconds (libxlu_vif.c).

    Raises:
        UserError: it is none.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise UserError(f"{text!r} is not a rate (like 10MB/s, or 1Mb/s@20ms).")
    number, scale, unit, interval, interval_unit = match.groups()
    rate = int(number) * _SCALE[scale] // (8 if unit == "b" else 1)
    usecs = DEFAULT_INTERVAL
    if interval is not None:
        usecs = int(interval) * {"": 1_000_000, "m": 1000, "u": 1}[interval_unit]
    limit = rate * usecs // 1_000_000
    if not 0 < usecs < 1 << 32 or not 0 < limit <= _LARGEST_RATE:
        raise UserError(f"{text!r} is less than one byte in an interval, or too much.")
    return limit, usecs


def _mac(text: str) -> str:
    mac = bytes(int(part, 16) for part in text.split(":"))
    if mac[0] & 1 or not any(mac):
        raise UserError(f"{text!r} is not the address of a single station.")
    return mac.hex(":")


def _addresses(text: str) -> str:
    """Several are separated by blanks; each may have the length of its network's prefix, which does not matter."""
    words = text.split()
    try:
        addresses = [str(ipaddress.ip_interface(word).ip) for word in words]
    except ValueError as error:
        raise UserError(f"{text!r} has something else than addresses.") from error
    if not words:
        raise UserError("ip= has no address.")
    return " ".join(addresses)


def _script(text: str) -> str:
    folder, _, name = text.rpartition("/")
    if name not in SCRIPTS or folder not in _SCRIPT_FOLDERS:
        raise UserError(f"script={text}: no scripts are run; {', '.join(SCRIPTS)} are names of what there is.")
    return name


def vif_to_libxl(spec: DeviceSpec) -> dict[str, Any]:
    """A network interface in libxl's JSON."""
    settings = spec.settings
    found: dict[str, Any] = {name: settings[name] for name in ("devid", "mtu", "mac", "ip") if name in settings}
    found["bridge"] = settings.get("bridge", DEFAULT_BRIDGE)
    found["script"] = settings.get("script", SCRIPTS[0])
    for name, key in (("vifname", "ifname"), ("gatewaydev", "gatewaydev")):
        if name in settings:
            found[key] = settings[name]
    found["nictype"] = KIND
    if "rate" in settings:
        found["rate_bytes_per_interval"] = settings["rate"]
        found["rate_interval_usecs"] = settings["rate-interval"]
    if settings.get("trusted") is False:
        found["trusted"] = False
    return found
