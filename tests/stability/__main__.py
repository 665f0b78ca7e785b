"""`python -m tests.stability --engine kvm --boots 100`, or `--minutes 60`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from paravirt.errors import HypervisorBug, UserError
from paravirt.machine.choice import ENGINES

from ..oracle import kernels
from .runner import Unstable, boots, share, work


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> int:
    """The command line: 0 if all went well, 1 if not, 2 if it could not be tried."""
    parser = argparse.ArgumentParser(prog="stability", description="Boot again and again; work for a long time.")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="CPU engine (default: auto)")
    parser.add_argument("--boots", type=int, default=0, metavar="N", help="boot Linux so often, one after the other")
    parser.add_argument("--minutes", type=float, default=0, help="let Linux work for so long beside a spinner")
    parser.add_argument("--share", type=float, default=0, metavar="MINUTES",
                        help="let threads share memory on two vcpus for so long")  # fmt: skip
    options = parser.parse_args()
    if not options.boots and not options.minutes and not options.share:
        parser.error("one of --boots, --minutes and --share says what to do")
    try:
        if options.boots:
            boots(options.engine, options.boots, _say)
            _say(f"{options.boots} boots, and nothing went wrong")
        if options.minutes:
            with tempfile.TemporaryDirectory() as folder:
                spinner = kernels.build("hostile", Path(folder))
                done = work(options.engine, 60 * options.minutes, spinner, _say)
            _say(f"{options.minutes:g} minutes, and nothing went wrong: {done}")
        if options.share:
            done = share(options.engine, 60 * options.share, _say)
            _say(f"{options.share:g} minutes of sharing, and nothing went wrong: {done}")
    except (Unstable, HypervisorBug, TimeoutError) as error:
        _say(f"FAILED: {error}")
        return 1
    except UserError as error:
        _say(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
