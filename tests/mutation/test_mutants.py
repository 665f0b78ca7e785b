"""The mutants themselves: which checks are found, and what is left of the source."""

from __future__ import annotations

import ast

from .mutants import mutants

SOURCE = '''
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
    if mfn == 3:
        raise HypercallError(EPERM)
    return -EPERM if host.dying else 0
'''


def test_each_check_and_each_part_of_one_is_removed_once() -> None:
    found = [(mutant.line, mutant.condition) for mutant in mutants(SOURCE)]
    assert found == [
        (3, "mfn >= host.nr_frames"),
        (5, "level == 4"),
        (5, "not ( host.good(mfn) )"),
        (12, "entry.bad and mfn"),
        (15, "mfn == 3"),
        (17, "host.dying"),
    ]


def test_a_mutant_is_python_and_differs_in_its_check_alone() -> None:
    for mutant in mutants(SOURCE):
        ast.parse(mutant.source)
        assert len(mutant.source.splitlines()) == len(SOURCE.splitlines())
        assert "(False" in mutant.source.splitlines()[mutant.line - 1]
        assert mutant.source.count("(False") == 1


def test_text_before_a_check_may_be_any() -> None:
    (mutant,) = mutants('def f(a):\n    "ä"; b = "ö"\n    if "ü" in a: return False\n')
    assert mutant.source.endswith("if (False): return False\n")
