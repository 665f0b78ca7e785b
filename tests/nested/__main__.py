"""Run test kernels, or boot Linux, on the KVM engine of an emulated AMD processor with nested SVM, under
Debian's kernel.

Usage: scripts/nested [--npt 0|1] [--cpus N] [--traces] [NAME...], where the name `linux` stands for
a boot of Debian's cloud kernel

QEMU, the kernel and its modules come from Debian's archive into the cache; the emulated machine sees this machine's
files, which it cannot change, and runs this very interpreter and tree.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from paravirt import initramfs
from paravirt.bench.peers.packages import obtain_qemu
from paravirt.errors import UserError
from paravirt.guestkernels import apt
from paravirt.guestkernels.cache import Cache
from paravirt.guestkernels.catalogue import obtain
from tests.guests import known_traces, traces
from tests.oracle import kernels

from .guest import DONE, LINUX, TRACE

MEMORY_MIB = 1536
MAX_CPUS = 8
TREE = Path(__file__).resolve().parent.parent.parent
# In the order in which they can be loaded; what Debian's kernel has built in is left out.
MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "netfs", "fscache",
    "9pnet", "9pnet_virtio", "9p", "ccp", "irqbypass", "kvm", "kvm-amd",
)  # fmt: skip


def _report(text: str) -> None:
    print(f"nested: {text}", file=sys.stderr)


def _modules() -> dict[str, bytes]:
    """Debian's kernel's modules for KVM and for seeing the host's files."""
    package, cache = obtain("debian", _report).package, Cache()

    def fill(folder: Path) -> None:
        fetched = apt.fetch(package, folder, cache.root / "apt", _report)
        apt.unpack(fetched, {f"{name}.ko": f"*/{name}.ko" for name in MODULES}, folder)
        fetched.deb.unlink()

    folder = cache.make(f"nested/{package}", fill)
    return {name: (folder / f"{name}.ko").read_bytes() for name in MODULES}


def _init(npt: int, command: list[str]) -> str:
    """The text of /init: load the modules, see the host's files read-only, run the command among them."""
    loads = (f"insmod /lib/modules/{name}.ko {f'npt={npt}' if name == 'kvm-amd' else ''}" for name in MODULES)
    lines = (
        "#!/bin/busybox sh",
        "/bin/busybox --install -s",
        "mount -t devtmpfs devtmpfs /dev; mount -t proc proc /proc; mount -t sysfs sysfs /sys",
        "exec >/dev/ttyS0 2>&1",
        *loads,
        "mkdir /host",
        "mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro,msize=262144 host /host",
        "mount -t tmpfs tmpfs /host/run",
        "for folder in dev proc sys; do mount --bind /$folder /host/$folder; done",
        f"export PYTHONPATH={shlex.quote(str(TREE))} PYTHONDONTWRITEBYTECODE=1 HOME=/run TMPDIR=/run",
        f"chroot /host {shlex.join(command)}",
        "poweroff -f",
    )
    return "".join(f"{line}\n" for line in lines)


def _prepare(what: str, names: list[str], scratch: Path) -> None:
    """Put what the emulated machine needs into a folder that it sees."""
    runs = [kernels.runs()[name] for name in names if name != LINUX]
    for kernel in {run.kernel for run in runs}:
        kernels.build(kernel, scratch)
    for run in runs if what == "traces" else ():
        (scratch / f"{run.name}{TRACE}").write_bytes(traces.records(run, scratch / run.kernel, "unicorn"))
    if LINUX in names:
        shutil.copy(obtain("debian-cloud", _report).path, scratch / f"{LINUX}.kernel")
        shutil.copy(initramfs.cached(obtain("busybox", _report).path), scratch / f"{LINUX}.ramdisk")


def _boot(what: str, npt: int, cpus: int, names: list[str], scratch: Path) -> bool:
    """Run the kernels in the emulated machine, and print what it says; whether all did as expected."""
    _prepare(what, names, scratch)
    command = [sys.executable, "-m", "tests.nested.guest", what, str(scratch), str(cpus), *names]
    ramdisk = scratch / "initrd"
    files = {f"lib/modules/{name}.ko": data for name, data in _modules().items()}
    ramdisk.write_bytes(initramfs.build(obtain("busybox", _report).path, files, _init(npt, command)))
    qemu = obtain_qemu(_report)
    process = subprocess.Popen(
        [
            *qemu.command(), "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-M", "q35",
            "-accel", "tcg", "-cpu", "max,+svm", "-smp", str(cpus), "-m", str(MEMORY_MIB),
            "-kernel", str(obtain("debian", _report).path), "-initrd", str(ramdisk),
            "-append", "console=ttyS0 loglevel=3 no_timer_check",  # a busy host may be too slow for it
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ],
        env={**os.environ, **qemu.environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    )  # fmt: skip
    said: list[str] = []
    with process:
        for line in process.stdout or ():
            said.append(line.rstrip())
            print(said[-1], flush=True)
    return DONE in said and not any(line.endswith(": differs") for line in said)


def main() -> int:
    """0 when every kernel does as expected, 1 when one does not, 2 when nothing can be run."""
    parser = argparse.ArgumentParser(prog="scripts/nested", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--npt", type=int, choices=(0, 1), default=1, help="nested paging, or shadow page tables")
    parser.add_argument("--cpus", type=int, choices=range(1, MAX_CPUS + 1), default=2, metavar="N",
                        help="processors, each with a physical CPU of paravirt's (default: 2)")  # fmt: skip
    parser.add_argument("--traces", action="store_true",
                        help="compare hypercalls and exceptions with the Unicorn engine's, not answers with Xen's")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a test kernel's run, or linux; default: all kernels")
    options = parser.parse_args()
    known = kernels.runs()
    what = "traces" if options.traces else "answers"
    every = [name for name in known if not options.traces or name not in known_traces.not_compared(False)]
    unknown = sorted(set(options.names) - {*known, LINUX})
    if unknown:
        _report(f"there is no test kernel called {unknown[0]}.")
        return 2
    with tempfile.TemporaryDirectory(prefix="paravirt-nested-") as scratch:
        try:
            return 0 if _boot(what, options.npt, options.cpus, options.names or every, Path(scratch)) else 1
        except UserError as error:
            _report(str(error))
            return 2


if __name__ == "__main__":
    sys.exit(main())
