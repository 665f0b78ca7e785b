"""Every kernel under guests/ answers as it does on real Xen (transcripts/, made by scripts/oracle)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from paravirt import Machine
from paravirt.errors import UserError
from paravirt.machine.choice import choose, kvm_host

from ..hypervisor.audited import audited
from ..oracle import kernels, transcript
from ..patience import PATIENCE
from . import known


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which kernels are built once per session."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=256) as made, audited(made):
        yield made


def _run(machine: Machine, run: kernels.Run, kernel: Path) -> transcript.Transcript:
    if run.setting.beside:
        machine.create(kernel=kernel, cmdline=run.setting.beside, memory=run.setting.memory, name=f"{run.name}-beside")
    domain = machine.create(
        kernel=kernel,
        cmdline=run.setting.cmdline,
        memory=run.setting.memory,
        vcpus=run.setting.vcpus,
        name=run.name,
    )
    reason = domain.wait(timeout=PATIENCE)
    text = bytes(domain.console.output).decode("utf-8", "replace")
    ended = reason.name.lower() if reason is not None else "timeout"
    return transcript.Transcript(transcript.normalised(text), ended)


RUNS = kernels.runs()
KERNELS = sorted({run.kernel for run in RUNS.values()})


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_every_run_has_a_transcript_that_passes(run: kernels.Run) -> None:
    kept = transcript.load(run.name)
    assert kept is not None, "run scripts/oracle --update"
    assert kept.ended == run.setting.ended
    assert re.match(r"4\.17\.", kept.header["Xen"])
    assert {"QEMU", "date"} <= kept.header.keys()
    assert not [line for line in kept.lines if line.startswith("FAILED") or ": FAIL" in line]
    if kept.ended == "poweroff":
        assert kept.lines[-1] == f"TEST {run.kernel}: PASS"


@pytest.mark.parametrize("name", [*KERNELS, "hello"])
def test_kernel_builds_as_a_static_elf_with_xen_notes(name: str, built: Path) -> None:
    image = kernels.ready(name, built).read_bytes()
    assert image[:6] == b"\x7fELF\x02\x01"
    assert b"paravirt-test\0" in image
    assert b"/lib64/ld-linux" not in image


def test_every_known_difference_is_of_a_kernel_and_says_why() -> None:
    for difference in (*known.DIFFERENCES, *known.BY_XL, *known.ON_KVM):
        assert difference.run in RUNS
        assert difference.reason
        assert difference.theirs != difference.ours


def test_no_transcript_is_left_over() -> None:
    assert {path.stem for path in transcript.TRANSCRIPTS.glob("*.txt")} <= set(RUNS)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_kernel_answers_as_on_real_xen(run: kernels.Run, machine: Machine, built: Path) -> None:
    expected = transcript.load(run.name)
    assert expected is not None
    answer = _run(machine, run, kernels.ready(run.kernel, built))
    expected = replace(expected, lines=known.expected(run.name, expected.lines, known.on_unicorn()))
    differences = expected.differences(answer, "real Xen", "paravirt")
    assert not differences, "\n" + "\n".join(differences)


@pytest.fixture
def kvm_machine() -> Iterator[Machine]:
    try:
        choose("kvm", 1)
    except UserError as error:
        pytest.skip(str(error))
    with Machine(memory=256, engine="kvm", pcpus=1) as made, audited(made):
        yield made


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_kernel_answers_as_on_real_xen_on_kvm(run: kernels.Run, kvm_machine: Machine, built: Path) -> None:
    expected = transcript.load(run.name)
    assert expected is not None
    answer = _run(kvm_machine, run, kernels.ready(run.kernel, built))
    expected = replace(expected, lines=known.expected(run.name, expected.lines, known.on_kvm(kvm_host())))
    differences = expected.differences(answer, "real Xen", "paravirt on KVM")
    assert not differences, "\n" + "\n".join(differences)


def test_hello_says_who_it_is(machine: Machine, built: Path) -> None:
    domain = machine.create(kernel=kernels.ready("hello", built), cmdline="some words", memory=32, name="hello")
    domain.wait(timeout=PATIENCE)
    text = bytes(domain.console.output).decode()
    assert "Hello from a paravirtual guest!" in text
    assert '"some words"' in text
    assert "32 MiB in 8192 pages" in text
    assert "Goodbye." in text


def test_a_domain_ends_beside_one_that_spins(machine: Machine, built: Path) -> None:
    """A domain's end empties translation caches: it waits for an engine in guest code, and not for ever."""
    spinning = machine.create(kernel=kernels.ready("hostile", built), cmdline="loop", memory=16, name="spinning")
    spinning.console.expect("going to end by: loop", PATIENCE)
    for n in range(3):
        other = machine.create(kernel=kernels.ready("hello", built), memory=16, name=f"other{n}")
        other.console.expect("ello", PATIENCE)
        other.destroy()
    assert not spinning.ended
    spinning.destroy()
    assert spinning.ended
