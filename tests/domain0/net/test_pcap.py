"""Captures, and disks that become full under them."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paravirt import Machine, UserError
from paravirt.abi.io import netif
from paravirt.domain0.net.pcap import Capture

from .fronts import Front, datagram

HEADER, RECORD = 24, 16


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """Files become no larger than so many bytes: what goes beyond is written in part, and then refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def packets(path: Path) -> list[bytes]:
    """What a capture has; it must end behind a packet."""
    data, found = path.read_bytes()[HEADER:], []
    while data:
        kept, whole = struct.unpack_from("<8xII", data)
        assert kept == whole and len(data) >= RECORD + kept
        found.append(data[RECORD : RECORD + kept])
        data = data[RECORD + kept :]
    return found


def test_a_capture_ends_behind_the_last_packet_that_has_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    capture = Capture(tmp_path / "x.pcap", lambda: 0)
    with full_at(HEADER + 2 * RECORD + 100 + 50):
        for number in range(4):
            capture.write(bytes([number]) * 100)
    (line,) = caplog.messages
    assert line == f"The capture {capture.path} has ended: File too large."
    # It stays ended when there is room again, since packets are missing.
    capture.write(b"later")
    assert capture.failure == "File too large"
    assert packets(capture.path) == [bytes(100)]
    capture.close()


def test_a_capture_that_cannot_begin_is_refused() -> None:
    with pytest.raises(UserError, match="No space left on device"):
        Capture(Path("/dev/full"), lambda: 0)
    with pytest.raises(UserError, match="No such file"):
        Capture(Path("/nowhere/x.pcap"), lambda: 0)


def test_nothing_waits_for_who_reads_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(UserError, match="No such device"):
        Capture(path, lambda: 0)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        capture = Capture(path, lambda: 0)
        capture.write(b"packet")
        assert os.read(reader, 100)[HEADER + RECORD :] == b"packet"
        while capture.failure is None:
            capture.write(bytes(1000))
        assert capture.failure == "Resource temporarily unavailable"
    finally:
        os.close(reader)
    capture.close()


def test_who_reads_a_pipe_may_go(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    capture = Capture(path, lambda: 0)
    os.close(reader)
    capture.write(b"packet")
    assert capture.failure == "Broken pipe"


def test_a_full_disk_ends_the_capture_and_nothing_else(tmp_path: Path) -> None:
    path, sent = tmp_path / "x.pcap", datagram(1, 2, bytes(1000))
    with Machine(memory=64) as machine:
        one, two = Front(machine, 1), Front(machine, 2)
        two.offer(8)
        machine.call(lambda: machine.network.capture("vif2.0", path))
        with full_at(HEADER + 2500):
            for _ in range(4):
                assert one.send(sent) == [(0, netif.NETIF_RSP_OKAY)]
        assert two.received() == [sent] * 4
        assert two.counted()["capture_failure"] == "File too large"
        assert one.counted()["capture_failure"] is None
        assert packets(path) == [sent] * 2
        # One whose file is deleted goes on, into nowhere, and disturbs nobody.
        machine.call(lambda: machine.network.capture("vif2.0", path))
        path.unlink()
        assert one.send(sent) == [(0, netif.NETIF_RSP_OKAY)] and two.counted()["capture_failure"] is None
        # Another one begins anew.
        machine.call(lambda: machine.network.capture("vif2.0", path))
        one.send(sent)
        assert two.counted()["capture_failure"] is None and packets(path) == [sent]
