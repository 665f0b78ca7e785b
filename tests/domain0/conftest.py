"""What tests of several kinds of devices need."""

from __future__ import annotations

import pytest

from paravirt import Machine

from .devices.frontends import FrontendGuest


@pytest.fixture
def guest(machine: Machine) -> FrontendGuest:
    """A domain whose frontends the test plays, on the test's own machine."""
    return FrontendGuest(machine)
