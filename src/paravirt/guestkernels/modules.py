"""Modules of a guest's kernel, out of the package that the kernel is from.

Debian's kernels have the Xen frontends as modules. Which others a module needs stands in it (``depends=``, put there
by the kernel's build), so that neither depmod nor modprobe is needed.
"""

from __future__ import annotations

import lzma
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import zstandard

from paravirt.errors import UserError
from paravirt.guestkernels.apt import Package, Report, fetch
from paravirt.guestkernels.cache import Cache
from paravirt.guestkernels.catalogue import obtain

FRONTENDS: Final = ("xen-blkfront", "xen-netfront")
"""What a guest needs for its disks and network interfaces."""

WANTED: Final = (*FRONTENDS, "ext4", "isofs", "virtio_blk", "virtio_net", "virtio_pci")
"""What is kept of a package; those that a kernel has built in are not among its modules."""

_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")
_ORDER: Final = "order"
_UNPACK: Final[dict[str, Callable[[bytes], bytes]]] = {
    ".ko": bytes,
    ".ko.xz": lzma.decompress,
    ".ko.zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def obtain_modules(
    kernel: str, wanted: Iterable[str] = FRONTENDS, report: Report = lambda text: None, cache: Cache | None = None
) -> dict[str, bytes]:
    """The modules of a catalogued kernel that ``wanted`` names, and those that they need, as name and file, in the
    order in which they can be loaded. What the kernel has built in is not among them.

    Raises:
        UserError: the kernel's package cannot be fetched.
    """
    cache = cache or Cache()
    package = obtain(kernel, report, cache).package
    if not package:
        raise UserError(f"The guest {kernel!r} has no modules.")

    def fill(folder: Path) -> None:
        fetched = fetch(package, folder, cache.root / "apt", report)
        modules = dict(_modules(fetched))
        order = closure(modules, WANTED)
        for name in order:
            (folder / name).write_bytes(modules[name])
        (folder / _ORDER).write_text("".join(f"{name}\n" for name in order), encoding="utf-8")
        fetched.deb.unlink()

    folder = cache.make(f"modules/{package}", fill)
    kept = {name: (folder / name).read_bytes() for name in (folder / _ORDER).read_text(encoding="utf-8").split()}
    return {name: kept[name] for name in closure(kept, wanted)}


def closure(modules: Mapping[str, bytes], wanted: Iterable[str]) -> list[str]:
    """The names of those modules that are wanted or needed, each after those that it needs."""
    order: list[str] = []

    def add(name: str) -> None:
        name = name.replace("-", "_")
        data = modules.get(name)
        if data is None or name in order:
            return
        found = _DEPENDS.search(data)
        for other in found[1].decode().split(",") if found and found[1] else ():
            add(other)
        order.append(name)

    for name in wanted:
        add(name)
    return order


def ramdisk_files(modules: Mapping[str, bytes]) -> dict[str, bytes]:
    """Files for a ramdisk (``initramfs.build``), whose start loads the modules in this order."""
    files = {f"lib/modules/{name}.ko": data for name, data in modules.items()}
    files["etc/modules"] = "".join(f"/lib/modules/{name}.ko\n" for name in modules).encode()
    return files


def _modules(package: Package) -> Iterator[tuple[str, bytes]]:
    """Every module in a package: its name, with underscores, and its file."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package.deb)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    name, dot, suffix = member.name.rpartition("/")[2].partition(".ko")
                    unpack = _UNPACK.get(f"{dot}{suffix}")
                    source = archive.extractfile(member) if unpack and member.isfile() else None
                    if unpack and source:
                        yield name.replace("-", "_"), unpack(source.read())
        except tarfile.TarError as error:
            raise UserError(f"The package {package.name} {package.version} cannot be unpacked.") from error
