"""Peers: their command lines, why one is skipped, and that no emulator outlives its measurement.

A shell script stands for QEMU, except in the last test.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paravirt.bench import peers, rows
from paravirt.bench.guestprogram import DONE_LINE, INIT_LINE, KERNEL_OPTIONS
from paravirt.bench.peers import Parts, packages, process
from paravirt.bench.peers.packages import Qemu, Xen
from paravirt.errors import UserError

BACKPORTS = "1:10.0.2+ds-2+deb13u1~bpo12+1"
BOOKWORM = "1:7.2+dfsg-7+deb12u16"


def script(folder: Path, text: str) -> list[str]:
    """The command of a shell script that notes its process id in the file `pid`."""
    path = folder / "script"
    path.write_text(f"#!/bin/sh\necho $$ > '{folder}/pid'\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return [str(path)]


def fill(cache: Path, name: str, version: str) -> Path:
    folder = cache / "peers" / name
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"version": version}))
    return folder


def fake_qemu(cache: Path, text: str, version: str = BACKPORTS) -> None:
    root = fill(cache, "qemu-backports", version) / "root"
    program = root / "usr/bin/qemu-system-x86_64"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def fake_kernel(cache: Path) -> None:
    folder = cache / "guests" / peers.GUEST
    folder.mkdir(parents=True)
    (folder / peers.GUEST).write_bytes(b"\x7fELF of no use")
    (folder / "guest.json").write_text('{"package": "linux-image-x", "version": "6.1"}')


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARAVIRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until_dead(pid: int) -> None:
    while alive(pid):
        time.sleep(0.01)


# --- command lines -----------------------------------------------------------------------------------------------


def after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def parts(folder: Path) -> Parts:
    qemu = Qemu(folder / "root", BACKPORTS)
    return Parts(qemu, folder / "vmlinux", folder / "bzimage", Xen(folder / "xen", "4.17.7+13-g2445b30a44-0+deb12u1"))


def test_xen_gets_the_kernel_and_the_ramdisk_as_modules(tmp_path: Path) -> None:
    command = peers.xen_command(parts(tmp_path), tmp_path / "a,b", tmp_path / "disk,c")
    assert command[0] == str(tmp_path / "root/usr/bin/qemu-system-x86_64")
    assert after(command, "-kernel") == str(tmp_path / "xen")
    assert after(command, "-initrd") == f"{tmp_path}/a,,b console=hvc0 {KERNEL_OPTIONS},{tmp_path}/disk,,c"
    assert "dom0_mem=512M,max:512M" in after(command, "-append").split()
    assert after(command, "-m") == "768M"
    assert after(command, "-accel") == "tcg"
    assert after(command, "-smp") == "1"


def test_qemu_gets_the_unpacked_kernel(tmp_path: Path) -> None:
    command = peers.qemu_command(parts(tmp_path), "microvm", tmp_path / "disk")
    assert after(command, "-M") == "microvm"
    assert after(command, "-m") == "512M"
    assert after(command, "-kernel") == str(tmp_path / "vmlinux")
    assert after(command, "-initrd") == str(tmp_path / "disk")
    assert after(command, "-append") == f"console=ttyS0 {KERNEL_OPTIONS}"


def test_qemu_finds_its_own_files_and_libraries(tmp_path: Path) -> None:
    qemu = Qemu(tmp_path, BACKPORTS)
    (tmp_path / "usr/share/seabios").mkdir(parents=True)
    assert qemu.command()[1:] == ["-L", str(tmp_path / "usr/share/seabios")]
    assert str(tmp_path / "usr/lib/x86_64-linux-gnu") in qemu.environment()["LD_LIBRARY_PATH"].split(":")


@pytest.mark.parametrize(
    ("version", "release"),
    [(BACKPORTS, "10.0.2"), (BOOKWORM, "7.2"), ("4.17.7+13-g2445b30a44-0+deb12u1", "4.17.7"), ("8.2~rc1-1", "8.2")],
)
def test_versions(version: str, release: str) -> None:
    assert Qemu(Path(), version).release == release
    assert Xen(Path(), version).release == release


# --- what is available -------------------------------------------------------------------------------------------


def test_every_kind_is_there_when_its_parts_are(cache: Path) -> None:
    fake_qemu(cache, "exit 0")
    fake_kernel(cache)
    fill(cache, "xen-4.17", "4.17.7+13-g2445b30a44-0+deb12u1")
    found = peers.available(install=False)
    assert [peer.name.split()[0] for peer in found] == list(peers.KINDS)
    assert {peer.skipped_reason for peer in found} == {""}
    assert found[0].name == "xen-dom0 (Xen 4.17.7, QEMU 10.0.2 TCG)"
    assert found[2].version == "QEMU 10.0.2 TCG"
    assert [peer.judged for peer in found] == [True, False, False, False]
    assert [peer.boots_only for peer in found] == [False, True, True, False]
    for peer in found:
        assert str(cache / "disk") in ",".join(peer.command(cache / "disk")).split(",")
    kernels = {peer.name.split()[0]: " ".join(peer.command(cache)) for peer in found}
    assert "-M q35 " in kernels["q35"]
    assert "-M microvm" in kernels["microvm"]


def test_figures_with_an_older_qemu_are_not_judged(cache: Path) -> None:
    fake_qemu(cache, "exit 0", BOOKWORM)
    fake_kernel(cache)
    fill(cache, "xen-4.17", "4.17.7-1")
    found = peers.available(install=False)
    assert found[0].name == "xen-dom0 (Xen 4.17.7, QEMU 7.2 TCG)"
    assert found[0].skipped_reason == ""
    assert not any(peer.judged for peer in found)


def test_only_one_kind_is_judged() -> None:
    assert [kind for kind in peers.KINDS if rows.XEN[0] in kind] == ["xen-dom0"]


def test_without_qemu_nothing_is_there(cache: Path) -> None:
    found = peers.available(install=False)
    assert [peer.name for peer in found] == list(peers.KINDS)
    assert {peer.skipped_reason for peer in found} == {"QEMU is not in the cache, and nothing was to be fetched."}
    with pytest.raises(UserError, match="not in the cache"):
        found[0].boot(cache / "disk")


def test_without_xen_qemu_still_is(cache: Path) -> None:
    fake_qemu(cache, "exit 0")
    fake_kernel(cache)
    reasons = {peer.name.split()[0]: peer.skipped_reason for peer in peers.available(install=False)}
    assert reasons.pop("microvm") == reasons.pop("q35") == ""
    assert set(reasons.values()) == {"Xen is not in the cache, and nothing was to be fetched."}


def test_a_qemu_that_does_not_start_says_why(cache: Path) -> None:
    fake_qemu(cache, "echo 'libfancy.so.1: no such file' >&2; exit 127")
    assert peers.available(install=False)[0].skipped_reason == (
        "QEMU 10.0.2 does not start here: libfancy.so.1: no such file."
    )


def test_what_cannot_be_fetched_says_why(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No apt on this machine, and so neither QEMU: one sentence, and nothing left behind."""
    monkeypatch.setenv("PATH", "")
    said: list[str] = []
    reasons = {peer.skipped_reason for peer in peers.available(report=said.append)}
    assert len(reasons) == 1
    assert "this machine has no apt-get" in reasons.pop()
    assert any("no QEMU from backports" in text for text in said)
    assert not list((cache / "peers").iterdir())


def test_a_simulated_installation_names_packages_and_versions() -> None:
    text = (
        "Reading package lists...\n"
        "Inst libfdt1 (1.6.1-4 Debian:12.5/stable [amd64])\n"
        f"Inst qemu-system-x86 [{BOOKWORM}] ({BACKPORTS} Debian Backports:stable-backports [amd64])\n"
        "Conf libfdt1 (1.6.1-4 Debian:12.5/stable [amd64])\n"
    )
    assert packages._INSTALLS.findall(text) == [("libfdt1", "1.6.1-4"), ("qemu-system-x86", BACKPORTS)]


def test_a_kernel_that_is_no_bzimage_stands_for_itself(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"\x7fELF")
    assert peers.vmlinux(tmp_path / "kernel") == tmp_path / "kernel"
    with pytest.raises(UserError, match="cannot be read"):
        peers.vmlinux(tmp_path / "absent")


# --- processes ---------------------------------------------------------------------------------------------------


def test_boot_ends_at_the_awaited_line(tmp_path: Path) -> None:
    command = script(tmp_path, f"printf 'noise {INIT_LINE[:5]}'; sleep 0.1; echo '{INIT_LINE[5:]}'; exec sleep 1000")
    begin = time.monotonic()
    seconds = peers.Peer("fake", command=lambda ramdisk: command).boot(tmp_path)
    assert 0 < seconds <= time.monotonic() - begin
    assert not alive(int((tmp_path / "pid").read_text()))


def test_micro_reads_the_rows(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "printf '(XEN) noise\\r\\nPVBENCH ROW null_call 22.1 us\\r\\nPVBENCH SKIP stat no reason\\r\\n'\n"
        f"printf 'PVBENCH ROW memcpy_4m 2068 MB/s\\r\\n{DONE_LINE}\\r\\n'; exec sleep 1000",
    )
    peer = peers.Peer("fake", command=lambda ramdisk: [*command, str(ramdisk)])
    assert peer.micro(tmp_path) == {"null_call": 22.1, "memcpy_4m": 2068.0}
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_peer_that_only_boots_has_no_rows(tmp_path: Path) -> None:
    command = script(tmp_path, "exit 1")
    assert peers.Peer("fake", command=lambda ramdisk: command, boots_only=True).micro(tmp_path) == {}
    assert not (tmp_path / "pid").exists()


def test_a_hung_process_is_killed_with_its_children(tmp_path: Path) -> None:
    command = script(tmp_path, f"sh -c 'trap \"\" TERM INT; echo $$ > {tmp_path}/child; echo here; sleep 1000' & wait")
    patience = 1
    while True:  # a busy host may not have begun when the time is over
        with pytest.raises(UserError, match=rf"^fake was stopped after {patience} s without .* 'there'") as end:
            process.listen("fake", command, {}, "there", patience)
        if "here" in str(end.value).partition("last words")[2]:
            break
        patience *= 4
    assert not alive(int((tmp_path / "pid").read_text()))
    wait_until_dead(int((tmp_path / "child").read_text()))


def test_a_process_that_ends_too_early_is_quoted(tmp_path: Path) -> None:
    command = script(tmp_path, 'echo "console text"; echo "complaint of $WHO" >&2; exit 3')
    with pytest.raises(UserError, match=r"^fake ended .*complaint of QEMU\\nconsole text"):
        process.listen("fake", command, {"WHO": "QEMU"}, "there", 60)


def test_an_interrupt_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does, in the middle of a boot: while its output is waited for."""
    command = script(tmp_path, "echo begun; exec sleep 1000")

    def interrupted(*what: Any) -> Any:
        assert select.select(*what)[0], "it has begun"
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(process, "select", SimpleNamespace(select=interrupted))
    with pytest.raises(KeyboardInterrupt):
        process.listen("fake", command, {}, "there", 60)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^fake cannot be started \(No such file or directory\)"):
        process.listen("fake", [str(tmp_path / "absent")], {}, "there", 60)


# --- the real thing ----------------------------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.skipif(os.environ.get("PARAVIRT_TEST_PEERS") != "1", reason="set PARAVIRT_TEST_PEERS=1 for real peers")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", peers.KINDS)
def test_a_real_peer_boots(kind: str) -> None:
    from paravirt.bench.guestprogram import ramdisk

    peer = next(peer for peer in peers.available() if peer.name.split()[0] == kind)
    assert peer.skipped_reason == ""
    assert peer.boot(ramdisk("boot")) > 0
