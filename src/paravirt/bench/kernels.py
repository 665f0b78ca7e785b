"""The benchmarks' own kernels in C: each is compiled once, and kept."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

from paravirt.bench.guestprogram import compiler_version, find_compiler
from paravirt.errors import UserError
from paravirt.guestkernels.cache import Cache

# fmt: off
_FLAGS = (
    "-std=gnu11", "-O2", "-ffreestanding", "-fno-pic", "-fno-pie", "-mcmodel=kernel", "-mno-red-zone",
    "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables",
    "-fno-strict-aliasing", "-fno-tree-loop-distribute-patterns", "-nostdlib", "-static", "-no-pie",
    "-Wl,--build-id=none", "-Wl,-N", "-Wl,-T,traps.ld",
)
# fmt: on


def kernel(name: str) -> Path:
    """The kernel whose source is NAME.c, compiled when it is not in the cache.

    Raises:
        UserError: there is no C compiler, or it refuses; the cache cannot be written.
    """
    folder = resources.files("paravirt.bench") / "trapkernel"
    sources = {file: (folder / file).read_text(encoding="utf-8") for file in (f"{name}.c", "boot.h", "traps.ld")}
    compiler = find_compiler()
    text = "\0".join([compiler_version(compiler), *_FLAGS, *sources.values()])

    def fill(target: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for file, content in sources.items():
                Path(scratch, file).write_text(content, encoding="utf-8")
            command = [*compiler, *_FLAGS, f"{name}.c", "-o", str(target / name)]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UserError(f"The kernel {name}.c of the benchmarks could not be compiled with '{compiler[0]}'.")

    return Cache().make(f"bench/{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}", fill) / name
