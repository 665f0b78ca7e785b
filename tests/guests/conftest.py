"""A machine for small kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paravirt import Machine

from ..hypervisor.audited import audited


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=64) as made, audited(made):
        yield made
