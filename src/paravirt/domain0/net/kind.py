"""Network interfaces as a kind of device: from a setting to the backend."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping

from paravirt.domain0.devices.backend import Backend, Facilities
from paravirt.domain0.devices.kinds import Announcement, DeviceKind
from paravirt.domain0.devices.nodes import DeviceNodes
from paravirt.domain0.devices.spec import Setting
from paravirt.domain0.net.backend import NetBackend
from paravirt.domain0.net.credit import Credit
from paravirt.domain0.net.interface import Interface, Mode
from paravirt.domain0.net.network import Network
from paravirt.domain0.net.packet import mac_text
from paravirt.domain0.xlcfg.vifs import DEFAULT_BRIDGE, DEFAULT_MTU, KIND, MAC, SCRIPTS
from paravirt.errors import UserError

_MILLION = 1_000_000


class VifKind(DeviceKind):
    """Network interfaces, joined to a machine's network. Their settings are those that ``xlcfg.vifs`` reads."""

    name = KIND
    title = "network interface"

    def __init__(self, network: Network) -> None:
        self._network = network

    def number(self, settings: Mapping[str, Setting], taken: Collection[int]) -> int:
        """The number that is asked for, or the first that is free."""
        wanted = settings.get("devid")
        if wanted is None:
            return next(number for number in range(len(taken) + 1) if number not in taken)
        if not isinstance(wanted, int) or isinstance(wanted, bool) or not 0 <= wanted < 1 << 16:
            raise UserError(f"A network interface has {wanted!r} as its devid.")
        if wanted in taken:
            raise UserError(f"The domain has a network interface {wanted} already.")
        return wanted

    def completed(
        self, facilities: Facilities, nodes: DeviceNodes, settings: Mapping[str, Setting]
    ) -> dict[str, Setting]:
        """With an Ethernet address, and how it is joined to the others."""
        mac = settings.get("mac") or mac_text(self._network.mac_for(_identity(facilities, nodes.domid), nodes.devid))
        return {"script": self._network.script, **settings, "mac": mac, "devid": nodes.devid}

    def announce(self, settings: Mapping[str, Setting], nodes: DeviceNodes) -> Announcement:
        """The nodes that libxl writes (tools/libs/light/libxl_nic.c in Xen's tree)."""
        mac, mtu = str(settings["mac"]), settings.get("mtu", DEFAULT_MTU)
        back = {"script": f"/etc/xen/scripts/{settings['script']}"}
        back |= {name: str(settings[name]) for name in ("vifname", "ip", "gatewaydev") if name in settings}
        back["mac"] = mac
        if "rate" in settings:
            back["rate"] = f"{settings['rate']},{settings['rate-interval']}"
        if mtu != DEFAULT_MTU:
            back["mtu"] = str(mtu)
        back |= {"bridge": str(settings.get("bridge", DEFAULT_BRIDGE)), "handle": str(nodes.devid), "type": KIND}
        back["hotplug-status"] = ""
        front = {"handle": str(nodes.devid), "mac": mac, "mtu": str(mtu)}
        front["trusted"] = str(int(settings.get("trusted") is not False))
        return Announcement(front, back)

    def backend(self, facilities: Facilities, nodes: DeviceNodes, settings: Mapping[str, Setting]) -> Backend:
        """Join an interface to the machine's network."""
        interface = Interface(
            str(settings.get("vifname") or f"vif{nodes.domid}.{nodes.devid}"),
            _mac(settings),
            mode=_mode(settings),
            bridge=str(settings.get("bridge", DEFAULT_BRIDGE)),
            addresses=_addresses(settings),
        )
        credit = _credit(settings)
        if credit is not None and facilities.deterministic:
            raise UserError("A deterministic machine's interfaces have no rate: it has no time to measure it by.")
        self._network.attach(interface, _name(facilities, nodes.domid))
        return NetBackend(facilities, nodes, self._network, interface, credit)


def _mac(settings: Mapping[str, Setting]) -> bytes:
    text = settings["mac"]
    if not isinstance(text, str) or not MAC.fullmatch(text):
        raise UserError(f"A network interface has {text!r} as its Ethernet address.")
    return bytes(int(part, 16) for part in text.split(":"))


def _mode(settings: Mapping[str, Setting]) -> Mode:
    script = settings["script"]
    if script not in SCRIPTS:
        raise UserError(f"A network interface has {script!r} as its script.")
    return Mode(script)


def _addresses(settings: Mapping[str, Setting]) -> tuple[bytes, ...]:
    try:
        return tuple(ipaddress.ip_address(word).packed for word in str(settings.get("ip", "")).split())
    except ValueError as error:
        raise UserError(f"A network interface has {settings['ip']!r} as its addresses.") from error


def _credit(settings: Mapping[str, Setting]) -> Credit | None:
    if "rate" not in settings:
        return None
    limit, interval = settings["rate"], settings.get("rate-interval")
    if not isinstance(limit, int) or not isinstance(interval, int) or limit <= 0 or interval <= 0:
        raise UserError(f"A network interface has {limit!r} bytes in {interval!r} microseconds as its rate.")
    return Credit(limit, interval / _MILLION)


def _identity(facilities: Facilities, domid: int) -> str:
    """The domain's place in xenstore that is named by its UUID."""
    return (facilities.store.get(f"/local/domain/{domid}/vm") or b"").decode("utf-8", "replace")


def _name(facilities: Facilities, domid: int) -> str:
    return (facilities.store.get(f"/local/domain/{domid}/name") or b"").decode("utf-8", "replace")
