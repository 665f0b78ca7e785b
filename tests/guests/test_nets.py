"""Hostile network frontends beside a well-behaved one, each a kernel, on one network together."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt import Domain, Machine, ShutdownReason
from paravirt.abi.io.xenbus import XenbusStateClosing, XenbusStateConnected
from paravirt.domain0.xlcfg.vifs import vif_spec

from ..hypervisor.audited import check
from ..oracle import kernels
from ..patience import PATIENCE, wait_for

STAYS, ENDS = {XenbusStateConnected}, {XenbusStateClosing}
ENDINGS = {
    "good": STAYS, "noise": STAYS, "lengths": STAYS, "grants": STAYS, "revoke": STAYS, "greedy": STAYS, "starve": STAYS,
    "events": STAYS, "indices": ENDS, "buffers": ENDS, "beyond": ENDS, "chain": ENDS, "extras": ENDS,
    # Whether its index is read while it says the one or the other is chance.
    "flicker": STAYS | ENDS,
}  # fmt: skip


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("net", tmp_path_factory.mktemp("kernels"))


def start(machine: Machine, net: Path, way: str, number: int) -> Domain:
    vif = vif_spec(ip=f"10.0.2.{number}", vifname=f"vif{number}")
    return machine.create(net, cmdline=f"{way} {number}", memory=8, name=f"{way}{number}", devices=[vif])


def text(domain: Domain) -> str:
    return domain.console.output.decode()


@pytest.mark.parametrize("way", ENDINGS)
def test_a_hostile_frontend_harms_itself_only(
    machine: Machine, net: Path, way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The other one's network works, every reference is where it belongs, and it is disconnected if it must be."""
    hostile = start(machine, net, way, 21)
    good = start(machine, net, "good", 20)
    assert good.wait(PATIENCE) is ShutdownReason.POWEROFF
    assert "TEST net: PASS" in text(good), text(good)
    check(machine, "beside a hostile frontend")
    assert hostile.wait(PATIENCE) is ShutdownReason.POWEROFF
    assert text(hostile) in {f"net: the backend's state is {state}\nTEST net: PASS\n" for state in ENDINGS[way]}
    wait_for(lambda: not machine.call(machine.network.status), "the interfaces go")
    assert "Traceback" not in capfd.readouterr().err
