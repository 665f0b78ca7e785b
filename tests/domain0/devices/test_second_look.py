"""Rings are looked at once more after they were found empty, where a frontend's event may be missed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from paravirt.domain0.devices.backend import Facilities
from paravirt.domain0.devices.second_look import SecondLook


class Timers:
    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def call_later(self, delay: float, function: Callable[[], None]) -> None:
        self.waiting.append(function)


def made(deterministic: bool = False, has_barriers: bool = False) -> tuple[SecondLook, Timers, list[bool]]:
    timers, looks = Timers(), list[bool]()
    facilities: Facilities = SimpleNamespace(  # type: ignore[assignment]
        services=timers, deterministic=deterministic, has_barriers=has_barriers
    )
    return SecondLook(facilities, lambda: looks.append(True)), timers, looks


def test_once_for_each_position() -> None:
    second, timers, looks = made()
    second.soon(0)
    second.soon(0)
    timers.waiting.pop()()
    assert len(looks) == 1 and not timers.waiting
    second.soon(0)
    assert not timers.waiting
    second.soon(5)
    assert len(timers.waiting) == 1


def test_however_often_a_ring_is_found_empty_one_look_waits() -> None:
    """And another one follows it, for what was found in between."""
    second, timers, looks = made()
    for position in range(100):
        second.soon(position)
    assert len(timers.waiting) == 1
    timers.waiting.pop()()
    assert len(looks) == 1 and len(timers.waiting) == 1
    timers.waiting.pop()()
    assert len(looks) == 2 and not timers.waiting


@pytest.mark.parametrize("how", ["deterministic", "has_barriers"])
def test_where_nothing_is_missed_nobody_looks(how: str) -> None:
    second, timers, _ = made(**{how: True})
    second.soon(1)
    assert not timers.waiting
