"""Our own kernels: which there are, and how to build them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from .xenrun import Setting, settings

GUESTS = Path(__file__).resolve().parent.parent.parent / "guests"
# `hello` tells about its machine, `burn`, `idle`, `pair` and `rewrites` never end, `launch` is the oracle's own control
# domain, `fuzz` does something else each time, `batches` says how late it was, `blk` needs a disk and `net` a network:
# they have no transcripts.
WITHOUT_TRANSCRIPT = ("batches", "blk", "burn", "fuzz", "hello", "idle", "launch", "net", "pair", "rewrites")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guests_build", GUESTS / "build.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(GUESTS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_BUILD = _load()


@dataclass(frozen=True)
class Run:
    """One way of running one kernel; the name is the kernel's, with a dot and the way's if it has several."""

    name: str
    kernel: str
    setting: Setting


def runs() -> dict[str, Run]:
    """By name, every run that has a transcript, or should."""
    found = {}
    for kernel in _BUILD.guest_names():
        if kernel not in WITHOUT_TRANSCRIPT:
            for way, setting in settings(GUESTS / kernel).items():
                name = f"{kernel}.{way}" if way else kernel
                found[name] = Run(name, kernel, setting)
    return found


def ready(name: str, folder: Path) -> Path:
    """One kernel in ``folder``, where it is built unless it has been."""
    path = folder / name
    return path if path.is_file() else build(name, folder)


def build(name: str, outdir: Path) -> Path:
    """Build one kernel into ``outdir``; see guests/build.py."""
    path = _BUILD.build_guest(name, outdir)
    if not isinstance(path, Path):
        raise TypeError("build_guest must return a path")
    return path
