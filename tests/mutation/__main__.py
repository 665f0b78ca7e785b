"""Remove each validation check in turn and see whether a test notices: `scripts/mutate [MODULE...]`.

A copy of the tree, in a temporary folder, gets modules with all of their mutants in them and is built once; then only
the tests run for each mutant (session.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .equivalent import EQUIVALENT, Equivalent, stale
from .mutants import Mutant
from .tree import TESTS, checked_modules, copy_tree, with_all_mutants


def run(modules: Sequence[str], tests: Sequence[str], first: int, last: int) -> list[tuple[str, Mutant, str | None]]:
    """Each mutant of these modules, and the test that notices it."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        copy_tree(tree)
        found = with_all_mutants(tree, modules)
        numbers = [number for number, (_, mutant) in enumerate(found, 1) if first <= mutant.line <= last]
        if not numbers:
            return []
        shared, answers = Path(folder) / "shared", Path(folder) / "answers"
        shared.write_bytes(bytes(1 << 16))
        environment = dict(
            os.environ,
            PYTHONPATH=f"{tree / 'src'}:{tree}",
            PYTHONDONTWRITEBYTECODE="1",
            PARAVIRT_NO_SHRINK="1",
            PARAVIRT_MUTANTS=str(shared),
            PARAVIRT_MUTANT_ANSWERS=str(answers),
            PARAVIRT_MUTANT_NUMBERS=",".join(map(str, numbers)),
        )
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
        command += ["-p", "tests.mutation.session", "--hypothesis-seed=0", *tests]
        done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if not answers.is_file():
            raise SystemExit(f"The tests of the mutants did not run:\n{done.stdout[-3000:]}")
        by = {int(number): answer["by"] for number, answer in json.loads(answers.read_text()).items()}
    return [(*found[number - 1], by[number]) for number in numbers]


def judge(results: Sequence[tuple[str, Mutant, str | None]], known: Sequence[Equivalent]) -> list[str]:
    """What is wrong: mutants that nothing notices and nobody explained, and explained ones that something notices."""
    explained = {entry.key for entry in known}
    wrong = []
    for name, mutant, by in results:
        where = f"{name}:{mutant.line}: {mutant.function}: {mutant.condition}"
        is_known = (name, mutant.function, mutant.condition) in explained
        if by is None and not is_known:
            wrong.append(f"{where}: SURVIVES")
        elif by is not None and is_known:
            wrong.append(f"{where}: said to be equivalent, but {by} notices it")
    return wrong


def main() -> int:
    """The command line: 0 if every mutant was noticed, or cannot be."""
    parser = argparse.ArgumentParser(prog="mutate", description="Remove each check in turn; tests have to notice.")
    checked = checked_modules()
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(checked)}; default: all")
    parser.add_argument("--lines", default="1-100000", help="only checks in these lines, FIRST-LAST")
    parser.add_argument("--tests", nargs="+", default=list(TESTS), help="what has to notice (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="only show the checks")
    options = parser.parse_args()
    first, last = map(int, options.lines.split("-"))
    if unknown := set(options.modules) - set(checked):
        parser.error(f"no checks are known in {', '.join(sorted(unknown))}")
    chosen = options.modules or list(checked)
    if options.list:
        for name in chosen:
            for mutant in checked[name]:
                print(f"{name}:{mutant.line}: {mutant.function}: {mutant.condition}")
        return 0
    results = run(chosen, options.tests, first, last)
    for name, mutant, by in results:
        print(f"{name}:{mutant.line}: {mutant.function}: {mutant.condition}: {by or 'survives'}")
    wrong = judge(results, EQUIVALENT) + stale(EQUIVALENT, checked)
    survivors = sum(by is None for _, _, by in results)
    print(f"{len(results)} mutants, {survivors} survive; wrong: {len(wrong)}", *wrong, sep="\n  ")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
