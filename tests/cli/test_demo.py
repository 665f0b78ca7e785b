"""What a person sees: the demonstration, Debian's kernels and GRUB, from the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..patience import PATIENCE
from .conftest import Obtain
from .terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
PARAVIRT = [sys.executable, "-m", "paravirt.cli.main"]
PROMPT = "/root # "


def paravirt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PARAVIRT, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def debian(guest: Obtain, kernel: str, *steps: str) -> subprocess.CompletedProcess[str]:
    """Boot a kernel to the shell of the ramdisk, and go on with these steps."""
    return paravirt(
        "run", "--timeout", str(PATIENCE), "--append", "console=hvc0", "--ramdisk", str(guest("initramfs")),
        "--expect", PROMPT, *steps, str(guest(kernel)),
    )  # fmt: skip


def test_the_tiny_demonstration() -> None:
    done = paravirt("demo", "--tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Hello from a paravirtual guest!")


def test_the_scripts_work_from_anywhere(tmp_path: Path) -> None:
    """The environment is up to date, or these tests would not run: the script has little to do."""
    script = tmp_path / "linked"
    script.symlink_to(ROOT / "scripts" / "demo")
    done = subprocess.run([script, "--tiny"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Hello from a paravirtual guest!" in done.stdout


@pytest.mark.network
def test_the_demonstration_without_a_terminal(guest: Obtain) -> None:
    guest("debian-cloud")
    done = paravirt("demo")
    assert done.returncode == 0
    lines = done.stdout.replace("\r", "").splitlines()
    # The kernel may say something between a line and its end.
    for answer in ("paravirt: init", "xen", "42", r"Linux guest \S+-cloud-amd64 "):
        assert any(re.match(answer, line) for line in lines), answer


@pytest.mark.network
def test_the_demonstration_on_a_terminal(guest: Obtain) -> None:
    guest("debian-cloud")
    terminal = Terminal([*PARAVIRT, "demo"], lines=33, columns=111)
    terminal.expect(PROMPT)
    terminal.type("stty size; tty\n")
    terminal.expect("\n33 111")
    terminal.expect("\n/dev/hvc0")
    terminal.expect(PROMPT)
    # Told by the process itself, and not by the echo: the terminal is its own by then, and no longer the shell's.
    terminal.type("sh -c 'echo is-$((40+2)); exec sleep 1000'; echo $?\n")
    terminal.expect("\nis-42")
    terminal.type("\x03")  # interrupts the guest's sleep, not paravirt
    terminal.expect(PROMPT)
    terminal.type("sleep 1000 &\n")
    terminal.expect(PROMPT)
    terminal.type("jobs\n")
    assert "Running" in terminal.expect(PROMPT)
    terminal.type("\x1d")
    assert terminal.status() == 0


@pytest.mark.network
@pytest.mark.parametrize(("command", "status"), [
    ("poweroff", 0),
    ("sh -c poweroff", 0),
    ("exit", 0),
    ("halt", 0),
    ("reboot", 3),
    ("echo c >/proc/sysrq-trigger", 1),
])  # fmt: skip
def test_how_linux_ends(guest: Obtain, command: str, status: int) -> None:
    done = debian(guest, "debian-cloud", "--send", f"{command}\\n")
    assert done.returncode == status
    assert ("crashed" in done.stderr) == (status == 1)


@pytest.mark.network
@pytest.mark.parametrize("kernel", ["debian-cloud", "debian", "debian-backports"])
def test_debians_kernels(guest: Obtain, kernel: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    done = debian(
        guest, kernel, "--stats", str(path),
        "--send", r"uname -r; seq 100 | awk '{s+=$1} END {print \"sum\", s}'\n", "--expect", "\nsum 5050",
        "--send", r"cat /sys/hypervisor/type\n", "--expect", "\nxen",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "W+X pages found" not in done.stdout.replace("no W+X pages found", "")
    stats = json.loads(path.read_text())
    assert stats["hypercalls"]
    assert stats["milestones_s"]["step 1: /root # "] < stats["milestones_s"]["end"]


@pytest.mark.network
def test_grub(guest: Obtain) -> None:
    done = paravirt(
        "run", "--timeout", str(PATIENCE), "--expect", "grub>", "--send", r"ls\n", "--expect", "(memdisk)",
        "--expect", "grub>", "--send", r"halt\n", str(guest("grub")),
    )  # fmt: skip
    assert done.returncode == 0


@pytest.mark.network
def test_the_example_of_the_documentation(guest: Obtain) -> None:
    guest("debian-cloud")
    guest("initramfs")
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example
    done = subprocess.run([sys.executable, "-c", example[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\n42" in done.stdout.replace("\r", "")
