"""The KVM engine on hosts that refuse: each refusal is a sentence, and the machine, or the other engine, goes on.

The host's refusals are made by kvm_faults.c, which stands between the engine and /dev/kvm in a process of its own.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paravirt.errors import UserError
from paravirt.machine.choice import choose

from ..guests.test_guests import built
from ..oracle import kernels
from ..patience import PATIENCE

__all__ = ["built"]

ROOT = Path(__file__).resolve().parent.parent.parent
KVM_CAP_SYNC_REGS, KVM_CAP_IMMEDIATE_EXIT = 74, 136
KVM_EXIT_SHUTDOWN, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_HYPERV = 8, 9, 17, 27

BEGINNING = """
import ctypes, sys, time
from paravirt import Machine, UserError
shim = ctypes.CDLL(None)
def fault(what, value=0):
    shim.kvm_fault(what.encode(), value)
kernel = sys.argv[1]
def spinning(machine):
    domain = machine.create(kernel=kernel, cmdline="loop", memory=8)
    domain.console.expect("going to end by: loop", 120)
    return domain
"""
OPEN = """
fault({what!r}, {value})
try:
    Machine(memory=32, engine="kvm")
except UserError as error:
    print(error)
with Machine(memory=32, engine="auto") as machine:
    print(machine.engines[0].name, not spinning(machine).ended)
"""
END = """
with Machine(memory=64, engine="kvm", pcpus=1) as machine:
    domain = machine.create(kernel=kernel, cmdline="loop", memory=8, paused=True)
    fault("run", {reason})
    domain.unpause()
    print(domain.wait(120).name)
    fault("")
    print(domain.crash_report.splitlines()[0])
    print(not spinning(machine).ended)
"""
ENDLESS = """
from paravirt.machine.kvm import selftest
selftest.LONGEST_NS = 10**8
fault("endless")
try:
    Machine(memory=32, engine="kvm")
except UserError as error:
    print(error)
"""
STUCK = """
with Machine(memory=64, engine="kvm", pcpus=1) as machine:
    pair = spinning(machine), spinning(machine)
    fault("stuck")
    while not any(domain.ended for domain in pair):
        time.sleep(0.01)
    fault("")
    domain = next(domain for domain in pair if domain.ended)
    print(domain.wait(120).name)
    print(domain.crash_report.splitlines()[0])
    print(not spinning(machine).ended)
"""
INTERRUPTED = """
with Machine(memory=64, engine="kvm", pcpus=1) as machine:
    fault("interrupted")
    print(not spinning(machine).ended)
"""
LIMIT = """
with Machine(memory=64, engine="kvm", pcpus=1) as machine:
    first = spinning(machine)
    fault({what!r}, {value})
    try:
        spinning(machine)
    except UserError as error:
        print(error)
    fault("")
    print(first.ended, not spinning(machine).ended)
"""
SLOTS = """
with Machine(memory=64, engine="kvm", pcpus=1) as machine:
    print(machine.memory.address, machine.memory.size)
    for _ in range(3):
        spinning(machine)
    regions = [line.split() for line in open("/proc/self/maps")]
    print(*(region[0] for region in regions if len(region) == 5))
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        choose("kvm", 1)
    except UserError as error:
        pytest.skip(str(error))
    library = tmp_path_factory.mktemp("shim") / "kvm_faults.so"
    source = Path(__file__).with_name("kvm_faults.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def said(shim: Path, built: Path, script: str, **environment: str) -> list[str]:
    """What a script prints in a process of its own, between which and /dev/kvm the shim stands."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + script, str(kernels.ready("hostile", built))],
        env={**os.environ, "LD_PRELOAD": str(shim), **environment},
        capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("what", "value", "sentence"),
    [
        ("open", errno.ENOENT, "/dev/kvm cannot be opened: No such file or directory."),
        ("open", errno.EACCES, "/dev/kvm cannot be opened: Permission denied."),
        ("api", 11, "/dev/kvm speaks version 11 of its interface, and only 12 is known."),
        ("lacks", KVM_CAP_SYNC_REGS, "this kernel's KVM lacks the capability SYNC_REGS."),
        ("lacks", KVM_CAP_IMMEDIATE_EXIT, "this kernel's KVM lacks the capability IMMEDIATE_EXIT."),
        ("vm", errno.EMFILE, "the host refuses to make a virtual machine."),
        ("run", KVM_EXIT_INTERNAL_ERROR, "a system call of the guest does not arrive."),
    ],
)
def test_a_host_without_a_usable_kvm(what: str, value: int, sentence: str, shim: Path, built: Path) -> None:
    refusal, other = said(shim, built, OPEN.format(what=what, value=value))
    assert refusal == f"The KVM engine cannot be used: {sentence}"
    assert other == "unicorn True"


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (KVM_EXIT_SHUTDOWN, "its processor shut down: an exception could not be delivered"),
        (KVM_EXIT_FAIL_ENTRY, "the host's processor refused its state"),
        (KVM_EXIT_INTERNAL_ERROR, "the host's KVM cannot go on with it"),
        (KVM_EXIT_HYPERV, "the host's KVM stopped it, as it should not"),
    ],
)
def test_a_run_that_ends_badly_crashes_that_domain_alone(reason: int, sentence: str, shim: Path, built: Path) -> None:
    end, report, others = said(shim, built, END.format(reason=reason))
    assert end == "CRASH"
    assert sentence in report
    assert others == "True"


def test_a_host_on_which_guest_code_never_ends(shim: Path, built: Path) -> None:
    (refusal,) = said(shim, built, ENDLESS)
    assert refusal == "The KVM engine cannot be used: a system call of the guest does not arrive."


def test_an_exception_that_never_arrives_crashes_its_domain(shim: Path, built: Path) -> None:
    """Whenever one of two that take turns is interrupted, its vcpu is somewhere in the engine's own code."""
    end, report, others = said(shim, built, STUCK)
    assert end == "CRASH"
    assert "an exception never arrives" in report
    assert others == "True"


def test_a_signal_while_a_virtual_machine_is_made(shim: Path, built: Path) -> None:
    assert said(shim, built, INTERRUPTED) == ["True"]


@pytest.mark.parametrize("what", ["vm", "vcpu"])
def test_a_limit_is_hit(what: str, shim: Path, built: Path) -> None:
    refusal, others = said(shim, built, LIMIT.format(what=what, value=errno.ENOSPC))
    assert refusal == "The CPU engine has no room for another virtual CPU."
    assert others == "False True"


def test_slots_hold_the_machines_memory_and_the_engines_own_pages_and_nothing_else(
    shim: Path, built: Path, tmp_path: Path
) -> None:
    file = tmp_path / "slots"
    first, second = said(shim, built, SLOTS, KVM_SLOTS=str(file))
    memory, size = map(int, first.split())
    mapped = [tuple(int(end, 16) for end in region.split("-")) for region in second.split()]
    slots = [tuple(map(int, line.split())) for line in file.read_text().splitlines()]
    # The self-test's scratch machines came first, of another size.
    last = [slot for slot in slots if slot[1]][-2 * 3 :]
    for whole, own in zip(last[::2], last[1::2], strict=True):
        assert whole == (0, size, memory)
        address, length, host = own
        assert address >= size, "the engine's pages are above the machine's memory"
        assert length < 2 << 20
        assert any(start <= host and host + length <= end for start, end in mapped), "they are nobody else's file"
        assert host + length <= memory or host >= memory + size
    assert len({host for _, _, host in last[1::2]}) == 3, "each domain has pages of its own"
