"""Every kernel under guests/ answers as it does on real Xen (transcripts/, made by scripts/oracle)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..oracle import kernels, transcript
from ..oracle.xenrun import Setting

_TIMEOUT = 60.0  # seconds of wall time; a kernel answers in far less than one


def _machine_class() -> Any:
    try:
        return getattr(importlib.import_module("paravirt"), "Machine", None)
    except ImportError:
        return None


MACHINE = _machine_class()
needs_machine = pytest.mark.skipif(MACHINE is None, reason="paravirt.Machine is not there yet")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which kernels are built once per session."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def machine() -> Iterator[Any]:
    with MACHINE(memory=256) as made:
        yield made


def _kernel(name: str, built: Path) -> Path:
    path = built / name
    return path if path.is_file() else kernels.build(name, built)


def _run(machine: Any, name: str, kernel: Path) -> transcript.Transcript:
    setting = Setting.of(kernels.GUESTS / name)
    domain = machine.create(
        kernel=kernel, cmdline=setting.cmdline, memory=setting.memory, vcpus=setting.vcpus, name=name
    )
    reason = domain.wait(timeout=_TIMEOUT)
    text = bytes(domain.console.output).decode("utf-8", "replace")
    ended = reason.name.lower() if reason is not None else "timeout"
    return transcript.Transcript(transcript.normalised(text), ended)


@pytest.mark.parametrize("name", kernels.names())
def test_every_kernel_has_a_transcript_that_passes(name: str) -> None:
    kept = transcript.load(name)
    assert kept is not None, "run scripts/oracle --update"
    assert kept.ended == Setting.of(kernels.GUESTS / name).ended
    assert re.match(r"4\.17\.", kept.header["Xen"])
    assert {"QEMU", "date"} <= kept.header.keys()
    assert not [line for line in kept.lines if line.startswith("FAILED") or ": FAIL" in line]
    if kept.ended == "poweroff":
        assert kept.lines[-1] == f"TEST {name}: PASS"


@pytest.mark.parametrize("name", [*kernels.names(), "hello"])
def test_kernel_builds_as_a_static_elf_with_xen_notes(name: str, built: Path) -> None:
    image = _kernel(name, built).read_bytes()
    assert image[:6] == b"\x7fELF\x02\x01"
    assert b"paravirt-test\0" in image
    assert b"/lib64/ld-linux" not in image


@needs_machine
@pytest.mark.parametrize("name", kernels.names())
def test_kernel_answers_as_on_real_xen(name: str, machine: Any, built: Path) -> None:
    expected = transcript.load(name)
    assert expected is not None
    answer = _run(machine, name, _kernel(name, built))
    differences = expected.differences(answer, "real Xen", "paravirt")
    assert not differences, "\n" + "\n".join(differences)


@needs_machine
def test_hello_says_who_it_is(machine: Any, built: Path) -> None:
    domain = machine.create(kernel=_kernel("hello", built), cmdline="some words", memory=32, name="hello")
    domain.wait(timeout=_TIMEOUT)
    text = bytes(domain.console.output).decode()
    assert "Hello from a paravirtual guest!" in text
    assert '"some words"' in text
    assert "32 MiB in 8192 pages" in text
    assert "Goodbye." in text
