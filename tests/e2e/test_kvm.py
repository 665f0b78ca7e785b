"""Debian's stock kernel on the KVM engine: the same tests as on Unicorn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paravirt import Machine, UserError
from paravirt.machine.choice import choose

from ..hypervisor.audited import audited
from .test_linux import (
    test_a_panic_leaves_a_report,
    test_a_shell_and_what_it_needs,
    test_several_vcpus_on_one_engine,
    test_the_balloon_gives_memory_back_and_takes_it_again,
)

__all__ = [
    "test_a_panic_leaves_a_report",
    "test_a_shell_and_what_it_needs",
    "test_several_vcpus_on_one_engine",
    "test_the_balloon_gives_memory_back_and_takes_it_again",
]

pytestmark = pytest.mark.network


@pytest.fixture
def machine() -> Iterator[Machine]:
    try:
        choose("kvm", 1)
    except UserError as error:
        pytest.skip(str(error))
    with Machine(memory=700, engine="kvm") as made, audited(made):
        yield made
