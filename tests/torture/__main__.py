"""The long run: `python -m tests.torture --minutes 10 --linux 2`."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from paravirt.errors import HypervisorBug, UserError
from paravirt.machine.choice import DEFAULT_ENGINE, ENGINES

from .guests import prepare
from .runner import Noticed, torture


def main() -> int:
    """The command line: 0 if nobody noticed anything and nothing is left over, 1 if not, 2 if it cannot be tried."""
    parser = argparse.ArgumentParser(prog="torture", description="Make, pause, move, crash and destroy domains.")
    parser.add_argument("--minutes", type=float, default=10, help="for how long (default: 10)")
    parser.add_argument("--linux", type=int, default=2, help="Linux guests at a time (default: 2)")
    parser.add_argument("--pcpus", type=int, default=4, help="physical CPUs of the machine (default: 4)")
    parser.add_argument("--engine", choices=ENGINES, default=DEFAULT_ENGINE, help="CPU engine (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the choices (default: a random one, which is printed)")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(10**9)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            counts = torture(
                prepare(folder, options.linux > 0), folder, pcpus=options.pcpus, seed=seed, linux=options.linux,
                engine=options.engine, seconds=60 * options.minutes, say=lambda text: print(text, flush=True),
            )  # fmt: skip
        except (Noticed, HypervisorBug, TimeoutError) as error:
            print(f"FAILED (seed {seed}): {error}")
            return 1
        except UserError as error:
            print(error)
            return 2
    print(f"nobody noticed anything, and nothing is left over: {counts}; seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
