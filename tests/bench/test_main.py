"""The command: its options, and its cheapest rows, which need neither a network nor other programs than gcc."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from paravirt import Machine
from paravirt.bench import disks, guestprogram, hostkernel, isolation, main, trapcosts
from paravirt.bench import rows as known
from paravirt.bench.main import run
from paravirt.bench.peers import Peer
from paravirt.errors import HypervisorBug, UserError
from paravirt.machine.choice import choose

from ..leftovers import Leftovers

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")


def figures(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text())
    return read


@needs_compiler
def test_quick_traps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    before = Leftovers()
    assert run(["--quick", "--rows", "trap_*", "--json", str(file)]) == 0
    assert before.stay() == []
    read = figures(file)
    assert read["skipped"] == {"peers": "not asked for with --peers"}
    assert [row["name"] for row in read["rows"]] == [r.name for r in known.rows() if r.section == "traps"]
    assert all(value > 0 for row in read["rows"] for value in row["samples"]["paravirt"]["values"])
    assert "trap_int3_handler" in capsys.readouterr().out


@needs_compiler
def test_both_engines_take_turns(tmp_path: Path) -> None:
    try:
        choose("kvm", 1)
    except UserError as error:
        pytest.skip(str(error))
    file = tmp_path / "figures.json"
    assert run(["--quick", "--engine", "both", "--rows", "trap_[!c]*", "--json", str(file)]) == 0
    rows = {row["name"]: row["samples"] for row in figures(file)["rows"]}
    assert all(set(samples) == {"paravirt", "paravirt (KVM)"} for samples in rows.values())
    assert all(samples["paravirt (KVM)"]["values"][0] > 0 for samples in rows.values())


@needs_compiler
def test_what_the_hosts_kernel_keeps(tmp_path: Path) -> None:
    try:
        choose("kvm", 1)
    except UserError as error:
        pytest.skip(str(error))
    file = tmp_path / "figures.json"
    assert run(["--quick", "--engine", "kvm", "--rows", "host_kernel_1", "--json", str(file)]) == 0
    read = figures(file)
    assert [list(row["samples"]) for row in read["rows"]] == [["paravirt (KVM)"]] or "host_kernel" in read["skipped"]


@needs_compiler
def test_an_engine_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beside another one it is skipped, with the reason; alone it is an error."""

    def only_unicorn(name: str, pcpus: int) -> None:
        if name == "kvm":
            raise UserError("There is no /dev/kvm today.")

    monkeypatch.setattr(main, "choose", only_unicorn)
    file = tmp_path / "figures.json"
    assert run(["--quick", "--engine", "both", "--rows", "trap_null", "--json", str(file)]) == 0
    read = figures(file)
    assert set(read["rows"][0]["samples"]) == {"paravirt"}
    assert read["skipped"]["paravirt (KVM)"] == "There is no /dev/kvm today."
    with pytest.raises(UserError, match="no /dev/kvm today"):
        run(["--quick", "--engine", "kvm", "--rows", "trap_null"])


def test_rows_that_an_engine_cannot_have_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "choose", lambda name, pcpus: None)
    skipped = {engine: main.Suite(1, True, "*", (), print, engine).results.skipped for engine in main.ENGINES}
    memory = {f"host_kernel_{count} (paravirt)" for count in hostkernel.MACHINES}
    assert set(skipped["unicorn"]) >= {"boot_own (paravirt)", *memory}
    assert set(skipped["kvm"]) >= {"xs_read_pipelined (paravirt (KVM))", "xs_read_single (paravirt (KVM))"}
    assert not any(name.startswith("host_kernel") for name in skipped["kvm"])
    assert skipped["both"] == skipped["unicorn"] | skipped["kvm"]
    suite = main.Suite(1, True, "boot_own,trap_nul*", (), print, "both")
    assert [row.name for row in suite.results.rows] == ["boot_own", "trap_null", "trap_null_handler"]
    suite._add("boot_own", "paravirt", 1.0)
    assert not suite.results.rows[0].samples


@needs_compiler
@pytest.mark.parametrize("rows", ["hosting_share_bvt", "hosting_[sy][wi]*", "hosting_wake_credit*", "crowd_small_1*"])
def test_quick_hosting(rows: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert run(["--quick", "--rows", rows, "--json", str(file)]) == 0
    read = figures(file)
    assert read["skipped"] == {"peers": "not asked for with --peers"} and read["rows"]
    assert all(value >= 0 for row in read["rows"] for value in row["samples"]["paravirt"]["values"])


def test_quick_store(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert run(["--quick", "--rows", "xs_*", "--json", str(file)]) == 0
    read = figures(file)
    assert read["skipped"] == {"peers": "not asked for with --peers"}
    assert [row["name"] for row in read["rows"]] == [row.name for row in known.rows() if row.section == "store"]
    assert all(value > 0 for row in read["rows"] for value in row["samples"]["paravirt"]["values"])


def test_quick_hello(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert run(["--quick", "--runs", "2", "--rows", "hello_*", "--json", str(file)]) == 0
    rows = figures(file)["rows"]
    assert [row["name"] for row in rows] == ["hello_process", "hello_domain"]
    assert [len(row["samples"]["paravirt"]["values"]) for row in rows] == [2, 2]


@pytest.mark.network
@needs_compiler
def test_a_linux_guest_gives_every_row(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert run(["--quick", "--rows", "[!bchitnx]*", "--json", str(file)]) == 0
    rows = {row["name"]: row for row in figures(file)["rows"]}
    assert {"fork_sh", "disk_random_read_4k", "disk_domain0"} <= set(rows)
    for name, row in rows.items():
        assert set(row["samples"]) == ({"paravirt"} if name.startswith("disk_") else {"paravirt", "native"})


@pytest.mark.network
@needs_compiler
def test_two_linux_guests_give_every_row_of_the_network(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert run(["--quick", "--rows", "net_*", "--json", str(file)]) == 0
    found = [row["name"] for row in figures(file)["rows"]]
    assert found == [row.name for row in known.rows() if row.section == "network"]


@needs_compiler
def test_the_program_and_the_table_know_the_same_rows() -> None:
    assert sorted(guestprogram.row_names()) == sorted(r.name for r in known.rows() if r.section == "guest")


def test_peers_take_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each peer has its column; one that cannot be had, or that fails, is named with its reason."""

    class Fast(Peer):
        def micro(self, ramdisk: Path) -> dict[str, float]:
            return {"null_call": 22.0, "a row of its own": 1.0}

    class Broken(Fast):
        def micro(self, ramdisk: Path) -> dict[str, float]:
            raise UserError("It broke.")

    fast = Fast("xen-dom0 (Xen 4.17.7, QEMU 10.0.2 TCG)")
    peers = [fast, Broken("broken"), Peer("absent", skipped_reason="There is none here.")]
    monkeypatch.setattr(main, "available", lambda report: peers)
    monkeypatch.setattr(guestprogram, "ramdisk", lambda mode: tmp_path)
    monkeypatch.setattr(guestprogram, "run_natively", lambda names, ms: guestprogram.Report({"null_call": 0.5}))
    monkeypatch.setattr("paravirt.guestkernels.obtain", _no_guest)
    file = tmp_path / "figures.json"
    assert run(["--peers", "--runs", "3", "--rows", "null_call", "--json", str(file)]) == 0
    read = figures(file)
    assert read["rows"][0]["samples"][fast.name]["values"] == [22.0] * 3
    assert read["rows"][0]["samples"]["native"]["values"] == [0.5] * 3
    assert read["rows"][0]["verdict"] == "not judged"
    assert read["skipped"] == {
        "guest": "No guests today.",
        "guest: broken": "It broke.",
        "absent": "There is none here.",
    }


def test_what_is_lost_to_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Time for each call, and bytes in each second, against the median of the controls."""
    found = {
        "null_call": isolation._loss([0.9, 1.1, 1], [1.5], more_is_better=False),
        "disk_read_64k": isolation._loss([500, 500], [400, 300, 500], more_is_better=True),
    }
    monkeypatch.setattr(isolation, "measure", lambda row_ms, engine: found)
    file = tmp_path / "figures.json"
    assert run(["--runs", "1", "--rows", "isolation_*", "--json", str(file)]) == 0
    values = {row["name"]: row["samples"]["paravirt"]["values"] for row in figures(file)["rows"]}
    assert values == {
        "isolation_null_call": [pytest.approx(50)],
        "isolation_null_call_spread": [pytest.approx(20)],
        "isolation_disk_read_64k": [pytest.approx(25)],
        "isolation_disk_read_64k_spread": [0],
    }


def test_a_peer_with_disks_takes_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Quick(Peer):
        def disk(self, ramdisk: Path, disk: Path) -> dict[str, float]:
            assert disk.stat().st_size == disks.DISK_MIB << 20
            return {"disk_read_64k": 600.0}

    found = disks.DiskReport(guestprogram.Report({"disk_read_64k": 700.0, "null_call": 1.0}), 2000.0)
    monkeypatch.setattr(main, "available", lambda report: [Quick("q35 (QEMU)", has_devices=True), Peer("microvm")])
    monkeypatch.setattr(guestprogram, "ramdisk", lambda mode: tmp_path)
    monkeypatch.setattr("paravirt.guestkernels.obtain", lambda *arguments: SimpleNamespace(path=tmp_path))
    monkeypatch.setattr(disks, "measure", lambda kernel, ramdisk, engine: found)
    file = tmp_path / "figures.json"
    assert run(["--peers", "--runs", "1", "--rows", "disk_*", "--json", str(file)]) == 0
    rows = {row["name"]: row for row in figures(file)["rows"]}
    assert set(rows) == {"disk_read_64k", "disk_domain0"}
    assert set(rows["disk_read_64k"]["samples"]) == {"paravirt", "q35 (QEMU)"}
    assert rows["disk_read_64k"]["verdict"] == "met"


def _no_guest(*arguments: object) -> None:
    raise UserError("No guests today.")


def test_a_trap_that_does_not_end_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that prints nothing we know is a defect, not a figure."""
    from paravirt.guestkernels import obtain

    monkeypatch.setattr(trapcosts, "kernel", lambda name: obtain("tiny").path)
    with Machine(memory=64) as machine:
        with pytest.raises(HypervisorBug, match="'int3'"):
            trapcosts.measure(machine, "int3", 10)
        assert machine.domains == {}


@needs_compiler
def test_the_trap_kernel_refuses_rows_that_it_does_not_know() -> None:
    with Machine(memory=64) as machine, pytest.raises(HypervisorBug, match="names no row"):
        trapcosts.measure(machine, "warp", 10)


@pytest.mark.parametrize("arguments", [["--runs", "0"], ["--runs", "many"], ["--nonsense"], ["row"]])
def test_bad_usage(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        run(arguments)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No row is called 'warp'; there are boot"):
        run(["--rows", "warp"])
    with pytest.raises(UserError, match="cannot be written"):
        run(["--rows", "hello_*", "--json", str(tmp_path / "missing" / "file")])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "--peers" in capsys.readouterr().out
