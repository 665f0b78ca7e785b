"""The server that guests measure their way to, with the program beside it on the host."""

from __future__ import annotations

import shutil
import socket
import subprocess

import pytest

from paravirt.bench import networks
from paravirt.bench.guestprogram import NETWORK_PORT, parse, program
from paravirt.bench.networks import host_server
from paravirt.bench.rows import rows
from paravirt.errors import UserError

from ..patience import PATIENCE

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")


@pytest.fixture(autouse=True)
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """One that nobody else's run of these tests has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = int(listener.getsockname()[1])
    monkeypatch.setattr(networks, "NETWORK_PORT", number)
    return number


def test_every_row_of_the_network_is_measured(port: int) -> None:
    assert port != NETWORK_PORT
    words = ["--server", "127.0.0.1", "--port", str(port), "--label", "net_host_1500_", "--row-ms", "4"]
    with host_server():
        done = subprocess.run([program(), *words], capture_output=True, text=True, check=True, timeout=PATIENCE)
    report = parse(done.stdout)
    assert report.done and not report.skipped and all(value > 0 for value in report.values.values())
    assert sorted(report.values) == sorted(row.name for row in rows() if row.name.startswith("net_host_1500_"))


def test_the_server_ends_and_there_is_one_at_a_time(port: int) -> None:
    with host_server(), socket.create_connection(("127.0.0.1", port)) as connection:
        with (
            pytest.raises(UserError, match=f"port {port} cannot be listened on: .*Address already in use"),
            host_server(),
        ):
            pass
        connection.sendall(b"e\1\0\0\0\0\0\0\0x")
        assert connection.recv(1) == b"x"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with host_server():
        pass
