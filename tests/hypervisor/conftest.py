"""A world of grants, with a guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .test_grants import Guest, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.clear()


@pytest.fixture
def guest(world: World) -> Guest:
    return Guest(world)
