"""Reads of xenstore over its socket, by a client that is a process of its own, as the standard tools are.

As a program: ``python -m paravirt.bench.stores SOCKET COUNT`` prints microseconds for each read, of COUNT sent without
waiting for replies, and of COUNT each sent when the reply to the one before has come.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from paravirt.abi.io.xs_wire import XS_READ
from paravirt.domain0.store.wire import Message
from paravirt.domain0.toolstack import Machine
from paravirt.errors import HypervisorBug
from paravirt.xs.client import XenStore

NODE = "/local/domain/0/name"
PATIENCE_S = 120.0
_CHUNK = 1 << 16


@dataclass(frozen=True)
class ReadCosts:
    """Microseconds for each read."""

    pipelined_us: float
    single_us: float


def measure(count: int) -> ReadCosts:
    """Let a process read ``count`` times, in both ways, from the store of a machine without domains."""
    with tempfile.TemporaryDirectory(prefix="xs-", dir="/tmp") as folder, Machine(memory=16, pcpus=1) as machine:
        path = Path(folder) / "xenstored" / "socket"
        machine.serve_store(path)
        done = subprocess.run(
            [sys.executable, "-m", "paravirt.bench.stores", str(path), str(count)],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise HypervisorBug(f"the client of the store failed: {done.stderr}")
        return ReadCosts(*map(float, done.stdout.split()))


def read_pipelined(path: Path, count: int) -> float:
    """Seconds for ``count`` reads whose requests do not wait for replies."""
    request = Message(XS_READ, 1, 0, f"{NODE}\0".encode()).encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(request)
        size = len(client.recv(_CHUNK))  # all replies are like this one
        sender = threading.Thread(target=client.sendall, args=(request * count,))
        before = time.perf_counter()
        sender.start()
        left = size * count
        while left > 0:
            left -= len(client.recv(_CHUNK))
        seconds = time.perf_counter() - before
        sender.join()
    return seconds


def read_singly(path: Path, count: int) -> float:
    """Seconds for ``count`` reads, one at a time."""
    with XenStore(path) as store:
        before = time.perf_counter()
        for _ in range(count):
            store.read(NODE)
        return time.perf_counter() - before


def _main(path: Path, count: int) -> None:
    for way in (read_pipelined, read_singly):
        print(1e6 * way(path, count) / count)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
