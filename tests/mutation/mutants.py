"""Mutants of a module: each lacks one validation check.

A check is a condition whose branch refuses: it returns a negative error number, false, nothing (None, NULL) or an
exception for the guest, or raises, or sets such an answer, or gives the guest a fault and returns. A mutant takes the
condition, or one part of one that is joined by `or`, for false. Of a condition that is refused unless all of its parts
hold (`not (a and b)`), a mutant takes one part for true; so, too, of what a function answers that is asked a question
(`return a and b`).

One text holds all mutants of a module: in it each such part asks `paravirt.mutated` whether it is the one that is
left out, which also notes that a test got there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_BAD_ANSWERS = ("rc", "start", "index", "port", "first", "NO_FRAME", "GP", "NP", "SS", "PF")


@dataclass(frozen=True)
class Mutant:
    """One check removed.

    Attributes:
        line: where, counted from 1.
        function: in which function.
        condition: what was removed.
    """

    line: int
    function: str
    condition: str


@dataclass(frozen=True)
class _Part:
    """A part of a check's condition; ``refuses``: when it is true (else when it is false)."""

    function: str
    expression: ast.expr
    refuses: bool


def _refuses(body: Sequence[ast.stmt]) -> bool:
    """Whether one of some statements answers with a refusal, or they end in a fault that the guest is given."""
    return any(_answers_no(statement) for statement in body) or (
        isinstance(body[-1], ast.Return) and any(_faults(statement) for statement in body)
    )


def _answers_no(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
        return True
    if isinstance(statement, ast.Assign):
        return isinstance(statement.value, ast.UnaryOp) and _is_refusal(statement.value)
    return isinstance(statement, ast.Return) and statement.value is not None and _is_refusal(statement.value)


def _faults(statement: ast.stmt) -> bool:
    """Whether a statement has the guest take an exception, or ends it."""
    called = statement.value.func if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) else None
    return isinstance(called, ast.Name) and (called.id.startswith("inject_") or called.id == "domain_crash")


def _is_refusal(value: ast.expr) -> bool:
    if isinstance(value, ast.Name):
        return value.id in _BAD_ANSWERS or value.id.startswith("GNTST_")
    if isinstance(value, ast.BinOp):  # an exception's number, with its error code
        return _is_refusal(value.left)
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "fault"
    if isinstance(value, ast.Attribute):
        return value.attr == "NULL"
    if isinstance(value, ast.UnaryOp):
        return isinstance(value.op, ast.USub)
    return isinstance(value, ast.Constant) and (value.value is None or value.value is False)


def _checks(node: ast.AST, function: str, is_question: bool = False) -> Iterator[_Part]:
    """The parts of all checks below a node; ``is_question``: it stands in a function that answers true or false."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield from _checks(child, child.name, ast.unparse(child.returns or child.args) in ("bool", "cython.bint"))
            continue
        is_check = isinstance(child, ast.If) and _refuses(child.body)
        if is_check or (isinstance(child, ast.IfExp) and _is_refusal(child.body)):
            assert isinstance(child, ast.If | ast.IfExp)
            yield from _parts(child.test, function, True)
        if is_question and isinstance(child, ast.Return) and isinstance(child.value, ast.BoolOp | ast.Compare):
            yield from _parts(child.value, function, False)
        yield from _checks(child, function, is_question)


def _parts(condition: ast.expr, function: str, refuses: bool) -> Iterator[_Part]:
    joined = condition.op if isinstance(condition, ast.BoolOp) else None
    if isinstance(condition, ast.BoolOp) and isinstance(joined, ast.Or if refuses else ast.And):
        for value in condition.values:
            yield from _parts(value, function, refuses)
    elif isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not):
        yield from _parts(condition.operand, function, not refuses)
    else:
        yield _Part(function, condition, refuses)


def _offset(lines: list[str], line: int, column: int) -> int:
    """Where in the text a place is; ast counts columns in bytes."""
    before = lines[line - 1].encode()[:column].decode()
    return sum(len(text) for text in lines[: line - 1]) + len(before)


def _places(source: str) -> Iterator[tuple[_Part, int, int]]:
    """Parts, in the order of the text, with their beginnings and ends in it."""
    lines = source.splitlines(keepends=True)
    for part in sorted(
        _checks(ast.parse(source), ""), key=lambda part: (part.expression.lineno, part.expression.col_offset)
    ):
        at = part.expression
        assert at.end_lineno is not None and at.end_col_offset is not None
        yield part, _offset(lines, at.lineno, at.col_offset), _offset(lines, at.end_lineno, at.end_col_offset)


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of the text."""
    return [
        Mutant(part.expression.lineno, part.function, " ".join(source[start:end].split()))
        for part, start, end in _places(source)
    ]


def with_switches(source: str, first: int, switch: str) -> str:
    """A module's text with all of its mutants, which have numbers from ``first`` on.

    Args:
        switch: the module from which `holds` and `waived` come. It is imported in the line of the first import, so
            that all lines keep their numbers.
    """
    edits: list[tuple[int, str]] = []
    for number, (part, start, end) in enumerate(_places(source), first):
        question = f" and holds({number}))" if part.refuses else f" or waived({number}))"
        edits += [(start, "(("), (end, ")" + question)]
    at = source.index("import ", source.index("\nimport cython\n") if "\nimport cython\n" in source else 0)
    edits.append((source.index("\n", at), f"; from {switch} import holds, waived"))
    for place, text in sorted(edits, key=lambda edit: edit[0], reverse=True):
        source = source[:place] + text + source[place:]
    return source
