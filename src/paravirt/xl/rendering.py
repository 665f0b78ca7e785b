"""Rows as text, in the formats of xl 4.17, which scripts parse."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]

LIST_HEADER = "Name                                        ID   Mem VCPUs\tState\tTime(s)"
_REASONS = "-rscwS"


def state(row: Row) -> str:
    """The six letters of a domain's state."""
    reason = row["shutdown_reason"] if row["shutdown"] else 0
    return "".join(
        (
            "r" if row["running"] else "-",
            "b" if row["blocked"] else "-",
            "p" if row["paused"] else "-",
            "s" if row["shutdown"] else "-",
            _REASONS[reason] if 0 <= reason < len(_REASONS) else "?",
            "d" if row["dying"] else "-",
        )
    )


def seconds(ns: int) -> float:
    """A time as xl divides it: it is a C float first, which shows in the last digit."""
    (rounded,) = struct.unpack("f", struct.pack("f", ns))
    return float(rounded) / 1e9


def list_line(row: Row) -> str:
    """A domain's line in ``xl list``, as far as it is always there."""
    return (
        f"{row['name']:<40} {row['domid']:5d} {row['memory_kib'] // 1024:5d} {row['vcpus_online']:5d}     "
        f"{state(row)}  {seconds(row['cpu_time_ns']):8.1f}"
    )


def bitmap(numbers: Iterable[int], count: int) -> str:
    """A set of physical CPUs of ``count``: all, none, or ranges."""
    chosen = sorted(set(numbers))
    if not chosen:
        return "none"
    if len(chosen) == count:
        return "all"
    ranges: list[list[int]] = []
    for number in chosen:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def duration(seconds: int, short: bool) -> str:
    """A time as ``uptime`` prints it."""
    minutes, second = divmod(max(0, seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    text = f"{hour:2d}:{minute:02d}" if short else f"{hour:2d}:{minute:02d}:{second:02d}"
    return text if not days else f"{days} day{'s' if days > 1 else ''}, {text}"


def clock() -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S")


def pretty(value: Any, depth: int = 0) -> str:
    """JSON, laid out as xl's own printer does."""
    import json

    inner, outer = "    " * (depth + 1), "    " * depth
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(key)}: {pretty(one, depth + 1)}" for key, one in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{outer}}}"
    if isinstance(value, list | tuple):
        items = [f"{inner}{pretty(one, depth + 1)}" for one in value]
        return "[\n" + ",\n".join(items) + f"\n{outer}]"
    return json.dumps(value, ensure_ascii=False)
