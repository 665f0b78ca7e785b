"""Debian's stock kernel, driven through the Python interface."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt import Machine, ShutdownReason, UserError

from ..hypervisor.audited import check
from ..patience import PATIENCE, settled
from .conftest import Shell

pytestmark = pytest.mark.network


def _boot(machine: Machine, kernel: Path, ramdisk: bytes, vcpus: int = 1, cmdline: str = "") -> Shell:
    domain = machine.create(
        kernel=kernel, ramdisk=ramdisk, cmdline=f"console=hvc0 {cmdline}", memory=256, vcpus=vcpus
    )
    return Shell(domain)


def test_a_shell_and_what_it_needs(machine: Machine, kernel: Path, ramdisk: bytes) -> None:
    shell = _boot(machine, kernel, ramdisk)
    assert "\n42\n" in shell("echo $((6*7))")
    assert "\nxen\n" in shell("cat /sys/hypervisor/type")
    assert "\n4.17.paravirt\n" in shell(
        "echo $(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)"
        "$(cat /sys/hypervisor/version/extra)"
    )
    # Every reference of every frame, recounted: while it runs (its processes die meanwhile), and while it stands still.
    shell.domain.console.send("for i in $(seq 20); do ls -l /bin | sort | wc -l; done\n")
    for _ in range(5):
        check(machine, "while the guest runs")
    shell.domain.pause()
    check(machine, "while the guest is paused")
    shell.domain.unpause()
    # Pipes and processes.
    assert "\n5050\n" in shell("seq 100 | awk '{s+=$1} END {print s}'")
    assert "\n20\n" in shell("for i in $(seq 20); do (exit 0) & done; wait; jobs | wc -l; echo $((4*5))")
    # Signals: the handler runs, and the default ends a process.
    assert "\ncaught 13\n" in shell("sh -c 'trap \"echo caught \\$((6+7)); exit\" USR1; kill -USR1 $$; sleep 5'")
    assert "\n143\n" in shell("sh -c 'sleep 100 & sleep 1; kill $!; wait $!; echo $?'")
    # Threads.
    assert "\nthreads=36000\n" in shell("/bin/threads")
    # Vector registers survive context switches.
    assert "\nvectors=40\n" in shell("/bin/vectors")
    # Files.
    assert "\n1000000\n" in shell("dd if=/dev/urandom of=/tmp/a bs=1000 count=1000 2>/dev/null; wc -c < /tmp/a")
    assert "\n0\n" in shell("gzip -c /tmp/a | gunzip -c | cmp - /tmp/a; echo $?")
    # The kernel has nothing to complain of.
    log = shell("dmesg")
    for complaint in ("WARNING", "BUG", "Oops", "insecure W+X", "Call Trace", "unchecked MSR", "Unable to init"):
        assert complaint not in log.replace("Checked W+X mappings: passed", ""), log
    shell.domain.console.send("poweroff\n")
    assert shell.domain.wait(PATIENCE) is ShutdownReason.POWEROFF
    assert b"paravirt: init" in shell.domain.console.output


def test_several_vcpus_on_one_engine(machine: Machine, kernel: Path, ramdisk: bytes) -> None:
    shell = _boot(machine, kernel, ramdisk, vcpus=4)
    assert "\n4\n" in shell("nproc")
    assert "\nthreads=36000\n" in shell("/bin/threads")
    assert "\n4\n" in shell("for i in 0 1 2 3; do taskset $((1<<i)) cat /proc/self/stat; done | awk '{print $39}' "
                            "| sort -u | wc -l")
    shell.domain.console.send("poweroff\n")
    assert shell.domain.wait(PATIENCE) is ShutdownReason.POWEROFF


def test_a_panic_leaves_a_report(machine: Machine, kernel: Path, ramdisk: bytes) -> None:
    shell = _boot(machine, kernel, ramdisk, cmdline="panic=-1 oops=panic")
    shell.domain.console.send("echo c > /proc/sysrq-trigger\n")
    assert shell.domain.wait(PATIENCE) is ShutdownReason.CRASH
    report = shell.domain.crash_report
    assert report is not None
    assert "rip" in report
    assert "rsp" in report
    assert "sysrq triggered crash" in shell.domain.console.output.decode()
    # The machine goes on: the next domain boots.
    assert "\n42\n" in _boot(machine, kernel, ramdisk)("echo $((6*7))")


class Balloon:
    """What a guest and the hypervisor say of the guest's memory."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell

    @property
    def pages(self) -> int:
        """As the hypervisor counts them."""
        return self.shell.domain.control(lambda view: view.tot_pages)

    @property
    def total(self) -> int:
        """What the guest says that it has, in KiB."""
        found = re.search(r"MemTotal: +(\d+) kB", self.shell("cat /proc/meminfo"))
        assert found
        return int(found[1])

    def settle(self, target: int) -> None:
        """Ask for so many MiB, and wait until the guest has them; it takes its time, and then counts them."""
        self.shell.domain.set_memory_target(target)
        end = time.monotonic() + PATIENCE
        while self.pages != target * 256 and time.monotonic() < end:
            self.shell("sleep 0.2")
        assert self.pages == target * 256


def test_the_balloon_gives_memory_back_and_takes_it_again(machine: Machine, kernel: Path, ramdisk: bytes) -> None:
    shell = _boot(machine, kernel, ramdisk)
    balloon = Balloon(shell)
    said, free = balloon.total, machine.host.free_frames
    assert balloon.pages == 256 * 256
    balloon.settle(160)
    assert settled(lambda: said - balloon.total, 96 * 1024) == 96 * 1024
    assert machine.host.free_frames == free + 96 * 256
    check(machine, "when the guest has given memory back")
    # It works with less.
    assert "\n0\n" in shell("dd if=/dev/urandom of=/tmp/b bs=1000 count=20000 2>/dev/null; sync; echo $?")
    balloon.settle(224)
    assert settled(lambda: said - balloon.total, 32 * 1024) == 32 * 1024
    balloon.settle(256)
    assert settled(lambda: balloon.total, said) == said
    for wrong in (0, 257):
        with pytest.raises(UserError, match="4 to 262144 KiB"):
            shell.domain.set_memory_target(wrong)
    check(machine, "when the guest has its memory back")
    shell.domain.console.send("poweroff\n")
    assert shell.domain.wait(PATIENCE) is ShutdownReason.POWEROFF


def test_a_domain_grows_beyond_what_it_was_made_with(machine: Machine, kernel: Path, ramdisk: bytes) -> None:
    domain = machine.create(kernel=kernel, ramdisk=ramdisk, cmdline="console=hvc0", memory=160, max_memory=256)
    balloon = Balloon(Shell(domain))
    said = balloon.total
    balloon.settle(240)
    assert settled(lambda: balloon.total - said, 80 * 1024) == 80 * 1024
    # All of it can be used, and then given back.
    balloon.shell("mkdir /t; mount -t tmpfs -o size=160m none /t")
    assert "\n0\n" in balloon.shell("dd if=/dev/zero of=/t/b bs=1000000 count=140 2>/dev/null; echo $?")
    balloon.shell("umount /t")
    balloon.settle(150)
    check(machine, "when the guest has grown and shrunk")


@contextlib.contextmanager
def busy_host() -> Iterator[None]:
    """Processes that want every processor of the host, twice over."""
    command = [sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as stack:
        for _ in range(2 * (os.cpu_count() or 1)):
            competitor = stack.enter_context(subprocess.Popen(command))
            stack.callback(competitor.kill)
        yield


def test_runs_with_the_same_inputs_are_the_same_even_on_a_busy_host(kernel: Path, ramdisk: bytes) -> None:
    def run() -> tuple[bytes, bytes]:
        with Machine(memory=400, deterministic=True) as machine:
            with machine.host.lock:
                machine.host.set_tracing(True)
            domain = machine.create(
                kernel=kernel, ramdisk=ramdisk, cmdline="console=hvc0 quiet rdinit=/bin/threads panic=-1",
                memory=256, vcpus=2, name="twin",
            )
            domain.wait(PATIENCE)
            with machine.host.lock:
                return machine.host.take_trace(), domain.console.output

    first, second = run(), run()
    assert b"threads=36000" in first[1]
    assert len(first[0]) > 48 * 100_000
    assert first == second
    with busy_host():
        assert first == run()
