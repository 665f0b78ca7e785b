"""The report on a domain that crashed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paravirt import Machine, ShutdownReason
from paravirt.domain0.builder import parse_kernel

from ..oracle import kernels

PATIENCE = 60


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("hostile", tmp_path_factory.mktemp("kernels"))


def report_of(kernel: Path) -> list[str]:
    with Machine(memory=32) as machine:
        domain = machine.create(kernel, cmdline="crash", memory=16)
        assert domain.wait(PATIENCE) is ShutdownReason.CRASH
        assert domain.crash_report is not None
        return domain.crash_report.splitlines()


def test_the_stack_is_shown_in_lines_with_addresses_and_symbols(hostile: Path) -> None:
    lines = report_of(hostile)
    assert max(map(len, lines)) <= 120
    top = next(int(match[1], 16) for line in lines if (match := re.search(r"rsp \w{4}:(\w{16})", line)))
    start, end = lines.index("  stack:") + 1, lines.index("  symbols on it:")
    words = []
    for number, line in enumerate(lines[start:end]):
        found = re.fullmatch(r"    (\w{16}):((?: \w{16}){1,4})", line)
        assert found, line
        assert int(found[1], 16) == top + 32 * number
        words += [int(word, 16) for word in found[2].split()]
    image = parse_kernel(hostile.read_bytes())
    known = [(word, image.symbol(word)) for word in words]
    expected = [f"    {word:016x} ({symbol[0]}+{symbol[1]:#x})" for word, symbol in known if symbol]
    assert lines[end + 1 : end + 1 + len(expected)] == expected
    assert any("(start_guest" in line or "(guest_main" in line or "(start" in line for line in expected)


def test_the_frames_behind_the_registers_are_named(hostile: Path) -> None:
    lines = report_of(hostile)
    text = "\n".join(lines)
    frame = r"frame 0x[0-9a-f]+: domain 1's, %s, \d+ uses, \d+ references, allocated\|"
    assert re.search(r"  page table: " + frame % "L4 table", text)
    for name in ("rip", "rsp"):
        assert re.search(rf"  {name}: mapped by L1 entry \w{{16}} \(frame .*\)\n    to {frame % 'writable'}", text)
    # Nothing faulted, and nothing is mapped at 0.
    assert re.search(r"  cr2: not mapped by L\d entry 0{16} \(frame 0x0, no bits\)\n    in frame", text)
