"""xl's verbs about disks, and a domain that has one from its configuration."""

from __future__ import annotations

import json

import pytest

from ..oracle import kernels
from .conftest import User

HEADING = "Vdev  BE  handle state evt-ch ring-ref BE-path                       \n"


def test_disks_come_are_listed_and_go(user: User) -> None:
    for name in ("one.img", "two.img"):
        (user.folder / name).write_bytes(bytes(8192))
    user.xl("create", user.config("front", disk=["one.img,raw,xvda,w"]), "-p")
    row = "51712 0   1      1     -1     -1       /local/domain/0/backend/vbd/1/51712\n"
    assert user.xl("block-list", "front") == HEADING + row
    user.xl("block-attach", "front", "two.img,raw", "vdev=xvdb")
    assert user.xl("block-list", "1").splitlines()[2].split()[0] == "51728"
    again = user.run("block-attach", "front", f"{user.folder}/two.img,raw,xvdb,r")
    assert again.returncode == 1
    assert "already" in again.stderr
    in_use = user.run("block-attach", "front", "one.img,raw,xvdc,r")
    assert in_use.returncode == 1
    assert "in use" in in_use.stderr
    # No driver has taken them up: they go at once.
    user.xl("block-detach", "front", "xvdb")
    user.xl("block-detach", "-f", "front", "51712")
    assert user.xl("block-list", "front") == HEADING
    gone = user.run("block-detach", "front", "xvdb")
    assert (gone.returncode, gone.stderr) == (1, "Error: Device xvdb not connected.\n")
    assert user.xl("list", "-l", "front").count("pdev_path") == 1


def test_what_needs_no_domain(user: User) -> None:
    dry = user.run("-N", "block-attach", "front", "/x.img,qcow2,xvda,w")
    assert (dry.returncode, dry.stdout[:6]) == (0, "disk: ")
    assert json.loads(dry.stdout[6:]) == {"pdev_path": "/x.img", "vdev": "xvda", "format": "qcow2", "readwrite": 1}
    bad = user.run("-N", "block-attach", "front", "/x.img,nosuch,xvda")
    assert bad.returncode == 1
    assert "nosuch" in bad.stderr
    nobody = user.run("block-list", "nobody")
    assert (nobody.returncode, nobody.stdout, nobody.stderr) == (0, HEADING, "nobody is an invalid domain identifier\n")
    assert user.run("create", user.config("front", disk=["nosuch.img,raw,xvda,w"])).returncode != 0
    assert user.names() == []


def test_xentop_counts_what_devices_do(user: User, tmp_path_factory: pytest.TempPathFactory) -> None:
    (user.folder / "disk").write_bytes(bytes(2 << 20))
    blk = kernels.build("blk", tmp_path_factory.mktemp("kernels"))
    config = user.config("front", blk, extra="good", disk=["disk,raw,xvda,w"], vif=["", ""], on_poweroff="preserve")
    user.xl("create", "-F", config)
    header, zero, front = (line.split() for line in user.xl("top", "-b", "-i", "1").splitlines())
    row = dict(zip(header, front, strict=True))
    assert (row["NETS"], row["NETTX(k)"], row["NETRX(k)"], row["VBDS"], row["VBD_OO"]) == ("2", "0", "0", "1", "0")
    # It writes eight pages forty times, reads them back, and reads once more at the end.
    assert [int(row[name]) for name in ("VBD_RD", "VBD_WR")] == [41, 40]
    assert [int(row[name]) for name in ("VBD_RSECT", "VBD_WSECT")] == [41 * 64, 40 * 64]
    assert zero[-10:] == ["0"] * 10, "Domain 0 has no devices"
