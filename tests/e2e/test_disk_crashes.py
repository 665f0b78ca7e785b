"""Ends in mid-write, of the host's process and of the domain: what a guest had synchronised is on its disk."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import pytest

from paravirt.domain0.block.opening import new_overlay, open_image

from ..cli.conftest import guest
from ..patience import PATIENCE
from .conftest import HUSH
from .test_disk import disk_ramdisk, fsck, mke2fs, sparse

__all__ = ["disk_ramdisk", "guest", "mke2fs"]
pytestmark = pytest.mark.network

# The process that is killed: a guest on a disk, whose console is its output, until it is told to destroy the guest.
HOST = f"""
import sys
from paravirt import Machine
from paravirt.domain0.xlcfg.disks import parse_disk
from paravirt.initramfs import MARKER

engine, kernel, ramdisk, disk, command = sys.argv[1:]
with Machine(memory=320, engine=engine) as machine:
    devices = [parse_disk(disk)]
    domain = machine.create(kernel, ramdisk, "console=hvc0 quiet", memory=256, devices=devices)
    domain.console.listen(lambda data: (sys.stdout.buffer.write(data), sys.stdout.flush()))
    domain.console.expect(MARKER, {PATIENCE})
    domain.console.send(command + chr(10))
    sys.stdin.read(1)
    domain.destroy()
"""


def content(number: int) -> str:
    """What ``seq`` writes into a file."""
    return "".join(f"{line}\n" for line in range(number, number + number * 7 % 3000 + 1))


def write_until(number: int, first: int, end: str, arguments: list[str], pause: float) -> int:
    """Have a guest write file after file, from ``first`` on, and end the one or the other when it has said that so many
    are synchronised: the last that was."""
    command = (
        f"{HUSH}; while [ ! -b /dev/xvda ]; do sleep 0.1; done; mkdir /mnt; mount -t ext4 /dev/xvda /mnt; "
        f"i={first}; while seq $i $((i*7%3000+i)) | dd of=/mnt/f$i conv=fsync 2> /dev/null; "
        "do echo synchronised=$i; i=$((i+1)); done"
    )
    host = [sys.executable, "-c", HOST, *arguments, command]
    with subprocess.Popen(host, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        last_resort = threading.Timer(PATIENCE, process.kill)
        last_resort.start()
        seen = b""
        while f"synchronised={number}\r\n".encode() not in seen:
            seen += (line := process.stdout.readline())
            assert line, seen.decode(errors="replace")
        time.sleep(pause)
        if end == "kill":
            process.kill()
        else:
            process.stdin.write(b"\n")
            process.stdin.flush()
        seen += process.stdout.read()
        last_resort.cancel()
    return int(re.findall(rb"synchronised=(\d+)\r\n", seen)[-1])


def test_what_was_synchronised_survives_the_hosts_process(
    engine: str, kernel: Path, disk_ramdisk: bytes, mke2fs: str, tmp_path: Path
) -> None:
    """After a SIGKILL of the process that has the machine, and after the domain's destruction, the file system on an
    overlay is consistent, and every file is whole that the guest had called fsync for."""
    random = Random(6)
    base, path = sparse(tmp_path / "disk", 32), tmp_path / "overlay"
    ramdisk, flat = tmp_path / "ramdisk", tmp_path / "flat"
    ramdisk.write_bytes(disk_ramdisk)
    subprocess.run([mke2fs, "-q", "-t", "ext4", base], check=True)
    new_overlay(path, base)
    arguments = [engine, str(kernel), str(ramdisk), f"{path},overlay,xvda,w"]
    last = 0
    for end in ("kill", "destroy"):
        last = write_until(last + random.randint(10, 20), last + 1, end, arguments, random.random() / 20)
        image = open_image(path, "overlay")
        data = bytearray(image.size)
        image.read(0, [memoryview(data)])
        image.close()
        flat.write_bytes(data)
        fsck(flat)
        for number in range(1, last + 1):
            found = subprocess.run(["/usr/sbin/debugfs", "-R", f"cat /f{number}", flat], capture_output=True, text=True)
            assert found.stdout == content(number), (number, last)
