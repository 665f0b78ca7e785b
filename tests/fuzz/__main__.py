"""The long run: `python -m tests.fuzz --calls 10000000`."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from paravirt.errors import HypervisorBug

from ..oracle import kernels
from .names import name_of
from .runner import Fuzzer, Outcome, announce


def table(outcome: Outcome) -> str:
    """Per sub-operation: calls, and the share that succeeded."""
    lines = [f"{'calls':>9} {'succeeded':>9} {'':>6}  sub-operation"]
    for (op, sub), counts in sorted(outcome.table.items()):
        share = 100 * counts.good / counts.calls
        lines.append(f"{counts.calls:9} {counts.good:9} {share:5.1f}%  {name_of(op, sub)}")
    return "\n".join(lines)


def main() -> int:
    """The command line: 0 if everything held."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Make random hypercalls until something gives.")
    parser.add_argument("--calls", type=int, default=1_000_000, help="how many (default: a million)")
    parser.add_argument("--seed", type=int, help="the first domain's seed (default: a random one, which is printed)")
    parser.add_argument("--domains", type=int, default=2, help="how many domains at a time (default: 2)")
    parser.add_argument("--each", type=int, default=50_000, help="calls of one domain (default: 50000)")
    parser.add_argument("--deterministic", action="store_true", help="the same run for the same seed; one domain")
    parser.add_argument("--reports", action="store_true", help="show the report on each domain that crashed")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(10**9)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(
            kernels.build("fuzz", Path(folder)),
            domains=1 if options.deterministic else options.domains,
            calls_each=options.each,
            deterministic=options.deterministic,
            say=announce,
        )
        try:
            outcome = fuzzer.run(options.calls, seed)
        except HypervisorBug as bug:
            print(f"FAILED (seed {seed}): {bug}")
            return 1
    print(table(outcome))
    if options.reports:
        print("\n".join(f"seed {seed}: {report}" for seed, report in outcome.crashes))
    print(
        f"{outcome.calls} calls by {outcome.domains} domains, {outcome.hypercalls} hypercalls in all, "
        f"{len(outcome.crashes)} crashed by their own fault and {outcome.early} ended early, "
        f"{outcome.audits} audits, all clean; "
        f"{outcome.seconds:.0f} s, {outcome.calls / outcome.seconds:.0f} calls a second; seed {seed}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
