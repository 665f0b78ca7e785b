"""The initial ramdisk, read back by a slow and simple reader of the newc format."""

from __future__ import annotations

import gzip
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt import initramfs
from paravirt.errors import UserError
from paravirt.guestkernels.cache import Cache


class Entry(NamedTuple):
    mode: int
    data: bytes
    fields: list[int]


def read_cpio(archive: bytes) -> dict[str, Entry]:
    """name → entry, in order, without the trailer."""
    entries: dict[str, Entry] = {}
    at = 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        assert archive[at + 109 + fields[11]] == 0
        start = (at + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            assert set(archive[start:]) <= {0}
            return entries
        assert name not in entries
        entries[name] = Entry(fields[1], archive[start : start + fields[6]], fields)
        at = (start + fields[6] + 3) & ~3


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    path = tmp_path / "busybox"
    path.write_bytes(b"not really busybox")
    return path


def test_what_is_in_it(busybox: Path) -> None:
    entries = read_cpio(initramfs.build(busybox))
    assert entries["init"].mode == stat.S_IFREG | 0o755
    assert initramfs.MARKER.encode() in entries["init"].data
    assert entries["bin/busybox"][:2] == (stat.S_IFREG | 0o755, b"not really busybox")
    assert entries["tmp"].mode == stat.S_IFDIR | 0o1777
    console = entries["dev/console"]
    assert stat.S_ISCHR(console.mode)
    assert console.fields[9:11] == [5, 1]


def test_folders_come_before_what_is_in_them(busybox: Path) -> None:
    entries = read_cpio(initramfs.build(busybox, {"opt/bench/deep/tool": b"x"}))
    seen: set[str] = set()
    for name, entry in entries.items():
        parent = name.rpartition("/")[0]
        assert not parent or parent in seen
        if stat.S_ISDIR(entry.mode):
            seen.add(name)
    assert "opt/bench/deep" in seen


def test_nothing_of_this_machine_gets_in(busybox: Path) -> None:
    entries = read_cpio(initramfs.build(busybox))
    for entry in entries.values():
        _ino, _mode, uid, gid, _nlink, mtime, _size, major, minor = entry.fields[:9]
        assert (uid, gid, mtime, major, minor) == (0, 0, 0, 0, 0)
    inodes = [entry.fields[0] for entry in entries.values()]
    assert len(set(inodes)) == len(inodes)


def test_the_same_input_gives_the_same_bytes(busybox: Path) -> None:
    assert initramfs.build(busybox) == initramfs.build(busybox)
    assert initramfs.build(busybox, compress=True) == initramfs.build(busybox, compress=True)
    assert gzip.decompress(initramfs.build(busybox, compress=True)) == initramfs.build(busybox)


def test_extra_files_keep_their_permission(busybox: Path, tmp_path: Path) -> None:
    tool, data = tmp_path / "tool", tmp_path / "data"
    tool.write_bytes(b"tool")
    tool.chmod(0o700)
    data.write_bytes(b"data")
    data.chmod(0o600)
    entries = read_cpio(initramfs.build(busybox, {"bin/tool": tool, "data": data, "bin/own": b"own"}))
    assert entries["bin/tool"][:2] == (stat.S_IFREG | 0o755, b"tool")
    assert entries["data"][:2] == (stat.S_IFREG | 0o644, b"data")
    assert entries["bin/own"][:2] == (stat.S_IFREG | 0o755, b"own")


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "", "."])
def test_paths_stay_below_the_root(busybox: Path, name: str) -> None:
    with pytest.raises(UserError, match="below the guest's root"):
        initramfs.build(busybox, {name: b"x"})


def test_a_missing_file_is_the_users_matter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        initramfs.build(tmp_path / "missing")


NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=90)


@given(st.binary(max_size=300), NAMES)
def test_any_length_is_padded_right(data: bytes, name: str) -> None:
    archive = initramfs.Cpio()
    archive.file(name, data)
    archive.file("last", b"end")
    whole = archive.finish()
    assert len(whole) % 512 == 0
    entries = read_cpio(whole)
    assert entries["last"].data == b"end"
    if name != "last":
        assert entries[name].data == data


def test_the_scripts_are_shell(busybox: Path, tmp_path: Path) -> None:
    for name, entry in read_cpio(initramfs.build(busybox)).items():
        if name == "init" or name.startswith("etc/s"):
            script = tmp_path / "script"
            script.write_bytes(entry.data)
            subprocess.run(["sh", "-n", str(script)], check=True)


def test_the_cached_one_is_built_once(busybox: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    path = initramfs.cached(busybox, cache)
    assert path.read_bytes() == initramfs.build(busybox)
    stamp = path.stat().st_mtime_ns
    assert initramfs.cached(busybox, cache) == path
    assert path.stat().st_mtime_ns == stamp
    busybox.write_bytes(b"another")
    assert initramfs.cached(busybox, cache) != path
