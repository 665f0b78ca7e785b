"""A guest that rewrites its code and its page tables for ever, for tests of where it runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from paravirt import Domain

from ..oracle import kernels
from ..patience import PATIENCE

MOVES = 12


@pytest.fixture(scope="session")
def rewrites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("rewrites", tmp_path_factory.mktemp("kernels"))


def where(domain: Domain) -> int:
    return domain.control(lambda view: view.vcpus[0].pcpu)


def comes_to(domain: Domain, pcpu: int) -> None:
    """Wait until the guest is at home on a physical CPU: one that runs moves at its next exit. What is in its console
    by then may be from before."""
    deadline = time.monotonic() + PATIENCE
    while where(domain) != pcpu:
        assert time.monotonic() < deadline, f"it stays on the physical CPU {where(domain)}"
        time.sleep(0.001)


def goes_on(domain: Domain) -> None:
    """Wait until the guest has done some more rounds, and look that it saw what it wrote."""
    domain.console.expect("wrong ", PATIENCE)
    domain.console.expect("wrong 0\n", PATIENCE)
