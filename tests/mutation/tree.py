"""A copy of the tree in which modules can be changed and built again."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from .mutants import Mutant, mutants, with_switches

ROOT = Path(__file__).resolve().parents[2]
HYPERVISOR = Path("src/paravirt/hypervisor")
FLAGS = ["-shared", "-fPIC", "-O1", "-g0", "-fno-strict-aliasing", "-w"]
# What refuses nothing to a guest: the order in which vcpus run and its parameters, which users set, and the audit,
# which only looks.
OUT_OF_SCOPE = ("sched/*", "views/scheduler.py", "audit*.py")
TESTS = ("tests/hypervisor", "tests/guests", "tests/domain0/test_crash.py")
# What answers in a compiled module whether a mutant's condition is left out, and notes that it decided something:
# the mapped file holds the mutant's number and then a byte for each mutant (see session.py).
_HEADER = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
static volatile unsigned char *mutant_page;
__attribute__((constructor)) static void mutant_map(void)
{
    const char *name = getenv("PARAVIRT_MUTANTS");
    int fd = open(name ? name : "", O_RDWR);
    void *at = fd < 0 ? MAP_FAILED : mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        abort();
    close(fd);
    mutant_page = at;
}
static inline int waived(int number)
{
    mutant_page[4 + number] = 1;
    return *(volatile int *)mutant_page == number;
}
static inline int holds(int number) { return !waived(number); }
"""
_DECLARATIONS = """
cdef extern from "paravirt/mutated.h":
    bint holds(int number) noexcept nogil
    bint waived(int number) noexcept nogil
"""
_PYTHON = '''
"""The same for modules that are not compiled."""
import mmap, os, struct
with open(os.environ["PARAVIRT_MUTANTS"], "r+b") as file:
    page = mmap.mmap(file.fileno(), 1 << 16)
def waived(number):
    page[4 + number] = 1
    return struct.unpack_from("<i", page)[0] == number
def holds(number):
    return not waived(number)
'''


def copy_tree(to: Path) -> None:
    """What the tests need, built modules included."""
    for name in ("src", "tests", "guests", "docs", "build"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, to)


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


def checked_modules() -> dict[str, list[Mutant]]:
    """The modules that check what guests ask for, by their names under `hypervisor`, with their mutants."""
    found = {}
    for path in sorted((ROOT / HYPERVISOR).rglob("*.py")):
        name = path.relative_to(ROOT / HYPERVISOR)
        here = mutants(path.read_text(encoding="utf-8"))
        if here and not any(name.match(pattern) for pattern in OUT_OF_SCOPE):
            found[name.as_posix()] = here
    return found


def with_all_mutants(tree: Path, modules: Sequence[str]) -> list[tuple[str, Mutant]]:
    """Change these modules of a copy and build it: the mutants; the first one has number 1."""
    package = tree / "src/paravirt"
    (package / "mutated.h").write_text(_HEADER, encoding="utf-8")
    (package / "mutated_c.pxd").write_text(_DECLARATIONS, encoding="utf-8")
    (package / "mutated.py").write_text(_PYTHON, encoding="utf-8")
    found: list[tuple[str, Mutant]] = []
    for name in modules:
        path = tree / HYPERVISOR / name
        source = path.read_text(encoding="utf-8")
        switch = "cython.cimports.paravirt.mutated_c" if is_compiled(source) else "paravirt.mutated"
        path.write_text(with_switches(source, len(found) + 1, switch), encoding="utf-8")
        found += [(name, mutant) for mutant in mutants(source)]
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The mutants could not be built:\n{(done.stdout + done.stderr)[-3000:]}")
    return found
