"""xl's verbs about network interfaces, and a domain that has one from its configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..oracle import kernels
from .conftest import User

HEADING = "Idx BE Mac Addr.         handle state evt-ch   tx-/rx-ring-ref BE-path                       \n"


def test_interfaces_come_are_listed_and_go(user: User) -> None:
    user.xl("create", user.config("front", vif=["mac=00:16:3e:00:00:01,bridge=br1"]), "-p")
    row = "0   0  00:16:3e:00:00:01     0     1     -1    -1/-1          /local/domain/0/backend/vif/1/0\n"
    assert user.xl("network-list", "front") == HEADING + row
    user.xl("network-attach", "front", "mac=00:16:3e:00:00:02", "script=vif-route", "ip=10.0.2.9")
    assert user.xl("network-list", "1").splitlines()[2].split()[:3] == ["1", "0", "00:16:3e:00:00:02"]
    again = user.run("network-attach", "front", "ip=10.0.2.9")
    assert again.returncode == 1 and "10.0.2.9" in again.stderr
    user.xl("network-detach", "front", "00:16:3E:00:00:02")
    user.xl("network-detach", "front", "0")
    assert user.xl("network-list", "front") == HEADING
    gone = user.run("network-detach", "front", "0")
    assert (gone.returncode, gone.stderr) == (1, "Unknown device 0.\n")


def test_what_needs_no_domain(user: User) -> None:
    dry = user.run("-N", "network-attach", "front", "mac=00:16:3e:00:00:01", "rate=1MB/s")
    assert (dry.returncode, dry.stdout[:5]) == (0, "vif: ")
    assert json.loads(dry.stdout[5:]) == {
        "mac": "00:16:3e:00:00:01", "bridge": "xenbr0", "script": "vif-bridge", "nictype": "vif",
        "rate_bytes_per_interval": 50000, "rate_interval_usecs": 50000,
    }  # fmt: skip
    bad = user.run("-N", "network-attach", "front", "model=e1000")
    assert bad.returncode == 1 and "model" in bad.stderr


def test_what_is_shown_is_how_interfaces_are_joined(user: User) -> None:
    """By the daemon that runs; or by the one that would be started."""
    file = user.config("front", vif=["mac=00:16:3e:00:00:01", "script=vif-bridge"])

    def shown(*words: str) -> list[str]:
        found = json.loads(user.xl(*words))
        (found,) = found if isinstance(found, list) else (found,)
        return [nic["script"] for nic in found.get("config", found)["nics"]]

    assert shown("create", "-qn", file) == ["vif-bridge", "vif-bridge"]
    user.environment["PARAVIRT_NETWORK"] = "script=vif-nat"
    assert shown("create", "-qn", file) == ["vif-nat", "vif-bridge"]
    assert user.pids() == []
    user.xl("create", "-p", file)
    del user.environment["PARAVIRT_NETWORK"]
    assert shown("create", "-qn", file) == shown("list", "-l", "front") == ["vif-nat", "vif-bridge"]
    assert user.xl("network-list", "front").count("\n") == 3


def test_the_firewall(user: User) -> None:
    def net(*words: str) -> str:
        done = user.run("net", *words, program="paravirt")
        assert done.returncode == 0, done.stderr
        return done.stdout

    user.xl("create", user.config("front", vif=["mac=00:16:3e:00:00:01"]), "-p")
    assert net("list").splitlines()[1].split()[:4] == ["vif1.0", "00:16:3e:00:00:01", "vif-bridge", "10.0.2.2"]
    net("add", "drop", "proto", "tcp")
    net("add", "--at", "0", "log in vif1.0")
    assert [line.split(maxsplit=2)[2] for line in net("rules").splitlines()] == ["log in vif1.0", "drop proto tcp"]
    net("remove", "0")
    net("capture", "vif1.0", "x.pcap")
    net("capture", "vif1.0")
    assert (user.folder / "x.pcap").stat().st_size == 24
    assert net("log") == ""
    address, port = net("forward", "0:10.0.2.2:22").strip().split(":")
    assert address == "127.0.0.1" and int(port)
    net("spoofing", "vif1.0", "on")
    for words in (
        ("add", "eat"), ("remove", "7"), ("capture", "vif9.0", "y.pcap"), ("forward", "x"), ("tap", "a/b"),
        ("spoofing", "vif9.0", "off"),
    ):  # fmt: skip
        refused = user.run("net", *words, program="paravirt")
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1


def test_addresses_are_kept_when_a_domain_reboots(
    user: User, hostile: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    endless = kernels.build("idle", tmp_path_factory.mktemp("kernels"))

    def macs(domain: str) -> list[str]:
        return [line.split()[2] for line in user.xl("network-list", domain).splitlines()[1:]]

    config = user.config("front", hostile, extra="reboot", vif=["", "", "mac=00:16:3e:00:00:07"])
    user.xl("create", "-p", config)
    before = macs("1")
    assert before[2] == "00:16:3e:00:00:07" and len(set(before)) == 3
    identity = user.xl("vm-list").splitlines()[2].split()[0]
    user.xl("config-update", "front", config, f"kernel='{endless}'", f"uuid='{identity}'")  # one reboot is enough
    user.xl("unpause", "front")
    user.wait_for(lambda: user.run("domid", "front").stdout == "2\n")
    assert macs("front") == before


def test_the_daemon_is_told_what_its_network_is_like(user: User) -> None:
    user.environment["PARAVIRT_NETWORK"] = "subnet=10.7.0.0/24,script=vif-route,outside=no,rule=drop proto udp"
    user.xl("create", "-p", user.config("front", vif=[""]))
    listed = user.run("net", "list", program="paravirt").stdout
    assert listed.splitlines()[1].split()[2:4] == ["vif-route", "10.7.0.2"]
    assert "drop proto udp" in user.run("net", "rules", program="paravirt").stdout
    assert user.run("--stop", program="paravirtd").returncode == 0
    refused = user.run("--network", "outside=no", "--network", "forward=2222:10.0.2.2:22", program="paravirtd")
    assert refused.returncode == 1
    assert refused.stderr == "paravirtd: Ports of the host's can be forwarded only where guests have an outside.\n"
