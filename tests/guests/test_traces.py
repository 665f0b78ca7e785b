"""Both engines carry out the same hypercalls, exceptions and interrupts of every test kernel, in the same order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paravirt.errors import UserError
from paravirt.machine.choice import choose, kvm_host

from ..oracle import kernels
from . import known_traces, traces
from .test_guests import RUNS, built
from .traces import EXCEPTION, KICKED, SYSCALL, Exit

__all__ = ["built"]


@pytest.fixture(scope="module")
def honours_slot_256() -> bool:
    try:
        choose("kvm", 1)
    except UserError as error:
        pytest.skip(str(error))
    host = kvm_host()
    if not host["user_stubs"]:
        pytest.skip("What differs between the traces was listed on a KVM host that emulates its guests' ring 0 only.")
    return bool(host["honours_slot_256"])


@pytest.mark.parametrize("name", [name for name in RUNS if name not in known_traces.NOT_COMPARED])
def test_traces_are_the_same_on_both_engines(name: str, honours_slot_256: bool, built: Path) -> None:
    run = RUNS[name]
    kernel = kernels.ready(run.kernel, built)
    unicorn, kvm = (traces.take(run, kernel, engine) for engine in ("unicorn", "kvm"))
    _, places = known_traces.KNOWN.get(run.name, ("", ()))
    assert traces.differences(run, unicorn, kvm, honours_slot_256) == list(places)


def test_every_known_difference_is_of_a_run() -> None:
    for shadow_host in (True, False):
        assert {*known_traces.known(shadow_host), *known_traces.not_compared(shadow_host)} <= set(RUNS)


RUN = RUNS["start"]
IRET = Exit(SYSCALL, 23, 1, 0, 0x1000, 0, 0, False)
FAULT = Exit(EXCEPTION, 14, 1, 0, 0x2000, 0x5000, 0, True)
LOAD = Exit(EXCEPTION, 13, 1, 0, 0x3000, 0, 0, False)
TABLE_READ = Exit(EXCEPTION, 14, 1, 0, 0x4000, 0xFFFF_8000_0000_1000, 0, False)
NUMBERED = [replace(IRET, rip=0x1000 + number) for number in range(20)]


def test_what_is_not_compared() -> None:
    same = [IRET, FAULT, IRET]
    kicked = replace(IRET, kind=KICKED)
    kvm = [TABLE_READ, IRET, replace(FAULT, error_code=4), kicked, IRET]
    assert traces.differences(RUN, [LOAD, *same], kvm, honours_slot_256=False) == []
    assert traces.differences(RUN, same, kvm, honours_slot_256=True) == [((), ("#PF, carried out",))]
    # The other way round each of them is a difference.
    assert traces.differences(RUN, same, [LOAD, *same], honours_slot_256=False) == [((), ("#GP, carried out",))]
    assert traces.differences(RUN, [TABLE_READ, *same], same, honours_slot_256=False) == [(("#PF, carried out",), ())]


def test_how_often_one_waits_is_not_compared() -> None:
    ask = replace(IRET, vector=24, rip=0x5000)  # vcpu_op
    poll = replace(IRET, vector=29, rip=0x6000)  # sched_op
    timers, smp = RUNS["timers"], RUNS["smp"]
    assert traces.differences(RUN, [poll, IRET], [poll, poll, IRET], honours_slot_256=True) == []
    assert traces.differences(RUN, [ask, IRET], [ask, ask, IRET], honours_slot_256=True) == [((), ("vcpu_op",))]
    assert traces.differences(smp, [ask, poll, IRET], [ask, poll, ask, IRET], honours_slot_256=True) == []
    assert traces.differences(timers, [ask, IRET], [ask], honours_slot_256=True) == []


@pytest.mark.parametrize(
    "other", [replace(FAULT, rip=0), replace(FAULT, address=0), replace(FAULT, error_code=2),
              replace(FAULT, entered=False), replace(FAULT, vector=6)],
)  # fmt: skip
def test_any_other_field_is_a_difference(other: Exit) -> None:
    unicorn, kvm = ([*NUMBERED[:9], one, *NUMBERED[9:]] for one in (FAULT, other))
    assert traces.differences(RUN, unicorn, kvm, honours_slot_256=True) == [((str(FAULT),), (str(other),))]


def test_where_traces_go_on_together() -> None:
    assert traces.differences(RUN, NUMBERED, NUMBERED[:4] + NUMBERED[6:], True) == [(("iret", "iret"), ())]
    assert traces.differences(RUN, NUMBERED[:-1], NUMBERED, True) == [((), ("iret",))]
    assert len(traces.differences(RUN, NUMBERED, [], True)) == 1
