"""Builds the compiled parts: constants, Cython modules, the engine's shim, the embedded guest `hello`.

A module is compiled when its first lines carry a `# cython:` directive comment; nothing is listed here.
Work in place, with only what changed being built again::

    python setup.py build_ext --inplace
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SOURCE = Path("src")
COMPILED_FOLDERS = ("machine", "hypervisor", "domain0")
DIRECTIVE = re.compile(r"^# cython:", re.MULTILINE)
COMPILE_ARGS = ["-O2", "-g0", "-fno-strict-aliasing", "-Wno-unused-function", "-Wno-unused-variable"]
CYTHON_DIRECTIVES = {"language_level": 3, "annotation_typing": True, "embedsignature": True}


def load(name: str, path: Path) -> ModuleType:
    """Import one file by its path, without the package that it belongs to (which is not built yet)."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"paravirt cannot be built because {path} is missing.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def write_if_changed(path: Path, text: str) -> None:
    """Leave an up-to-date file alone, so that its time stamp does not rebuild everything."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def generate_constants() -> None:
    """Write paravirt_abi.h and constants.pxd from the Python modules of paravirt.abi."""
    abi = ROOT / SOURCE / "paravirt" / "abi"
    header, pxd = load("_paravirt_cheader", abi / "_cheader.py").render()
    write_if_changed(abi / "paravirt_abi.h", header)
    write_if_changed(abi / "constants.pxd", pxd)


def is_compiled(path: Path) -> bool:
    """Whether the comment block at the top of a module holds a Cython directive."""
    return DIRECTIVE.search(path.read_text(encoding="utf-8")[:2000]) is not None


def extensions() -> list[Extension]:
    """One extension per compiled module; C files are linked into the ``engine`` module of their folder."""
    package = SOURCE / "paravirt"
    headers = sorted(str(path) for path in package.rglob("*.h"))
    found = []
    for folder in COMPILED_FOLDERS:
        for path in sorted((package / folder).rglob("*.py")):
            if not is_compiled(path):
                continue
            beside = sorted(path.parent.glob("*.c")) if path.name == "engine.py" else []
            found.append(
                Extension(
                    ".".join(path.relative_to(SOURCE).with_suffix("").parts),
                    [str(path), *map(str, beside)],
                    include_dirs=[str(SOURCE), str(package / "abi")],
                    depends=headers,
                    extra_compile_args=COMPILE_ARGS,
                    libraries=["dl", "pthread"],
                )
            )
    return found


def require_compiler() -> None:
    """End with one sentence unless a C compiler and Python's headers are here."""
    words = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc").split()
    if shutil.which(words[0]) is None:
        raise SystemExit(
            f"paravirt needs a C compiler to be installed, and '{words[0]}' was not found "
            "(Debian: apt-get install gcc libc6-dev python3-dev)."
        )
    include = sysconfig.get_paths()["include"]
    with tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / "probe.c"
        probe.write_text("#include <Python.h>\n#include <stdlib.h>\nint probe(void) { return 0; }\n")
        command = [*words, f"-I{include}", "-c", str(probe), "-o", str(probe.with_suffix(".o"))]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            raise SystemExit(
                f"paravirt needs the C headers of Python and of the C library, and '{words[0]}' "
                "could not use them (Debian: apt-get install libc6-dev python3-dev)."
            )


class BuildExt(build_ext):
    """Constants first, then Cython, then C, on two processors."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = min(4, os.cpu_count() or 1)

    def run(self) -> None:
        # Late, so that `pip` can ask for metadata without a compiler.
        from Cython.Build import cythonize

        require_compiler()
        generate_constants()
        translated = cythonize(
            self.extensions,
            include_path=[str(SOURCE)],
            build_dir=str(Path("build") / "cython"),
            compiler_directives=CYTHON_DIRECTIVES,
            nthreads=min(2, os.cpu_count() or 1),
            force=True if self.force else None,
        )
        by_name = {module.name: module for module in translated}
        for module in self.extensions:
            module.sources = by_name[module.name].sources
            module.depends = by_name[module.name].depends
        if self.editable_mode:
            # Not the temporary folders of an editable install: what is built already need not be built again.
            fresh = self.distribution.get_command_obj("build", create=True)
            self.build_temp = str(Path("build") / f"temp.{fresh.plat_name}-{sys.implementation.cache_tag}")
            self.build_lib = str(Path("build") / f"lib.{fresh.plat_name}-{sys.implementation.cache_tag}")
        super().run()
        self._build_hello()

    def _build_hello(self) -> None:
        """The guest that is shipped inside the package."""
        folder = ROOT / SOURCE / "paravirt" / "data"
        inputs = [p for name in ("hello", "lib") for p in (ROOT / "guests" / name).iterdir() if p.is_file()]
        inputs.append(ROOT / "guests" / "build.py")
        hello = folder / "hello"
        newest = max(path.stat().st_mtime for path in inputs)
        if self.force or not hello.is_file() or hello.stat().st_mtime < newest:
            folder.mkdir(exist_ok=True)
            try:
                load("_paravirt_guests", ROOT / "guests" / "build.py").build_guest("hello", folder)
            except (FileNotFoundError, RuntimeError) as error:
                raise SystemExit(f"paravirt could not build its own guest: {error}") from error
        if not self.inplace and not self.editable_mode:
            target = Path(self.build_lib) / "paravirt" / "data"
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(hello, target / "hello")


class BuildPy(build_py):
    """Python sources, once the files that are generated beside them exist."""

    def run(self) -> None:
        generate_constants()
        super().run()


if __name__ == "__main__":
    os.chdir(ROOT)
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
