"""Files out of Debian packages, without installing anything.

``apt-get download`` fetches a package and checks its signature chain; ``dpkg-deb`` unpacks it. Both work as
an ordinary user. The system's package lists are used where they are present; where they are missing, out of
date or lack a suite, lists of our own are fetched into a private state directory inside the cache. The
system's apt configuration (mirrors, proxies, keys) is read, and nothing of the system is written.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from paravirt.errors import UserError

Report = Callable[[str], None]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCES = "$(REPO_URI)|$(CODENAME)|$(COMPONENT)"


class AptError(Exception):
    """An apt program failed; the text is its last error line."""


@dataclass(frozen=True)
class Package:
    """A package that lies on disk as a ``.deb`` file."""

    name: str
    version: str
    deb: Path


@dataclass
class Apt:
    """The apt programs with one set of package lists.

    ``state`` is the private state directory, or None for the system's own lists. ``sources`` are the lines
    of a private sources.list; None stands for the system's sources.
    """

    state: Path | None = None
    sources: Sequence[str] | None = None
    report: Report = field(default=lambda text: None)

    def update(self) -> None:
        """Fetch the package lists into the private state directory.

        Raises:
            AptError: a list could not be fetched, or there is no private state directory.
        """
        if self.state is None:
            raise AptError("the system's package lists are not ours to update")
        self.report("fetching package lists")
        self.run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")

    def real_package(self, name: str) -> str:
        """Follow a metapackage to the package that it depends on; any other package stands for itself.

        Only a dependency whose name begins like the metapackage's own (``linux-image-``) counts.

        Raises:
            AptError: the lists do not know ``name``.
        """
        if not name.startswith("linux-image-"):
            return name
        text = self.run("apt-cache", "depends", name)
        found = re.search(r"^\s*\|?Depends:\s*(linux-image-\d\S*)", text, re.MULTILINE)
        return found[1] if found else name

    def download(self, name: str, folder: Path) -> Package:
        """Fetch the package ``name`` into ``folder``.

        Raises:
            AptError: the lists do not know it, or it could not be fetched.
        """
        self.run("apt-cache", "show", "--no-all-versions", name)
        self.report(f"downloading {name}")
        self.run("apt-get", "download", "-q", name, cwd=folder)
        debs = sorted(folder.glob(f"{name}_*.deb"))
        if len(debs) != 1:
            raise AptError(f"apt-get download left no file of the package {name}")
        version = self.run("dpkg-deb", "--field", str(debs[0]), "Version").strip()
        return Package(name, version, debs[0])

    def mirrors(self) -> Iterator[tuple[str, str, str]]:
        """(mirror, codename, component) of every configured source whose lists are present."""
        text = self.run("apt-get", "indextargets", "--format", _SOURCES, "Created-By: Packages")
        for line in text.splitlines():
            mirror, codename, component = line.split("|")
            yield mirror, codename, component

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run an apt program (or dpkg-deb) to its end, with these lists; its standard output.

        Raises:
            AptError: it failed.
            UserError: there is no such program here.
        """
        program, *arguments = command
        options = self._configuration() if program.startswith("apt-") else []
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        try:
            done = subprocess.run(
                [program, *options, *arguments],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except FileNotFoundError as error:
            raise _no_apt(program) from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
            lines = lines or done.stderr.splitlines() or [f"{program} failed"]
            raise AptError(lines[0].removeprefix("E: ").strip())
        return done.stdout

    def _configuration(self) -> list[str]:
        """Options that keep apt inside the private directory, if there is one.

        apt drops root's rights to the user _apt for a download, who may not enter root's home: run as who we
        are. Hooks that the system runs after an update (cleaning, desktop notices) are none of our business;
        only a configuration file can clear such lists.
        """
        options = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2"]
        if self.state is None:
            return options
        lists, archives = self.state / "lists" / "partial", self.state / "archives" / "partial"
        for folder in (lists, archives):
            folder.mkdir(parents=True, exist_ok=True)
        hooks = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
        conf = "".join(f"#clear APT::Update::{hook};\n" for hook in hooks)
        conf += f'Dir::State "{self.state}";\nDir::State::lists "lists/";\n'
        conf += f'Dir::Cache "{self.state}";\nDir::Cache::archives "archives/";\n'
        conf += 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\nAcquire::Languages "none";\n'
        if self.sources is not None:
            listed = self.state / "sources.list"
            listed.write_text("".join(f"{line}\n" for line in self.sources), encoding="utf-8")
            conf += f'Dir::Etc::sourcelist "{listed}";\nDir::Etc::sourceparts "-";\n'
        path = self.state / "apt.conf"
        path.write_text(conf, encoding="utf-8")
        return ["-c", str(path), *options]


def unpack(package: Package, wanted: Mapping[str, str], folder: Path) -> None:
    """Copy files of a package into ``folder``; ``wanted`` maps a new name to a pattern of the path inside.

    Reading stops as soon as every file was seen: a kernel's image comes before its 300 MB of modules.

    Raises:
        UserError: a file is not in the package, or the package cannot be read.
    """
    missing = dict(wanted)
    try:
        process = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(package.deb)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise _no_apt("dpkg-deb") from error
    try:
        if process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                for name, pattern in list(missing.items()):
                    if member.isfile() and fnmatchcase(member.name.removeprefix("./"), pattern):
                        _copy(archive, member, folder / name)
                        del missing[name]
                if not missing:
                    break
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"The package {package.name} {package.version} cannot be unpacked.") from error
    finally:
        process.kill()
        process.communicate()
    if missing:
        pattern = next(iter(missing.values()))
        raise UserError(f"The package {package.name} {package.version} has no file {pattern}.")


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    if source is None:
        raise tarfile.ExtractError(member.name)
    with source, target.open("xb") as out:
        shutil.copyfileobj(source, out)
    target.chmod(0o755 if member.mode & 0o111 else 0o644)


def fetch(name: str, folder: Path, states: Path, report: Report, backports: bool = False) -> Package:
    """Fetch the package that ``name`` stands for into ``folder``.

    ``states`` is the folder for private apt state directories. With ``backports`` the package comes from the
    backports suite of the release that this machine runs.

    Raises:
        UserError: there is no apt here, it cannot reach its mirror, or no source has the package.
    """
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            raise _no_apt(program)
    system = Apt(report=report)
    private = Apt(states / "system", report=report)
    try:
        if backports:
            return _fetch_from(backports_of(system, private, states, report), name, folder)
        try:
            return system.download(system.real_package(name), folder)
        except AptError:
            # No lists, or lists so old that the mirror has dropped the version they name.
            _empty(folder)
            return _fetch_from(private, name, folder)
    except AptError as error:
        raise UserError(
            f"The package {name} could not be fetched with apt-get: {str(error).rstrip('.')}."
        ) from error


def _fetch_from(apt: Apt, name: str, folder: Path) -> Package:
    """With the lists as they are; when that fails, once more with new ones."""
    if apt.state is not None and (apt.state / "lists").is_dir():
        try:
            return apt.download(apt.real_package(name), folder)
        except AptError:
            _empty(folder)
    apt.update()
    return apt.download(apt.real_package(name), folder)


def backports_of(system: Apt, private: Apt, states: Path, report: Report) -> Apt:
    """Private lists of the backports suite, on the mirror that the machine is set up to use.

    Raises:
        AptError: this machine runs no release of Debian.
    """
    found = list(system.mirrors())
    if not found:
        private.update()
        found = list(private.mirrors())
    for mirror, codename, component in found:
        # The codenames of the other suites have a hyphen: bookworm-updates, bookworm-security.
        if component == "main" and re.fullmatch(r"[a-z]+", codename):
            signed = f" [signed-by={KEYRING}]" if KEYRING.is_file() else ""
            line = f"deb{signed} {mirror} {codename}-backports main"
            return Apt(states / f"{codename}-backports", [line], report)
    raise AptError("none of this machine's package sources is a Debian release")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _no_apt(program: str) -> UserError:
    return UserError(
        f"Guest kernels are fetched with Debian's apt, and this machine has no {program}; "
        "give `paravirt run` a kernel file of your own."
    )
