"""What holds for all tests: none is timed, neither are the examples of properties nor their making; and these are the
same in every run, unless a longer search is asked for."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from paravirt import UserError
from paravirt.machine.choice import kvm_host

settings.register_profile(
    "untimed",
    settings.default,
    deadline=None,
    derandomize="PARAVIRT_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")


@pytest.fixture
def shortcuts() -> None:
    """Skips the test where the KVM engine answers no hypercall without an exit, or there is none."""
    try:
        host = kvm_host()
    except UserError as error:
        pytest.skip(str(error))
    if not host["shortcuts"]:
        pytest.skip("here no hypercall is answered without an exit")
