"""A disk with Debian on it, out of the distribution's packages.

mmdebstrap puts the packages together and mke2fs makes the file system; neither mounts anything. As an ordinary user
the files' owners are kept by fakeroot.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from paravirt.errors import UserError
from paravirt.guestkernels.apt import Report

SIZE_MIB: Final = 2048
SUITE: Final = "bookworm"
"""The newest release whose kernel GRUB's Xen image can unpack; later ones are packed with zstd."""

HOSTNAME: Final = "debian"
# login and passwd are no longer in every Debian.
PACKAGES: Final = ("systemd-sysv", "udev", "iproute2", "e2fsprogs", "kmod", "ca-certificates", "login", "passwd")
KERNEL_PACKAGES: Final = ("linux-image-amd64", "initramfs-tools")

# Where Debian has the programs.
_HOMES: Final = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "fakeroot": "fakeroot", "newuidmap": "uidmap"}

# The host's own server may be one that only the host reaches.
_NAMES: Final = "nameserver 10.0.2.1\nsearch guest\n"
_NETWORK: Final = "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n"
# The kernel's ramdisk has what such a guest's disk needs, and not the drivers of every computer: GRUB reads a fifth.
_RAMDISK: Final = {
    "etc/initramfs-tools/conf.d/paravirt": "MODULES=list\n",
    "usr/share/initramfs-tools/modules.d/paravirt": "xen_blkfront\next4\n",
}
# The links are kept by Debian's kernel packages: a new kernel is the one that is booted next.
_MENU: Final = """\
set timeout=1
menuentry "Debian" {
  linux /vmlinuz root=/dev/xvda ro console=hvc0
  initrd /initrd.img
}
"""


def build_debian(
    image: Path,
    size: int = SIZE_MIB,
    suite: str = SUITE,
    packages: Sequence[str] = (),
    kernel: bool = False,
    report: Report = lambda text: None,
) -> None:
    """Make a raw image with Debian in it: systemd, a login on the console as root without a password, and DHCP.

    Parameters:
        size: MiB.
        packages: more of the distribution's packages.
        kernel: install a kernel too, and a menu for GRUB's Xen image.
        report: is called with a few words before each step that takes long.

    Raises:
        UserError: a program is missing, or fails; or the image is there already.
    """
    if image.exists():
        raise UserError(f"The file {str(image)!r} is there already.")
    mmdebstrap, mke2fs = _program("mmdebstrap"), _program("mke2fs")
    as_root = []
    if os.geteuid() != 0:
        as_root = [_program("fakeroot")]
        _program("newuidmap")  # mmdebstrap makes a user namespace
    wanted = [*PACKAGES, *(KERNEL_PACKAGES if kernel else ()), *packages]
    with tempfile.TemporaryDirectory(prefix="paravirt-debian-") as scratch:
        archive, root = Path(scratch, "root.tar"), Path(scratch, "root")
        report(f"installing Debian ({suite})")
        hooks = [f"--customize-hook={hook}" for hook in _hooks(kernel)]
        hooks += [f"--essential-hook={hook}" for hook in (_writing(_RAMDISK) if kernel else ())]
        _run([mmdebstrap, "--variant=apt", f"--include={','.join(wanted)}", *hooks, suite, str(archive)])
        report("making the file system")
        root.mkdir()
        unpack = f"tar -x --numeric-owner -f {shlex.quote(str(archive))} -C {shlex.quote(str(root))}"
        # Root can read files that nobody may (/etc/gshadow-); who is root by fakeroot alone cannot.
        unpack += f" && find {shlex.quote(str(root))} -type f ! -perm -u=r -exec chmod u+r {{}} +"
        make = shlex.join([mke2fs, "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(image), f"{size}M"])
        try:
            _run([*as_root, "sh", "-c", f"{unpack} && {make}"])
        except BaseException:
            image.unlink(missing_ok=True)
            raise


def _hooks(kernel: bool) -> list[str]:
    """Shell commands of mmdebstrap's, in which "$1" is the new root."""
    files = {
        "etc/hostname": f"{HOSTNAME}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOSTNAME}\n",
        "etc/fstab": "/dev/xvda / ext4 errors=remount-ro 0 1\n",
        "etc/resolv.conf": _NAMES,
        "etc/systemd/network/80-dhcp.network": _NETWORK,
    }
    if kernel:
        files["boot/grub/grub.cfg"] = _MENU
    return [*_writing(files), 'chroot "$1" passwd -d root', 'chroot "$1" systemctl enable systemd-networkd']


def _writing(files: Mapping[str, str]) -> list[str]:
    """Shell commands that write these files, and make their folders."""
    folders = sorted({str(Path(name).parent) for name in files})
    made = [f'mkdir -p "$1/{folder}"' for folder in folders]
    return made + [f'printf %s {shlex.quote(text)} > "$1/{name}"' for name, text in files.items()]


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise UserError(f"A disk with Debian needs the program {name}, which is not here (Debian: {_HOMES[name]}).")
    return found


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it gave no reason"]
        wrong = next((line for line in lines if line.startswith("E: ")), lines[-1])
        raise UserError(f"{Path(command[0]).name} failed: {wrong.removeprefix('E: ').strip()}")
