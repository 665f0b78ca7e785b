"""xenstore over its socket: the client, the commands beside Xen's own, and clients that misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paravirt import Machine, UserError
from paravirt.abi.io import xs_wire
from paravirt.xs.client import StoreRefusal, XenStore

from ..patience import PATIENCE

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "xenstore-utils.json").read_text(encoding="utf-8"))
"""What the commands of Debian's xenstore-utils 4.17 printed, one after the other, for a store with this tree."""


@pytest.fixture
def served() -> Iterator[tuple[Machine, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="xs-", dir="/tmp"))  # a socket's path is short
    try:
        with Machine(memory=16) as machine:
            machine.serve_store(folder / "xenstored" / "socket")
            yield machine, folder / "xenstored" / "socket"
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def path(served: tuple[Machine, Path]) -> Path:
    return served[1]


@pytest.fixture
def store(path: Path) -> Iterator[XenStore]:
    with XenStore(path) as client:
        yield client


# --- the commands ------------------------------------------------------------------------------------------------


def command(path: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "paravirt.xs.commands", *words],
        capture_output=True, env={**os.environ, "XENSTORED_PATH": str(path)}, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_the_commands_print_what_xen_s_own_print(path: Path, store: XenStore) -> None:
    for node, value in RECORDED["setup"]:
        store.write(node, value.encode("latin-1"))
    for run in RECORDED["runs"]:
        done = command(path, *run["command"])
        seen = (run["command"], done.returncode, done.stdout.decode("latin-1"))
        assert seen == (run["command"], run["status"], run["output"])


def test_the_commands_say_so_where_there_is_no_store(tmp_path: Path) -> None:
    done = command(tmp_path / "nothing", "ls")
    assert done.returncode == 1 and b"There is no xenstore" in done.stderr


def test_the_folder_s_variable_names_the_socket_too(path: Path) -> None:
    environment = {**os.environ, "XENSTORED_RUNDIR": str(path.parent)}
    environment.pop("XENSTORED_PATH", None)
    done = subprocess.run(
        [sys.executable, "-m", "paravirt.xs.commands", "read", "/local/domain/0/name"],
        capture_output=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout == b"Domain-0\n"


# --- the client --------------------------------------------------------------------------------------------------


def test_nodes(store: XenStore) -> None:
    store.write("/a/b", b"x\0y")
    store.make_directory("/a/c")
    assert store.read("/a/b") == b"x\0y"
    assert store.directory("/a") == ["b", "c"]
    assert store.exists("/a") and not store.exists("/b")
    store.set_permissions("/a/b", ["n0", "r7"])
    assert store.permissions("/a/b") == ["n0", "r7"]
    store.remove("/a")
    with pytest.raises(StoreRefusal, match="ENOENT"):
        store.read("/a/b")


def test_a_directory_that_is_too_long_for_a_message(store: XenStore) -> None:
    names = [f"a-rather-long-name-{number}" for number in range(500)]
    for name in names:
        store.write(f"/many/{name}", b"")
    assert store.directory("/many") == names


def test_transactions(path: Path, store: XenStore) -> None:
    with XenStore(path) as other:
        with store.transaction():
            store.write("/a", b"1")
            assert not other.exists("/a")
        assert other.read("/a") == b"1"
        with pytest.raises(StoreRefusal, match="EAGAIN"), store.transaction():
            store.write("/a", store.read("/a") + b"2")
            other.write("/a", b"3")
        with pytest.raises(KeyError), store.transaction():
            store.write("/a", b"4")
            raise KeyError
        assert other.read("/a") == b"3"


def test_watches_see_what_others_and_the_machine_write(served: tuple[Machine, Path], store: XenStore) -> None:
    machine, path = served
    store.watch("/a", "mine")
    assert store.next_event() == ("/a", "mine")
    with XenStore(path) as other:
        other.write("/a/b", b"")
    assert store.next_event() == ("/a/b", "mine")
    machine.call(lambda: machine.store.set("/a/c", "x"))
    assert store.next_event() == ("/a/c", "mine")
    store.unwatch("/a", "mine")
    with pytest.raises(StoreRefusal, match="ENOENT"):
        store.unwatch("/a", "mine")


def test_requests_in_a_row_are_answered_in_order(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        count = 20000
        payload = b"/local/domain/0/name\0"
        requests = b"".join(
            struct.pack("<IIII", xs_wire.XS_READ, number, 0, len(payload)) + payload for number in range(count)
        )
        sender = threading.Thread(target=client.sendall, args=(requests,))
        sender.start()
        answer = struct.pack("<II", 0, 8) + b"Domain-0"
        expected = b"".join(struct.pack("<II", xs_wire.XS_READ, number) + answer for number in range(count))
        seen = bytearray()
        while len(seen) < len(expected):
            seen += client.recv(1 << 16)
        sender.join()
        assert bytes(seen) == expected


# --- clients that misbehave --------------------------------------------------------------------------------------


def test_one_that_never_reads_is_not_served_more_and_holds_up_nobody(path: Path, store: XenStore) -> None:
    with socket.socket(socket.AF_UNIX) as greedy:
        greedy.connect(str(path))
        greedy.setblocking(False)
        payload = b"/local/domain/0/name\0"
        request = struct.pack("<IIII", xs_wire.XS_READ, 0, 0, len(payload)) + payload
        requests = memoryview(request * 100_000)
        with contextlib.suppress(BlockingIOError):
            while requests:
                requests = requests[greedy.send(requests[: 1 << 15]) :]  # a send may take a part of a request
        assert requests, "all requests were taken, though no answer was"
        assert store.read("/local/domain/0/name") == b"Domain-0"


@pytest.mark.parametrize(
    "data", [struct.pack("<IIII", xs_wire.XS_READ, 0, 0, 1 << 30), b"\xff" * 4096], ids=["too long", "noise"]
)
def test_what_is_no_message_ends_that_connection(path: Path, store: XenStore, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as bad:
        bad.settimeout(PATIENCE)
        bad.connect(str(path))
        bad.sendall(data)
        assert bad.recv(1) == b""
    assert store.exists("/local")


def test_one_that_goes_leaves_no_watches_and_no_transactions(served: tuple[Machine, Path]) -> None:
    machine, path = served
    before = machine.call(lambda: len(machine.store.watches))
    client = XenStore(path)
    client.watch("/a", "x")
    assert machine.call(lambda: len(machine.store.watches)) == before + 1
    client.close()
    with XenStore(path) as other:
        while machine.call(lambda: len(machine.store.watches)) != before:
            other.exists("/a")


def test_the_socket_goes_with_the_machine(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="xs-", dir="/tmp"))
    try:
        with Machine(memory=16) as machine:
            machine.serve_store(folder / "s" / "socket")
            client = XenStore(folder / "s" / "socket")
        with pytest.raises(UserError, match="gone"):
            client.read("/")
        client.close()
        assert not (folder / "s" / "socket").exists()
    finally:
        shutil.rmtree(folder)


def test_a_deterministic_machine_has_no_socket(tmp_path: Path) -> None:
    with Machine(memory=16, deterministic=True) as machine, pytest.raises(UserError, match="deterministic"):
        machine.serve_store(tmp_path / "socket")
