"""Remove each validation check in turn and see whether a test notices: `scripts/mutate MODULE...`.

A copy of the tree is mutated, in a temporary folder; each mutant's module alone is built again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
HYPERVISOR = Path("src/paravirt/hypervisor")
FLAGS = ["-shared", "-fPIC", "-O1", "-g0", "-fno-strict-aliasing", "-w"]
PATIENCE = 240  # seconds for one mutant's tests: one that hangs is noticed too
MODEL = "tests/hypervisor/test_model.py"
AUDIT = "tests/hypervisor/test_audit.py"
# The kernels that work on memory, by words in their names.
WORDS = (
    "pagetables", "pinning", "memory", "descriptor", "ptwr", "confusion", "linear", "validation", "flag_changes",
    "foreign", "superpages", "bounds", "stale", "hypervisor_range",
)  # fmt: skip
KERNELS = f"tests/guests/test_guests.py -k {' or '.join(WORDS)}"
GRANT_KERNELS = "tests/guests/test_guests.py -k grant"
CALLS = "tests/hypervisor/hypercalls"
# The tests that have to notice, the quick ones first.
TESTS: dict[str, list[str]] = {
    "frames.py": [MODEL, AUDIT, KERNELS],
    "mmu.py": [MODEL, KERNELS],
    "promotion.py": [MODEL, KERNELS],
    "hypercalls/mmu_ops.py": [MODEL, KERNELS],
    "hypercalls/descriptor_tables.py": [MODEL, KERNELS],
    "hypercalls/grant_table.py": [f"{CALLS}/test_grant_table.py", GRANT_KERNELS],
    "hypercalls/grant_copy.py": [f"{CALLS}/test_grant_table.py", GRANT_KERNELS],
    "hypercalls/grant_frames.py": [f"{CALLS}/test_grant_table.py", GRANT_KERNELS],
    "hypercalls/memory.py": [f"{CALLS}/test_memory.py", KERNELS],
    "hypercalls/reservation.py": [f"{CALLS}/test_memory.py", MODEL, KERNELS],
    "hypercalls/exchange.py": [f"{CALLS}/test_exchange.py", MODEL, KERNELS],
}


def copy_tree(to: Path) -> None:
    """What the tests need, built modules included."""
    for name in ("src", "tests", "guests", "docs"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)


def is_compiled(source: str) -> bool:
    """Whether a module is one that Cython builds."""
    return "# cython:" in source[:500]


def build(tree: Path, module: Path, extra: Sequence[str] = (), options: Sequence[str] = ()) -> str | None:
    """Build one module in place: what the compiler said if it failed."""
    c_file = (tree / module).with_suffix(".mutant.c")
    name = ".".join(module.relative_to("src").with_suffix("").parts)
    target = (tree / module).with_suffix("").with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))
    includes = ["src", "src/paravirt/abi", "src/paravirt/machine", str((tree / module).parent)]
    steps = [
        ["cython", "-3", "-X", "annotation_typing=True", "-I", "src", "--module-name", name, str(module)],
        ["gcc", *FLAGS, *(f"-I{folder}" for folder in (*includes, sysconfig.get_paths()["include"])), str(c_file)],
    ]
    steps[0] = [sys.executable, "-m", *steps[0], *options, "-o", str(c_file)]
    steps[1] += [*extra, "-o", str(target), "-ldl", "-lpthread"]
    for step in steps:
        done = subprocess.run(step, cwd=tree, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr[-2000:]
    return None


def noticed_by(tree: Path, tests: list[str]) -> str | None:
    """The first test that fails, or None."""
    environment = dict(os.environ, PYTHONPATH=str(tree / "src"), PYTHONDONTWRITEBYTECODE="1", PARAVIRT_NO_SHRINK="1")
    for test in tests:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
        command += test.split(" ", 2)
        try:
            done = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{test} (it did not end)"
        if done.returncode:
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            return failed[0].split(" - ")[0] if failed else f"{test} (exit {done.returncode})"
    return None


def try_mutant(tree: Path, module: Path, original: str, mutant: Mutant, tests: list[str]) -> str | None:
    """What notices a mutant."""
    path = tree / module
    path.write_text(mutant.source, encoding="utf-8")
    try:
        if is_compiled(original):
            failure = build(tree, module)
            if failure is not None:
                return f"the compiler: {failure.strip().splitlines()[-1]}"
        return noticed_by(tree, tests)
    finally:
        path.write_text(original, encoding="utf-8")


def run(name: str, first: int, last: int) -> tuple[int, list[str]]:
    """All mutants of one module: how many there are, and those that nothing notices."""
    module = HYPERVISOR / name
    original = (ROOT / module).read_text(encoding="utf-8")
    survivors = []
    chosen = [mutant for mutant in mutants(original) if first <= mutant.line <= last]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        unchanged = noticed_by(tree, TESTS[name])
        if unchanged is not None:
            raise SystemExit(f"The tests fail without any mutation: {unchanged}.")
        for mutant in chosen:
            by = try_mutant(tree, module, original, mutant, TESTS[name])
            print(f"{name}:{mutant.line}: {mutant.condition}: {by or 'SURVIVES'}", flush=True)
            if by is None:
                survivors.append(f"{name}:{mutant.line}: {mutant.condition}")
    return len(chosen), survivors


def main() -> int:
    """The command line: 0 if every mutant was noticed."""
    parser = argparse.ArgumentParser(prog="mutate", description="Remove each check in turn; tests have to notice.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}; default: all")
    parser.add_argument("--lines", default="1-100000", help="only checks in these lines, FIRST-LAST")
    parser.add_argument("--list", action="store_true", help="only show the checks")
    options = parser.parse_args()
    first, last = map(int, options.lines.split("-"))
    total, survivors = 0, []
    for name in options.modules or [name for name in TESTS if (ROOT / HYPERVISOR / name).exists()]:
        if options.list:
            for mutant in mutants((ROOT / HYPERVISOR / name).read_text(encoding="utf-8")):
                print(f"{name}:{mutant.line}: {mutant.condition}")
            continue
        count, survived = run(name, first, last)
        total += count
        survivors += survived
    if not options.list:
        print(f"{total} mutants, {len(survivors)} survive", *survivors, sep="\n  ")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
