"""Whether a guest's clocks stay right: ``python -m paravirt.bench.drift --minutes 60``.

A Linux guest tells its clocks whenever it is asked. The answer belongs between the host's time before the question and
after the answer: half of what lies between is the uncertainty, and the quickest of some questions counts.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from paravirt.bench.guestprogram import KERNEL_OPTIONS, ramdisk
from paravirt.domain0.toolstack import Domain, Machine
from paravirt.errors import HypervisorBug
from paravirt.guestkernels import obtain

QUESTIONS = 20
PATIENCE_S = 60
_ANSWER = re.compile(r"PVBENCH CLOCK (\d+) (\d+) ;")


@dataclass(frozen=True)
class Reading:
    """How far a guest's clocks are ahead of the host's, and how sure that is. All in ns."""

    host: int
    wall: int
    raw: int
    uncertainty: int


def ask(domain: Domain) -> Reading:
    """The guest's clocks beside the host's CLOCK_REALTIME and CLOCK_MONOTONIC."""
    best: Reading | None = None
    for _ in range(QUESTIONS):
        before, begin = time.time_ns(), time.monotonic_ns()
        domain.console.send("\n")
        text = domain.console.expect(" ;", timeout=PATIENCE_S)
        half = (time.monotonic_ns() - begin) // 2
        match = _ANSWER.search(text)
        if match is None:
            raise HypervisorBug(f"a guest told its clocks in these words: {text!r}")
        found = Reading(begin, int(match[1]) - before - half, int(match[2]) - begin - half, half)
        if best is None or found.uncertainty < best.uncertainty:
            best = found
    assert best is not None
    return best


def follow(domain: Domain, minutes: float, every: float = 60.0, pause: bool = False) -> list[Reading]:
    """Readings from now until ``minutes`` have passed, two at least, one each ``every`` seconds, printed as they come.

    With ``pause`` the guest stands still for a second before each.
    """
    readings = [ask(domain)]
    end = time.monotonic() + 60 * minutes
    while len(readings) < 2 or time.monotonic() < end:
        time.sleep(max(0.0, min(every, end - time.monotonic())))
        if pause:
            domain.pause()
            time.sleep(1.0)
            domain.unpause()
        readings.append(ask(domain))
        first, last = readings[0], readings[-1]
        print(
            f"{(last.host - first.host) / 1e9:7.0f} s: wall clock {last.wall / 1e3:+9.0f} us, "
            f"moved {(last.wall - first.wall) / 1e3:+7.0f} us; cycle counter's clock moved "
            f"{(last.raw - first.raw) / 1e3:+7.0f} us; uncertainty {last.uncertainty / 1e3:.0f} us",
            flush=True,
        )
    return readings


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="drift", description="How far a guest's clocks drift from the host's.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--pause", action="store_true", help="pause the guest for a second before each reading")
    options = parser.parse_args()
    kernel: Path = obtain("debian-cloud").path
    with Machine(memory=512) as machine:
        domain = machine.create(
            kernel=kernel, ramdisk=ramdisk("clocks"), memory=256, cmdline=f"console=hvc0 {KERNEL_OPTIONS}"
        )
        domain.console.expect("PVBENCH CLOCKS", timeout=PATIENCE_S)
        readings = follow(domain, options.minutes, options.every, options.pause)
    first, last = readings[0], readings[-1]
    seconds = (last.host - first.host) / 1e9
    print(
        f"{len(readings)} readings in {seconds:.0f} s: the wall clock drifted "
        f"by {(last.wall - first.wall) / 1e3:+.0f} us "
        f"({(last.wall - first.wall) / 1e3 / seconds:+.3f} ppm), and was at most "
        f"{max(abs(r.wall) for r in readings) / 1e3:.0f} us off"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
