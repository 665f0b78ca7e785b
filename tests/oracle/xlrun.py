"""Many kernels on one boot of real Xen, each as a domain that Xen's own xl makes in a Linux dom0."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from paravirt.bench.peers.packages import Qemu, Xen

from . import dom0, kernels
from .transcript import normalised
from .xenrun import ENDS, Answer

_REASON = re.compile(r"^Domain \d+ has shut down, reason code (\d+)", re.MULTILINE)
_PATIENCE_S, _TIMEOUT_S = 60, 2400.0

# A domain that has ended is kept, and with it its console, until the console's daemon has read all of it.
_JOB = f"""go() {{ # go NAME [OTHER]
    log=/var/log/xen/console/guest-$1.log
    [ -z "$2" ] || xl create -q -e "$2.cfg"
    timeout {_PATIENCE_S} xl create -F "$1.cfg" >/dev/null 2>/tmp/err
    status=$?
    sleep 0.3
    touch "$log"
    report "$1" $status "$log" /tmp/err
    xl destroy "$1" 2>/dev/null
    [ -z "$2" ] || xl destroy "$2" 2>/dev/null
    rm -f "$log"
}}
"""


def configuration(run: kernels.Run) -> str:
    """The xl.cfg of one run: what is not said in it is as xl has it."""
    setting = run.setting
    settings: dict[str, str | int] = {
        "name": run.name, "type": "pv", "kernel": run.kernel, "extra": setting.cmdline, "memory": setting.memory,
        "vcpus": setting.vcpus,
    }  # fmt: skip
    ends = ("poweroff", "reboot", "watchdog", "crash", "soft_reset")
    settings |= {f"on_{end}": "preserve" for end in ends}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())


def answers(
    runs: list[kernels.Run], machine: tuple[Xen, Qemu, dom0.Dom0], scratch: Path
) -> Iterator[tuple[kernels.Run, Answer]]:
    """Boot once and run the kernels one after the other; Xen's log is left in ``scratch``.

    Raises:
        UserError: dom0 did not come to the end of it.
    """
    by_name = {run.name: run for run in runs}
    others = {run.name: _beside(run) for run in runs if run.setting.beside}
    names = ((name, others[name].name if name in others else "") for name in by_name)
    job = _JOB + "".join(f"go {shlex.quote(name)} {shlex.quote(other)}\n" for name, other in names)
    work: dict[str, Path | bytes] = {"job": job.encode()}
    for run in runs:
        work[run.kernel] = kernels.build(run.kernel, scratch)
        for domain in (run, others.get(run.name)):
            if domain is not None:
                work[f"{domain.name}.cfg"] = configuration(domain).encode()
    most = max(run.setting.memory * (2 if run.setting.beside else 1) for run in runs)
    for result in dom0.boot(*machine, work, dom0.Setting(most + 64), scratch / "xen.log", _TIMEOUT_S):
        if result.name in by_name:
            yield by_name[result.name], _answer(result)


def _beside(run: kernels.Run) -> kernels.Run:
    return replace(run, name=f"{run.name}-beside", setting=replace(run.setting, cmdline=run.setting.beside))


def _answer(result: dom0.Result) -> Answer:
    found = _REASON.search(result.errors)
    if found:
        ended = ENDS[int(found[1])]
    elif "has suspended" in result.errors:
        ended = "suspend"
    else:
        ended = "timeout" if result.status == "143" else result.errors.strip()
    return Answer(normalised(result.output), ended, result.errors)
