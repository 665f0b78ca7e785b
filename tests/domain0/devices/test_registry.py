"""Devices of a machine's domains: from a configuration's text to their end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from paravirt import Machine, UserError
from paravirt.abi.io import xenbus
from paravirt.domain0.devices.backend import Backend, Facilities
from paravirt.domain0.devices.kinds import Announcement, DeviceKind
from paravirt.domain0.devices.nodes import DeviceNodes
from paravirt.domain0.devices.spec import DeviceSpec, Setting
from paravirt.domain0.xlcfg.config import DomainConfig, read_config
from paravirt.domain0.xlcfg.devices import DEVICE_SETTINGS, DeviceSetting
from paravirt.domain0.xlcfg.grammar import ConfigError
from paravirt.hypervisor.audit import require_clean
from paravirt.xl.libxl_json import domain_config

from .frontends import HELLO, FrontendGuest
from .test_backend import Echo, Front


class EchoKind(DeviceKind):
    """Devices that answer backwards; their only setting is their number."""

    name = "echo"
    title = "echo"

    def number(self, settings: Mapping[str, Setting], taken: Collection[int]) -> int:
        number = settings.get("number")
        if not isinstance(number, int) or number in taken:
            raise UserError(f"An echo cannot have the number {number}.")
        return number

    def announce(self, settings: Mapping[str, Setting], nodes: DeviceNodes) -> Announcement:
        return Announcement({"handle": str(nodes.devid)}, {"mode": "w"})

    def backend(self, facilities: Facilities, nodes: DeviceNodes, settings: Mapping[str, Setting]) -> Backend:
        return Echo(facilities, nodes)


def parse(text: str) -> DeviceSpec:
    if not text.isdigit():
        raise UserError(f"{text!r} is not an echo's number.")
    return DeviceSpec("echo", {"number": int(text)})


@pytest.fixture(autouse=True)
def echoes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEVICE_SETTINGS, "echo", DeviceSetting(parse, "echoes", lambda spec: dict(spec.settings)))


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=32) as machine:
        machine.devices.kinds["echo"] = EchoKind()
        yield machine


def spec(number: int) -> DeviceSpec:
    return DeviceSpec("echo", {"number": number})


def node(machine: Machine, path: str) -> bytes | None:
    return machine.call(lambda: machine.store.get(path))


def test_a_device_from_the_start_works_and_goes_with_its_domain(machine: Machine) -> None:
    guest = FrontendGuest(machine, devices=[spec(3), spec(5)])
    nodes = DeviceNodes("echo", guest.domid, 5)
    assert node(machine, f"{nodes.frontend}/handle") == b"5" and node(machine, f"{nodes.backend}/mode") == b"w"
    assert Front(guest, nodes).ask([b"backwards".ljust(16)]) == [b"backwards".ljust(16)[::-1]]
    guest.domain.destroy()
    assert machine.call(lambda: machine.devices.of(guest.domid)) == []
    assert node(machine, nodes.backend) is None and node(machine, "/local/domain/0/backend/echo") in (None, b"")
    with machine.host.lock:
        require_clean(machine.host)


def test_devices_come_and_go_while_the_domain_runs(machine: Machine) -> None:
    guest = FrontendGuest(machine)
    device = machine.call(lambda: machine.devices.attach(guest.domid, spec(1)))
    front = Front(guest, device.nodes)
    assert front.ask([bytes(range(16))]) == [bytes(range(16))[::-1]]
    machine.call(lambda: machine.devices.detach(device))
    assert node(machine, f"{device.nodes.backend}/state") == str(xenbus.XenbusStateClosing).encode()
    front.state(xenbus.XenbusStateClosed)
    assert machine.call(lambda: machine.devices.of(guest.domid, "echo")) == []
    assert node(machine, device.nodes.frontend) is None
    again = machine.call(lambda: machine.devices.attach(guest.domid, spec(1)))
    Front(guest, again.nodes)
    machine.call(lambda: machine.devices.detach(again, force=True))
    assert machine.call(lambda: machine.devices.of(guest.domid)) == []
    assert machine.devices.wait_until_gone(0)


def test_what_cannot_be_made_leaves_no_domain(machine: Machine) -> None:
    with machine.host.lock:
        before = machine.host.free_frames
    with pytest.raises(UserError, match="cannot have the number 1"):
        machine.create(kernel=HELLO, memory=8, devices=[spec(1), spec(1)])
    with pytest.raises(UserError, match="no kind of device 'teapot'"):
        machine.create(kernel=HELLO, memory=8, devices=[DeviceSpec("teapot", {})])
    assert machine.domains == {} and machine.devices.wait_until_gone(0)
    with machine.host.lock:
        assert machine.host.free_frames == before


def test_a_device_that_is_not_there_is_said_to_be(machine: Machine) -> None:
    guest = FrontendGuest(machine)
    with pytest.raises(UserError, match="has no echo 4"):
        machine.call(lambda: machine.devices.find(guest.domid, "echo", 4))
    with pytest.raises(UserError, match="no kind of device 'teapot'"):
        machine.call(lambda: machine.devices.find(guest.domid, "teapot", 4))


def test_a_setting_of_a_configuration_becomes_devices() -> None:
    text = f'name="a"\nkernel="{Path("/k")}"\necho=["1", "2"]\n'
    config = read_config(text, "t.cfg").config
    assert config.all_devices == (spec(1), spec(2))
    assert DomainConfig.from_json(config.to_json()) == config
    assert domain_config(config)["echoes"] == [{"number": 1}, {"number": 2}]
    with pytest.raises(ConfigError, match=r"t.cfg:3: echo: 'x' is not an echo's number"):
        read_config(text.replace('"2"', '"x"'), "t.cfg")


@pytest.mark.parametrize("data", [[], {"kind": 1, "settings": {}}, {"kind": "echo", "settings": {"number": []}}])
def test_a_description_is_checked(data: object) -> None:
    with pytest.raises(UserError, match="device's description"):
        DeviceSpec.from_json(data)
