"""Lines reached, as gcc's counters tell them of a compiled module: the right lines, and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .coverage import of_compiled, statements
from .tree import HYPERVISOR, build

SOURCE = '''# cython: language_level=3
"""a module"""
import cython

def inner(a: cython.int) -> cython.int:
    """what it does"""
    found: cython.int
    if a < 0 or a > 100 or (a % 7 == 3 and a % 11 == 5):
        return -1
    found = a * 2
    while a > 50:
        a -= 1
        found += a
    return found

def unreached(a: cython.int) -> cython.int:
    return a

def outer(a):
    if a:
        return inner(a)
    return None
'''


def test_the_lines_that_were_reached_are_told_and_no_others(tmp_path: Path) -> None:
    module = HYPERVISOR / "small.py"
    (tmp_path / module).parent.mkdir(parents=True)
    for folder in ("src/paravirt", "src/paravirt/hypervisor"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / module).write_text(SOURCE, encoding="utf-8")
    (tmp_path / module).with_suffix(".pxd").write_text(
        "cdef int inner(int a) noexcept nogil\ncdef int unreached(int a) noexcept nogil\n", encoding="utf-8"
    )
    assert build(tmp_path, module, ["--coverage", "-O0"]) is None
    program = "from paravirt.hypervisor import small; assert small.outer(5) == 10; assert small.outer(-1) == -1"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "src", check=True)
    counted = statements(SOURCE)
    reached, missing = (lines & counted for lines in of_compiled(tmp_path, module))
    text = SOURCE.splitlines()
    assert counted == set(range(8, 15)) | {17, 20, 21, 22}
    assert reached == {8, 9, 10, 11, 14, 20, 21}, [text[line - 1] for line in reached]
    assert missing == {12, 13, 17, 22}, [text[line - 1] for line in missing]
