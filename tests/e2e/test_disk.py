"""Debian's stock kernel on a disk of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from paravirt import Domain, Machine, ShutdownReason
from paravirt.domain0.block import kind
from paravirt.domain0.block.backend import BlockBackend
from paravirt.domain0.block.image import Buffers, Image
from paravirt.domain0.xlcfg.disks import disk_spec, parse_disk
from paravirt.errors import UserError
from paravirt.guestkernels import obtain
from paravirt.guestkernels.modules import obtain_modules, ramdisk_files
from paravirt.initramfs import build

from ..cli.conftest import Obtain, guest
from ..hypervisor.audited import check
from ..leftovers import Leftovers
from ..oracle import kernels
from ..patience import PATIENCE, settled
from .conftest import Shell

__all__ = ["guest"]
pytestmark = pytest.mark.network

MIB = 1 << 20


@pytest.fixture(scope="session")
def disk_ramdisk() -> bytes:
    """Busybox and the kernel's frontends."""
    try:
        return build(obtain("busybox").path, ramdisk_files(obtain_modules("debian-cloud")))
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def mke2fs() -> str:
    program = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        pytest.skip("this system has no mke2fs")
    return program


def sparse(path: Path, mib: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    return path


def fsck(path: Path) -> None:
    """Replay the journal, as the next mount would, and then find nothing wrong."""
    program = shutil.which("e2fsck", path="/usr/sbin:/sbin") or "e2fsck"
    subprocess.run([program, "-E", "journal_only", "-y", path], capture_output=True, check=True)
    checked = subprocess.run([program, "-f", "-n", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_linux_lives_on_a_disk(
    machine: Machine, kernel: Path, disk_ramdisk: bytes, mke2fs: str, tmp_path: Path
) -> None:
    """A file system is mounted, written, unmounted, mounted again and read; disks come and go; one is destroyed in
    mid-write and is consistent afterwards."""
    disk, other = sparse(tmp_path / "disk", 64), sparse(tmp_path / "other", 8)
    subprocess.run([mke2fs, "-q", "-t", "ext4", disk], check=True)
    devices = [parse_disk(f"{disk},raw,xvda,w")]
    domain = machine.create(kernel, disk_ramdisk, "console=hvc0", memory=256, devices=devices)
    shell = Shell(domain)
    assert " xvda\n" in shell("cat /proc/partitions")
    assert "\n128\n" in shell("cat /sys/block/xvda/queue/max_sectors_kb")
    assert "write back" in shell("cat /sys/block/xvda/queue/write_cache")
    shell("mkdir /mnt; mount /dev/xvda /mnt")
    shell("dd if=/dev/urandom of=/mnt/a bs=1M count=8; md5sum < /mnt/a > /mnt/sum; sync; umount /mnt")
    shell("mount /dev/xvda /mnt; echo 3 > /proc/sys/vm/drop_caches")
    assert "\nsame\n" in shell("md5sum < /mnt/a | cmp - /mnt/sum && echo same")

    # A second one comes, grows, and goes.
    attached = machine.call(lambda: machine.devices.attach(domain.domid, parse_disk(f"{other},raw,xvdb,w")))
    assert "\n16384\n" in shell("while [ ! -e /sys/block/xvdb/size ]; do sleep 0.1; done; cat /sys/block/xvdb/size")
    with other.open("r+b") as file:
        file.truncate(16 * MIB)
    shell("dd if=/dev/xvdb of=/dev/null bs=4k count=1 iflag=direct")
    assert "\n32768\n" in shell("while [ $(cat /sys/block/xvdb/size) = 16384 ]; do sleep 0.1; done; "
                                "cat /sys/block/xvdb/size")  # fmt: skip
    machine.call(lambda: machine.devices.detach(attached))
    assert "\ngone\n" in shell("while [ -e /sys/block/xvdb ]; do sleep 0.1; done; echo gone")

    def attached_disks() -> list[int]:
        return machine.call(lambda: [device.devid for device in machine.devices.of(domain.domid)])

    assert settled(attached_disks, [51712]) == [51712]  # the guest says so last of all
    check(machine, "with a disk attached")
    assert machine.stats()["errand_ns"] > 0  # the guest's own thread answered some of its requests

    # Destroyed while it writes; what was synchronised before is there.
    shell("(while :; do for i in 1 2 3 4; do dd if=/dev/urandom of=/mnt/$i bs=64k count=9; done; done) "
          "> /dev/null 2>&1 & sleep 2")  # fmt: skip
    domain.destroy()
    assert domain.wait(PATIENCE) is ShutdownReason.DESTROYED
    fsck(disk)


def held(machine: Machine, domain: Domain) -> dict[str, object]:
    """What disks make Domain 0 hold."""

    def count() -> dict[str, object]:
        return {
            "grants": len(machine.grants._track.mappings),
            "channels": len(machine._services._handlers),
            "watches": sorted(machine.store.watches._by_path),
            "backends": machine.store.directory(f"/local/domain/0/backend/vbd/{domain.domid}"),
            "frontends": machine.store.directory(f"/local/domain/{domain.domid}/device/vbd"),
            "errors": machine.store.directory("/local/domain/0/error"),
        }

    return machine.call(count)


def test_disks_come_and_go_under_load(
    machine: Machine, kernel: Path, disk_ramdisk: bytes, tmp_path: Path
) -> None:
    """One is attached and detached while the guest reads it, and reads and writes another; the guest lets it go, or it
    is taken away, and the guest's requests end with errors."""
    stays, comes = sparse(tmp_path / "stays", 8), sparse(tmp_path / "comes", 8)
    domain = machine.create(kernel, disk_ramdisk, "console=hvc0", memory=256)
    shell = Shell(domain)
    before, process = held(machine, domain), Leftovers()
    other = domain.attach_disk(stays, "xvda")
    shell("while [ ! -b /dev/xvda ]; do sleep 0.1; done; echo 1 > /proc/sys/kernel/printk")
    shell("(while :; do dd if=/dev/xvda of=/dev/null bs=64k iflag=direct; "
          "dd if=/dev/zero of=/dev/xvda bs=4k count=100; done) 2> /dev/null & true")  # fmt: skip
    shell("(while :; do [ ! -b /dev/xvdb ] || dd if=/dev/xvdb of=/dev/null bs=64k iflag=direct; done) "
          "2> /dev/null & true")  # fmt: skip
    for number in range(8):
        device = domain.attach_disk(comes, "xvdb")
        shell("while [ ! -b /dev/xvdb ]; do sleep 0.05; done")
        backend = device.backend
        assert isinstance(backend, BlockBackend)
        read = backend.counts.read_bytes
        while backend.counts.read_bytes < read + MIB:
            time.sleep(0.01)
        domain.detach(device, force=number % 2 == 1)
        shell("while [ -e /sys/block/xvdb ]; do sleep 0.05; done")
        check(machine, f"after disk {number}")
    shell("kill %1 %2; killall dd; while pidof dd; do sleep 0.1; done")
    domain.detach(other)
    shell("while [ -e /sys/block/xvda ]; do sleep 0.1; done")
    assert settled(lambda: held(machine, domain), before) == before
    assert process.stay(threads=False) == []


class ForgetfulImage(Image):
    """A disk with a cache that loses power: of what was not flushed, a crash keeps any sectors, in any order."""

    readonly = False

    def __init__(self, path: Path, random: Random) -> None:
        self.content = bytearray(path.read_bytes())
        self.durable = bytearray(self.content)
        self.size = len(self.content)
        self._pending: set[int] = set()
        self._random = random
        self._lock = threading.Lock()

    def read(self, offset: int, buffers: Buffers) -> None:
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)

    def write(self, offset: int, buffers: Buffers) -> None:
        with self._lock:
            for buffer in buffers:
                self.content[offset : offset + len(buffer)] = buffer
                self._pending.update(range(offset, offset + len(buffer), 512))
                offset += len(buffer)

    def flush(self) -> None:
        with self._lock:
            for offset in self._pending:
                self.durable[offset : offset + 512] = self.content[offset : offset + 512]
            self._pending.clear()

    def close(self) -> None:
        pass

    def crashed(self, look: Callable[[], int]) -> tuple[int, bytes]:
        """What ``look`` sees, and what is found after a crash, at this moment: the guest's disk stands still."""
        with self._lock:
            seen = look()
            left = bytearray(self.durable)
            lost = sorted(self._pending)
            for offset in self._random.sample(lost, self._random.randint(0, len(lost))):
                left[offset : offset + 512] = self.content[offset : offset + 512]
        return seen, bytes(left)


def test_no_completed_flush_is_lost_by_a_crash_at_any_time(
    machine: Machine, kernel: Path, disk_ramdisk: bytes, mke2fs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each crash the file system is consistent, and has every file that had been synchronised."""
    random = Random(6)
    path = sparse(tmp_path / "disk", 32)
    subprocess.run([mke2fs, "-q", "-t", "ext4", path], check=True)
    image = ForgetfulImage(path, random)
    monkeypatch.setattr(kind, "open_image", lambda *_: image)
    domain = machine.create(kernel, disk_ramdisk, "console=hvc0", memory=256, devices=[disk_spec(path)])
    shell = Shell(domain)
    shell("mkdir /mnt; mount /dev/xvda /mnt")
    domain.console.send(
        "i=0; while :; do i=$((i+1)); seq $i $((i*7%3000+i)) > /mnt/f$((i%40)).new; "
        "mv /mnt/f$((i%40)).new /mnt/f$((i%40)); rm -f /mnt/f$(((i+20)%40)); sync; echo synced=$i; done\n"
    )

    def synchronised() -> int:
        return int(re.findall(rb"synced=(\d+)\r\n", domain.console.output)[-1])

    crashes = []
    for number in range(12):
        domain.console.expect(f"synced={number * 3 + random.randint(1, 3)}\r\n", PATIENCE)
        time.sleep(random.random() / 20)
        crashes.append(image.crashed(synchronised))
    domain.destroy()
    for synced, content in crashes:
        path.write_bytes(content)
        fsck(path)
        # The next rounds may have begun, or ended and not been told: each replaces one file and removes another.
        for i in range(max(1, synced - 12), synced + 1):
            expected = "".join(f"{line}\n" for line in range(i, i * 7 % 3000 + i + 1))
            found = subprocess.run(["/usr/sbin/debugfs", "-R", f"cat /f{i % 40}", path], capture_output=True, text=True)
            assert found.stdout == expected, (synced, i)


def test_grub_boots_what_is_on_the_disk(machine: Machine, guest: Obtain, mke2fs: str, tmp_path: Path) -> None:
    """GRUB's Xen image reads its menu and a kernel from the guest's disk; that kernel's own driver follows GRUB's."""
    boot = tmp_path / "root" / "boot"
    (boot / "grub").mkdir(parents=True)
    kernels.build("blk", boot)
    menu = 'set timeout=0\nmenuentry "test" {\n  linux /boot/blk good\n}\n'
    (boot / "grub" / "grub.cfg").write_text(menu)
    path = tmp_path / "disk"
    subprocess.run([mke2fs, "-q", "-t", "ext4", "-d", boot.parent, path, "8M"], check=True)
    domain = machine.create(guest("grub"), memory=64, devices=[disk_spec(path)])
    assert domain.wait(PATIENCE) is ShutdownReason.POWEROFF
    assert "TEST blk: PASS" in domain.console.output.decode(errors="replace")
