"""The torture, in short; the long run is `python -m tests.torture`."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt.errors import UserError
from paravirt.machine.choice import choose

from ..cli.conftest import Obtain, guest
from .guests import Kernels, complaint, prepare
from .runner import OFTEN, torture

__all__ = ["guest"]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return prepare(tmp_path_factory.mktemp("kernels"), linux=False)


@pytest.mark.parametrize(("engine", "pcpus"), [("unicorn", 1), ("unicorn", 2), ("unicorn", 5), ("kvm", 5)])
def test_random_lives_of_small_domains(engine: str, pcpus: int, small: Kernels, tmp_path: Path) -> None:
    try:
        choose(engine, pcpus)
    except UserError as error:
        pytest.skip(str(error))
    counts = torture(small, tmp_path, pcpus=pcpus, seed=pcpus, steps=120, engine=engine)
    assert counts.widows and counts.work
    assert counts.actions.keys() >= OFTEN


@pytest.mark.network
def test_linux_works_beside_random_lives(guest: Obtain, tmp_path: Path) -> None:
    guest("debian-cloud")
    try:
        kernels = prepare(tmp_path, linux=True)
    except UserError as error:
        pytest.skip(str(error))
    assert torture(kernels, tmp_path, pcpus=3, seed=1, linux=1, steps=40).work


def test_complaints_are_seen() -> None:
    assert complaint(b"rewrites: round 4, wrong 0\nrewrites: round 8, wrong 0\n") == ""
    assert complaint(b"rewrites: round 4, wrong 0\nrewrites: round 8, wrong 1\r\nmore") == "rewrites: round 8, wrong 1"
    assert complaint(b"FAILED: good (main.c:7)") == "FAILED: good (main.c:7)"
