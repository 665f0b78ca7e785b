"""A disk with Debian on it; the packages' part is played by a program of the test's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from paravirt.errors import UserError
from paravirt.guestkernels.rootfs import build_debian

# Makes a root of one file and runs the hooks in it, with a chroot that only writes down what it was asked for.
FAKE = """#!/bin/sh
root=$(mktemp -d)
mkdir -p $root/etc/systemd/network
chroot() { shift; echo "$@" >> $root/etc/asked; }
for word in "$@"; do
    case "$word" in
        --essential-hook=* | --customize-hook=*) set -- "$root"; eval "${word#*-hook=}" ;;
        --include=*) echo "${word#--include=}" > $root/etc/included ;;
    esac
    archive=$word
done
tar -C $root -cf "$archive" .
rm -r $root
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that is looked at first."""
    if not all(shutil.which(name, path="/usr/sbin:/sbin:/usr/bin") for name in ("mke2fs", "debugfs")):
        pytest.skip("this system has no mke2fs")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "mmdebstrap").write_text(FAKE)
    (folder / "newuidmap").write_text("")
    for program in folder.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def content(image: Path, name: str) -> str:
    command = [shutil.which("debugfs", path="/usr/sbin:/sbin") or "debugfs", "-R", f"cat {name}", str(image)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("programs")
def test_an_image(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    build_debian(image, 16, packages=["nano"], kernel=True)
    assert image.stat().st_size == 16 << 20
    assert content(image, "/etc/hostname") == "debian\n"
    assert content(image, "/etc/resolv.conf") == "nameserver 10.0.2.1\nsearch guest\n", "the router, not the host's"
    assert content(image, "/etc/asked") == "passwd -d root\nsystemctl enable systemd-networkd\n"
    assert "linux /vmlinuz root=/dev/xvda" in content(image, "/boot/grub/grub.cfg")
    assert content(image, "/etc/initramfs-tools/conf.d/paravirt") == "MODULES=list\n"
    assert content(image, "/usr/share/initramfs-tools/modules.d/paravirt") == "xen_blkfront\next4\n"
    assert {"systemd-sysv", "linux-image-amd64", "nano"} <= set(content(image, "/etc/included").strip().split(","))
    with pytest.raises(UserError, match="there already"):
        build_debian(image)


def test_what_goes_wrong_is_a_sentence(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "disk"
    (programs / "mmdebstrap").write_text("#!/bin/sh\necho 'I: a' >&2; echo 'E: no such suite' >&2; exit 25\n")
    with pytest.raises(UserError, match="mmdebstrap failed: no such suite"):
        build_debian(image)
    (programs / "mmdebstrap").write_text(FAKE)
    with pytest.raises(UserError, match=r"(mke2fs|sh|fakeroot) failed"):
        build_debian(tmp_path / "nosuch" / "disk", 16)
    (programs / "mmdebstrap").unlink()
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(UserError, match=r"program mmdebstrap, which is not here \(Debian: mmdebstrap\)"):
        build_debian(image)
    assert not image.exists()
