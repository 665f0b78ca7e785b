"""The guest of the stability run: what it does, and what of its console says that something went wrong."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from paravirt.guestkernels import obtain
from paravirt.initramfs import build

MEMORY_MIB = 256
KERNEL = "debian-cloud"
DD_BYTES = 5000
DATA_BYTES = 200_000

_REPORT = re.compile(rb"steady: ([a-z]+=\d+(?: [a-z]+=\d+)+) wrong=(\d+)\r?\n")
_WRONG = re.compile(
    rb"wrong=[1-9]|BUG: (?!soft lockup)|Oops|WARNING: |general protection|segfault|traps: |Kernel panic|[Bb]ad page"
    rb"|Unable to handle|invalid opcode|not found|No space|out of memory|Out of memory"
)
# What the kernel says of itself when it got no time, and what it prints with that.
_LATE = re.compile(rb"BUG: soft lockup|blocked for more than|rcu.*stall|Call Trace|clocksource: .*unstable")

BOOTED = "steady: booted"
_BOOT = f"#!/bin/busybox sh\necho '{BOOTED}'\npoweroff -f\n"

_WORK = """#!/bin/busybox sh
cd /tmp
count() {{ read -r number < /tmp/$1; echo $((number + 1)) > /tmp/$1.new; mv /tmp/$1.new /tmp/$1; }}
for name in forks spaces sums reads wrong_spaces wrong_sums wrong_reads; do echo 0 > /tmp/$name; done
echo 0 0 0 0 > /tmp/steady
/bin/steady /tmp/steady &
while :; do (:); (exit 3) | cat; count forks; done &
while :; do /bin/spaces 1 > /dev/null || count wrong_spaces; count spaces; done &
while :; do
    made=$(gzip -c /data | md5sum)
    [ -n "$first" ] || first=$made
    back=$(gzip -c /data | gunzip -c | md5sum)
    [ "$made" = "$first" ] && [ "${{back%% *}}" = {data} ] || count wrong_sums
    count sums
done &
while :; do
    read=$(dd if=/dev/zero bs=1 count={bytes} 2> /dev/null | md5sum)
    [ "${{read%% *}}" = {zeros} ] || count wrong_reads
    count reads
done &
while sleep 2; do
    read -r forks < /tmp/forks; read -r sums < /tmp/sums; read -r reads < /tmp/reads
    read -r spaces < /tmp/spaces; read -r wrong_spaces < /tmp/wrong_spaces
    read -r wrong_sums < /tmp/wrong_sums; read -r wrong_reads < /tmp/wrong_reads
    read -r rounds ticks signals wrong < /tmp/steady || continue
    echo "steady: forks=$forks spaces=$spaces sums=$sums reads=$reads rounds=$rounds ticks=$ticks signals=$signals" \\
        "wrong=$((wrong_spaces + wrong_sums + wrong_reads + wrong))"
done
"""

_SHARING = """#!/bin/busybox sh
cd /tmp
/bin/threads /tmp/threads &
while :; do (:); (exit 3) | cat; done &
while :; do gzip -c /bin/threads | gunzip -c | md5sum > /dev/null; done &
while sleep 2; do
    read -r swaps faults churns forks wrong < /tmp/threads || continue
    echo "steady: swaps=$swaps faults=$faults churns=$churns forks=$forks wrong=$wrong"
done
"""


@dataclass(frozen=True)
class Guest:
    """What a domain is made of."""

    kernel: Path
    ramdisk: bytes


def booting() -> Guest:
    """Linux that says that it is up, and powers off.

    Raises:
        UserError: kernel or busybox cannot be had.
    """
    return Guest(obtain(KERNEL).path, build(obtain("busybox").path, {"etc/session": _BOOT.encode()}))


def working() -> Guest:
    """Linux that forks, changes address spaces, signals, compresses and reads without end, beside a timer of 1 kHz;
    all of it is checked.

    Raises:
        UserError: kernel or busybox cannot be had.
    """
    words = random.Random(1).choices([b"stability ", b"paravirt ", b"guest ", b"timer ", b"\0\1\2"], k=DATA_BYTES // 6)
    data = b"".join(words)
    work = _WORK.format(
        data=hashlib.md5(data).hexdigest(), zeros=hashlib.md5(bytes(DD_BYTES)).hexdigest(), bytes=DD_BYTES
    )
    files: dict[str, Path | bytes] = {
        "bin/steady": program("steady"),
        "bin/spaces": program("spaces"),
        "data": data,
        "etc/session": work.encode(),
    }
    return Guest(obtain(KERNEL).path, build(obtain("busybox").path, files))


def sharing() -> Guest:
    """Linux whose threads change one address space under each other, and which forks meanwhile.

    Raises:
        UserError: kernel or busybox cannot be had.
    """
    files: dict[str, Path | bytes] = {"bin/threads": program("threads"), "etc/session": _SHARING.encode()}
    return Guest(obtain(KERNEL).path, build(obtain("busybox").path, files))


def program(name: str) -> bytes:
    """One of the programs beside this file, built."""
    source = Path(__file__).with_name(f"{name}.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / name
        subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", str(program), str(source)], check=True)
        return program.read_bytes()


def complaint(output: bytes, late_is_excused: bool = False) -> str:
    """The line of a guest's console that says that something is wrong, or nothing.

    ``late_is_excused``: the host let the guest stand still, so that it may say that it was locked up.
    """
    found = _WRONG.search(output) or (None if late_is_excused else _LATE.search(output))
    if found is None:
        return ""
    start, end = output.rfind(b"\n", 0, found.start()) + 1, output.find(b"\n", found.end())
    return output[start : end if end >= 0 else None].decode("utf-8", "replace").strip()


def last_report(output: bytes) -> str:
    """What the guest last said that it has done, or nothing."""
    reports = _REPORT.findall(output)
    return reports[-1][0].decode() if reports else ""
