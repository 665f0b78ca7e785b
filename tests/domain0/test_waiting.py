"""Waiting goes on in turns, so that a signal that came too early is noticed."""

from __future__ import annotations

import threading

import pytest

from paravirt.domain0 import waiting
from paravirt.domain0.waiting import wait_in_turns


def test_what_has_come_is_not_waited_for() -> None:
    event = threading.Event()
    event.set()
    assert wait_in_turns(event.wait)
    assert wait_in_turns(event.wait, 0)


def test_no_turn_is_long() -> None:
    turns: list[float] = []

    def wait(seconds: float) -> bool:
        turns.append(seconds)
        return len(turns) == 4

    assert wait_in_turns(wait)
    assert turns == [waiting.LOOK_EVERY_S] * 4


def test_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("paravirt.domain0.waiting.time.monotonic", lambda: now[0])
    turns: list[float] = []

    def wait(seconds: float) -> bool:
        turns.append(seconds)
        now[0] += seconds
        return False

    assert not wait_in_turns(wait, 1.25)
    assert turns == [0.5, 0.5, 0.25]
    assert not wait_in_turns(wait, -1)


def test_an_interrupt_ends_it() -> None:
    def wait(seconds: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_in_turns(wait)
