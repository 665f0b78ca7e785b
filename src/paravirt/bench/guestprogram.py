"""The program that measures a guest from the inside, and ramdisks around it.

Both depend on nothing but Linux, so that each contender runs the very same bytes. A ramdisk's /init prints
:data:`INIT_LINE` before anything else; the program prints lines that :func:`parse` reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from paravirt.errors import UserError
from paravirt.guestkernels import find, obtain
from paravirt.guestkernels.cache import Cache
from paravirt.guestkernels.modules import obtain_modules, ramdisk_files
from paravirt.initramfs import build

INIT_LINE = "PVBENCH INIT"
"""The first line of user space: the kernel's own start is over."""

DONE_LINE = "PVBENCH DONE"
"""The last line in mode ``micro``: every row was measured or skipped."""

KERNEL_OPTIONS = "quiet panic=-1"
"""For every contender's kernel, after its own console=: messages cost more where consoles are slow."""

END_LINE = "PVBENCH END"
"""The last line in mode ``network``, in which the program runs several times."""

SERVES_LINE = "PVBENCH SERVES ;"
"""When a server takes connections."""

SHELL_LINE = "PVBENCH SHELL"
"""In mode ``network`` with ``pvbench.shell`` on the kernel's command line: commands are taken from now on."""

NETWORK_PORT = 17101  # not one that a host gives to connections by itself
"""Of the servers that guests measure the way to."""

MODES = ("boot", "micro", "clocks", "disk", "network")

_FLAGS = ("-std=gnu11", "-O2", "-static", "-Wall", "-Wextra")
_ROW = re.compile(r"PVBENCH ROW (\w+) ([0-9.]+) (us|MB/s)\s")
_SKIP = re.compile(r"PVBENCH SKIP (\w+) ([^\r\n]+)")

_BOOT = f"""#!/bin/busybox sh
echo '{INIT_LINE}'
exec /bin/busybox poweroff -f
"""
# The kernel keeps quiet while the program prints, or its words would be in the middle of a line.
_MICRO = f"""#!/bin/busybox sh
echo '{INIT_LINE}'
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t tmpfs tmpfs /tmp
echo 1 > /proc/sys/kernel/printk
/bin/pvbench
exec /bin/busybox poweroff -f
"""
# A start with everything mounted, and the drivers of devices.
_WITH_DRIVERS = f"""#!/bin/busybox sh
echo '{INIT_LINE}'
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox --install -s
echo 1 > /proc/sys/kernel/printk
while read -r module; do insmod $module; done < /etc/modules
"""
_DISK = f"""{_WITH_DRIVERS}while [ ! -b /dev/xvda ] && [ ! -b /dev/vda ]; do sleep 0.1; done
for disk in xvda vda; do [ ! -b /dev/$disk ] || /bin/pvbench --disk /dev/$disk; done
exec /bin/busybox poweroff -f
"""
# What udhcpc has done with a lease.
_LEASE = b"""#!/bin/sh
[ "$1" = bound ] || exit 0
ifconfig eth0 $ip netmask $subnet
route add default gw $router
echo $router > /etc/router
"""
_NETWORK = f"""{_WITH_DRIVERS}while [ ! -e /sys/class/net/eth0 ]; do sleep 0.1; done
ip link set lo up
ip link set eth0 up
udhcpc -q -n -i eth0 -s /etc/lease
peer=
for word in $(cat /proc/cmdline); do
    case $word in
        pvbench.serve) exec /bin/pvbench --serve 0.0.0.0 {NETWORK_PORT} ;;
        pvbench.shell) echo '{SHELL_LINE}'; exec /bin/busybox sh ;;
        pvbench.peer=*) peer=${{word#*=}} ;;
    esac
done
echo 'PVBENCH BEGINS'
measure() {{
    /bin/pvbench --server $(cat /etc/router) --port {NETWORK_PORT} --label net_host_$1_ $2
    [ -z "$peer" ] || /bin/pvbench --server $peer --port {NETWORK_PORT} --label net_guest_$1_ $2
}}
measure 1500
ip link set eth0 mtu 500
measure 500 "--only send,receive,echo"
echo '{END_LINE}'
exec /bin/busybox poweroff -f
"""
_CLOCKS = f"""#!/bin/busybox sh
echo '{INIT_LINE}'
/bin/busybox mount -t devtmpfs devtmpfs /dev
exec /bin/pvbench --clocks
"""


@dataclass
class Report:
    """What the program printed: values by row, their units, and why rows are missing."""

    values: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    done: bool = False


def parse(text: str) -> Report:
    """Read the lines of the program out of a console's text; whatever else is there is passed over."""
    report = Report()
    for line in text.splitlines(keepends=True):
        if row := _ROW.search(line):
            try:
                report.values[row[1]] = float(row[2])
            except ValueError:  # two points: not a line that the program printed whole
                continue
            report.units[row[1]] = row[3]
        elif skip := _SKIP.search(line):
            report.skipped[skip[1]] = skip[2].strip()
        elif DONE_LINE in line:
            report.done = True
    return report


def program() -> Path:
    """The program as a static executable, compiled when the cache has none of these sources and this compiler.

    Raises:
        UserError: there is no C compiler, it cannot link statically, or the cache cannot be written.
    """
    sources = _sources()
    compiler = find_compiler()
    text = "\0".join([compiler_version(compiler), *_FLAGS, *(f"{name}\0{content}" for name, content in sources)])
    name = f"bench/{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def fill(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for file, content in sources:
                Path(scratch, file).write_text(content, encoding="utf-8")
            files = [file for file, _ in sources if file.endswith(".c")]
            command = [*compiler, *_FLAGS, *files, "-o", str(folder / "pvbench")]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise UserError(
                f"The benchmark program for guests could not be compiled with '{compiler[0]}': {lines[-1]}"
            )

    return Cache().make(name, fill) / "pvbench"


def ramdisk(mode: str) -> Path:
    """An initial ramdisk that benchmarks its guest.

    In mode ``boot`` the guest powers off as soon as /init has printed :data:`INIT_LINE`; in mode ``micro`` it
    runs the program in between; in mode ``disk`` the program measures a disk, xvda or vda; in mode
    ``network`` the way to servers (:mod:`paravirt.bench.networks`); in mode ``clocks`` it tells its clocks for each
    line on its console. busybox is fetched when it is not in the cache.

    Raises:
        UserError: as for :func:`program`; or busybox cannot be had.
    """
    if mode not in MODES:
        raise ValueError(f"a benchmark's ramdisk is for one of {MODES}, not {mode!r}")
    busybox = obtain("busybox").path
    if mode == "boot":
        data = build(busybox, init=_BOOT)
    else:
        init = {"micro": _MICRO, "clocks": _CLOCKS, "disk": _DISK, "network": _NETWORK}[mode]
        files: dict[str, Path | bytes] = {"bin/pvbench": program()}
        if mode == "disk":
            files |= ramdisk_files(obtain_modules("debian", ("xen-blkfront", "virtio_pci", "virtio_blk")))
        if mode == "network":
            files |= ramdisk_files(obtain_modules("debian", ("xen-netfront", "virtio_pci", "virtio_net")))
            files["etc/lease"] = _LEASE
        data = build(busybox, files, init=init)
    name = f"bench/{mode}-{hashlib.sha256(data).hexdigest()[:16]}"

    def fill(folder: Path) -> None:
        (folder / "initramfs.cpio").write_bytes(data)

    return Cache().make(name, fill) / "initramfs.cpio"


def run_natively(only: Iterable[str] = (), row_ms: int | None = None, timeout: float = 120) -> Report:
    """Run the program on the host itself: all rows, or those in ``only``; ``row_ms`` is the time for each.

    Raises:
        UserError: as for :func:`program`; or it did not end within ``timeout`` seconds.
    """
    command = [str(program())]
    busybox = find("busybox")
    if busybox is not None:
        command += ["--shell", str(busybox.path)]
    if names := list(only):
        command += ["--only", ",".join(names)]
    if row_ms is not None:
        command += ["--row-ms", str(row_ms)]
    with tempfile.TemporaryDirectory(prefix="paravirt-bench-") as scratch:
        command += ["--scratch", scratch]
        # A group of its own: whatever happens, the processes that it forked go too.
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            try:
                text, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as error:
                raise UserError(
                    f"The benchmark program was still running on this host after {timeout} s."
                ) from error
            finally:
                _end_group(process)
    return parse(text)


def row_names() -> list[str]:
    """The names of all rows that the program knows."""
    done = subprocess.run([str(program()), "--list"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def _end_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _sources() -> list[tuple[str, str]]:
    folder = resources.files("paravirt.bench") / "guest"
    files = [entry for entry in folder.iterdir() if entry.name.endswith((".c", ".h"))]
    return sorted((entry.name, entry.read_text(encoding="utf-8")) for entry in files)


def find_compiler() -> list[str]:
    """The C compiler's command ($CC, else gcc).

    Raises:
        UserError: there is none.
    """
    words = (os.environ.get("CC") or "gcc").split() or ["gcc"]
    if shutil.which(words[0]) is None:
        raise UserError(
            f"The benchmark program for guests needs a C compiler, and '{words[0]}' was not found "
            "(Debian: apt-get install gcc libc6-dev)."
        )
    return words


def compiler_version(compiler: list[str]) -> str:
    """The line by which a compiler names its version."""
    done = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]
