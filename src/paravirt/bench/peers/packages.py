"""Debian's Xen and QEMU, fetched with apt and unpacked into the cache; nothing is installed."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paravirt.errors import UserError
from paravirt.guestkernels import apt
from paravirt.guestkernels.apt import Report
from paravirt.guestkernels.cache import Cache

XEN_PACKAGE = "xen-hypervisor-4.17-amd64"
QEMU_PACKAGE = "qemu-system-x86"

_XEN, _QEMU_BACKPORTS, _QEMU = "peers/xen-4.17", "peers/qemu-backports", "peers/qemu"
_RECORD = "record.json"
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
_DATA = ("usr/share/qemu", "usr/share/seabios")
# What `apt-get -s install` says of each package: Inst NAME [INSTALLED] (VERSION ORIGIN...)
_INSTALLS = re.compile(r"^Inst (\S+) (?:\[[^\]]*\] )?\((\S+) ", re.MULTILINE)
_STARTS_S = 60


@dataclass(frozen=True)
class Xen:
    """The hypervisor's image, unpacked, and its package's version."""

    image: Path
    version: str

    @property
    def release(self) -> str:
        """Upstream's version, as in "4.17.7"."""
        return _upstream(self.version)


@dataclass(frozen=True)
class Qemu:
    """An emulator unpacked under `root`, with the libraries that the machine lacks, and its package's version."""

    root: Path
    version: str

    @property
    def release(self) -> str:
        """Upstream's version, as in "10.0.2"."""
        return _upstream(self.version)

    def command(self) -> list[str]:
        """The program and the options that make it find its own files."""
        folders = [str(self.root / part) for part in _DATA if (self.root / part).is_dir()]
        options = [word for folder in folders for word in ("-L", folder)]
        return [str(self.root / "usr/bin/qemu-system-x86_64"), *options]

    def environment(self) -> dict[str, str]:
        """What to add to the environment of :meth:`command`."""
        return {"LD_LIBRARY_PATH": ":".join(str(self.root / part) for part in _LIBRARIES)}

    def complaint(self) -> str:
        """Why the program does not start on this machine, in its own words; empty when it does."""
        try:
            done = subprocess.run(
                [*self.command(), "--version"],
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_STARTS_S,
                check=False,
            )
        except OSError as error:
            return error.strerror or str(error)
        except subprocess.TimeoutExpired:
            return f"it does not answer within {_STARTS_S} s"
        if done.returncode == 0:
            return ""
        return done.stderr.strip().partition("\n")[0] or f"exit status {done.returncode}"

    @property
    def software_interrupts_work(self) -> bool:
        """Whether `INT n` of a guest gives the right error code: not so before QEMU 8 in 64-bit mode."""
        return int(self.release.split(".")[0]) >= 8


def find_xen(cache: Cache | None = None) -> Xen | None:
    """Debian's hypervisor when it is in the cache, else None; nothing is fetched."""
    folder = (cache or Cache()).entry(_XEN)
    return None if folder is None else Xen(folder / "xen", _record(folder)["version"])


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
        (folder / _RECORD).write_text(json.dumps({"version": package.version}), encoding="utf-8")

    folder = cache.make(_XEN, fill)
    return Xen(folder / "xen", _record(folder)["version"])


def find_qemu(cache: Cache | None = None) -> Qemu | None:
    """The newest QEMU in the cache, or None; nothing is fetched."""
    cache = cache or Cache()
    for name in (_QEMU_BACKPORTS, _QEMU):
        folder = cache.entry(name)
        if folder is not None:
            return _qemu_in(folder)
    return None


def obtain_qemu(report: Report = lambda text: None, cache: Cache | None = None) -> Qemu:
    """QEMU of the release's backports where there is one, else of the release itself.

    Raises:
        UserError: neither can be fetched here, and why.
    """
    cache = cache or Cache()
    found = find_qemu(cache)
    if found is not None:
        return found
    try:
        return _qemu_in(cache.make(_QEMU_BACKPORTS, lambda to: _fill_qemu(to, cache, report, True)))
    except UserError as error:
        report(f"no QEMU from backports ({error}); taking the release's own")
    return _qemu_in(cache.make(_QEMU, lambda to: _fill_qemu(to, cache, report, False)))


def _upstream(version: str) -> str:
    """Upstream's part of a Debian version: without epoch, Debian's revision, and what packagers append."""
    return re.split(r"[+~-]", version.split(":")[-1])[0]


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return record


def _qemu_in(folder: Path) -> Qemu:
    return Qemu(folder / "root", _record(folder)["version"])


def _fill_qemu(folder: Path, cache: Cache, report: Report, backports: bool) -> None:
    """Fetch QEMU and the packages that it needs and the machine lacks, and unpack all of them."""
    download = folder / "download"
    download.mkdir()
    try:
        lists, suite = _lists(cache.root / "apt", report, backports)
        lists.update()
        prefer = [f"-t{suite}"] if suite else []
        simulated = lists.run("apt-get", "-s", "-q", "--no-install-recommends", *prefer, "install", QEMU_PACKAGE)
        wanted = dict(_INSTALLS.findall(simulated)) or {QEMU_PACKAGE: _installed(lists)}
        if QEMU_PACKAGE not in wanted:
            raise apt.AptError(f"it would not install {QEMU_PACKAGE}")
        report(f"downloading {QEMU_PACKAGE} and {len(wanted) - 1} packages that it needs")
        names = [f"{name}={version}" for name, version in wanted.items()]
        lists.run("apt-get", "-q", "download", *names, cwd=download)
        for deb in sorted(download.glob("*.deb")):
            lists.run("dpkg-deb", "-x", str(deb), str(folder / "root"))
    except apt.AptError as error:
        raise UserError(f"QEMU could not be fetched with apt-get: {str(error).rstrip('.')}.") from error
    shutil.rmtree(download)
    (folder / _RECORD).write_text(json.dumps({"version": wanted[QEMU_PACKAGE]}), encoding="utf-8")


def _installed(lists: apt.Apt) -> str:
    """The version to download when the package is installed on the machine already."""
    shown = lists.run("apt-cache", "show", "--no-all-versions", QEMU_PACKAGE)
    found = re.search(r"^Version: (\S+)", shown, re.MULTILINE)
    if found is None:
        raise apt.AptError(f"no version of {QEMU_PACKAGE} is known")
    return found[1]


def _lists(states: Path, report: Report, backports: bool) -> tuple[apt.Apt, str]:
    """Private lists of the machine's own sources; with the backports of its release, and their suite's name.

    Raises:
        apt.AptError: no such lists can be made here.
    """
    system = apt.Apt(states / "system", report=report)
    if not backports:
        return system, ""
    extra = apt.backports_of(apt.Apt(report=report), system, states, report)
    known = list(apt.Apt(report=report).mirrors()) or list(system.mirrors())
    line = (extra.sources or [""])[0]
    suite = next(word for word in line.split() if word.endswith("-backports"))
    signed = f" [signed-by={apt.KEYRING}]" if apt.KEYRING.is_file() else ""
    release = [
        f"deb{signed} {mirror} {name} {part}"
        for mirror, name, part in dict.fromkeys(known)
        if name.startswith(suite.removesuffix("-backports"))
    ]
    return apt.Apt(states / "peers", [*release, line], report), suite
