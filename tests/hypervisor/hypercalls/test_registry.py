"""The table of rare hypercalls, and what handlers have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.abi.errno import EPERM, ESRCH
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.hypercalls import registry
from paravirt.hypervisor.hypercalls.registry import HypercallError

from .fakes import SELF, FakeDomain, FakeHost, FakeVcpu


def test_a_number_has_one_handler() -> None:
    taken = next(iter(registry.handlers()))
    with pytest.raises(HypervisorBug, match="two handlers"):
        registry.hypercall(taken)(lambda vcpu: 0)


def test_the_table_is_the_same_every_time() -> None:
    assert dict(registry.handlers()) == dict(registry.handlers())
    assert all(0 <= number < 64 for number in registry.handlers())


@given(st.integers(0, 2**64 - 1))
def test_canonical_is_sign_extended_from_bit_47(address: int) -> None:
    low = address & (2**48 - 1)
    extended = low | (0xFFFF << 48 if low >> 47 else 0)
    assert registry.is_canonical(address) == (address == extended)


@pytest.mark.parametrize(
    ("address", "is_guests"),
    [
        (0, True),
        (0x7FFF_FFFF_FFFF, True),
        (0x8000_0000_0000, False),
        (0xFFFF_8000_0000_0000, False),
        (0xFFFF_87FF_FFFF_FFFF, False),
        (0xFFFF_8800_0000_0000, True),
        (2**64 - 1, True),
    ],
)
def test_guest_addresses_leave_out_the_hypervisor(address: int, is_guests: bool) -> None:
    assert registry.is_guest_address(address) == is_guests


def test_domains_are_found_by_number_and_by_self(vcpu: FakeVcpu, other: FakeDomain) -> None:
    find = registry.find_domain
    assert find(vcpu, SELF) is vcpu.domain  # type: ignore[arg-type, comparison-overlap]
    assert find(vcpu, 3) is vcpu.domain  # type: ignore[arg-type, comparison-overlap]
    assert find(vcpu, 7) is other  # type: ignore[arg-type, comparison-overlap]
    with pytest.raises(HypercallError) as error:
        find(vcpu, 99)  # type: ignore[arg-type]
    assert error.value.errno == ESRCH


def test_only_a_privileged_domain_acts_on_others(host: FakeHost, vcpu: FakeVcpu, other: FakeDomain) -> None:
    with pytest.raises(HypercallError) as error:
        registry.find_target(vcpu, 7)  # type: ignore[arg-type]
    assert error.value.errno == EPERM
    zero = FakeDomain(host, 0, pages=1, is_privileged=True)
    found = registry.find_target(zero.vcpus[0], 7)  # type: ignore[arg-type]
    assert found is other  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(("domid", "errno"), [(SELF, ESRCH), (99, ESRCH), (3, EPERM)])
def test_a_remote_domain_is_not_the_caller(vcpu: FakeVcpu, domid: int, errno: int) -> None:
    with pytest.raises(HypercallError) as error:
        registry.find_remote(vcpu, domid)  # type: ignore[arg-type]
    assert error.value.errno == errno
