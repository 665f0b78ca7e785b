"""The C header and the Cython declarations that are made from paravirt.abi."""

import ctypes
import importlib
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from paravirt.abi import _cheader, errno, grant_table, xen


def compile_c(program: Path, *include: Path | str) -> None:
    """Compile with every warning an error."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    flags = [f"-I{directory}" for directory in include]
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-fsyntax-only", *flags]
    done = subprocess.run([*command, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]


def test_the_c_header_states_the_modules_values(tmp_path: Path) -> None:
    _cheader.write(tmp_path)
    checks = []
    for module in _cheader.MODULES:
        for key, value in _cheader.constants(module):
            name = f"XEN_{key}" if module == "errno" else key
            literal = f"{value}ULL" if value >= 1 << 63 else f"({value}LL)"
            checks.append(f'_Static_assert({name} == {literal}, "{name}");')
    assert len(checks) > 300
    program = tmp_path / "check.c"
    # The host's errors come first, because Python.h brings them in wherever the header is used.
    program.write_text('#include <errno.h>\n#include "paravirt_abi.h"\n' + "\n".join(checks) + "\n")
    compile_c(program, tmp_path)


def test_layouts_are_in_the_c_header(tmp_path: Path) -> None:
    _cheader.write(tmp_path)
    program = tmp_path / "check.c"
    program.write_text(
        '#include "paravirt_abi.h"\n'
        f'_Static_assert(SIZEOF_StartInfo == {ctypes.sizeof(xen.StartInfo)}, "size");\n'
        f'_Static_assert(OFFSETOF_VcpuInfo_time_system_time == {32 + 16}, "nested");\n'
        f'_Static_assert(OFFSETOF_StartInfo_cmd_line == {xen.StartInfo.cmd_line.offset}, "flat");\n'
    )
    compile_c(program, tmp_path)


def test_cython_reads_the_same_values(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    _cheader.write(tmp_path)
    (tmp_path / "probe.pyx").write_text(
        "# cython: language_level=3\n"
        "from constants cimport *\n"
        "class Inside:\n"
        "    @staticmethod\n"
        "    def values():\n"
        "        return HYPERVISOR_iret, EINVAL, GNTST_bad_page, HYPERVISOR_VIRT_START, SIZEOF_VcpuInfo\n"
    )
    subprocess.run(
        [sys.executable, "-m", "cython", "probe.pyx"], cwd=tmp_path, check=True, capture_output=True
    )
    include = sysconfig.get_paths()["include"]
    if not Path(include, "Python.h").is_file():
        pytest.skip("the headers of Python are not installed")
    target = tmp_path / f"probe{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(
        [
            "gcc",
            "-O0",
            "-w",
            "-shared",
            "-fPIC",
            f"-I{include}",
            f"-I{tmp_path}",
            "probe.c",
            "-o",
            str(target),
        ],
        cwd=tmp_path,
        check=True,
    )
    sys.path.insert(0, str(tmp_path))
    try:
        probe = importlib.import_module("probe")
    finally:
        sys.path.remove(str(tmp_path))
    expected = (xen.HYPERCALLS["iret"], errno.EINVAL, grant_table.GNTST_bad_page, 0xFFFF_8000_0000_0000, 64)
    assert probe.Inside.values() == expected


def test_it_runs_without_the_package(tmp_path: Path) -> None:
    source = Path(_cheader.__file__)
    made = runpy.run_path(str(source))["write"](tmp_path)
    assert [path.read_text() for path in made] == list(_cheader.render())
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import runpy; runpy.run_path({str(source)!r})['write'](__import__('pathlib').Path('.'))",
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_an_unchanged_file_keeps_its_time_stamp(tmp_path: Path) -> None:
    before = [path.stat().st_mtime_ns for path in _cheader.write(tmp_path)]
    assert [path.stat().st_mtime_ns for path in _cheader.write(tmp_path)] == before


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1])
def test_a_number_beyond_64_bits_is_refused(value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cheader, "constants", lambda name: iter([("TOO_BIG", value)]))
    with pytest.raises(ValueError, match="64 bits"):
        _cheader.render()


def test_one_name_cannot_have_two_values(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    monkeypatch.setattr(_cheader, "constants", lambda name: iter([("TWICE", next(numbers))]))
    with pytest.raises(ValueError, match="two values"):
        _cheader.render()
