"""The verb top, and the program xentop: what the domains use, again and again."""

from __future__ import annotations

import getopt
import os
import sys
import time
from typing import Any

from paravirt.domain0.daemon.protocol import Refusal
from paravirt.domain0.xlcfg.disks import KIND as VBD
from paravirt.domain0.xlcfg.vifs import KIND as VIF
from paravirt.errors import UserError
from paravirt.xl.client import FAILURE, USAGE, Daemon, Options, Row, parse_number, parse_options, say

HEADER = (
    "      NAME  STATE   CPU(sec) CPU(%)     MEM(k) MEM(%)  MAXMEM(k) MAXMEM(%) VCPUS NETS NETTX(k) NETRX(k) VBDS"
    "   VBD_OO   VBD_RD   VBD_WR  VBD_RSECT  VBD_WSECT SSID"
)
_NAME_WIDTH = 10
_DELAY = 3.0
_CRASH = 3
_SECTOR = 512


def xentop() -> int:
    """The program ``xentop``."""
    try:
        options = parse_options(
            sys.argv[1:], "bi:d:f", {"batch": "b", "iterations=": "i", "delay=": "d", "full-name": "f"}
        )
        if "h" in options:
            print("Usage: xentop [-b] [-i N] [-d SECONDS] [-f]")
            return 0
        return top(options)
    except getopt.GetoptError as error:
        say(f"xentop: {error.msg}")
        return USAGE
    except (UserError, Refusal) as error:
        say(f"xentop: {error}")
        return FAILURE
    except KeyboardInterrupt:
        return 0


def top(options: Options) -> int:
    """``xl top``: in batch mode one sample after the other, else a screen that is drawn again until Ctrl-C."""
    count = parse_number(options.get("i") or "0")
    try:
        delay = float(options.get("d") or _DELAY)
    except ValueError as error:
        raise UserError(f"{options.get('d')!r} is not a number of seconds.") from error
    batch = "b" in options or not sys.stdout.isatty()
    daemon = Daemon()
    previous: dict[int, int] = {}
    before = time.monotonic()
    number = 0
    while True:
        rows, now = daemon.domains(), time.monotonic()
        devices, facts = daemon.call("device-counts"), daemon.call("info")
        elapsed = now - before if number else 0.0
        total_kib = facts["total_memory_mib"] * 1024
        lines = [
            _line(row, previous, elapsed, total_kib, "f" in options) + _device_columns(row, devices) for row in rows
        ]
        _show(lines, facts, len(rows), batch)
        previous, before = {row["domid"]: row["cpu_time_ns"] for row in rows}, now
        number += 1
        if count and number >= count:
            return 0
        time.sleep(delay)


def _show(lines: list[str], facts: dict[str, Any], count: int, batch: bool) -> None:
    if not batch:
        width = os.get_terminal_size().columns
        total, free = facts["total_memory_mib"] * 1024, facts["free_memory_mib"] * 1024
        sys.stdout.write("\x1b[H\x1b[J")
        print(f"xentop - {time.strftime('%H:%M:%S')}   Xen {facts['xen_major']}.{facts['xen_minor']}"
              f"{facts['xen_extra']}")  # fmt: skip
        print(f"{count} domains   Mem: {total}k total, {total - free}k used, {free}k free   CPUs: {facts['nr_cpus']}")
        lines = [line[:width] for line in lines]
        print(HEADER[:width])
    else:
        print(HEADER)
    print("\n".join(lines))
    sys.stdout.flush()


def _line(row: dict[str, Any], previous: dict[int, int], elapsed: float, total_kib: int, full: bool) -> str:
    name = row["name"] if full else row["name"][:_NAME_WIDTH]
    crashed = row["shutdown"] and row["shutdown_reason"] == _CRASH
    flags = (row["dying"], row["shutdown"], row["blocked"], crashed, row["paused"], row["running"])
    state = "".join(letter if flag else "-" for letter, flag in zip("dsbcpr", flags, strict=True))
    used = row["cpu_time_ns"] - previous.get(row["domid"], row["cpu_time_ns"])
    percent = used / elapsed / 1e7 if elapsed > 0 else 0.0
    share = row["memory_kib"] * 100 / total_kib
    if row["max_kib"]:
        most, most_share = f"{row['max_kib']:10d}", f"{row['max_kib'] * 100 / total_kib:9.1f}"
    else:
        most, most_share = f"{'no limit':>10}", f"{'n/a':>9}"
    return (
        f"{name:>10} {state:>6} {row['cpu_time_ns'] // 10**9:10d} {percent:6.1f} {row['memory_kib']:10d} {share:6.1f} "
        f"{most} {most_share} {row['vcpus_online']:5d}"
    )


def _device_columns(row: Row, devices: list[Row]) -> str:
    """A domain's devices, from NETS on. As in Xen, TX and RX are Domain 0's: TX is what was sent to the guest.

    No request waits for room in the backend here (VBD_OO), and there are no security labels (SSID).
    """

    def counts(kind: str) -> list[dict[str, int]]:
        return [one["counts"] for one in devices if (one["domid"], one["kind"]) == (row["domid"], kind)]

    def total(found: list[dict[str, int]], name: str) -> int:
        return sum(one[name] for one in found)

    nets, disks = counts(VIF), counts(VBD)
    return (
        f" {len(nets):4d} {total(nets, 'sent_bytes') // 1024:8d} {total(nets, 'received_bytes') // 1024:8d}"
        f" {len(disks):4d} {0:8d} {total(disks, 'read_requests'):8d} {total(disks, 'write_requests'):8d}"
        f" {total(disks, 'read_bytes') // _SECTOR:10d} {total(disks, 'written_bytes') // _SECTOR:10d} {0:4d}"
    )
