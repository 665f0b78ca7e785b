"""Modules of kernels: which need which."""

from __future__ import annotations

from paravirt.guestkernels.modules import closure, ramdisk_files
from paravirt.initramfs import INIT


def module(depends: str) -> bytes:
    """What matters of a module's file."""
    return b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0name=x\0"


MODULES = {
    "ext4": module("mbcache,jbd2,crc16"),
    "mbcache": module(""),
    "jbd2": module("crc32c_generic"),
    "crc32c_generic": module(""),
    "crc16": module(""),
    "xen_blkfront": module(""),
    "virtio_net": module("built_in_long_ago"),
}


def test_each_comes_after_what_it_needs() -> None:
    assert closure(MODULES, ["xen-blkfront", "ext4"]) == [
        "xen_blkfront", "mbcache", "crc32c_generic", "jbd2", "crc16", "ext4",
    ]  # fmt: skip


def test_what_is_built_in_is_left_out() -> None:
    assert closure(MODULES, ["virtio_net", "nosuch", "crc16", "crc16"]) == ["virtio_net", "crc16"]


def test_the_ramdisk_loads_them_in_this_order() -> None:
    files = ramdisk_files({"b": b"2", "a": b"1"})
    assert files["etc/modules"] == b"/lib/modules/b.ko\n/lib/modules/a.ko\n"
    assert files["lib/modules/a.ko"] == b"1"
    assert 'insmod "$module"' in INIT
