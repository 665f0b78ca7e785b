"""Channels from a domain's configuration, and xl's verbs about them."""

from __future__ import annotations

import json
from pathlib import Path

from paravirt.xs.client import XenStore

from .conftest import User

HEADING = "Idx BE state evt-ch ring-ref connection                               \n"


def test_channels_are_listed_and_go_with_their_domain(user: User) -> None:
    channels = ["connection=pty,name=x", "connection=socket,name=y,path=y.sock"]
    config = user.config("front", channel=channels)
    dry = json.loads(user.xl("create", "-n", "-q", config))
    path = f"{user.folder}/y.sock"
    assert dry["channels"] == [{"name": "x", "connection.pty": {}}, {"name": "y", "connection.socket": {"path": path}}]
    user.xl("create", "-p", config)
    with XenStore(user.folder / "xenstored" / "socket") as store:
        tty = store.read("/local/domain/1/device/console/1/tty").decode()
    assert Path(tty).is_char_device() and Path(path).is_socket()
    assert user.xl("channel-list", "front") == (
        f"{HEADING}0   0  1     -1     -1       pty        {tty:<30} \n1   0  1     -1     -1       socket     \n"
    )
    assert user.run("channel-list", "nobody").returncode == 1
    user.xl("destroy", "front")
    assert not Path(path).exists()


def test_a_console_that_has_no_terminal(user: User) -> None:
    user.xl("create", "-p", user.config("front", channel=["connection=socket,name=y,path=y.sock"]))
    for number in ("1", "2"):
        refused = user.run("console", "-n", number, "front")
        assert refused.returncode == 1 and f"no console {number} with a terminal" in refused.stderr


def test_a_wrong_channel_is_refused_with_its_place(user: User) -> None:
    path = user.config("front", channel=["name=x"])
    done = user.run("create", path)
    assert done.returncode == 1 and f"{path}:4: channel: " in done.stderr.splitlines()[-1]
