"""What needs no domain: usage, exit statuses, help, refusals, and what xl imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paravirt.xl.table import NEVER, NOT_YET, VERBS, find

from .conftest import HELLO, User

GOLDEN = Path(__file__).parent / "golden"
HEAVY = ("numpy", "unicorn", "click", "rich", "capstone", "elftools", "paravirt.machine", "paravirt.hypervisor",
         "paravirt.domain0.toolstack", "subprocess", "asyncio")  # fmt: skip


def test_no_verb_imports_anything_heavy() -> None:
    modules = sorted({verb.where.partition(":")[0] for verb in VERBS})
    code = "import sys, paravirt.xl.main\n" + "".join(f"import paravirt.xl.{name}\n" for name in modules)
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


# Statuses as xl 4.17 has them.
STATUSES = [
    ((), 1),
    (("help",), 0),
    (("help", "list"), 0),
    (("list", "-h"), 0),
    (("list", "--help"), 0),
    (("list", "-k"), 2),
    (("list", "--nosuch"), 2),
    (("domid",), 2),
    (("rename", "a"), 2),
    (("unp",), 2),
    (("foo",), 1),
    (("hel",), 1),
    (("-N", "list"), 1),
    (("-N", "vcpu"), 1),
    (("-Q", "list"), 1),
    (("create",), 6),
    (("create", "/nonexistent"), 3),
    (("create", "-n", "/nonexistent"), 3),
    (("create", "-f"), 2),
    (("shutdown",), 1),
]


@pytest.mark.parametrize(("words", "status"), STATUSES, ids=[" ".join(words) for words, _ in STATUSES])
def test_exit_statuses(user: User, words: tuple[str, ...], status: int) -> None:
    done = user.run(*words)
    assert done.returncode == status, done.stderr
    assert not user.pids(), "nothing of this needs a daemon"


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_has_help(user: User, verb: str) -> None:
    said = user.xl("help", verb)
    assert re.match(rf"Usage: xl \[-vtT(|f|fN)\] {verb} ", said)


@pytest.mark.parametrize("verb", [*NOT_YET, *NEVER])
def test_what_is_not_there_is_refused_in_one_sentence(user: User, verb: str) -> None:
    done = user.run(verb, "a", "b")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(f"xl: {verb} ")
    assert ("not in this version yet" in done.stderr) == (verb in NOT_YET)


def test_global_options_change_the_messages(user: User) -> None:
    assert user.run("-v", "create", "-n", "nosuch").stderr.startswith("xl: the configuration file nosuch")
    stamped = user.run("-T", "create", "-n", "nosuch").stderr
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ \[\d+\] xl: the configuration file nosuch", stamped)
    done = user.run("-v", "-t", "-f", "domid", "Domain-0")
    assert done.stdout == "0\n"
    assert "xl: debug: list {'domain': ''}" in done.stderr.splitlines()


def test_a_verb_may_be_shortened_as_long_as_it_is_clear() -> None:
    assert find("unp") == "unpause"
    assert find("list") == "list"
    assert find("vcpu") is None and find("x") is None


@pytest.mark.parametrize("verb", ["sched-credit2", "sched-rtds", "sched-sedf", "sched-bvt"])
def test_schedulers_that_are_not_there(user: User, verb: str) -> None:
    done = user.run(verb)
    assert done.returncode == 1 and verb.removeprefix("sched-") in done.stderr


def test_the_credit_scheduler_has_parameters_of_its_own(user: User) -> None:
    assert user.xl("sched-credit", "-s") == "Cpupool Pool-0: tslice=30ms ratelimit=1000us migration-delay=0us\n"
    user.xl("sched-credit", "-s", "-t", "10")
    assert user.xl("sched-credit").splitlines() == [
        "Cpupool Pool-0: tslice=10ms ratelimit=1000us migration-delay=0us",
        "Name                                ID Weight  Cap",
        "Domain-0                             0    256    0",
    ]
    done = user.run("sched-credit", "-s", "-t", "1", "-r", "5000")
    assert done.returncode == 1 and "rate limit" in done.stderr
    user.xl("sched-credit", "-s", "-t", "30")


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.cfg")), ids=lambda path: path.stem)
def test_dry_runs_print_what_xl_prints(user: User, golden: Path) -> None:
    """The JSON beside each configuration is what ``xl create -n`` of Xen 4.17 printed."""
    for words in (("create", "-n", str(golden)), ("-N", "create", str(golden))):
        done = user.run(*words)
        assert done.returncode == 0
        assert done.stdout == golden.with_suffix(".json").read_text(encoding="utf-8")
        assert done.stderr.splitlines()[0] == f"Parsing config from {golden}"


def test_the_command_line_and_standard_input(user: User) -> None:
    text = f'name="a"\nkernel="{HELLO}"\nmemory=64\n'
    made = json.loads(user.xl("create", "-n", "-q", "/dev/stdin", "memory=32;vcpus=2", 'extra="x y"', text=text))
    build = made["b_info"]
    assert (build["target_memkb"], build["max_vcpus"], build["cmdline"]) == (32768, 2, "x y")
    made = json.loads(user.xl("create", "-n", "/dev/null", 'name="b"', f'kernel="{HELLO}"'))
    assert made["c_info"]["name"] == "b" and made["b_info"]["target_memkb"] == 32768


def test_a_wrong_configuration_names_file_line_and_key(user: User) -> None:
    path = user.config("one", memory2=3, vif=["mac=x"])
    done = user.run("create", path)
    assert done.returncode == 1
    assert f"{path}:5: vif: " in done.stderr.splitlines()[-1]
    assert not user.pids()


def test_files_in_a_configuration_start_where_xl_is_started(user: User) -> None:
    (user.folder / "k").write_bytes(HELLO.read_bytes())
    (user.folder / "c").write_text('name="a"\nkernel="k"\n', encoding="utf-8")
    assert json.loads(user.xl("create", "-n", "c"))["b_info"]["kernel"] == "k"
    user.xl("create", "-p", "c")
    assert user.names() == ["a"]


def test_info_and_its_fields(user: User) -> None:
    lines = user.xl("info").splitlines()
    assert all(line[23:25] in (": ", ":") or line[23:24] == ":" for line in lines)
    facts = {line[:23].strip(): line[25:] for line in lines}
    for field in ("xen_version", "nr_cpus", "total_memory", "xen_caps", "xen_pagesize"):
        assert user.xl("info", field) == facts[field] + "\n"
    assert facts["xen_version"] == "4.17.paravirt"
    assert user.xl("info", "nosuch") == ""
    assert "cpu_topology           :" in user.xl("info", "-n")


def test_xentop_in_batch_mode(user: User) -> None:
    user.xl("create", "-p", user.config("a-long-name-indeed"))
    lines = user.xl("top", "-b", "-i", "2", "-d", "0.01").splitlines()
    header = lines[0]
    assert [line == header for line in lines] == [True, False, False, True, False, False]
    assert lines[2].split()[:2] == ["a-long-nam", "----p-"]
    assert all(len(line) == len(header) for line in lines)
    assert "a-long-name-indeed" in user.xl("top", "-b", "-f", "-i", "1")


def test_uptime_and_pools_and_claims(user: User) -> None:
    user.xl("create", "-p", user.config("one"))
    lines = user.xl("uptime").splitlines()
    assert lines[0] == f"{'Name':<33} {'ID':>4} Uptime"
    assert [line[:38] for line in lines[1:]] == [f"{'Domain-0':<33} {0:4d}", f"{'one':<33} {1:4d}"]
    assert user.xl("uptime", "-s", "one").rstrip().endswith("one (1)")
    assert user.xl("cpupool-list").splitlines()[1].split() == ["Pool-0", "2", "credit", "y", "2"]
    assert user.xl("cpupool-list", "-c").splitlines()[1].split() == ["Pool-0", "0,1"]
    assert user.run("cpupool-list", "other").returncode == 1
    assert user.xl("claims").splitlines()[2].split()[:3] == ["one", "1", "32"]


def test_debug_keys_print_into_dmesg(user: User) -> None:
    user.xl("create", "-p", user.config("one"))
    user.xl("debug-keys", "qdmhrg0F")
    said = user.xl("dmesg")
    for words in (
        "General information for domain 1 (one)", "rip", "key 'q'", "Scheduler: credit", "Domain 1: weight=256 cap=0",
        "gnttab usage: domain 1, version 1, 1 of 64 frames", "'F' pressed", "references, all as they must be.",
        "ref 0: frame 0x",
    ):  # fmt: skip
        assert words in said
    assert user.run("debug-keys", "qR").returncode == 1


def test_a_reader_that_goes_is_no_defect(user: User) -> None:
    user.xl("list")
    done = subprocess.run(
        f"{' '.join(user.command('xl', 'help'))} | true; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, env=user.environment, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 141) and "Traceback" not in done.stderr
