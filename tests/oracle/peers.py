"""Debian's Xen and QEMU, fetched with apt and unpacked into the cache; nothing is installed."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paravirt.errors import UserError
from paravirt.guestkernels import apt
from paravirt.guestkernels.cache import Cache

Report = Callable[[str], None]

XEN_PACKAGE = "xen-hypervisor-4.17-amd64"
QEMU_PACKAGE = "qemu-system-x86"
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
_DATA = ("usr/share/qemu", "usr/share/seabios")
_INSTALLS = re.compile(r"^Inst (\S+) (?:\[[^\]]*\] )?\((\S+) ", re.MULTILINE)


@dataclass(frozen=True)
class Xen:
    """The hypervisor's image, unpacked, and its package's version."""

    image: Path
    version: str


@dataclass(frozen=True)
class Qemu:
    """An emulator unpacked under `root`, with the libraries that the machine lacks, and its version."""

    root: Path
    version: str

    def command(self) -> list[str]:
        """The program and the options that make it find its own files."""
        folders = [str(self.root / part) for part in _DATA if (self.root / part).is_dir()]
        options = [word for folder in folders for word in ("-L", folder)]
        return [str(self.root / "usr/bin/qemu-system-x86_64"), *options]

    def environment(self) -> dict[str, str]:
        """What to add to the environment of :meth:`command`."""
        return {"LD_LIBRARY_PATH": ":".join(str(self.root / part) for part in _LIBRARIES)}

    @property
    def software_interrupts_work(self) -> bool:
        """Whether `INT n` of a guest gives the right error code: not so before QEMU 8 in 64-bit mode."""
        return int(self.version.split(":")[-1].split(".")[0]) >= 8


def obtain_xen(report: Report = lambda text: None, cache: Cache | None = None) -> Xen:
    """Debian's hypervisor, from the cache or fetched now.

    Raises:
        UserError: it cannot be fetched here, and why.
    """
    cache = cache or Cache()

    def fill(folder: Path) -> None:
        download = folder / "download"
        download.mkdir()
        package = apt.fetch(XEN_PACKAGE, download, cache.root / "apt", report)
        apt.unpack(package, {"xen.gz": "boot/xen-4.17-amd64.gz"}, folder)
        (folder / "xen").write_bytes(gzip.decompress((folder / "xen.gz").read_bytes()))
        (folder / "xen.gz").unlink()
        shutil.rmtree(download)
        (folder / "record.json").write_text(json.dumps({"version": package.version}), encoding="utf-8")

    folder = cache.make("peers/xen-4.17", fill)
    version = json.loads((folder / "record.json").read_text(encoding="utf-8"))["version"]
    return Xen(folder / "xen", version)


def obtain_qemu(report: Report = lambda text: None, cache: Cache | None = None) -> Qemu:
    """QEMU of the release's backports where there is one, else of the release itself.

    Raises:
        UserError: neither can be fetched here, and why.
    """
    cache = cache or Cache()
    for name in ("peers/qemu-backports", "peers/qemu"):
        folder = cache.entry(name)
        if folder is not None:
            return _qemu_in(folder)
    try:
        return _qemu_in(cache.make("peers/qemu-backports", lambda to: _fill_qemu(to, cache, report, True)))
    except UserError as error:
        report(f"no QEMU from backports ({error}); taking the release's own")
    return _qemu_in(cache.make("peers/qemu", lambda to: _fill_qemu(to, cache, report, False)))


def _qemu_in(folder: Path) -> Qemu:
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return Qemu(folder / "root", record["version"])


def _fill_qemu(folder: Path, cache: Cache, report: Report, backports: bool) -> None:
    """Fetch QEMU and the packages that it needs and the machine lacks, and unpack all of them."""
    lists = _lists(cache.root / "apt", report, backports)
    suite = [f"-t{lists.suite}"] if lists.suite else []
    try:
        lists.apt.update()
        simulated = lists.run(
            "apt-get", "-s", "-q", "--no-install-recommends", *suite, "install", QEMU_PACKAGE
        )
        wanted = _INSTALLS.findall(simulated) or [_installed(lists)]
        download = folder / "download"
        download.mkdir()
        report(f"downloading {QEMU_PACKAGE} and {len(wanted) - 1} packages that it needs")
        lists.run(
            "apt-get", "-q", "download", *(f"{name}={version}" for name, version in wanted), cwd=download
        )
    except apt.AptError as error:
        raise UserError(f"QEMU could not be fetched with apt-get: {str(error).rstrip('.')}.") from error
    for deb in sorted(download.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / "root")], check=True)
    shutil.rmtree(download)
    version = dict(wanted).get(QEMU_PACKAGE)
    if version is None:
        raise UserError(f"apt-get would install no {QEMU_PACKAGE}.")
    (folder / "record.json").write_text(json.dumps({"version": version}), encoding="utf-8")


def _installed(lists: _Lists) -> tuple[str, str]:
    """The version to download when the package is installed on the machine already."""
    shown = lists.run("apt-cache", "show", "--no-all-versions", QEMU_PACKAGE)
    found = re.search(r"^Version: (\S+)", shown, re.MULTILINE)
    if found is None:
        raise apt.AptError(f"no version of {QEMU_PACKAGE} is known")
    return QEMU_PACKAGE, found[1]


@dataclass(frozen=True)
class _Lists:
    """Private package lists, and the suite to prefer in them."""

    apt: apt.Apt
    suite: str | None

    def run(self, *command: str, cwd: Path | None = None) -> str:
        return self.apt._run(*command, cwd=cwd)


def _lists(states: Path, report: Report, backports: bool) -> _Lists:
    """The machine's own sources, and the backports of its release when they are wanted."""
    system = apt.Apt(states / "system", report=report)
    if not backports:
        return _Lists(system, None)
    try:
        extra = apt._backports(apt.Apt(report=report), system, states, report)
        known = list(apt.Apt(report=report).mirrors()) or list(system.mirrors())
    except apt.AptError as error:
        raise UserError(f"There are no backports here: {error}.") from error
    line = (extra.sources or [""])[0]
    suite = next(word for word in line.split() if word.endswith("-backports"))
    signed = f" [signed-by={apt._KEYRING}]" if apt._KEYRING.is_file() else ""
    release = [
        f"deb{signed} {mirror} {name} {part}"
        for mirror, name, part in dict.fromkeys(known)
        if name.startswith(suite.removesuffix("-backports"))
    ]
    return _Lists(apt.Apt(states / "peers", [*release, line], report), suite)
