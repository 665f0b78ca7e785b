"""The mutants themselves: which checks are found, and what is left of the source; and the list of those excused."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from .__main__ import judge
from .equivalent import EQUIVALENT, Equivalent, stale
from .mutants import Mutant, mutants, with_switches
from .tree import checked_modules

SOURCE = '''"""import what a module needs"""
import cython

def check(host, mfn, level):
    if mfn >= host.nr_frames:
        return False
    if level == 4 or not (
        host.good(mfn)
    ):
        return -EINVAL
    if level:
        host.note(mfn)
    for entry in host:
        if entry.bad and mfn:
            rc = -EFAULT
            break
    if not (mfn < 8 and host.sane):
        raise HypercallError(EPERM)
    return -EPERM if host.dying else 0

def may(host, level) -> cython.bint:
    if not level:
        inject_gp(host)
        return
    if level == 3:
        return cython.NULL
    if level == 2:
        note(host)
    return host.good(level) and not (level or host.bad)

def find(host) -> int:
    return host.first or host.last
'''
FOUND = [
    (5, "mfn >= host.nr_frames"),
    (7, "level == 4"),
    (8, "host.good(mfn)"),
    (14, "entry.bad and mfn"),
    (17, "mfn < 8"),
    (17, "host.sane"),
    (19, "host.dying"),
    (22, "level"),
    (25, "level == 3"),
    (29, "host.good(level)"),
    (29, "level"),
    (29, "host.bad"),
]


def test_each_check_and_each_part_of_one_is_removed_once() -> None:
    assert [(mutant.line, mutant.condition) for mutant in mutants(SOURCE)] == FOUND
    assert {mutant.function for mutant in mutants(SOURCE)} == {"check", "may"}


def test_all_mutants_are_in_one_text_whose_lines_keep_their_numbers() -> None:
    text = with_switches(SOURCE, 10, "switches")
    ast.parse(text)
    assert "import cython; from switches import holds, waived" in text.splitlines()[1]
    for number, (line, condition) in enumerate(FOUND, 10):
        ends = text.splitlines()[line - 1 :]
        assert f"({number})" in ends[0], condition
    assert text.count(" and holds(") + text.count(" or waived(") == len(FOUND)


def test_text_before_a_check_may_be_any() -> None:
    text = with_switches('import os\ndef f(a):\n    "ä"; b = "ö"\n    if "ü" in a: return False\n', 1, "switches")
    assert text.endswith('if (("ü" in a) and holds(1)): return False\n')


@pytest.mark.parametrize("without", [0, 1, 2])
def test_a_mutant_lacks_its_check_alone(without: int) -> None:
    source = "import os\ndef f(a, b):\n    if a or not b:\n        return False\n    return True\n"
    decided = []

    def waived(number: int) -> bool:
        decided.append(number)
        return number == without

    text = with_switches(source, 1, "switches").replace("; from switches import holds, waived", "")
    scope: dict[str, Any] = {"waived": waived, "holds": lambda number: not waived(number)}
    exec(text, scope)
    assert scope["f"](False, True) is True
    assert decided == []  # neither check refused anything
    assert scope["f"](True, True) is (without == 1)
    assert scope["f"](False, False) is (without == 2)
    assert decided == [1, 2]


def test_what_is_excused_has_to_be_there_and_to_survive() -> None:
    mutant = Mutant(3, "f", "a")
    entry = Equivalent("m.py", "f", "a", "b refuses it")
    assert judge([("m.py", mutant, None)], [entry]) == []
    assert judge([("m.py", mutant, "test")], []) == []
    assert judge([("m.py", mutant, None)], []) == ["m.py:3: f: a: SURVIVES"]
    assert judge([("m.py", mutant, "test")], [entry]) == ["m.py:3: f: a: said to be equivalent, but test notices it"]
    assert stale([entry], {"m.py": [mutant]}) == []
    assert len(stale([entry], {"m.py": [Mutant(3, "f", "b")]})) == 1


def test_the_list_of_excused_mutants_is_up_to_date() -> None:
    assert stale(EQUIVALENT, checked_modules()) == []
    assert all(len(entry.why) > 20 for entry in EQUIVALENT)
    assert len({entry.key for entry in EQUIVALENT}) == len(EQUIVALENT)
