"""`xl vcpu-set` with a stock kernel: virtual CPUs that go away while it runs, and come back to work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..cli.conftest import Obtain, guest
from ..cli.terminal import Terminal
from ..e2e.conftest import HUSH, ramdisk
from ..patience import PATIENCE
from .conftest import User

__all__ = ["guest", "ramdisk"]
pytestmark = pytest.mark.network
PROMPT = "/root # "
VCPUS = 4
ONLINE = "cat /sys/devices/system/cpu/online"
PLUG = "for i in 1 2 3; do echo 1 > /sys/devices/system/cpu/cpu$i/online; done"
"""Linux announces a CPU that has come, and leaves it to udev, or to whoever wants it, to use it."""
WHERE = 'for i in 0 1 2 3; do taskset $((1<<i)) cat /proc/self/stat; done | awk \'{printf "%s-", $39} END {print ""}\''
"""Where processes ran of which each was to run on one CPU: field 39 of proc(5)."""


class Console:
    """The guest's shell, through ``xl console``."""

    def __init__(self, user: User) -> None:
        command = user.command("xl", "console", "linux")
        self.terminal = Terminal(["/usr/bin/env", f"PARAVIRT_RUNTIME_DIR={user.folder}", *command])
        self.terminal.expect(PROMPT, PATIENCE)
        self.terminal.type(f"{HUSH}\n")
        self.count = 0

    def __call__(self, command: str) -> list[str]:
        """The lines that a command prints."""
        self.count += 1
        self.terminal.type(f"{command}; echo end-$((1000+{self.count}))\n")
        return self.terminal.expect(f"end-{1000 + self.count}\r\n", PATIENCE).splitlines()

    def leave(self) -> None:
        self.terminal.type("\x1d")
        assert self.terminal.status() == 0


@pytest.fixture
def linux(user: User, guest: Obtain, ramdisk: bytes) -> Iterator[User]:
    """A user with a domain `linux` of four vcpus."""
    path = user.folder / "ramdisk"
    path.write_bytes(ramdisk)
    kernel: Path = guest("debian-cloud")
    user.xl("create", user.config("linux", kernel, ramdisk=str(path), extra="console=hvc0", memory=192, vcpus=VCPUS))
    yield user


def states(user: User) -> list[str]:
    """For each vcpu the physical CPU that it is on: `-` where it is down."""
    return [line.split()[3] for line in user.xl("vcpu-list", "linux").splitlines()[1:]]


def test_vcpus_are_unplugged_and_plugged(linux: User) -> None:
    shell = Console(linux)
    assert "0-3" in shell(ONLINE)
    assert "threads=36000" in shell("/bin/threads")

    linux.xl("vcpu-set", "linux", "1")
    linux.wait_for(lambda: "0" in shell(ONLINE))
    linux.wait_for(lambda: states(linux)[1:] == ["-"] * (VCPUS - 1))
    assert "threads=36000" in shell("/bin/threads"), "they share the one that is left"
    assert "1" in shell("nproc")

    linux.xl("vcpu-set", "-i", "linux", str(VCPUS))
    linux.wait_for(lambda: "3" in shell("ls -d /sys/devices/system/cpu/cpu[123] | wc -l"))

    def is_plugged() -> bool:
        """A CPU has its directory a moment before the kernel takes it for one that is there."""
        shell(PLUG)
        return "0-3" in shell(ONLINE)

    linux.wait_for(is_plugged)
    assert "0-1-2-3-" in shell(WHERE)
    assert "threads=36000" in shell("/bin/threads")
    assert "-" not in states(linux)
    # Each has a timer and takes interrupts from the others again: work is done on all of them.
    assert "0-1-2-3-" in shell(f"for i in $(seq 50); do echo 1 > /proc/sys/vm/drop_caches; done; {WHERE}")
    log = "\n".join(shell("dmesg"))
    for complaint in ("WARNING", "BUG:", "Call Trace", "rcu_sched", "soft lockup"):
        assert complaint not in log, log
    shell.leave()
