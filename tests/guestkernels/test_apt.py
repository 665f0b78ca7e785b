"""Fetching packages, with stand-ins for the apt programs: no test here uses the network."""

from __future__ import annotations

import io
import json
import stat
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from paravirt.errors import UserError
from paravirt.guestkernels import apt, find, obtain
from paravirt.guestkernels.cache import Cache

FAKE = '''#!{python}
"""Stands in for apt-get, apt-cache and dpkg-deb. Its world is the file world.json beside it."""
import json, os, pathlib, re, sys
here = pathlib.Path(__file__).parent
world = json.loads((here / "world.json").read_text())
program = pathlib.Path(sys.argv[0]).name
words = sys.argv[1:]
with (here / "log").open("a") as log:
    log.write(" ".join([program, *words]) + "\\n")
conf = pathlib.Path(words[words.index("-c") + 1]).read_text() if "-c" in words else ""
state = re.search('Dir::State "(.*)"', conf)
sources = re.search('Dir::Etc::sourcelist "(.*)"', conf)
suite = "system"
if sources:
    suite = pathlib.Path(sources[1]).read_text().split()[-2]
def fail(text):
    sys.stderr.write("W: something else\\nE: " + text + "\\n")
    sys.exit(100)
def packages():
    """What the lists in use know."""
    if state is None:
        return world["system"]
    lists = pathlib.Path(state[1]) / "lists" / "Packages"
    return json.loads(lists.read_text()) if lists.exists() else {{}}
while words and words[0] in ("-c", "-o"):
    words = words[2:]
words = [word for word in words if word != "-q"]
if program == "dpkg-deb":
    deb = json.loads(pathlib.Path(words[1]).read_text())
    if words[0] == "--field":
        print(deb["version"])
    else:
        sys.stdout.buffer.write((here / deb["tar"]).read_bytes())
elif words[0] == "update":
    if not world["online"]:
        fail("Failed to fetch a list  Temporary failure resolving 'mirror.example'")
    (pathlib.Path(state[1]) / "lists" / "Packages").write_text(json.dumps(world["mirror"][suite]))
elif words[0] == "indextargets":
    for line in (world["sources"] if packages() else []):
        print(line)
elif words[0] in ("depends", "show"):
    package = packages().get(words[-1])
    if package is None:
        fail("No packages found")
    print(words[-1])
    if "depends" in package:
        print("  Depends: " + package["depends"])
elif words[0] == "download":
    package = packages()[words[-1]]
    if not world["online"] or package.get("gone"):
        fail("Failed to fetch it  404  Not Found")
    name = words[-1] + "_" + package["version"] + "_amd64.deb"
    pathlib.Path(name).write_text(json.dumps(package))
'''


def tar(path: Path, files: dict[str, bytes]) -> None:
    """An archive like the ones in Debian packages."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            member.mode = 0o755
            archive.addfile(member, io.BytesIO(data))


KERNEL = {"version": "6.1.9-1", "tar": "kernel.tar"}
META = {"version": "6.1.9-1", "tar": "empty.tar", "depends": "linux-image-6.1.0-9-amd64"}
NEWER = {"version": "6.12.9-1~bpo12+1", "tar": "kernel.tar"}


class World:
    """What the stand-ins believe, and what was asked of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {
            "online": True,
            "sources": ["http://mirror.example/debian/|bookworm-updates|main",
                        "http://mirror.example/debian/|bookworm|main"],
            "system": {},
            "mirror": {
                "system": {"linux-image-amd64": META, "linux-image-6.1.0-9-amd64": KERNEL},
                "bookworm-backports": {
                    "linux-image-cloud-amd64": {**NEWER, "depends": "linux-image-6.12.9+bpo-cloud-amd64"},
                    "linux-image-6.12.9+bpo-cloud-amd64": NEWER,
                },
            },
        }  # fmt: skip
        self.save()

    def save(self) -> None:
        (self.folder / "world.json").write_text(json.dumps(self.facts))

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine with the stand-ins on its PATH and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        program = folder / name
        program.write_text(FAKE.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    tar(folder / "kernel.tar", {"boot/config-6": b"no", "boot/vmlinuz-6": b"kernel", "lib/modules/x": b"m"})
    tar(folder / "empty.tar", {})
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PARAVIRT_CACHE", str(tmp_path / "cache"))
    return World(folder)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_systems_lists_are_used_where_they_are(world: World) -> None:
    world.facts["system"] = world.facts["mirror"]["system"]
    world.save()
    steps: list[str] = []
    got = obtain("debian", steps.append)
    assert got.path.read_bytes() == b"kernel"
    assert (got.package, got.version) == ("linux-image-6.1.0-9-amd64", "6.1.9-1")
    assert steps == ["downloading linux-image-6.1.0-9-amd64"]
    assert "update" not in world.log
    assert "Dir::State" not in world.log
    assert files(got.path.parent) == ["debian", "guest.json"]


def test_what_is_cached_needs_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("debian") is None
    first = obtain("debian")
    (world.folder / "log").unlink()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert obtain("debian") == first == find("debian")
    assert not (world.folder / "log").exists()


def test_missing_lists_are_fetched_into_a_private_place(world: World) -> None:
    got = obtain("debian")
    assert got.path.read_bytes() == b"kernel"
    assert "update" in world.log
    assert (Cache().root / "apt/system/lists/Packages").is_file()


def test_old_lists_are_replaced_when_the_mirror_has_moved_on(world: World) -> None:
    old = {"version": "6.1.8-1", "tar": "kernel.tar", "gone": True}
    world.facts["system"] = {
        "linux-image-amd64": {**META, "depends": "linux-image-6.1.0-8-amd64"},
        "linux-image-6.1.0-8-amd64": old,
    }
    world.save()
    assert obtain("debian").version == "6.1.9-1"


def test_old_private_lists_are_fetched_again(world: World) -> None:
    lists = Cache().root / "apt/system/lists"
    lists.mkdir(parents=True)
    (lists / "Packages").write_text(json.dumps({"linux-image-amd64": {**META, "gone": True, "depends": "x"}}))
    assert obtain("debian").version == "6.1.9-1"


def test_backports_come_from_the_configured_mirror(world: World) -> None:
    world.facts["system"] = world.facts["mirror"]["system"]
    world.save()
    got = obtain("debian-backports")
    assert got.version == "6.12.9-1~bpo12+1"
    listed = (Cache().root / "apt/bookworm-backports/sources.list").read_text()
    assert listed.startswith("deb ")
    assert listed.endswith(" http://mirror.example/debian/ bookworm-backports main\n")


def test_backports_without_any_lists(world: World) -> None:
    assert obtain("debian-backports").version == "6.12.9-1~bpo12+1"


def test_backports_on_another_distribution(world: World) -> None:
    world.facts["sources"] = ["http://mirror.example/other/|1.0|main"]
    world.save()
    with pytest.raises(UserError, match="is a Debian release"):
        obtain("debian-backports")


def test_hooks_of_the_system_do_not_run_for_our_lists(world: World) -> None:
    obtain("debian")
    conf = (Cache().root / "apt/system/apt.conf").read_text()
    assert "#clear APT::Update::Post-Invoke;" in conf


@pytest.mark.parametrize("name", ["debian", "debian-backports"])
def test_offline(world: World, name: str) -> None:
    world.facts["online"] = False
    world.save()
    with pytest.raises(UserError) as caught:
        obtain(name)
    assert "Temporary failure resolving" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert find(name) is None
    assert not list((Cache().root / "guests").iterdir())


def test_a_package_that_no_source_has(world: World) -> None:
    world.facts["mirror"]["system"] = {"other": KERNEL}
    world.save()
    with pytest.raises(UserError, match=r"package linux-image-amd64 could not be fetched.*No packages found"):
        obtain("debian")


def test_no_apt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UserError, match="this machine has no apt-get"):
        obtain("debian")


def test_a_package_without_the_file(world: World) -> None:
    tar(world.folder / "kernel.tar", {"boot/config-6": b"no"})
    with pytest.raises(UserError, match="has no file boot/vmlinuz"):
        obtain("debian")
    assert find("debian") is None


def test_a_broken_package(world: World) -> None:
    (world.folder / "kernel.tar").write_bytes(b"\xff" * 2000)
    with pytest.raises(UserError, match="cannot be unpacked"):
        obtain("debian")


def test_unpacking_stops_when_all_is_found(world: World, tmp_path: Path) -> None:
    deb = tmp_path / "x.deb"
    deb.write_text(json.dumps(KERNEL))
    with (world.folder / "kernel.tar").open("r+b") as out:
        out.truncate(512 * 4)  # headers and data of the first two files: the end of the archive is missing
    apt.unpack(apt.Package("linux", "1", deb), {"kernel": "boot/vmlinuz-*"}, tmp_path)
    assert (tmp_path / "kernel").read_bytes() == b"kernel"


def test_unknown_names_are_the_users_matter(world: World) -> None:
    with pytest.raises(UserError, match="There is no guest called 'nonsense'"):
        obtain("nonsense")
