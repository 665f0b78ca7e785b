"""A guest that rewrites its code and its page tables for ever, for tests of where it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt import Domain

from ..oracle import kernels

PATIENCE = 120.0
MOVES = 12


@pytest.fixture(scope="session")
def rewrites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("rewrites", tmp_path_factory.mktemp("kernels"))


def where(domain: Domain) -> int:
    return domain.control(lambda view: view.vcpus[0].pcpu)


def goes_on(domain: Domain) -> None:
    """Wait until the guest has done some more rounds, and look that it saw what it wrote."""
    domain.console.expect("wrong ", PATIENCE)
    domain.console.expect("wrong 0\n", PATIENCE)
