"""``paravirt guests``: what can be booted here, and how it is had."""

from __future__ import annotations

import json
import shutil
from typing import Any

import click

from paravirt.guestkernels import GUESTS, Guest, find, obtain

INITRAMFS = "initramfs"


def progress(text: str) -> None:
    """Tell the person at the keyboard why it takes a moment."""
    click.echo(f"paravirt: {text}", err=True)


def initramfs_path() -> str:
    """The initial ramdisk around busybox, obtained and built when it is not in the cache."""
    from paravirt.initramfs import cached

    return str(cached(obtain("busybox", progress).path))


def _row(guest: Guest, obtainable: bool) -> dict[str, Any]:
    here = find(guest.name)
    state = "cached" if here else "obtainable" if obtainable and guest.package else "not obtainable here"
    if here and not guest.package:
        state = "built in"
    return {
        "name": guest.name,
        "state": state,
        "version": here.version if here else "",
        "path": str(here.path) if here else "",
        "source": guest.how,
        "summary": guest.summary,
        "kernel": guest.kernel,
    }


@click.command()
@click.option("--get", metavar="NAME", help="Obtain NAME (or `initramfs`) and print its path.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def guests(get: str | None, as_json: bool) -> None:
    """List the guest kernels that are cached or obtainable here, and how.

    Kernels come from Debian's packages with apt-get, into the cache of the user; nothing is installed.
    `--get initramfs` makes a ramdisk around busybox for them to boot into.
    """
    if get is not None:
        click.echo(initramfs_path() if get == INITRAMFS else obtain(get, progress).path)
        return
    obtainable = all(shutil.which(program) for program in ("apt-get", "apt-cache", "dpkg-deb"))
    rows = [_row(guest, obtainable) for guest in GUESTS.values()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    states = max(len(row["state"]) for row in rows)
    for row in rows:
        source = f"{row['source']} {row['version']}".rstrip()
        click.echo(f"{row['name']:{width}}  {row['state']:{states}}  {row['summary']}: {source}")
    if not obtainable:
        click.echo("This machine has no apt, which is what paravirt fetches guests with.", err=True)
