"""Other ways to run the guests of the benchmarks: real Xen, and plain QEMU, with the same kernel and ramdisk.

All of them emulate the CPU by QEMU's TCG, as paravirt's engine does. QEMU and Xen are Debian's packages,
unpacked into the cache folder and never installed. The kernel's payload is unpacked beforehand, as paravirt's
own builder does it within the time that is measured; that is in the peers' favour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from paravirt.bench import rows
from paravirt.bench.guestprogram import DONE_LINE, END_LINE, INIT_LINE, KERNEL_OPTIONS, parse
from paravirt.bench.peers.packages import Qemu, Xen, find_qemu, find_xen, obtain_qemu, obtain_xen
from paravirt.bench.peers.process import listen
from paravirt.domain0.builder import bzimage, payload
from paravirt.errors import UserError
from paravirt.guestkernels import find, obtain
from paravirt.guestkernels.apt import Report
from paravirt.guestkernels.cache import Cache

GUEST = "debian"
MEMORY_MIB = 512
XEN_MEMORY_MIB = 256
"""What the machine has beside its Domain 0's memory: Xen and its frame table live there."""

BOOT_TIMEOUT_S = 180.0
MICRO_TIMEOUT_S = 600.0

Part = TypeVar("Part")

KINDS = ("xen-dom0", "xen-bzimage", "microvm", "q35")
"""Domain 0 on real Xen; the same with the kernel as it is shipped; two machine types of QEMU without Xen."""

# Linux cannot calibrate the TSC on a microvm under TCG: its clock is the timer's tick, which loses time, and a
# program inside measures wrongly. How the kernel was wrapped makes no difference to it once it runs.
BOOT_ONLY = ("xen-bzimage", "microvm")


@dataclass(frozen=True)
class Parts:
    """What peers are made of. ``bzimage`` is the kernel as it is shipped, ``vmlinux`` its unpacked payload."""

    qemu: Qemu
    vmlinux: Path
    bzimage: Path
    xen: Xen | None = None


@dataclass(frozen=True)
class Peer:
    """One contender. ``skipped_reason`` is empty when it can be used, else a sentence.

    ``name`` tells its kind and versions. ``command`` makes the emulator's command line for a ramdisk.
    """

    name: str
    version: str = ""
    skipped_reason: str = ""
    command: Callable[[Path], list[str]] = field(default=lambda ramdisk: [], repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    boots_only: bool = False
    has_devices: bool = False

    @property
    def judged(self) -> bool:
        """Whether paravirt's targets are relative to this peer."""
        return not self.skipped_reason and all(word in self.name for word in rows.XEN)

    def boot(self, ramdisk: Path) -> float:
        """Seconds from the start of the emulator's process to the first line of /init.

        Raises:
            UserError: it did not come so far, with the end of what it said.
        """
        return self._listen(ramdisk, INIT_LINE, BOOT_TIMEOUT_S)[0]

    def micro(self, ramdisk: Path) -> dict[str, float]:
        """The values that the program inside the guest measured, by row; none for a peer that only boots.

        Raises:
            UserError: the program did not come to its end, with the end of what the guest said.
        """
        if self.boots_only:
            return {}
        return parse(self._listen(ramdisk, DONE_LINE, MICRO_TIMEOUT_S)[1]).values

    def disk(self, ramdisk: Path, disk: Path) -> dict[str, float]:
        """The same for a ramdisk that measures a disk, which is served as a virtio device.

        Raises:
            UserError: the program did not come to its end, with the end of what the guest said.
        """
        drive = f"file={_escaped(disk)},format=raw,if=none,id=disk,cache=writeback"
        more = ["-drive", drive, "-device", "virtio-blk-pci,drive=disk"]
        return parse(self._listen(ramdisk, DONE_LINE, MICRO_TIMEOUT_S, more)[1]).values

    def network(self, ramdisk: Path) -> dict[str, float]:
        """The same for a ramdisk that measures its network: a virtio device, behind QEMU's user-mode network.

        Raises:
            UserError: the program did not come to its end, with the end of what the guest said.
        """
        more = ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
        return parse(self._listen(ramdisk, END_LINE, MICRO_TIMEOUT_S, more)[1]).values

    def _listen(
        self, ramdisk: Path, awaited: str, timeout: float, more: Sequence[str] = ()
    ) -> tuple[float, str]:
        if self.skipped_reason:
            raise UserError(self.skipped_reason)
        heard = listen(self.name, [*self.command(ramdisk), *more], self.environment, awaited, timeout)
        return heard.seconds, heard.text


def available(install: bool = True, report: Report = lambda text: None) -> list[Peer]:
    """One peer of each of :data:`KINDS`; what cannot be had says why in its ``skipped_reason``.

    With ``install``, packages that the cache lacks are fetched into it; ``report`` is called with a few words
    before each step that takes long.
    """
    try:
        qemu = obtain_qemu(report) if install else _present(find_qemu(), "QEMU")
        if complaint := qemu.complaint():
            raise UserError(f"QEMU {qemu.release} does not start here: {complaint}.")
        kernel = obtain(GUEST, report) if install else _present(find(GUEST), "Debian's kernel")
        unpacked = vmlinux(kernel.path)
    except UserError as error:
        return [Peer(kind, skipped_reason=str(error)) for kind in KINDS]
    no_xen = ""
    xen = None
    try:
        xen = obtain_xen(report) if install else _present(find_xen(), "Xen")
    except UserError as error:
        no_xen = str(error)
    parts = Parts(qemu, unpacked, kernel.path, xen)
    return [
        Peer(kind, skipped_reason=no_xen) if xen is None and kind.startswith("xen") else _peer(kind, parts)
        for kind in KINDS
    ]


def vmlinux(kernel: Path) -> Path:
    """A kernel's unpacked payload, as a file in the cache; a file that is no bzImage stands for itself.

    Raises:
        UserError: it cannot be read or unpacked, or the cache cannot be written.
    """
    try:
        data = kernel.read_bytes()
    except OSError as error:
        raise UserError(f"The file {kernel} cannot be read ({error.strerror or error}).") from error
    if not bzimage.is_bzimage(data):
        return kernel

    def fill(folder: Path) -> None:
        (folder / "vmlinux").write_bytes(payload.decompress(bzimage.payload(data)))

    return Cache().make(f"bench/vmlinux-{hashlib.sha256(data).hexdigest()[:16]}", fill) / "vmlinux"


def xen_command(parts: Parts, kernel: Path, ramdisk: Path) -> list[str]:
    """Boot Xen from a multiboot loader, with ``kernel`` as its Domain 0."""
    if parts.xen is None:
        raise ValueError("a machine with Xen needs Xen")
    # QEMU separates the modules by commas; one inside a file's name is doubled.
    modules = [f"{_escaped(kernel)} console=hvc0 {KERNEL_OPTIONS}", _escaped(ramdisk)]
    return [
        *_machine(parts.qemu, "q35", MEMORY_MIB + XEN_MEMORY_MIB),
        # Xen 4.17 does not boot with the SMAP of QEMU 7.2's TCG.
        "-cpu", "max,-smap",
        "-kernel", str(parts.xen.image),
        "-append", f"console=com1 com1=115200,8n1 dom0_mem={MEMORY_MIB}M,max:{MEMORY_MIB}M",
        "-initrd", ",".join(modules),
    ]  # fmt: skip


def qemu_command(parts: Parts, machine: str, ramdisk: Path) -> list[str]:
    """Boot the kernel by its PVH entry on one of QEMU's machine types."""
    return [
        *_machine(parts.qemu, machine, MEMORY_MIB),
        "-cpu", "max",
        "-kernel", str(parts.vmlinux),
        "-append", f"console=ttyS0 {KERNEL_OPTIONS}",
        "-initrd", str(ramdisk),
    ]  # fmt: skip


def _peer(kind: str, parts: Parts) -> Peer:
    version = f"QEMU {parts.qemu.release} TCG"
    commands: dict[str, Callable[[Path], list[str]]] = {
        "xen-dom0": lambda ramdisk: xen_command(parts, parts.vmlinux, ramdisk),
        "xen-bzimage": lambda ramdisk: xen_command(parts, parts.bzimage, ramdisk),
        # With ACPI, Debian's 6.1 stops after its attempt to calibrate the TSC.
        "microvm": lambda ramdisk: qemu_command(parts, "microvm,acpi=off", ramdisk),
        "q35": lambda ramdisk: qemu_command(parts, "q35", ramdisk),
    }
    if parts.xen is not None and kind.startswith("xen"):
        version = f"Xen {parts.xen.release}, {version}"
    return Peer(
        f"{kind} ({version})",
        version,
        command=commands[kind],
        environment=parts.qemu.environment(),
        boots_only=kind in BOOT_ONLY,
        has_devices=kind == "q35",
    )


def _machine(qemu: Qemu, kind: str, memory: int) -> list[str]:
    """A machine of ``memory`` MiB with one CPU, a serial console on standard output, and nothing else."""
    return [
        *qemu.command(), "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-accel", "tcg", "-smp", "1", "-M", kind, "-m", f"{memory}M",
    ]  # fmt: skip


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def _present(part: Part | None, what: str) -> Part:
    """What was found in the cache.

    Raises:
        UserError: it was not.
    """
    if part is None:
        raise UserError(f"{what} is not in the cache, and nothing was to be fetched.")
    return part
