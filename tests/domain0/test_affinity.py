"""Where the vcpus of a domain may run: texts of configurations, changes, and what they mean for the domain."""

from __future__ import annotations

import threading
from unittest.mock import Mock

import pytest

from paravirt.domain0.daemon.affinity import Affinity
from paravirt.domain0.daemon.domains import ManagedDomain
from paravirt.errors import UserError


class Pinned(Affinity):
    """One that is asked for another change while it makes the first."""

    def __init__(self, vcpus: int, pcpus: int) -> None:
        super().__init__((), (), vcpus, pcpus, parallel=True)
        self.meanwhile: list[threading.Thread] = []

    def _existing(self, text: str) -> frozenset[int]:
        if self.meanwhile:
            other = self.meanwhile.pop()
            other.start()
            other.join(0.1)  # it ends only if nothing holds it up
        return super()._existing(text)


def test_pins_that_come_at_the_same_time_are_both_kept() -> None:
    affinity = Pinned(2, 2)
    managed = ManagedDomain(Mock(), Mock(), Mock(), True, affinity)
    other = threading.Thread(target=managed.pin, args=([1], "1", ""))
    affinity.meanwhile.append(other)
    managed.pin([0], "0", "")
    other.join()
    assert affinity.hard == [{0}, {1}]


def test_without_a_text_a_vcpu_may_run_everywhere() -> None:
    affinity = Affinity(["1-2"], [], 3, 4)
    assert affinity.hard == [{1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3}]
    assert affinity.of_domain() == (frozenset({1, 2}), frozenset())


def test_a_domain_runs_where_all_its_vcpus_may() -> None:
    affinity = Affinity(["0-1", "1-2"], ["all", "1"], 2, 4)
    assert affinity.of_domain() == (frozenset({1}), frozenset()), "nothing is left to prefer"
    affinity.change([0, 1], "0-2", "")
    assert affinity.of_domain() == (frozenset({0, 1, 2}), frozenset({1}))


def test_a_change_that_leaves_none_changes_nothing() -> None:
    affinity = Affinity(["0", "0"], [], 2, 2)
    with pytest.raises(UserError, match="all may run"):
        affinity.change([1], "1", "0")
    assert affinity.hard == [{0}, {0}]
    assert affinity.soft == [{0, 1}, {0, 1}]
    with pytest.raises(UserError, match="physical CPUs 0 to 1"):
        affinity.change([0, 1], "2-3", "")


def test_vcpus_that_run_in_parallel_are_each_where_they_may_be() -> None:
    pinned: list[tuple[object, ...]] = []

    class Domain:
        def pin(self, *what: object) -> None:
            pinned.append(what)

    affinity = Affinity(["0", "1-2"], ["all", "1"], 2, 3, parallel=True)
    affinity.pin(Domain())  # type: ignore[arg-type]
    assert pinned == [(frozenset({0}), frozenset(), 0), (frozenset({1, 2}), frozenset({1}), 1)]
    affinity.change([0], "2", "")
    assert affinity.hard == [{2}, {1, 2}]


def test_a_configuration_that_leaves_none_is_refused() -> None:
    with pytest.raises(UserError, match="all may run"):
        Affinity(["0", "1"], [], 2, 2)
    with pytest.raises(UserError, match="physical CPUs 0 to 0"):
        Affinity(["5"], [], 1, 1)


def test_the_physical_cpus_of_the_pool_count_alone() -> None:
    affinity = Affinity(["0-1", "1-2"], [], 2, 4, pool=frozenset({1, 2}))
    assert affinity.of_domain() == (frozenset({1}), frozenset())
    with pytest.raises(UserError, match="pool has none"):
        affinity.change([0], "0,3", "")
    affinity.change([0, 1], "0-3", "")
    assert affinity.of_domain()[0] == {0, 1, 2, 3}, "what the pool gets later counts then"
    with pytest.raises(UserError, match="pool has none"):
        Affinity(["3"], [], 1, 4, pool=frozenset({0}))


def test_who_has_no_physical_cpu_left_may_run_on_all() -> None:
    affinity = Affinity(["2", "1-2"], [], 2, 3)
    affinity.follow(frozenset({0, 1}))
    assert affinity.hard == [{0, 1, 2}, {1, 2}]
    affinity.follow(frozenset({1, 2}))
    affinity.change([0, 1], "1-2", "")
    affinity.follow(frozenset({0}))
    assert affinity.hard == [{0, 1, 2}, {0, 1, 2}]


def test_vcpus_with_none_left_in_common_may_run_on_all() -> None:
    for parallel in (False, True):
        affinity = Affinity(["0-1", "0,2"], [], 2, 3, parallel)
        affinity.follow(frozenset({1, 2}))
        assert affinity.hard == ([{0, 1}, {0, 2}] if parallel else [{0, 1, 2}] * 2)


def test_another_pool_knows_of_no_affinities() -> None:
    affinity = Affinity(["0"], ["0"], 1, 3, pool=frozenset({0}))
    affinity.forget(frozenset({1}))
    assert affinity.hard == [{0, 1, 2}]
    assert affinity.soft == [{0, 1, 2}]
