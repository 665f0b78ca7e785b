#!/usr/bin/env python3
"""Build our own small PV kernels with nothing but gcc and its linker.

Each directory beside this file, except ``lib``, is one kernel: its C and assembler sources together with
those of ``lib``. A file ``flags`` there adds compiler options, one a line. Also a program::

    python guests/build.py -o /tmp/kernels [NAME...]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

# fmt: off
CFLAGS = [
    "-std=gnu11", "-O2", "-g0", "-Wall", "-Wextra", "-Werror",
    "-ffreestanding", "-fno-pic", "-fno-pie", "-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only",
    "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables",
    "-fno-strict-aliasing", "-fno-tree-loop-distribute-patterns",
]
LDFLAGS = [
    "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack", "-Wl,--no-warn-rwx-segments",
]
# fmt: on


def guest_names() -> list[str]:
    """The kernels that can be built, sorted."""
    return sorted(path.parent.name for path in HERE.glob("*/main.c"))


def build_guest(name: str, outdir: Path | str, compiler: str | None = None) -> Path:
    """Compile and link the kernel `name` into `outdir`, which is made when missing.

    Returns the path of the ELF file, `outdir`/`name`. Raises FileNotFoundError when there is no such kernel
    or no compiler, and RuntimeError with the compiler's own words when it refuses. The file appears under
    its name only when it is complete, so that parallel builds of one kernel do not disturb each other.
    """
    source = HERE / name
    if name not in guest_names():
        raise FileNotFoundError(f"there is no guest kernel called {name!r} in {HERE}")
    gcc = compiler or os.environ.get("CC") or "gcc"
    if shutil.which(gcc) is None:
        raise FileNotFoundError(f"guest kernels need a C compiler, and {gcc!r} was not found")
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    extra_file = source / "flags"
    extra = extra_file.read_text().split() if extra_file.exists() else []
    sources = [path for folder in (HERE / "lib", source) for path in sorted(folder.glob("*.[cS]"))]
    target = outdir / name
    partial = outdir / f".{name}.{os.getpid()}"
    script = HERE / "lib" / "guest.ld"
    command = [
        gcc, *CFLAGS, *extra, f"-I{HERE / 'lib'}", *LDFLAGS, f"-Wl,-T,{script}",
        *map(str, sources), "-o", str(partial),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        raise RuntimeError(f"{gcc} could not build the guest kernel {name}:\n{done.stderr}")
    partial.replace(target)
    return target


def main() -> int:
    """The command line: build the named kernels, or all."""
    parser = argparse.ArgumentParser(description="Build our own small PV kernels.")
    parser.add_argument("-o", "--outdir", type=Path, default=HERE.parent / "build" / "guests")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    for name in options.names or guest_names():
        try:
            print(build_guest(name, options.outdir))
        except (FileNotFoundError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
