"""The guests of the torture: what they do, and what of their consoles says that something went wrong."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from paravirt.guestkernels import obtain
from paravirt.guestkernels.modules import obtain_modules, ramdisk_files
from paravirt.initramfs import build

from ..e2e.conftest import THREADS
from ..oracle import kernels

LINUX_MIB = 192
SMALL_MIB = 16
DISK_MIB = 16
WITNESS = "rewrites"
PAIR = "pair"
WORKERS = {"rewrites": 2, "burn": 1, "smp": 4, "events": 1, "fifo": 1, "grants": 2, "user_exceptions": 1}
"""What short-lived guests do, and how many vcpus they have: code and mappings, siblings, events, grants, processes.
None expects to be on time."""
CRASHING = ("jump", "stack", "hole", "handler", "iret", "event", "crash", "watchdog", "reboot", "poweroff")
"""Ways in which `hostile` ends."""

WORK = """\
bad=0; n=0
while n=$((n+1)); do
head -c 60000 /dev/urandom > /tmp/a
gzip -c /tmp/a | gunzip -c | cmp -s - /tmp/a || bad=$((bad+1))
[ "$(/bin/threads)" = threads=36000 ] || bad=$((bad+1))
if [ -b /dev/xvda ]; then
dd if=/tmp/a of=/dev/xvda bs=4k seek=$((n%100)) conv=fsync 2>/dev/null
echo 1 > /proc/sys/vm/drop_caches
dd if=/dev/xvda bs=4k skip=$((n%100)) count=15 2>/dev/null | head -c 60000 | cmp -s - /tmp/a || bad=$((bad+1))
fi
echo work $n, wrong $bad
done
"""
"""What Linux does: processes, pipes, threads, files, a disk."""

# A guest that gets little of a physical CPU, or that stood still, may say that it was locked up: that is true.
_WRONG = re.compile(rb"wrong [1-9]|FAILED|: FAIL |BUG: (?!soft lockup)|Oops|Kernel panic")


@dataclass(frozen=True)
class Kernels:
    """Where the guests' files are."""

    small: dict[str, Path]
    linux: Path | bytes
    ramdisk: bytes


def prepare(folder: Path, linux: bool) -> Kernels:
    """Build, and fetch if need be, what is wanted.

    Raises:
        UserError: Linux cannot be had.
    """
    small = {name: kernels.build(name, folder) for name in (*WORKERS, PAIR, "hostile")}
    if not linux:
        return Kernels(small, b"", b"")
    source, program = folder / "threads.c", folder / "threads"
    source.write_text(THREADS)
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "-o", str(program), str(source)], check=True)
    files: dict[str, Path | bytes] = {
        **ramdisk_files(obtain_modules("debian-cloud")),
        "bin/threads": program,
        "bin/work": b"#!/bin/busybox sh\n" + WORK.encode(),
        "etc/session": b"#!/bin/busybox sh\nexec /bin/work\n",
    }
    return Kernels(small, obtain("debian-cloud").path, build(obtain("busybox").path, files))


def complaint(output: bytes) -> str:
    """The line of a guest's console that says that something is wrong, or nothing."""
    found = _WRONG.search(output)
    if found is None:
        return ""
    start, end = output.rfind(b"\n", 0, found.start()) + 1, output.find(b"\n", found.end())
    return output[start : end if end >= 0 else None].decode("utf-8", "replace").strip()


def progress(output: bytes) -> int:
    """How many rounds of work a guest has reported."""
    return output.count(b"wrong 0")
