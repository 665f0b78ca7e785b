"""Mutants of a module: each lacks one validation check.

A check is a condition whose branch refuses: it returns a negative error number or false, or raises, or sets such an
answer. A mutant has `False` in place of the condition, or of one part of one that is joined by `or`. In conditions
under which something is *allowed* (joined by `and`, before a grant of something), a part becomes `True`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One check removed.

    Attributes:
        line: where, counted from 1.
        condition: what was removed.
        source: the module's text without it.
    """

    line: int
    condition: str
    source: str


def _refuses(statement: ast.stmt) -> bool:
    """Whether a statement ends the function with a refusal."""
    if isinstance(statement, ast.Raise):
        return True
    if isinstance(statement, ast.Assign):
        return isinstance(statement.value, ast.UnaryOp) and isinstance(statement.value.op, ast.USub)
    if not isinstance(statement, ast.Return) or statement.value is None:
        return False
    return _is_refusal(statement.value)


def _is_refusal(value: ast.expr) -> bool:
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub):
        return True
    if isinstance(value, ast.Name):
        return value.id in ("rc", "start", "index") or value.id.startswith("GNTST_")
    return isinstance(value, ast.Constant) and value.value is False


def _checks(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        is_check = isinstance(node, ast.If) and any(_refuses(statement) for statement in node.body)
        if is_check or (isinstance(node, ast.IfExp) and _is_refusal(node.body)):
            assert isinstance(node, ast.If | ast.IfExp)
            yield node.test


def _parts(condition: ast.expr) -> Iterator[ast.expr]:
    if isinstance(condition, ast.BoolOp) and isinstance(condition.op, ast.Or):
        for value in condition.values:
            yield from _parts(value)
    else:
        yield condition


def _offset(lines: list[str], line: int, column: int) -> int:
    """Where in the text a place is; ast counts columns in bytes."""
    before = lines[line - 1].encode()[:column].decode()
    return sum(len(text) for text in lines[: line - 1]) + len(before)


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of their lines."""
    lines = source.splitlines(keepends=True)
    found = []
    for check in _checks(ast.parse(source)):
        for part in _parts(check):
            assert part.end_lineno is not None and part.end_col_offset is not None
            start = _offset(lines, part.lineno, part.col_offset)
            end = _offset(lines, part.end_lineno, part.end_col_offset)
            text = " ".join(source[start:end].split())
            # As many lines as before, so that line numbers stay.
            filler = "\n" * source[start:end].count("\n")
            mutated = source[:start] + ("(False" + filler + ")") + source[end:]
            found.append(Mutant(part.lineno, text, mutated))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.condition))
