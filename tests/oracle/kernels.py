"""Our own kernels: which there are, and how to build them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

GUESTS = Path(__file__).resolve().parent.parent.parent / "guests"
# `hello` tells about its machine, and `launch` is the oracle's own control domain: neither has a transcript.
WITHOUT_TRANSCRIPT = ("hello", "launch")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guests_build", GUESTS / "build.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(GUESTS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_BUILD = _load()


def names() -> list[str]:
    """The kernels that have a transcript, or should."""
    return [name for name in _BUILD.guest_names() if name not in WITHOUT_TRANSCRIPT]


def build(name: str, outdir: Path) -> Path:
    """Build one kernel into ``outdir``; see guests/build.py."""
    path = _BUILD.build_guest(name, outdir)
    if not isinstance(path, Path):
        raise TypeError("build_guest must return a path")
    return path
