"""Capture the sessions of tests/xl in the dom0 of real Xen."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from paravirt.bench.peers.packages import Qemu, Xen

from ..xl import sessions
from . import dom0, kernels

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NOBODY = "00000000-0000-0000-0000-000000000000"
_SOMEBODY = "01234567-89ab-cdef-0123-456789abcdef"
_WHEN = re.compile(r'\d\d:\d\d:\d\d(?= up )|(?<=start_time = ")[0-9.]+|(?<=\[pid )\d+')
_USAGE, _LIST = "Usage: xl ", "Usage xl "
_VERB = re.compile(r" [a-z]\S* +(?=\S)")
_MEMORY_MIB, _TIMEOUT_S = 320, 300.0
_PATIENCE_S = 20
"""Of one command: some wait for what never comes."""

_STEP = f"""step() {{ # step NUMBER COMMAND
    timeout {_PATIENCE_S} sh -c "$2" >/tmp/out 2>/tmp/err </dev/null
    report "$1" $? /tmp/out /tmp/err
}}
"""


def capture(name: str, machine: tuple[Xen, Qemu, dom0.Dom0], scratch: Path) -> sessions.Session:
    """Run a session's commands again; what came of each.

    Raises:
        UserError: dom0 did not come to the end of it.
    """
    session = sessions.load(name)
    commands = [step.command for step in session.steps]
    job = _STEP + "".join(f"step {number} {shlex.quote(text)}\n" for number, text in enumerate(commands))
    work: dict[str, Path | bytes] = {"job": job.encode(), **sessions.configurations()}
    for kernel in sessions.KERNELS:
        work[kernel] = kernels.build(kernel, scratch)
    setting = dom0.Setting(_MEMORY_MIB, session.cpus)
    results = {result.name: result for result in dom0.boot(*machine, work, setting, scratch / "xen.log", _TIMEOUT_S)}
    steps = (_step(command, results[str(number)]) for number, command in enumerate(commands))
    return sessions.Session(session.cpus, tuple(steps))


def _step(command: str, result: dom0.Result) -> sessions.Step:
    return sessions.Step(command, _lines(result.output), _lines(result.errors), int(result.status))


def _lines(text: str) -> tuple[str, ...]:
    """Lines without what is another one each time, and without explanations: those are not ours to keep."""
    plain = _UUID.sub(lambda match: match[0] if match[0] == _NOBODY else _SOMEBODY, text.replace("\r", ""))
    plain = _WHEN.sub(lambda match: re.sub(r"\d", "0", match[0]), plain)
    lines = plain.splitlines()
    if plain.startswith(_USAGE):
        return tuple(lines[:1])
    if plain.startswith(_LIST):
        verbs = (_VERB.match(line) for line in lines)
        return (lines[0], *(match[0].rstrip() for match in verbs if match))
    return tuple(lines)
