"""``paravirt disk``: images for guests' disks."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.group()
def disk() -> None:
    """Make images for guests' disks."""


@disk.command()
@click.option("--format", "format_", metavar="FORMAT", default="raw", show_default=True, help="Format of BASE.")
@click.argument("base", type=PATH)
@click.argument("overlay", type=PATH)
def overlay(base: Path, overlay: Path, format_: str) -> None:
    """Make OVERLAY, which takes what a guest changes of BASE.

    Many overlays can share one base, which is never written. The disk's format is then `overlay`.
    """
    from paravirt.domain0.block.opening import new_overlay

    new_overlay(overlay, base, format_)


@disk.command()
@click.option("--level", type=click.IntRange(1, 22), default=9, show_default=True, help="Effort, as zstd has it.")
@click.argument("image", type=PATH)
@click.argument("compressed", type=PATH)
def compress(image: Path, compressed: Path, level: int) -> None:
    """Write the raw IMAGE in a form that is smaller and can be read at any place.

    The disk's format is then `zstd`, and its access `r`; an overlay of it can be written.
    """
    from paravirt.domain0.block.seekable import compress as pack

    pack(image, compressed, level)


@disk.command()
@click.option("--size", metavar="MIB", type=click.IntRange(min=256), default=2048, show_default=True, help="Its size.")
@click.option("--suite", default="bookworm", show_default=True, help="Release of Debian.")
@click.option("--include", metavar="PACKAGE", multiple=True, help="One more package.")
@click.option("--kernel", is_flag=True, help="With a kernel of its own, and a menu for GRUB's Xen image.")
@click.argument("image", type=PATH)
def debian(image: Path, size: int, suite: str, include: tuple[str, ...], kernel: bool) -> None:
    """Make IMAGE, a raw disk with Debian on it.

    The packages come from the distribution's mirrors by mmdebstrap. Root logs in on the console without a password.
    """
    from paravirt.cli.guests import progress
    from paravirt.guestkernels.rootfs import build_debian

    build_debian(image, size, suite, include, kernel, progress)
