"""Options of a network: their text, and what is refused before a machine is made."""

from __future__ import annotations

import ipaddress

import pytest

from paravirt import Machine, UserError
from paravirt.domain0.net.options import NetworkOptions, parse_network
from paravirt.domain0.net.packet import mac_text
from paravirt.domain0.toolstack import machine as toolstack
from paravirt.domain0.xlcfg.vifs import vif_spec

from ..devices.frontends import HELLO, FrontendGuest

WRONG = [
    (NetworkOptions(subnet="10.0.2.1/24"), "not an IPv4 network"),
    (NetworkOptions(subnet="10.0.2.0/31"), "no room for guests"),
    (NetworkOptions(script="vif-openvswitch"), "there are vif-bridge"),
    (NetworkOptions(forwards=["22"]), "not a forwarded port"),
    (NetworkOptions(forwards=["22:10.0.2.2:22"], outside=False), "have an outside"),
    (NetworkOptions(rules=["eat"]), "does not begin with one of"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_ones_are_refused_before_an_engine_is_opened(
    options: NetworkOptions, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*arguments: object, **settings: object) -> None:
        raise AssertionError("an engine was chosen")

    monkeypatch.setattr(toolstack, "choose", opened)
    with pytest.raises(UserError, match=words):
        Machine(memory=16, network=options)


def test_their_text() -> None:
    text = ("subnet=10.1.0.0/24, script=vif-nat,host-loopback=yes,outside=1,forward=2222:10.1.0.2:22,"
            "rule=drop proto udp,rule=log,tap=tap0:br1,forward=udp:53:10.1.0.2:53,")  # fmt: skip
    assert parse_network(text) == NetworkOptions(
        "10.1.0.0/24", "vif-nat", True, True, ["2222:10.1.0.2:22", "udp:53:10.1.0.2:53"], ["drop proto udp", "log"],
        ["tap0:br1"],
    )  # fmt: skip
    checked = parse_network(text).checked(deterministic=False)
    assert checked.subnet == ipaddress.IPv4Network("10.1.0.0/24") and checked.taps == (("tap0", "br1"),)
    assert [rule.text for rule in checked.rules] == ["drop proto udp", "log"]
    assert parse_network("") == NetworkOptions(forwards=[], rules=[], taps=[])
    for wrong in ("colour=red", "subnet", "outside=perhaps", "rule"):
        with pytest.raises(UserError, match="says nothing about a network"):
            parse_network(wrong)


def test_how_interfaces_are_joined_that_do_not_say_it() -> None:
    with Machine(memory=32, network=parse_network("subnet=10.9.0.0/24,script=vif-nat,outside=no")) as machine:
        guest = FrontendGuest(machine, devices=[vif_spec(), vif_spec(script="vif-bridge")])
        first, second = machine.call(machine.network.status)
        assert (first["mode"], second["mode"]) == ("vif-nat", "vif-bridge")
        assert (first["addresses"], second["addresses"]) == (["10.9.0.2"], ["10.9.0.3"])
        nodes = machine.devices.of(guest.domid)[0].nodes
        assert guest.backend_node(nodes, "script") == "/etc/xen/scripts/vif-nat"


def test_addresses_are_those_of_the_domain_s_identity() -> None:
    """What has the same UUID has the same Ethernet address, and what has that the same IPv4 address."""
    with Machine(memory=64) as machine:
        def make(name: str) -> tuple[FrontendGuest, list[tuple[str, list[str]]]]:
            guest = FrontendGuest(machine, name=name, devices=[vif_spec(), vif_spec()])
            found = machine.call(machine.network.status)[-2:]
            return guest, [(one["mac"], one["addresses"]) for one in found]

        first, before = make("first")
        _, others = make("second")
        macs = [mac for mac, _ in (*before, *others)]
        assert len(set(macs)) == 4 and all(mac.startswith("00:16:3e:") for mac in macs)
        identity = machine.call(lambda: machine.store.get(f"/local/domain/{first.domid}/vm")) or b""
        assert mac_text(machine.network.mac_for(identity.decode(), 0)) not in macs, "that one is in use"
        first.domain.destroy()
        assert [mac_text(machine.network.mac_for(identity.decode(), n)) for n in (0, 1)] == [mac for mac, _ in before]
        machine.create(HELLO, memory=4, paused=True, devices=[vif_spec(mac=mac) for mac, _ in before])
        assert [one["addresses"] for one in machine.call(machine.network.status)[-2:]] == [ip for _, ip in before]
