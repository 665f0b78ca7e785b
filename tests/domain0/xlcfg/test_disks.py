"""Disks as xl.cfg describes them, after docs/man/xl-disk-configuration.5.pod.in and what libxlu_disk_l.l accepts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.xlcfg.disks import disk_to_libxl, parse_disk
from paravirt.domain0.xlcfg.vdev import vdev_name, vdev_number
from paravirt.errors import UserError

DISK = {"target": "/dev/vg/guest", "format": "raw", "vdev": "hda", "access": "w"}


@pytest.mark.parametrize(
    "text",
    [
        "/dev/vg/guest,raw,hda,rw",
        "/dev/vg/guest,,hda",
        "format=raw, vdev=hda, access=rw, target=/dev/vg/guest",
        "raw:/dev/vg/guest,hda,w",
        "phy:/dev/vg/guest,hda,w",
        "file:/dev/vg/guest,hda",
        "tap:aio:/dev/vg/guest,hda,w",
        "\t/dev/vg/guest,raw,hda,\n",
        "vdev=hda,/dev/vg/guest",
        "/dev/vg/guest,vdev=hda,format=raw,backendtype=phy,specification=xen,script=,specification=,direct-io-safe,no-colo",
        "devtype=disk,vdev=hda,target=/dev/vg/guest",
    ],
)
def test_one_disk_in_many_words(text: str) -> None:
    settings = parse_disk(text).settings
    assert {name: settings[name] for name in DISK} == DISK
    assert not settings.get("cdrom")


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("/d,qcow2,xvda,r", {"format": "qcow2", "access": "r"}),
        ("qcow2:/d,xvda", {"format": "qcow2"}),
        ("/d,raw,xvda,w,cdrom", {"cdrom": True, "access": "r"}),
        ("/d,raw,xvda,devtype=cdrom", {"cdrom": True, "access": "r"}),
        ("/d,raw,xvda:cdrom,r", {"cdrom": True, "access": "r", "vdev": "xvda"}),
        (",xvda:cdrom", {"cdrom": True, "format": "empty", "target": "", "vdev": "xvda"}),
        ("format=empty,vdev=xvda,cdrom", {"cdrom": True, "format": "empty", "target": ""}),
        ("/d,raw,xvda,discard", {"discard": True}),
        ("/d,raw,xvda,no-discard", {"discard": False}),
        ("/d,raw,xvda,untrusted", {"trusted": False}),
        ("/d,raw,xvda,rate=10MB/s,sector-size=4096", {"rate": 10 << 20, "sector-size": 4096}),
        ("vdev=xvda,format=raw,target=/a,b=c,d", {"target": "/a,b=c,d"}),
        ("/d,zstd,xvda,r", {"format": "zstd"}),
        ("/d,raw,xvda,r,access=ro,backendtype=qdisk,rate=", {"access": "r", "rate": None}),
    ],
)
def test_what_else_can_be_said(text: str, more: dict[str, object]) -> None:
    settings = parse_disk(text).settings
    assert {name: settings.get(name) for name in more} == more


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "vdev"),
        ("/d", "vdev"),
        ("/d,raw", "vdev"),
        (",raw,xvda", "target"),
        ("/d,floppy,xvda", "format"),
        ("/d,raw,xvda,x", "access"),
        ("/d,raw,xvda,w,more", "too many"),
        ("/d,raw,nosuch", "nosuch"),
        ("/d,raw,xvda:tape", "tape"),
        ("/d,raw,xvda,format=qcow2", "twice"),
        ("vdev=xvda,vdev=xvdb,target=/d", "twice"),
        ("/d,raw,xvda,nosuch=1", "nosuch"),
        ("/d,raw,xvda,script=block-drbd", "script"),
        ("iscsi:/d,xvda", "script"),
        ("/d,raw,xvda,backend=driver", "Domain-0"),
        ("/d,raw,xvda,backendtype=standalone", "standalone"),
        ("/d,raw,xvda,specification=virtio", "virtio"),
        ("/d,raw,xvda,colo", "colo"),
        ("/d,raw,xvda,sector-size=1024", "1024"),
        ("/d,raw,xvda,rate=fast", "fast"),
        ("/d,empty,xvda", "empty"),
        ("/d,raw,xvda,devtype=tape", "tape"),
        ("/d,qcow2,xvda,backendtype=phy", "raw disks"),
        ("/d,raw,xvda,backendtype=tap", "one backend"),
        ("/d,raw,xvda,grant_usage=1", "virtio"),
        ("/d,raw,xvda,colo-port=7", "colo"),
        ("/d,raw,xvda,hidden-disk=/e", "colo"),
        ("/d,raw,xvda,r,access=w", "two things"),
        ("/d,raw,xvda,rate=1MB/s,rate=2MB/s", "two things"),
        ("/d,raw,xvda,discard,no-discard", "two things"),
        ("/d,raw,xvda,cdrom,devtype=disk", "two things"),
        ("/d,raw,xvda,untrusted,trusted", "two things"),
    ],
)
def test_refused_in_a_sentence(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        parse_disk(text)


def test_targets_are_of_the_present_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_disk("disk.img,raw,xvda").settings["target"] == str(tmp_path / "disk.img")


def test_in_libxls_words() -> None:
    assert disk_to_libxl(parse_disk("/d,qcow2,xvda,w,discard")) == {
        "pdev_path": "/d", "vdev": "xvda", "format": "qcow2", "readwrite": 1, "discard_enable": "True",
    }  # fmt: skip
    assert disk_to_libxl(parse_disk(",xvdb:cdrom")) == {
        "vdev": "xvdb", "format": "empty", "removable": 1, "is_cdrom": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("xvda", 51712), ("xvda1", 51713), ("xvdb", 51728), ("xvdp15", 51967), ("xvdq", 268439552),
        ("xvda16", 268435472), ("xvdaa", 268442112), ("d0", 51712), ("d0p1", 51713), ("d1p2", 51730),
        ("hda", 768), ("hdb", 832), ("hdc", 5632), ("hdd3", 5699), ("sda", 2048), ("sdb1", 2065), ("51712", 51712),
        ("0xca00", 51712),
    ],
)  # fmt: skip
def test_numbers_of_disks(name: str, number: int) -> None:
    """Those of xen-vbd-interface(7)."""
    assert vdev_number(name) == number


@pytest.mark.parametrize("name", ["", "xvd", "xvda256", "hde", "hda64", "sdq", "sda16", "d", "dap1", "xvdA", "-1"])
def test_names_of_no_disk(name: str) -> None:
    with pytest.raises(UserError):
        vdev_number(name)


@given(st.integers(0, 5000), st.integers(0, 255))
def test_names_and_numbers_go_both_ways(disk: int, partition: int) -> None:
    number = vdev_number(f"d{disk}p{partition}")
    assert vdev_number(vdev_name(number)) == number
