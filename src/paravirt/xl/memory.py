"""Verbs about memory: mem-set, mem-max."""

from __future__ import annotations

from paravirt.xl.client import Daemon, Options, parse_memory


def mem_set(options: Options) -> int:
    """``xl mem-set``."""
    domain, amount = options.arguments[:2]
    Daemon().call("mem-set", domain=domain, kib=parse_memory(amount))
    return 0


def mem_max(options: Options) -> int:
    """``xl mem-max``."""
    domain, amount = options.arguments[:2]
    Daemon().call("mem-max", domain=domain, kib=parse_memory(amount))
    return 0
