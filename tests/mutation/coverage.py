"""How many lines of the hypercalls' handlers the tests reach: `python -m tests.mutation.coverage`.

Python families by coverage.py (which has to be installed); compiled modules by gcc's own counters: in a copy of the
tree they are built with the lines of their Python source, and gcov counts those.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .tree import HYPERVISOR, ROOT, build, copy_tree, is_compiled

CORE = ("frames.py", "mmu.py", "promotion.py", "ptwrite.py", "events.py", "events_fifo.py")
TESTS = ("tests/hypervisor", "tests/guests", "tests/fuzz/test_fuzz.py")


def modules() -> list[str]:
    """The handlers, and what stands right behind them."""
    handlers = sorted((ROOT / HYPERVISOR / "hypercalls").glob("*.py"))
    names = [f"hypercalls/{path.name}" for path in handlers if path.stat().st_size]
    return [*names, *(name for name in CORE if (ROOT / HYPERVISOR / name).exists())]


def of_compiled(tree: Path, module: Path) -> tuple[int, int, list[int]]:
    """Lines reached, lines in all, and those that were not."""
    done = subprocess.run(
        ["gcov", "-t", str(next((tree / module).parent.glob(f"*{module.stem}.mutant.gcda")))],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    counts: dict[int, bool] = {}
    here = False
    source = (tree / module).read_text(encoding="utf-8").splitlines()
    for line in done.stdout.splitlines():
        if "Source:" in line:
            here = line.strip().endswith(f"{module.name}")
        match = re.match(r"\s*([\d#=\-*]+)[*]?:\s*(\d+):", line)
        if here and match and int(match[2]) and match[1] != "-":
            number = int(match[2])
            counts[number] = counts.get(number, False) or match[1][0].isdigit()
    # Declarations and docstrings are code only to Cython.
    counts = {n: hit for n, hit in counts.items() if n <= len(source) and not _is_declaration(source[n - 1])}
    return sum(counts.values()), len(counts), sorted(n for n, hit in counts.items() if not hit)


def _is_declaration(line: str) -> bool:
    return bool(re.match(r"(def |from |import |cdef |class |@|\"\"\"|[A-Z_]+ = cython\.declare)", line.strip()))


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
            failure = build(tree, HYPERVISOR / name, ["--coverage", "-O0"], ["--line-directives"])
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
                hit, lines, missing = of_compiled(tree, HYPERVISOR / name)
            else:
                found = next(value for path, value in files.items() if path.endswith(f"hypervisor/{name}"))
                hit, lines = found["summary"]["covered_lines"], found["summary"]["num_statements"]
                missing = found["missing_lines"]
            reached, total = reached + hit, total + lines
            print(f"{name:40} {hit:5} of {lines:5} {100 * hit / max(lines, 1):6.1f}%  {missing}")
        print(f"{'all':40} {reached:5} of {total:5} {100 * reached / total:6.1f}%")
    return 0


if __name__ == "__main__":
    sys.exit(main())
