"""Turns the constants and layouts of this package into a C header and a Cython declaration file.

The Python modules are the one place where the numbers stand; the compiled parts get them from here at
build time. Only the standard library is needed and the rest of paravirt is not imported, so that ``setup.py``
can run this file before anything is built: ``runpy.run_path(...)["write"](directory)``, or
``python -m paravirt.abi._cheader OUTDIR``. (Not ``python _cheader.py``: that would put this folder in front
of the standard library, whose ``platform`` and ``io`` have namesakes here.)
"""

import ctypes
import importlib
import inspect
import itertools
import sys
import types
from collections.abc import Iterator
from pathlib import Path

MODULES = (
    "xen",
    "arch_x86",
    "errno",
    "event_channel",
    "sched",
    "vcpu",
    "memory",
    "grant_table",
    "physdev",
    "callback",
    "version",
    "features",
    "nmi",
    "io.blkif",
)
HEADER = "paravirt_abi.h"
PXD = "constants.pxd"


def _load(name: str) -> types.ModuleType:
    """Import one module of this folder without importing the package ``paravirt`` around it."""
    package = "_paravirt_abi_for_build"
    if package not in sys.modules:
        shell = types.ModuleType(package)
        shell.__path__ = [str(Path(__file__).resolve().parent)]
        sys.modules[package] = shell
    return importlib.import_module(f"{package}.{name}")


def constants(name: str) -> Iterator[tuple[str, int]]:
    """The integer constants that module ``name`` defines, in its order."""
    for key, value in vars(_load(name)).items():
        if type(value) is int:
            yield key, value


Layout = type[ctypes.Structure] | type[ctypes.Union]


def structures(name: str) -> Iterator[Layout]:
    """The public structures and unions that module ``name`` defines, in its order."""
    module = _load(name)
    for key, value in vars(module).items():
        if key.startswith("_") or not inspect.isclass(value) or value.__module__ != module.__name__:
            continue
        if issubclass(value, ctypes.Structure | ctypes.Union):
            yield value


def members(layout: Layout, path: str = "", base: int = 0) -> Iterator[tuple[str, int, int]]:
    """Every member of a layout, those of nested layouts included, as (dotted path, offset, size) in bytes."""
    for key, kind, *_ in layout._fields_:
        offset = base + getattr(layout, key).offset
        yield path + key, offset, ctypes.sizeof(kind)
        if issubclass(kind, ctypes.Structure | ctypes.Union):
            yield from members(kind, f"{path}{key}.", offset)


def _layout_numbers(name: str) -> Iterator[tuple[str, int]]:
    """Sizes and offsets of the structures of module ``name``, as further constants."""
    for layout in structures(name):
        yield f"SIZEOF_{layout.__name__}", ctypes.sizeof(layout)
        for path, offset, _ in members(layout):
            yield f"OFFSETOF_{layout.__name__}_{path.replace('.', '_')}", offset


def _literal(value: int) -> str:
    """A C literal: ``long long`` where it fits, else ``unsigned long long``."""
    if not -(1 << 63) < value < 1 << 64:
        raise ValueError(f"{value:#x} does not fit in 64 bits")
    if value < 0:
        return f"({value}LL)"
    return f"{value:#x}ULL" if value >= 1 << 63 else f"{value:#x}LL"


def _names(module: str, key: str) -> tuple[str, str]:
    """The name in C and the name in Cython.

    Python.h brings in the host's <errno.h>, whose macros have the same names as Xen's errors: in C ours get
    Xen's own prefix for that case. Cython would mangle two leading underscores inside a class.
    """
    if module == "errno":
        return f"XEN_{key}", key
    return key, key.removeprefix("__")


def render() -> tuple[str, str]:
    """Make both texts: the C header ``paravirt_abi.h`` and ``constants.pxd``, which declares it to Cython.

    Every constant is ``const long long``, or ``const unsigned long long`` from 2^63 on. In Cython the leading
    ``__`` of a name is dropped (``HYPERVISOR_iret``), and errors have their plain name (``EINVAL``).
    Structures appear as ``SIZEOF_VcpuInfo`` and ``OFFSETOF_StartInfo_console_domU_mfn``, in bytes.

    Raises:
        ValueError: two constants claim one name with different values, or a value needs more than 64 bits.
    """
    banner = "Made from the modules of paravirt.abi by paravirt.abi._cheader. Do not edit."
    header = [f"/* {banner} */", "#ifndef PARAVIRT_ABI_H", "#define PARAVIRT_ABI_H"]
    pxd = [f"# {banner}", f'cdef extern from "{HEADER}":']
    in_c: dict[str, int] = {}
    in_cython: dict[str, int] = {}
    for module in MODULES:
        header.append(f"\n/* {module} */")
        pxd.append(f"\n    # {module}")
        for key, value in itertools.chain(constants(module), _layout_numbers(module)):
            c_name, cython_name = _names(module, key)
            if in_c.setdefault(c_name, value) != value or in_cython.get(cython_name, value) != value:
                raise ValueError(f"{module}.{key} has two values")
            header.append(f"#define {c_name} {_literal(value)}")
            if cython_name not in in_cython:
                in_cython[cython_name] = value
                kind = "unsigned long long" if value >= 1 << 63 else "long long"
                alias = "" if cython_name == c_name else f' "{c_name}"'
                pxd.append(f"    const {kind} {cython_name}{alias}")
    header.append("\n#endif")
    return "\n".join(header) + "\n", "\n".join(pxd) + "\n"


def write(directory: Path) -> list[Path]:
    """Write both files into ``directory``; a file that has the right content keeps its time stamp."""
    written = []
    for name, text in zip((HEADER, PXD), render(), strict=True):
        path = directory / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m paravirt.abi._cheader OUTDIR")
    for made in write(Path(sys.argv[1])):
        print(made)
