"""Compute-bound guests on an engine, in deterministic mode: their shares under each scheduler, and caps."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt import Machine, UserError

from ..oracle import kernels
from ..patience import PATIENCE

STRETCH_US = 1_500_000  # of system time, in guests/burn


@pytest.fixture(scope="session")
def burn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("burn", tmp_path_factory.mktemp("kernels"))


def shares(scheduler: str, burn: Path, parameters: list[dict[str, int]]) -> list[float]:
    """What part of the CPU's time each of some guests got, one for each set of parameters."""
    with Machine(memory=128, deterministic=True, scheduler=scheduler) as machine:
        domains = [machine.create(burn, memory=8, paused=True) for _ in parameters]
        for domain, values in zip(domains, parameters, strict=True):
            domain.sched_set(**values)
        for domain in domains:
            domain.unpause()
        said = [domain.console.expect(" us", PATIENCE) for domain in domains]
        return [int(text.rpartition("burn: had ")[2].split()[0]) / STRETCH_US for text in said]


@pytest.mark.parametrize("scheduler", ["credit", "sedf", "bvt"])
def test_weights_of_1_to_4(scheduler: str, burn: Path) -> None:
    parameters = [{"mcuadv": 12 // n} if scheduler == "bvt" else {"weight": n} for n in (1, 2, 3, 4)]
    assert shares(scheduler, burn, parameters) == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.04)


def test_a_cap(burn: Path) -> None:
    capped, free = shares("credit", burn, [{"cap": 20}, {}])
    assert capped == pytest.approx(0.2, abs=0.02)
    assert free == pytest.approx(0.8, abs=0.04)


def test_parameters_out_of_range_are_refused(burn: Path) -> None:
    with Machine(memory=64) as machine:
        domain = machine.create(burn, memory=8, paused=True)
        assert domain.sched_get() == {"weight": 256, "cap": 0}
        for wrong in ({"weight": 0}, {"weight": 65536}, {"cap": -1}, {"slice": 1}):
            with pytest.raises(UserError, match="credit"):
                domain.sched_set(**wrong)
        domain.sched_set(weight=512)
        assert domain.sched_get() == {"weight": 512, "cap": 0}
        with pytest.raises(UserError, match="rate limit"):
            machine.set_sched_info(ratelimit_us=50)
    with pytest.raises(UserError, match="no scheduler 'fifo'"):
        Machine(memory=16, scheduler="fifo")
