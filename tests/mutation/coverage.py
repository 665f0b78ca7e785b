"""How many lines of the hypercalls' handlers the tests reach: `python -m tests.mutation.coverage`.

Python families by coverage.py (which has to be installed); compiled modules by gcc's own counters: in a copy of the
tree gcov counts the lines of the C that they became, in which comments say of what line of Python each is. Only
statements within functions count.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .tree import HYPERVISOR, ROOT, build, copy_tree, is_compiled

CORE = ("frames.py", "mmu.py", "promotion.py", "ptwrite.py", "events.py", "events_fifo.py")
_PLACE = re.compile(r'\s*/\* "([^"]+)":(\d+)$')
_EXIT = re.compile(r"\s*/\* function exit code \*/$")
TESTS = ("tests/hypervisor", "tests/guests", "tests/fuzz/test_fuzz.py")


def modules() -> list[str]:
    """The handlers, and what stands right behind them."""
    handlers = sorted((ROOT / HYPERVISOR / "hypercalls").glob("*.py"))
    names = [f"hypercalls/{path.name}" for path in handlers if path.stat().st_size]
    return [*names, *(name for name in CORE if (ROOT / HYPERVISOR / name).exists())]


def statements(source: str) -> set[int]:
    """The lines in which the statements of functions begin; what only declares is none."""
    return {
        inner.lineno
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef)
        for inner in ast.walk(function)
        if isinstance(inner, ast.stmt) and inner is not function and not _only_declares(inner)
    }


def _only_declares(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Pass | ast.Global | ast.Nonlocal)


def c_lines(text: str, module: str) -> dict[int, int]:
    """The line of the Python module from which each line of its C text was made, by the comments in that."""
    found: dict[int, int] = {}
    here = 0
    for number, line in enumerate(text.splitlines(), 1):
        if place := _PLACE.match(line):
            here = int(place[2]) if place[1] == module else 0
        elif _EXIT.match(line):
            here = 0  # the end of a function belongs to no statement
        elif here:
            found[number] = here
    return found


def of_compiled(tree: Path, module: Path) -> tuple[set[int], set[int]]:
    """Lines of a compiled module that were reached, and those that were not.

    gcc counts lines of the C text, not of the Python one: behind a `#line` the count of lines would go on through
    all the C that one statement becomes, and so through statements that were never reached.
    """
    notes = next((tree / module).parent.glob(f"*-{module.stem}.mutant.gcda"))
    done = subprocess.run(["gcov", "-j", "-t", str(notes)], cwd=tree, capture_output=True, text=True, check=True)
    c_file = module.with_suffix(".mutant.c")
    place = c_lines((tree / c_file).read_text(encoding="utf-8"), module.relative_to("src").as_posix())
    counts: dict[int, bool] = {}
    for file in json.loads(done.stdout)["files"]:
        if Path(file["file"]).name == c_file.name:
            for line in file["lines"]:
                if number := place.get(line["line_number"]):
                    counts[number] = counts.get(number, False) or line["count"] > 0
    return {n for n, hit in counts.items() if hit}, {n for n, hit in counts.items() if not hit}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="coverage", description="Lines of the handlers that the tests reach.")
    parser.add_argument("--tests", nargs="*", default=list(TESTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        compiled = [name for name in modules() if is_compiled((ROOT / HYPERVISOR / name).read_text(encoding="utf-8"))]
        for name in compiled:
            failure = build(tree, HYPERVISOR / name, ["--coverage", "-O0"])
            if failure:
                raise SystemExit(failure)
        environment = dict(os.environ, PYTHONPATH=str(tree / "src"))
        command = [sys.executable, "-m", "coverage", "run", "--source", str(tree / HYPERVISOR), "-m", "pytest", "-q"]
        subprocess.run([*command, "-p", "no:cacheprovider", *options.tests], cwd=tree, env=environment, check=False)
        subprocess.run([*command[:3], "json", "-q", "-o", "lines.json"], cwd=tree, env=environment, check=True)
        files = json.loads((tree / "lines.json").read_text())["files"]
        reached = total = 0
        for name in modules():
            if name in compiled:
                hit, missing = of_compiled(tree, HYPERVISOR / name)
            else:
                found = next(value for path, value in files.items() if path.endswith(f"hypervisor/{name}"))
                hit, missing = set(found["executed_lines"]), set(found["missing_lines"])
            counted = statements((tree / HYPERVISOR / name).read_text(encoding="utf-8"))
            hit, missing = hit & counted, missing & counted
            lines = len(hit) + len(missing)
            reached, total = reached + len(hit), total + lines
            print(f"{name:40} {len(hit):5} of {lines:5} {100 * len(hit) / max(lines, 1):6.1f}%  {sorted(missing)}")
        print(f"{'all':40} {reached:5} of {total:5} {100 * reached / total:6.1f}%")
    return 0


if __name__ == "__main__":
    sys.exit(main())
