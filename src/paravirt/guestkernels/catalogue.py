"""The guests that paravirt knows by name, and how each is had."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from paravirt.errors import UserError
from paravirt.guestkernels.apt import Report, fetch, unpack
from paravirt.guestkernels.cache import Cache

_RECORD = "guest.json"


@dataclass(frozen=True)
class Guest:
    """A file that paravirt can obtain by itself.

    ``package`` is the Debian package that holds it as ``path`` (a pattern); an empty package name means that
    the file is part of paravirt. ``kernel`` says whether it can be booted.
    """

    name: str
    summary: str
    package: str = ""
    path: str = ""
    backports: bool = False
    kernel: bool = True

    @property
    def how(self) -> str:
        """Where it comes from, in a few words."""
        if not self.package:
            return "part of paravirt"
        return f"Debian package {self.package}" + (" (backports)" if self.backports else "")


@dataclass(frozen=True)
class Obtained:
    """A guest's file on disk. ``package`` and ``version`` name the Debian package that it is from."""

    guest: Guest
    path: Path
    package: str
    version: str


GUESTS: dict[str, Guest] = {
    guest.name: guest
    for guest in (
        Guest("tiny", "paravirt's own small kernel, which says hello"),
        Guest(
            "debian-cloud",
            "Debian's kernel for virtual machines",
            "linux-image-cloud-amd64",
            "boot/vmlinuz-*",
        ),
        Guest("debian", "Debian's generic kernel", "linux-image-amd64", "boot/vmlinuz-*"),
        Guest(
            "debian-backports",
            "the newest of Debian's kernels for virtual machines",
            "linux-image-cloud-amd64",
            "boot/vmlinuz-*",
            backports=True,
        ),
        Guest(
            "grub",
            "the boot loader GRUB as a Xen guest",
            "grub-xen-host",
            "usr/lib/grub-xen/grub-x86_64-xen.bin",
        ),
        Guest(
            "busybox",
            "the programs of the initial ramdisk (not a kernel)",
            "busybox-static",
            "*bin/busybox",
            kernel=False,
        ),
    )
}


def _guest(name: str) -> Guest:
    try:
        return GUESTS[name]
    except KeyError:
        raise UserError(f"There is no guest called {name!r}; known are {', '.join(GUESTS)}.") from None


def _entry(guest: Guest) -> str:
    return f"guests/{guest.name}"


def find(name: str, cache: Cache | None = None) -> Obtained | None:
    """The guest ``name`` when it is here already, else None; nothing is fetched.

    Raises:
        UserError: there is no such guest, or no cache folder can be named.
    """
    guest = _guest(name)
    if not guest.package:
        path = Path(str(resources.files("paravirt") / "data" / "hello"))
        return Obtained(guest, path, "", "") if path.is_file() else None
    cache = cache or Cache()
    folder = cache.entry(_entry(guest))
    if folder is None:
        return None
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return Obtained(guest, folder / guest.name, record["package"], record["version"])


def obtain(name: str, report: Report = lambda text: None, cache: Cache | None = None) -> Obtained:
    """The guest ``name``, fetched into the cache first when it is not there.

    ``report`` is called with a few words before each step that takes long.

    Raises:
        UserError: there is no such guest; it cannot be fetched here, and why; the cache cannot be written.
    """
    cache = cache or Cache()
    found = find(name, cache)
    if found is not None:
        return found
    guest = _guest(name)
    if not guest.package:
        raise UserError("This copy of paravirt was built without its own kernel; install it again.")

    def fill(folder: Path) -> None:
        download = folder / "download"
        download.mkdir()
        package = fetch(guest.package, download, cache.root / "apt", report, guest.backports)
        unpack(package, {guest.name: guest.path}, folder)
        package.deb.unlink()
        download.rmdir()
        record = {"package": package.name, "version": package.version}
        (folder / _RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")

    cache.make(_entry(guest), fill)
    made = find(name, cache)
    if made is None:
        raise UserError(f"The guest {name} vanished from the cache folder {cache.root}.")
    return made
