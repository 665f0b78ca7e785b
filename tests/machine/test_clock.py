"""The machine's clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.machine.clock import VIRTUAL_EPOCH_NS, RealClock, VirtualClock


def test_the_real_clock_starts_near_zero_and_never_goes_back() -> None:
    clock = RealClock()
    readings = [clock.now() for _ in range(1000)]
    assert readings == sorted(readings)
    assert readings[0] >= 0
    assert not clock.virtual


def test_real_wall_time_is_boot_plus_system_time() -> None:
    clock = RealClock()
    before, wall, after = clock.now(), clock.wall(), clock.now()
    assert before <= wall - clock.boot_wall_ns <= after


@given(st.lists(st.one_of(st.integers(0, 10**15), st.tuples(st.integers(0, 10**15))), max_size=30))
def test_virtual_time_is_the_sum_of_what_passed(steps: list[int | tuple[int]]) -> None:
    clock, expected = VirtualClock(), 0
    for step in steps:
        if isinstance(step, tuple):
            expected = max(expected, step[0])
            assert clock.advance_to(step[0]) == expected
        else:
            expected += step
            assert clock.advance(step) == expected
        assert clock.now() == expected
        assert clock.wall() == VIRTUAL_EPOCH_NS + expected
    assert clock.virtual


def test_a_virtual_clock_may_be_kept_by_somebody_else() -> None:
    kept = [5]
    clock = VirtualClock(1_000, lambda: kept[0])
    assert (clock.now(), clock.wall()) == (5, 1_005)
    kept[0] = 9
    assert clock.now() == 9
    with pytest.raises(ValueError, match="kept by its source"):
        clock.advance(1)


def test_what_no_clock_does() -> None:
    with pytest.raises(ValueError, match="go back"):
        VirtualClock().advance(-1)
    with pytest.raises(ValueError, match="1970"):
        VirtualClock(-1)
