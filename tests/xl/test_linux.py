"""xl with a Linux guest that listens: consoles, xenstore's requests, memory and vcpus that change."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt.errors import UserError
from paravirt.machine.choice import choose
from paravirt.xs.client import XenStore

from ..cli.conftest import Obtain, guest
from ..cli.terminal import Terminal
from ..patience import PATIENCE
from .conftest import User

__all__ = ["guest"]
pytestmark = pytest.mark.network
PROMPT = "/root # "


@pytest.fixture(params=["unicorn", "kvm"])
def linux(request: pytest.FixtureRequest, user: User, guest: Obtain) -> Iterator[User]:
    """A user whose domain `linux` has booted to its shell: before that, its init takes no requests."""
    try:
        choose(request.param, 1)
    except UserError as error:
        pytest.skip(str(error))
    user.environment["PARAVIRT_ENGINE"] = request.param
    config = user.config(
        "linux", guest("debian-cloud"), ramdisk=str(guest("initramfs")), extra="console=hvc0 quiet", memory=192,
        maxmem=224, vcpus=2,
    )  # fmt: skip
    user.run("--patience", str(PATIENCE), program="paravirtd")  # a busy host's guests power off late
    user.xl("create", config)
    console = user.start("console", "linux")
    assert console.stdout is not None
    seen = ""
    while PROMPT not in seen:
        chunk = console.stdout.read(1)
        assert chunk, seen
        seen += chunk
    console.kill()
    console.communicate()
    yield user


def test_a_guest_that_listens(linux: User) -> None:
    """One boot for all of it: terminals, vcpus, memory, and the end."""
    terminal = Terminal(["/usr/bin/env", f"PARAVIRT_RUNTIME_DIR={linux.folder}", *linux.command("xl", "console", "1")])
    terminal.expect(PROMPT, PATIENCE)
    terminal.type("echo sum-$((40+2))\n")
    terminal.expect("sum-42", PATIENCE)
    terminal.type("\x1d")
    assert terminal.status() == 0
    assert linux.names() == ["linux"], "leaving the console does not end the guest"

    with XenStore(linux.folder / "xenstored" / "socket") as store:
        tty = store.read("/local/domain/1/console/tty").decode()
        _through_the_terminal(tty)
        assert store.read("/local/domain/1/memory/static-max") == b"229376"

    linux.xl("vcpu-set", "linux", "1")
    linux.wait_for(lambda: linux.xl("list").splitlines()[2].split()[3] == "1")
    linux.xl("mem-set", "linux", "160")
    linux.wait_for(lambda: linux.xl("list").splitlines()[2].split()[2] == "160")
    linux.xl("mem-set", "linux", "200")
    linux.wait_for(lambda: linux.xl("list").splitlines()[2].split()[2] == "200")

    linux.xl("pause", "linux")
    assert linux.xl("list").splitlines()[2].split()[4][2] == "p"
    linux.xl("unpause", "linux")
    linux.xl("trigger", "linux", "nmi")
    linux.wait_for(lambda: "NMI received" in _said(linux))
    assert linux.run("trigger", "linux", "reset").returncode == 1
    linux.xl("sysrq", "linux", "h")
    linux.wait_for(lambda: "sysrq: HELP" in _said(linux))

    done = linux.run("shutdown", "-w", "linux")
    assert done.returncode == 0 and "reason code 0" in done.stderr
    linux.wait_for(lambda: linux.names() == [])
    said = linux.xl("console", "linux")  # which ends, as the guest has
    assert "Power down" in said or "System halted" in said


@pytest.mark.parametrize("linux", ["unicorn"], indirect=True)
def test_reboot_makes_it_anew(linux: User) -> None:
    linux.xl("reboot", "linux")
    linux.wait_for(lambda: linux.run("domid", "linux").stdout == "2\n")


@pytest.mark.parametrize("linux", ["unicorn"], indirect=True)
def test_the_end_of_the_daemon_is_a_power_off(linux: User) -> None:
    assert linux.run("--stop", program="paravirtd").returncode == 0
    assert linux.log()[-1]["stopped"] == []


def _said(user: User) -> str:
    """What the guest has said so far, or all of it but the last: its console's far end is not followed, so the client
    is ended when it has told nothing for a second."""
    console = user.start("console", "linux")
    assert console.stdout is not None
    os.set_blocking(console.stdout.fileno(), False)
    said = b""
    while select.select([console.stdout], [], [], 1.0 if said else PATIENCE)[0]:
        data = os.read(console.stdout.fileno(), 1 << 16)
        if not data:
            break
        said += data
    console.kill()
    console.communicate()
    return said.decode("utf-8", "replace")


def _through_the_terminal(path: str) -> None:
    """Type into the console's terminal, as Xen's own client does, and read what comes of it."""
    terminal = os.open(Path(path), os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(terminal, b"echo product-$((6*7))\n")
        seen = b""
        while b"product-42" not in seen:
            assert select.select([terminal], [], [], PATIENCE)[0], seen
            seen += os.read(terminal, 1 << 16)
    finally:
        os.close(terminal)
