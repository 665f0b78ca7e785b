"""What it costs Linux guests to take turns on one engine, which keeps the code that it translated for all of them in
one buffer, and translations of addresses for the one that runs only.

The guests do the same amount of work together however many they are: shells that start a process again and again. They
do it twice, in long turns and in short ones: work and guests are the same, so that the difference is what the switches
cost, with all that a guest has to find again after one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paravirt.domain0.toolstack import Domain, Machine

WARMING = 2
"""Processes that each guest starts before it counts, so that what is needed is translated once."""
LONG_MS, SHORT_MS = 30, 1
PATIENCE_S = 300.0
MMU_UPDATE, UPDATE_VA_MAPPING = 1, 14


@dataclass(frozen=True)
class Turns:
    """What guests that take turns pay.

    Attributes:
        start_us: the host's processor time for a process that a guest starts, in long turns.
        switch_us: what a switch to another guest costs beside the trap; None where there is no other.
        translating_percent: the part of the time in long turns in which code was translated.
        forgotten: how often all translated code was forgotten meanwhile.
        flushes_per_update: how often translations of addresses, all or those of a page, were forgotten for each
            change of a page-table entry, beside those at switches.
    """

    start_us: float
    switch_us: float | None
    translating_percent: float
    forgotten: int
    flushes_per_update: float


@dataclass(frozen=True)
class _Work:
    """How much of everything some work took."""

    processor_us: float
    switches: int
    updates: int
    translating_us: float
    forgotten: int
    flushes: int

    def __sub__(self, before: _Work) -> _Work:
        return _Work(*(getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__))


def engine_counters(engine: Any) -> Counter[str]:
    """What an engine translated and forgot; nothing where it translates nothing."""
    return Counter(engine.counters() if hasattr(engine, "counters") else ())


def measure(machine: Machine, domains: Sequence[Domain], starts: int) -> Turns:
    """Have Linux guests that wait at their shells start so many processes together, all on the first physical CPU."""
    _work(machine, domains, WARMING, SHORT_MS)
    each = max(1, starts // len(domains))
    short = _work(machine, domains, each, SHORT_MS)
    long = _work(machine, domains, each, LONG_MS)
    others = short.switches - long.switches if len(domains) > 1 else 0
    return Turns(
        start_us=long.processor_us / (each * len(domains)),
        switch_us=(short.processor_us - long.processor_us) / others if others > 0 else None,
        translating_percent=100 * long.translating_us / long.processor_us,
        forgotten=long.forgotten,
        flushes_per_update=long.flushes / long.updates,
    )


def _work(machine: Machine, domains: Sequence[Domain], starts: int, turn_ms: int) -> _Work:
    """Have each guest start so many processes, all at once, in turns of so long."""
    machine.set_sched_info(tslice_ms=turn_ms)
    for domain in domains:
        domain.pause()
        domain.console.send(f"i=0; while [ $i -lt {starts} ]; do busybox true; i=$((i+1)); done; echo st''arted\n")
    before = _so_far(machine)
    for domain in domains:
        domain.unpause()
    for domain in domains:
        domain.console.expect("started\r\n", PATIENCE_S)
    return _so_far(machine) - before


def _so_far(machine: Machine) -> _Work:
    """The machine's counters, and its physical CPU's use of the host's processors."""
    processor_us = time.process_time() * 1e6 - machine.service_time_ns() / 1000
    counted, engine = machine.stats(), engine_counters(machine.engines[0])
    by_call = (counted["hypercalls"].get(number, (0, 0.0))[0] for number in (MMU_UPDATE, UPDATE_VA_MAPPING))
    return _Work(
        processor_us,
        counted["world_switches"],
        sum(by_call) + counted["page_table_writes"],
        engine["translating_ns"] / 1000,
        engine["whole_flushes"],
        engine["tlb_flushes"] + engine["page_flushes"] - counted["world_switches"],
    )
