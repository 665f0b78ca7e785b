"""Who imports whom: the order of the first table in docs/architecture.md is that of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src"
PAGE = ROOT / "docs" / "architecture.md"
CIMPORT = re.compile(r"^\s*from\s+(paravirt[\w.]*)\s+cimport\b", re.M)


def parts() -> dict[str, int]:
    """Row of each part of the table, by the name that its modules' names begin with."""
    table = PAGE.read_text(encoding="utf-8").split("\n|---", 1)[1].split("\n\n", 1)[0]
    found: dict[str, int] = {}
    for row, line in enumerate(table.splitlines()[1:]):
        for name in re.findall(r"`([^`]+)`", line.split("|")[1]):
            found["paravirt." + name.removesuffix(".py").rstrip("/").replace("/", ".")] = row
    return found


PARTS = parts()


def part_of(module: str) -> str:
    """The part that has a module; it is an error if none has."""
    return max((part for part in PARTS if f"{module}.".startswith(f"{part}.")), key=len)


def is_module(name: str) -> bool:
    path = SOURCES.joinpath(*name.split("."))
    return path.is_dir() or any(path.with_suffix(suffix).exists() for suffix in (".py", ".pxd"))


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that one imports, at its top or later."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".pxd":
        yield from CIMPORT.findall(text)
        return
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if is_module(name.removeprefix("cython.cimports.")) else node.module for name in below]
        for name in names:
            name = name.removeprefix("cython.cimports.")
            if name.split(".")[0] == "paravirt":
                yield name if name != "paravirt" else "paravirt.__init__"


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((SOURCES / "paravirt").rglob("*.p[yx]*")):
        if path.suffix in (".py", ".pxd"):
            name = ".".join(path.relative_to(SOURCES).with_suffix("").parts)
            yield name if name == "paravirt.__init__" else name.removesuffix(".__init__"), path


def test_every_module_belongs_to_a_part() -> None:
    assert len(PARTS) > 10
    assert {part_of(name) for name, _ in modules()} == set(PARTS)


def test_imports_go_upwards_in_the_table() -> None:
    wrong, seen = [], 0
    for name, path in modules():
        own = part_of(name)
        for other in imported(path):
            seen += 1
            part = part_of(other)
            if part != own and PARTS[part] >= PARTS[own]:
                wrong.append(f"{name} imports {other}")
    assert not wrong
    assert seen > 1000
