"""Calls that come later, and rings that end later."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paravirt.domain0.block.ending import LINGER, MOST_LOOKS, QUIET_LOOKS, Ending
from paravirt.domain0.devices.later import Later


class Clock:
    """Domain 0's thread, as far as it calls later."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, function: Callable[[], None]) -> None:
        self.calls.append((delay, function))

    def pass_(self) -> None:
        calls, self.calls = self.calls, []
        for _, function in calls:
            function()


def test_one_call_however_often_it_is_asked_for() -> None:
    clock, came = Clock(), list[str]()
    later = Later(clock, lambda: came.append("came"))  # type: ignore[arg-type]
    for _ in range(3):
        later.ask(2)
    assert [delay for delay, _ in clock.calls] == [2] and later.is_coming
    clock.pass_()
    assert came == ["came"] and not later.is_coming
    later.ask(1)
    later.is_coming = False  # not waited for any more: another one may be asked for
    later.ask(3)
    assert [delay for delay, _ in clock.calls] == [1, 3]


@pytest.mark.parametrize("busy", [0, 1, 5, MOST_LOOKS - QUIET_LOOKS, 10 * MOST_LOOKS])
def test_a_frontend_is_waited_for_while_requests_come_and_not_for_ever(busy: int) -> None:
    clock, did = Clock(), list[str]()
    ending = Ending(clock, lambda: None, lambda: did.append("nudge"), lambda: did.append("look"))  # type: ignore[arg-type]
    assert not ending.is_waited_for
    ending.linger()
    rounds = 0
    while ending.is_waited_for:
        assert [delay for delay, _ in clock.calls] == [LINGER]
        ending.came(int(rounds < busy))
        ending.came(0)
        clock.pass_()
        rounds += 1
    assert did == ["nudge"] * min(busy + QUIET_LOOKS, MOST_LOOKS) + ["look"]
    assert rounds == min(busy + QUIET_LOOKS, MOST_LOOKS) and not clock.calls


def test_a_ring_that_was_left_is_not_looked_at_and_gets_no_events() -> None:
    clock, did = Clock(), list[str]()
    ending = Ending(clock, lambda: None, lambda: did.append("nudge"), lambda: did.append("look"))  # type: ignore[arg-type]
    ending.linger()
    ending.came(1)
    ending.give_up()
    clock.pass_()
    assert did == ["nudge"] and not clock.calls and not ending.is_waited_for
