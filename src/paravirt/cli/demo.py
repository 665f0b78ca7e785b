"""``paravirt demo``: the shortest way to see a guest."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from paravirt.cli.steps import Expect, Send, Step
from paravirt.initramfs import MARKER
from paravirt.machine.choice import DEFAULT_ENGINE, ENGINE_VARIABLE, ENGINES

CMDLINE = "console=hvc0"
MEMORY_MIB = 512

# The shell echoes what is typed: the answers are written so that no echo can be taken for them.
CONVERSATION: tuple[Step, ...] = (
    Expect(MARKER),
    Expect("# "),
    Send(b"uname -a\n"),
    Expect("GNU/Linux"),
    Expect("# "),
    Send(b"cat /sys/hypervisor/type\n"),
    Expect("\nxen"),
    Expect("# "),
    Send(b"echo $((6*7))\n"),
    Expect("\n42"),
    Expect("# "),
    Send(b"poweroff\n"),
)


def _kernel_cmdline() -> str:
    """On a terminal, tell the shell how large it is: the kernel hands on what it does not know."""
    if not sys.stdin.isatty():
        return CMDLINE
    words = [CMDLINE, "quiet", f"TERM={os.environ.get('TERM', 'linux')}"]
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(sys.stdin.fileno())
        if size.lines and size.columns:
            words += [f"LINES={size.lines}", f"COLUMNS={size.columns}"]
    return " ".join(words)


@click.command()
@click.option("--tiny", is_flag=True, help="Boot paravirt's own small kernel, which needs no download.")
@click.option("--engine", type=click.Choice(ENGINES), default=DEFAULT_ENGINE, show_default=True,
              envvar=ENGINE_VARIABLE, show_envvar=True,
              help="CPU engine: auto is kvm where it is usable, else unicorn.")  # fmt: skip
def demo(tiny: bool, engine: str) -> int:
    """Boot Debian's stock cloud kernel to a shell.

    The kernel and busybox are fetched with apt the first time. Without a terminal on standard input a few
    commands are run in the guest, which is then powered off. On a terminal, Ctrl-] leaves.
    """
    from paravirt.cli.guests import initramfs_path, progress
    from paravirt.cli.session import Session
    from paravirt.guestkernels import obtain

    if tiny:
        return Session([], listen=sys.stdin.isatty()).run(obtain("tiny").path, None, "", 64, 1, "tiny", engine)
    kernel = obtain("debian-cloud", progress)
    ramdisk = initramfs_path()
    interactive = sys.stdin.isatty()
    progress(f"booting {kernel.package} {kernel.version}" + ("; Ctrl-] leaves" if interactive else ""))
    session = Session([] if interactive else CONVERSATION, listen=interactive)
    return session.run(kernel.path, ramdisk, _kernel_cmdline(), MEMORY_MIB, 1, "debian", engine)
