"""setup.py: what it compiles, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import paravirt

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module, at the root of the clone."""
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("_setup_under_test", ROOT / "setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_modules_are_found_by_their_directive(build: ModuleType, tmp_path: Path) -> None:
    names = {extension.name for extension in build.extensions()}
    assert "paravirt.machine.unicorn.engine" in names
    assert "paravirt.hypervisor.traps" in names
    assert "paravirt.machine.memory" not in names
    plain = tmp_path / "plain.py"
    plain.write_text("'''Says # cython: somewhere.'''\n")
    assert not build.is_compiled(plain)
    plain.write_text("'''Words first.'''\n# cython: language_level=3\n")
    assert build.is_compiled(plain)


def test_c_files_belong_to_the_engine_beside_them(build: ModuleType) -> None:
    with_c = {e.name for e in build.extensions() if any(source.endswith(".c") for source in e.sources)}
    assert with_c == {"paravirt.machine.unicorn.engine", "paravirt.machine.kvm.engine"}


def test_mypy_knows_every_compiled_module(build: ModuleType) -> None:
    """By a .pyi file, or by the module itself where that is plain Python; or no Python code imports it."""
    for extension in build.extensions():
        path = ROOT / extension.sources[0]
        source = path.read_text()
        plain = "annotation_typing=False" in source.splitlines()[0] and "cimport" not in source
        assert plain or path.with_suffix(".pyi").is_file() or "# mypy: ignore-errors" in source, path


def test_no_compiler(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O9")
    with pytest.raises(SystemExit) as caught:
        build.require_compiler()
    sentence = r"paravirt needs a C compiler[^.\n]*'no-such-compiler' was not found[^\n]*\."
    assert re.fullmatch(sentence, str(caught.value))


def test_no_headers(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(SystemExit, match=r"^paravirt needs the C headers of Python"):
        build.require_compiler()


def test_a_compiler_that_works(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    build.require_compiler()


def test_the_version_stands_in_two_places_and_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == paravirt.__version__


def test_the_engine_is_pinned_to_the_version_that_the_shim_knows() -> None:
    from paravirt.machine.unicorn.engine import VERSION

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"unicorn=={VERSION}" in project["dependencies"]
