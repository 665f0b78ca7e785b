"""The daemon's scheduler is chosen at its start; each one's verb, and what a configuration says of it."""

from __future__ import annotations

import json

import pytest

from .conftest import User

PREFIX = f"{'one':<33} {1:4d} "


@pytest.fixture
def one(user: User, scheduler: str) -> User:
    """A user with a paused domain `one` under this scheduler."""
    user.environment["PARAVIRT_SCHEDULER"] = scheduler
    user.xl("create", "-p", user.config("one"))
    return user


@pytest.mark.parametrize("scheduler", ["sedf"])
def test_sedf(one: User) -> None:
    assert one.xl("info", "xen_scheduler") == "sedf\n"
    header = "Name                                ID    Period     Slice Latency  Extra Weight"
    assert one.xl("sched-sedf").splitlines() == [
        header,
        PREFIX + f"{100:9d} {0:9d} {0:7d} {1:6d} {0:6d}",
    ]
    one.xl("sched-sedf", "-d", "one", "-p", "20", "-s", "5", "-e", "0", "-w", "0")
    assert one.xl("sched-sedf", "-d", "one").splitlines()[1] == PREFIX + f"{20:9d} {5:9d} {0:7d} {0:6d} {0:6d}"
    done = one.run("sched-sedf", "-d", "one", "-s", "30")
    assert done.returncode == 1 and "no longer than the period" in done.stderr
    assert one.run("sched-credit").returncode == 1


@pytest.mark.parametrize("scheduler", ["bvt"])
def test_bvt(one: User) -> None:
    assert one.xl("info", "xen_scheduler") == "bvt\n"
    one.xl("sched-bvt", "one", "20", "1", "50", "10", "100")
    assert one.xl("sched-bvt").splitlines()[-1] == PREFIX + f"{20:6d} {1:8d} {50:9d} {10:6d} {100:6d}"
    assert one.run("sched-bvt", "one", "20").returncode == 1
    assert one.run("sched-bvt", "one", "0", "1", "50", "10", "100").returncode == 1


    assert one.xl("sched-bvt-ctxallow") == "Cpupool Pool-0: ctx_allow=5000000ns\n"
    one.xl("sched-bvt-ctxallow", "10000000")
    assert one.xl("sched-bvt-ctxallow") == "Cpupool Pool-0: ctx_allow=10000000ns\n"
    assert one.run("sched-bvt-ctxallow", "0").returncode == 1


@pytest.mark.parametrize("scheduler", ["null"])
def test_null_has_no_parameters(one: User) -> None:
    assert one.xl("info", "xen_scheduler") == "null\n"
    assert one.xl("cpupool-list").splitlines()[1].split() == ["Pool-0", "2", "null", "y", "2"]
    assert one.run("sched-credit", "-d", "one", "-w", "3").returncode == 1


def test_a_configuration_has_parameters_of_scheduling(user: User) -> None:
    config = user.config("one", cpu_weight=512, cap=50)
    user.xl("create", "-p", config)
    assert user.xl("sched-credit", "-d", "one").splitlines()[1] == PREFIX + f"{512:6d} {50:4d}"
    assert json.loads(user.xl("list", "-l", "one"))[0]["config"]["b_info"]["sched_params"] == {
        "sched": "credit", "weight": 512, "cap": 50,
    }  # fmt: skip


def test_parameters_of_another_scheduler_are_refused_and_leave_nothing(user: User) -> None:
    before = user.xl("info", "free_memory")
    done = user.run("create", "-p", user.config("one", period=100))
    assert done.returncode == 3 and "'period'" in done.stderr
    assert user.names() == [] and user.xl("info", "free_memory") == before


def test_there_is_no_other_scheduler(user: User) -> None:
    done = user.run("--scheduler", "lottery", program="paravirtd")
    assert done.returncode == 1 and "'lottery'" in done.stderr
