"""What the tests of the rare hypercalls share: a host with two domains, one of which calls."""

from __future__ import annotations

import pytest

from .fakes import FakeDomain, FakeHost, FakeVcpu


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def other(host: FakeHost) -> FakeDomain:
    """Domain 7, which does not call."""
    return FakeDomain(host, 7)


@pytest.fixture
def vcpu(host: FakeHost, other: FakeDomain) -> FakeVcpu:
    """The caller: vcpu 0 of domain 3."""
    return FakeDomain(host, 3).vcpus[0]
