"""A Linux dom0 on real Xen, with the toolstack of Debian: what it is made of, and one boot of it.

Everything comes out of Debian's packages in the cache folder; nothing is installed. The ramdisk is our busybox one
with Xen's programs, the libraries that they name, and a script that does the work given to it and powers off.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from paravirt import initramfs
from paravirt.bench.peers import vmlinux
from paravirt.bench.peers.packages import Qemu, Xen
from paravirt.errors import UserError
from paravirt.guestkernels import apt, obtain
from paravirt.guestkernels.apt import Report
from paravirt.guestkernels.cache import Cache

from .xenrun import read_lines

KERNEL_PACKAGE = "linux-image-amd64"
PACKAGES = (
    "xen-utils-4.17", "xen-utils-common", "xenstore-utils", "libxenmisc4.17", "libxencall1", "libxenevtchn1",
    "libxenforeignmemory1", "libxengnttab1", "libxenstore4", "libxentoollog1", "libxentoolcore1",
    "libxendevicemodel1", "libxenhypfs1", "libyajl2", "libuuid1", "libfdt1", "zlib1g", "liblzma5", "libzstd1",
    "libncurses6", "libtinfo6", "libc6", "libgcc-s1",
)  # fmt: skip
_CLIENTS = ("chmod", "exists", "list", "ls", "read", "rm", "watch", "write")
PROGRAMS = {
    "usr/sbin": [f"usr/lib/xen-4.17/bin/{name}" for name in ("xl", "xenstored", "xenconsoled", "xen-init-dom0",
                                                             "xentop")],
    "usr/bin": [f"usr/bin/xenstore-{name}" for name in _CLIENTS],
}  # fmt: skip
MODULES = ("xen-privcmd", "xenfs", "xen-evtchn", "xen-gntdev", "xen-gntalloc")
LINKER = "lib64/ld-linux-x86-64.so.2"
# What the C library loads by itself when a thread is cancelled.
_UNNAMED = ("libgcc_s.so.1",)
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")

MEMORY_MIB, XEN_MEMORY_MIB = 384, 128
"""What dom0 has, and what is left for Xen; guests' memory comes on top."""

# The second serial line carries the results, one a line: name, status, standard output and error in base64.
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox --install -s
mkdir -p /dev/pts /run/lock /run/xen /run/xenstored /var/lib/xenstored /var/lib/xen /var/log/xen/console
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /run /var/run
ln -s /run/lock /var/lock
hostname dom0
stty -F /dev/ttyS1 raw -echo
for module in %(modules)s; do insmod /modules/$module.ko; done
mount -t xenfs xenfs /proc/xen
report() { # report NAME STATUS OUTPUT ERRORS: two files
    echo "$1 $2 $(base64 "$3" | tr -d '\\n')|$(base64 "$4" | tr -d '\\n')" >/dev/ttyS1
}
xenstored --pid-file /run/xen/xenstored.pid
xen-init-dom0 >/tmp/init 2>&1
xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xen/xenconsoled.pid
xl list >/tmp/out 2>/tmp/err
report started $? /tmp/out /tmp/err
cd /work
. ./job
echo finished >/dev/ttyS1
poweroff -f
"""


@dataclass(frozen=True)
class Dom0:
    """A kernel that can be dom0 (unpacked), its modules, a root of Debian's packages, and their versions."""

    kernel: Path
    modules: Path
    root: Path
    busybox: Path
    versions: Mapping[str, str]

    def ramdisk(self, work: Mapping[str, Path | bytes]) -> bytes:
        """The initial ramdisk; ``work`` is what lies in the folder where the script ``job`` is sourced.

        Raises:
            UserError: a program needs a library that no package has.
        """
        extra: dict[str, Path | bytes] = {f"work/{name}": source for name, source in work.items()}
        for name in MODULES:
            extra[f"modules/{name}.ko"] = self.modules / f"{name}.ko"
        programs = [(folder, self.root / path) for folder, paths in PROGRAMS.items() for path in paths]
        for folder, program in programs:
            extra[f"{folder}/{program.name}"] = program
        for name, path in self._libraries([program for _, program in programs]).items():
            extra[f"lib/{name}"] = path
        extra["etc/xen/xl.conf"] = self.root / "etc/xen/xl.conf"
        extra[LINKER] = self._library(Path(LINKER).name)
        return initramfs.build(self.busybox, extra, INIT % {"modules": " ".join(MODULES)})

    def _libraries(self, programs: list[Path]) -> dict[str, Path]:
        """By name, all libraries that programs need, and those that these need."""
        found = {name: self._library(name) for name in _UNNAMED}
        todo = list(programs)
        while todo:
            for name in _needed(todo.pop()):
                if name not in found:
                    found[name] = self._library(name)
                    todo.append(found[name])
        return found

    def _library(self, name: str) -> Path:
        for folder in _LIBRARIES:
            if (path := self.root / folder / name).exists():
                return path
        raise UserError(f"None of Debian's packages for dom0 has the library {name}.")


@dataclass(frozen=True)
class Setting:
    """What the machine has: memory for guests in MiB, and physical CPUs. Dom0 has one vcpu."""

    memory: int
    cpus: int = 1


@dataclass(frozen=True)
class Result:
    """What one piece of a job came to."""

    name: str
    status: str
    output: str
    errors: str


def obtain_dom0(report: Report = lambda text: None, cache: Cache | None = None) -> Dom0:
    """Linux and Xen's tools, from the cache or fetched now.

    Raises:
        UserError: something cannot be fetched here, and why.
    """
    cache = cache or Cache()

    def fill_kernel(folder: Path) -> None:
        download = folder / "download"
        download.mkdir()
        package = apt.fetch(KERNEL_PACKAGE, download, cache.root / "apt", report)
        wanted = {f"{name}.ko": f"lib/modules/*/{name}.ko" for name in MODULES}
        apt.unpack(package, {"vmlinuz": "boot/vmlinuz-*", **wanted}, folder)
        shutil.rmtree(download)
        (folder / "record.json").write_text(json.dumps({package.name: package.version}), encoding="utf-8")

    def fill_tools(folder: Path) -> None:
        versions = {}
        for name in PACKAGES:
            download = folder / "download"
            download.mkdir()
            package = apt.fetch(name, download, cache.root / "apt", report)
            apt.Apt().run("dpkg-deb", "-x", str(package.deb), str(folder / "root"))
            shutil.rmtree(download)
            versions[name] = package.version
        (folder / "record.json").write_text(json.dumps(versions), encoding="utf-8")

    kernel = cache.make("peers/dom0-kernel", fill_kernel)
    tools = cache.make("peers/dom0-tools-4.17", fill_tools)
    versions = {
        name: version
        for folder in (kernel, tools)
        for name, version in json.loads((folder / "record.json").read_text(encoding="utf-8")).items()
    }
    busybox = obtain("busybox", report, cache).path
    return Dom0(vmlinux(kernel / "vmlinuz"), kernel, tools / "root", busybox, versions)


def boot(
    xen: Xen, qemu: Qemu, dom0: Dom0, work: Mapping[str, Path | bytes], setting: Setting, log: Path,
    timeout: float,
) -> Iterator[Result]:
    """Boot a machine and have dom0 do the job in ``work``; results as they come.

    All that Xen and dom0 have to say goes to the file ``log``. ``timeout`` is in seconds of wall time, for the
    whole of it.

    Raises:
        UserError: the toolstack did not start, or the job did not come to its end in time.
    """
    with tempfile.NamedTemporaryFile(suffix=".cpio") as ramdisk:
        ramdisk.write(dom0.ramdisk(work))
        ramdisk.flush()
        command = [
            *qemu.command(), "-nodefaults", "-no-reboot", "-display", "none", "-serial", f"file:{log}",
            "-serial", "stdio", "-accel", "tcg", "-cpu", "max,-smap", "-smp", str(setting.cpus), "-M", "q35",
            "-m", str(MEMORY_MIB + XEN_MEMORY_MIB + setting.memory), "-kernel", str(xen.image),
            "-append", f"console=com1 com1=115200,8n1 dom0_mem={MEMORY_MIB}M,max:{MEMORY_MIB}M dom0_max_vcpus=1 "
            "sched=credit loglvl=all guest_loglvl=all",
            "-initrd", f"{dom0.kernel} console=hvc0 quiet,{ramdisk.name}",
        ]  # fmt: skip
        process = subprocess.Popen(
            command,
            env={**os.environ, **qemu.environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        finished = False
        try:
            for line in read_lines(process, timeout):
                if line == "finished":
                    finished = True
                    break
                yield _result(line)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    if not finished:
        raise UserError("dom0 did not finish its job.")


def _result(line: str) -> Result:
    name, status, data = line.split(" ", 2)
    output, _, errors = data.partition("|")
    texts = [base64.b64decode(text).decode("utf-8", "replace") for text in (output, errors)]
    return Result(name, status, *texts)


def _needed(program: Path) -> list[str]:
    """The libraries that an ELF file names."""
    with program.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".dynamic")
        if not isinstance(section, DynamicSection):
            return []
        names: list[str] = [tag.needed for tag in section.iter_tags("DT_NEEDED")]  # type: ignore[attr-defined]
        return names
