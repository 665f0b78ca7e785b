"""Debian's stock kernel with further consoles, joined to a terminal and to a socket."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

import pytest

from paravirt import Machine
from paravirt.domain0.xlcfg.channels import channel_spec

from ..cli.conftest import Obtain, guest
from ..patience import PATIENCE
from .conftest import Shell

__all__ = ["guest"]
pytestmark = pytest.mark.network


def read_until(fd: int, text: bytes) -> bytes:
    found = b""
    while text not in found:
        assert select.select([fd], [], [], PATIENCE)[0], found
        found += os.read(fd, 4096)
    return found


def test_hvc1_is_a_terminal_and_hvc2_a_socket(machine: Machine, guest: Obtain, tmp_path: Path) -> None:
    path = tmp_path / "agent"
    domain = machine.create(
        guest("debian-cloud"), guest("initramfs"), "console=hvc0", memory=192,
        devices=[channel_spec("first"), channel_spec("agent", path)],
    )  # fmt: skip
    shell = Shell(domain)
    shell("for n in 1 2; do stty -F /dev/hvc$n raw -echo; (while read -r line; do echo \"$n: $line\"; done"
          " < /dev/hvc$n > /dev/hvc$n) & done; echo started")  # fmt: skip
    tty = machine.call(lambda: machine.store.get(f"/local/domain/{domain.domid}/device/console/1/tty")) or b""
    terminal = os.open(tty, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(terminal, b"to the terminal\n")
        read_until(terminal, b"1: to the terminal")
    finally:
        os.close(terminal)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"to the agent\n")
        read_until(client.fileno(), b"2: to the agent")
        client.sendall(b"x" * 1000 + b"\n")
        read_until(client.fileno(), b"2: " + b"x" * 1000)
    states = [
        machine.call(lambda n=n: machine.store.get(f"/local/domain/0/backend/console/{domain.domid}/{n}/state"))  # type: ignore[misc]
        for n in (1, 2)
    ]
    assert states == [b"4", b"4"]
