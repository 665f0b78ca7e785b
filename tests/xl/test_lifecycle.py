"""xl from one end to the other: domains come, are looked at, and end; each test has a daemon of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from paravirt.xs.client import XenStore

from ..patience import PATIENCE
from .conftest import HELLO, User

HEADER = "Name                                        ID   Mem VCPUs\tState\tTime(s)"


def test_an_empty_machine_has_domain_0(user: User) -> None:
    lines = user.xl("list").splitlines()
    assert lines[0] == HEADER
    assert len(lines) == 2
    assert re.fullmatch(r"Domain-0 {37}0 {5}0 {5}1 {5}r-----  {1,}\d+\.\d", lines[1])


def test_a_paused_domain_is_listed_as_xl_lists_it(user: User) -> None:
    user.xl("create", "-p", "-q", user.config("one", vcpus=2, maxvcpus=3))
    line = user.xl("list").splitlines()[2]
    assert line == f"{'one':<40} {1:5d} {32:5d} {1:5d}     --p---  {0:8.1f}"
    assert user.xl("list", "one").splitlines()[1] == line == user.xl("list", "1").splitlines()[1]
    assert user.xl("domid", "one") == "1\n"
    assert user.xl("domname", "1") == "one\n"
    assert user.xl("domname", "0") == "Domain-0\n"


def test_scripts_that_drive_test_kernels(user: User) -> None:
    """Create a domain paused, attach to its console, let it run, read to the end: nothing of its output is missing."""
    assert "xen-3.0-x86_64" in user.xl("info", "xen_caps").split()
    assert user.xl("info", "virt_caps").split()[0] == "pv"
    user.xl("create", "-p", user.config("hello"))
    console = user.start("console", "hello")
    user.xl("unpause", "hello")
    said, _ = console.communicate(timeout=PATIENCE)
    assert console.returncode == 0
    assert said.startswith("Hello from a paravirtual guest!") and said.rstrip().endswith("Goodbye.")
    user.wait_for(lambda: user.names() == [])
    assert user.xl("console", "hello") == said, "the backlog, after the domain's end"


def test_the_same_name_can_be_used_as_soon_as_the_console_has_ended(user: User) -> None:
    config = user.config("again")
    user.xl("list")
    for _ in range(5):
        assert "Goodbye." in user.xl("create", "-c", "-q", config)


def test_create_in_the_foreground_lasts_until_the_end(user: User) -> None:
    done = user.run("create", "-F", user.config("hello"))
    assert done.returncode == 0
    said = done.stderr.splitlines()
    assert "Domain 1 has shut down, reason code 0 0x0" in said
    assert "Action for shutdown reason code 0 is destroy" in said
    assert said[-1] == "Done. Exiting now"
    assert user.names() == []


def test_create_with_its_console(user: User) -> None:
    done = user.run("create", "-c", user.config("hello"))
    assert done.returncode == 0 and "Goodbye." in done.stdout


def test_destroy_frees_the_name_and_the_memory(user: User) -> None:
    before = user.xl("info", "free_memory")
    user.xl("create", "-p", user.config("one"))
    assert int(user.xl("info", "free_memory")) <= int(before) - 32
    again = user.run("create", "-p", user.config("one"))
    assert again.returncode == 3 and "one" in again.stderr
    user.xl("destroy", "one")
    assert user.names() == [] and user.xl("info", "free_memory") == before
    user.xl("create", "-p", user.config("one"))
    assert user.xl("domid", "one") == "2\n"


def test_too_much_memory_is_refused_in_a_sentence(user: User) -> None:
    done = user.run("create", user.config("big"), "memory=1000")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("xl: The machine has ")
    assert user.names() == []


def test_a_domain_has_a_weight_and_a_cap(user: User) -> None:
    user.xl("create", "-p", user.config("one"))
    user.xl("sched-credit", "-d", "one", "-w", "512", "--cap=50")
    header, zero = "Name                                ID Weight  Cap", f"{'Domain-0':<33} {0:4d} {256:6d} {0:4d}"
    table = [header, "one                                  1    512   50"]
    assert user.xl("sched-credit", "-d", "one").splitlines() == table
    assert user.xl("sched-credit").splitlines()[1:] == [header, zero, table[1]]
    assert user.run("sched-credit", "-d", "Domain-0", "-w", "3").returncode == 1
    done = user.run("sched-credit", "-d", "one", "-w", "0")
    assert done.returncode == 1 and "weight" in done.stderr
    assert user.run("sched-credit", "-w", "3").returncode == 1
    assert user.run("sched-credit", "-d", "two").returncode == 1
    done = user.run("create", user.config("two", cap=101))
    assert (done.returncode, "cap" in done.stderr, user.names()) == (3, True, ["one"])


def test_pause_and_unpause(user: User) -> None:
    user.xl("create", "-p", user.config("hello"))
    user.xl("pause", "hello")
    user.xl("unpause", "hello")
    assert "--p---" in user.xl("list", "hello"), "pauses nest"
    user.xl("unpause", "hello")
    user.wait_for(lambda: user.names() == [])


def test_who_unpauses_what_is_not_paused_is_told_so(user: User, hostile: Path) -> None:
    user.xl("create", "-e", user.config("one", hostile, extra="poweroff"))
    done = user.run("unpause", "one")
    assert (done.returncode, done.stderr) == (0, "xl: the domain one is not paused\n")


def test_rename(user: User) -> None:
    user.xl("create", "-p", user.config("one"))
    user.xl("create", "-p", user.config("two"))
    user.xl("rename", "one", "three")
    assert user.names() == ["three", "two"]
    assert user.run("rename", "two", "three").returncode == 1
    assert user.run("rename", "two", "a/b").returncode == 1
    assert user.xl("domid", "three") == "1\n"
    assert json.loads(user.xl("list", "-l", "three"))[0]["config"]["c_info"]["name"] == "three"


def test_configurations_come_back_as_json(user: User) -> None:
    config = user.config("one", vcpus=2, on_crash="preserve", extra="a b")
    dry = json.loads(user.xl("create", "-n", config))
    user.xl("create", "-p", config)
    rows = json.loads(user.xl("list", "-l"))
    assert [row["domid"] for row in rows] == [0, 1]
    dry["c_info"].pop("uuid")
    identity = rows[1]["config"]["c_info"].pop("uuid")
    dry["c_info"]["domid"] = 0xFFFFFFFF
    dry["b_info"] |= {"video_memkb": 0, "sched_params": {"sched": "credit", "weight": 256, "cap": 0}}
    dry["b_info"]["arch_x86"] = {"msr_relaxed": "False"}
    assert rows[1]["config"] == dry
    assert identity in user.xl("vm-list") and identity in user.xl("list", "-v")


def test_what_the_store_says_of_a_domain(user: User) -> None:
    user.xl("create", "-p", user.config("one", extra="a b"))
    with XenStore(user.folder / "xenstored" / "socket") as store:
        vm = store.read("/local/domain/1/vm").decode()
        assert store.read(f"{vm}/name") == store.read("/local/domain/1/name") == b"one"
        assert store.read(f"{vm}/image/kernel") == str(HELLO).encode()
        assert store.read(f"{vm}/image/cmdline") == b"a b"
        assert float(store.read(f"{vm}/start_time")) > 0
        user.xl("rename", "one", "two")
        assert store.read(f"{vm}/name") == store.read("/local/domain/1/name") == b"two"
        tty = Path(store.read("/local/domain/1/console/tty").decode())
        assert tty.is_char_device()
        user.xl("destroy", "two")
        assert not store.exists(vm) and not store.exists("/local/domain/1")


def test_vcpus(user: User) -> None:
    user.environment["PARAVIRT_ENGINE"] = "unicorn"  # which has the vcpus of a domain on one physical CPU
    user.xl("create", "-p", user.config("one", vcpus=2))
    lines = user.xl("vcpu-list", "one").splitlines()
    assert lines[0].split() == ["Name", "ID", "VCPU", "CPU", "State", "Time(s)", "Affinity", "(Hard", "/", "Soft)"]
    assert lines[1] == f"{'one':<32} {1:5d} {0:5d}{0:5d}   --- {0:9.1f}  all / all"
    assert lines[2] == f"{'one':<32} {1:5d} {1:5d}    -   --p {0:9.1f}  all / all"
    user.xl("vcpu-pin", "one", "all", "1")
    assert user.xl("vcpu-list", "one").splitlines()[1] == f"{'one':<32} {1:5d} {0:5d}{1:5d}   --- {0:9.1f}  1 / all"
    refused = user.run("vcpu-pin", "one", "0", "0")
    assert refused.returncode == 1 and "all may run" in refused.stderr
    user.xl("vcpu-pin", "one", "all", "-", "0")
    user.xl("vcpu-pin", "one", "all", "all")
    assert user.xl("vcpu-list", "one").splitlines()[1] == f"{'one':<32} {1:5d} {0:5d}{0:5d}   --- {0:9.1f}  all / 0"
    assert user.run("vcpu-pin", "one", "0", "7").returncode == 1
    assert user.run("vcpu-pin", "one", "5", "0").returncode == 1
    assert user.run("vcpu-set", "one", "3", "-i").returncode == 1
    user.xl("vcpu-set", "one", "1")


def test_masks_for_all_domains_are_ignored_as_there_are_none(user: User) -> None:
    config = user.config("one")
    user.xl("create", "-p", "--ignore-global-affinity-masks", config)
    user.xl("vcpu-pin", "--ignore-global-affinity-masks", "one", "all", "1", "-")
    assert user.xl("vcpu-list", "one").splitlines()[1].endswith("  1 / all")
    user.xl("vcpu-pin", "-i", "one", "0", "all")
    assert user.xl("create", "-n", "-i", config).startswith("{")


def test_memory_limits(user: User) -> None:
    user.xl("create", "-p", user.config("one", maxmem=64))
    user.xl("mem-set", "one", "16")
    user.xl("mem-set", "one", "65536k")
    assert user.run("mem-set", "one", "65m").returncode == 1
    assert user.run("mem-max", "one", "63").returncode == 1
    user.xl("mem-max", "one", "100m")
    assert user.run("mem-set", "one", "much").returncode == 1


# --- ends --------------------------------------------------------------------------------------------------------

STATES = {"poweroff": "---s--", "reboot": "---sr-", "crash": "---sc-", "watchdog": "---sw-"}
CODES = {"poweroff": 0, "reboot": 1, "crash": 3, "watchdog": 4}


@pytest.mark.parametrize("end", STATES)
def test_preserve(user: User, hostile: Path, end: str) -> None:
    config = user.config(end, hostile, extra=end, **{f"on_{end}": "preserve"})
    done = user.run("create", "-F", config)
    assert f"Action for shutdown reason code {CODES[end]} is preserve" in done.stderr
    line = user.xl("list", end).splitlines()[1]
    assert STATES[end] in line
    assert "going to end by" in user.xl("console", end)
    user.xl("destroy", end)
    assert user.names() == []


@pytest.mark.parametrize("end", STATES)
def test_destroy_is_done_at_every_end(user: User, hostile: Path, end: str) -> None:
    done = user.run("create", "-F", user.config(end, hostile, extra=end, **{f"on_{end}": "destroy"}))
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "Done. Exiting now"
    assert user.names() == []


@pytest.mark.parametrize(("end", "action"), [("reboot", "restart"), ("crash", "coredump-restart")])
def test_restart_makes_the_domain_again(user: User, hostile: Path, end: str, action: str) -> None:
    user.xl("create", user.config("again", hostile, extra=end, **{f"on_{end}": action}))
    user.wait_for(lambda: [line for line in user.log() if line["event"] == "domain restarted"])
    restarted = next(line for line in user.log() if line["event"] == "domain restarted")
    assert (restarted["domid"], restarted["new"]) == (1, 2)
    if action.startswith("coredump"):
        assert "crashed" in (user.folder / "crashes" / "again-1.txt").read_text(encoding="utf-8")


def test_rename_restart_keeps_the_old_one(user: User, hostile: Path) -> None:
    user.xl("create", user.config("again", hostile, extra="reboot", on_reboot="rename-restart"))
    user.wait_for(lambda: [line for line in user.log() if line["event"] == "domain restarted"])
    old = user.names()[0]
    assert old.startswith("again-20") and old.endswith("Z")
    assert "---sr-" in user.xl("list", old)


@pytest.mark.parametrize("action", ["restart", "rename-restart"])
def test_a_restarted_domain_has_its_disk_and_its_addresses(user: User, hostile: Path, action: str) -> None:
    """Although the old one, if it is kept, had the same ones."""
    disk = user.folder / "disk"
    disk.write_bytes(bytes(1 << 20))
    devices = {"disk": [f"file:{disk},xvda,w"], "vif": ["mac=00:16:3e:00:00:01,ip=10.0.2.9"]}
    user.xl("create", "-p", user.config("again", hostile, extra="reboot", on_reboot=action, **devices))
    then = user.config("again", hostile, extra="poweroff", on_poweroff="preserve", **devices)
    user.xl("config-update", "again", then)
    user.xl("unpause", "again")
    user.wait_for(lambda: any("again " in line and "---s--" in line for line in user.xl("list").splitlines()))
    assert user.xl("domid", "again") == "2\n"
    assert user.xl("network-list", "again").splitlines()[1].split()[2] == "00:16:3e:00:00:01"
    assert len(user.xl("block-list", "again").splitlines()) == 2
    old = [name for name in user.names() if name != "again"]
    assert [name[:8] for name in old] == (["again-20"] if action == "rename-restart" else [])
    for name in old:
        assert len(user.xl("block-list", name).splitlines()) == 1


def test_a_restart_takes_the_updated_configuration(user: User, hostile: Path) -> None:
    user.xl("create", "-p", user.config("again", hostile, extra="reboot"))
    user.xl("config-update", "again", user.config("again", hostile, extra="poweroff", on_poweroff="preserve"))
    user.xl("unpause", "again")
    user.wait_for(lambda: "---s--" in user.xl("list"))
    assert user.xl("domid", "again") == "2\n"


def test_without_a_monitor_nothing_is_done(user: User, hostile: Path) -> None:
    user.xl("create", "-e", user.config("left", hostile, extra="crash"))
    user.wait_for(lambda: "---sc-" in user.xl("list"))


def test_a_crash_is_reported_in_the_hypervisor_s_messages(user: User, hostile: Path) -> None:
    user.xl("create", "-F", user.config("bad", hostile, extra="jump"))
    lines = user.xl("dmesg", "-c").splitlines()
    assert all(line.startswith("(XEN) ") for line in lines)
    assert any("Domain 1 (bad) crashed" in line for line in lines)
    assert "crashed" not in user.xl("dmesg")


def test_one_crash_leaves_the_others_alone(user: User, hostile: Path) -> None:
    user.xl("create", "-p", user.config("other"))
    user.run("create", "-F", user.config("bad", hostile, extra="jump"))
    assert user.names() == ["other"]
    assert "Goodbye." in user.run("create", "-c", user.config("third")).stdout


def test_shutdown_waits_for_the_end(user: User, hostile: Path) -> None:
    user.xl("create", "-p", user.config("one", hostile, extra="poweroff"))
    waiting = user.start("shutdown", "-w", "one")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "Shutting down domain 1\n"
    user.xl("unpause", "one")
    _, rest = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0 and rest == "Domain 1 has been shut down, reason code 0\n"
