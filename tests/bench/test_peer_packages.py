"""Fetching QEMU with stand-ins for the apt programs: no test here uses the network."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from paravirt.bench.peers import packages
from paravirt.errors import UserError
from paravirt.guestkernels.cache import Cache

# A package is a file that holds the path of the one file inside it. Lists are "there" once they were updated.
FAKE = '''#!{python}
import os, pathlib, re, sys
here = pathlib.Path(__file__).parent
program, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with (here / "log").open("a") as log:
    log.write(" ".join([program, *words]) + "\\n")
conf = pathlib.Path(words[words.index("-c") + 1]).read_text() if "-c" in words else ""
sources = re.search('Dir::Etc::sourcelist "(.*)"', conf)
listed = pathlib.Path(sources[1]).read_text() if sources else ""
new = "-backports" in listed
while words and words[0] in ("-c", "-o"):
    words = words[2:]
words = [word for word in words if word != "-q"]
def fail(text):
    sys.stderr.write("E: " + text + "\\n")
    sys.exit(100)
if program == "dpkg-deb":
    target = pathlib.Path(words[2]) / pathlib.Path(words[1]).read_text()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("unpacked")
elif "indextargets" in words:
    print("http://mirror.example/debian/|bookworm-updates|main")
    print("http://mirror.example/debian/|bookworm|main")
    print("http://other.example/|trixie|main")
elif "update" in words:
    if (here / ("no-backports" if new else "offline")).exists():
        fail("Failed to fetch a list.")
elif "install" in words:
    if (here / "installed").exists():
        print("qemu-system-x86 is already the newest version (1:7.2+dfsg-7).")
    elif new and "-tbookworm-backports" in words:
        print("Inst libslirp0 (4.7.0-1 Debian:12 [amd64])")
        print("Inst qemu-system-x86 (1:10.0.2+ds-2~bpo12+1 Debian Backports:stable-backports [amd64])")
        print("Conf qemu-system-x86 (1:10.0.2+ds-2~bpo12+1 Debian Backports:stable-backports [amd64])")
    else:
        print("Inst qemu-system-x86 (1:7.2+dfsg-7 Debian:12 [amd64])")
elif "show" in words:
    print("Package: qemu-system-x86\\nVersion: 1:7.2+dfsg-7")
elif words[0] == "download":
    for word in words[1:]:
        name, version = word.split("=")
        file = "usr/bin/qemu-system-x86_64" if name.startswith("qemu") else "usr/lib/x86_64-linux-gnu/" + name + ".so"
        pathlib.Path(name + ".deb").write_text(file)
else:
    fail("unexpected " + " ".join(words))
'''


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-ins, the only one on the PATH; files in it change what they say."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        program = folder / name
        program.write_text(FAKE.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PARAVIRT_CACHE", str(tmp_path / "cache"))
    return folder


def unpacked(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_backports_come_first_with_the_libraries_that_are_missing(world: Path) -> None:
    said: list[str] = []
    qemu = packages.obtain_qemu(said.append)
    assert qemu.version == "1:10.0.2+ds-2~bpo12+1"
    assert unpacked(qemu.root) == ["usr/bin/qemu-system-x86_64", "usr/lib/x86_64-linux-gnu/libslirp0.so"]
    assert said[-1] == "downloading qemu-system-x86 and 1 packages that it needs"
    assert unpacked(qemu.root.parent) == ["record.json", *(f"root/{name}" for name in unpacked(qemu.root))]
    sources = (Cache().root / "apt/peers/sources.list").read_text().splitlines()
    assert [line.rsplit("] ")[-1].removeprefix("deb ") for line in sources] == [
        "http://mirror.example/debian/ bookworm-updates main",
        "http://mirror.example/debian/ bookworm main",
        "http://mirror.example/debian/ bookworm-backports main",
    ]


def test_what_is_cached_needs_nothing(world: Path) -> None:
    assert packages.find_qemu() is None
    first = packages.obtain_qemu()
    (world / "log").unlink()
    assert packages.obtain_qemu() == first == packages.find_qemu()
    assert not (world / "log").exists()


def test_without_backports_the_releases_own_is_taken(world: Path) -> None:
    (world / "no-backports").touch()
    said: list[str] = []
    qemu = packages.obtain_qemu(said.append)
    assert qemu.version == "1:7.2+dfsg-7"
    assert not qemu.software_interrupts_work
    assert any(text.startswith("no QEMU from backports (QEMU could not be fetched") for text in said)
    assert packages.find_qemu() == qemu


def test_what_the_machine_has_installed_is_unpacked_beside(world: Path) -> None:
    (world / "no-backports").touch()
    (world / "installed").touch()
    assert unpacked(packages.obtain_qemu().root) == ["usr/bin/qemu-system-x86_64"]


def test_nothing_is_left_of_a_failure(world: Path) -> None:
    (world / "no-backports").touch()
    (world / "offline").touch()
    with pytest.raises(UserError, match=r"^QEMU could not be fetched with apt-get: Failed to fetch a list\.$"):
        packages.obtain_qemu()
    assert not list((Cache().root / "peers").iterdir())
