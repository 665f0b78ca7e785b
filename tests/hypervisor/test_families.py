"""The way from native code into the Python families, and back: answers, errors, continuations, our own mistakes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paravirt.abi.errno import E2BIG, ENOSYS
from paravirt.abi.sched import SHUTDOWN_crash
from paravirt.abi.xen import HYPERCALLS
from paravirt.hypervisor.hypercalls.direct import hypercall
from paravirt.hypervisor.hypercalls.registry import HypercallContinuation, HypercallError
from paravirt.hypervisor.views import Vcpu

from .test_grants import Guest, World

NUMBER = HYPERCALLS["xsm_op"]  # here, any that a family has
SIGNED = -(2**40)


def use(guest: Guest, handler: Callable[..., int]) -> None:
    """Have another handler for the number, on this machine."""
    guest.host.families[NUMBER] = handler


def test_six_arguments_go_in_and_one_signed_answer_comes_out(guest: Guest) -> None:
    seen: list[tuple[int, ...]] = []

    def handler(vcpu: Vcpu, *args: int) -> int:
        assert vcpu.domain is guest.domain
        seen.append(args)
        return SIGNED

    use(guest, handler)
    assert guest.call(NUMBER, 1, 2, 3, 4, 5, -1) == SIGNED
    assert seen == [(1, 2, 3, 4, 5, 2**64 - 1)]


def test_an_error_is_its_number(guest: Guest) -> None:
    def handler(vcpu: Vcpu, *args: int) -> int:
        raise HypercallError(E2BIG)

    use(guest, handler)
    assert guest.call(NUMBER) == -E2BIG
    assert not guest.domain.is_shut_down


@pytest.mark.parametrize(("limit", "answer"), [(0, (77, 3)), (4, (77, 3)), (2, (NUMBER, 2))])
def test_a_preempted_call_is_made_again_with_other_arguments(guest: Guest, limit: int, answer: tuple[int, int]) -> None:
    def handler(vcpu: Vcpu, left: int, *args: int) -> int:
        if left == 0:
            assert args == (5, 6, 0, 0, 0)
            return 77
        raise HypercallContinuation(left - 1, 5)

    use(guest, handler)
    for _ in range(2):
        assert hypercall(guest.domain.vcpus[0], NUMBER, (3, 4, 6), limit) == answer


def test_our_own_mistake_ends_the_calling_domain_alone(
    world: World, guest: Guest, capfd: pytest.CaptureFixture[str]
) -> None:
    other = Guest(world)

    def handler(vcpu: Vcpu, *args: int) -> int:
        raise ZeroDivisionError("a mistake of ours")

    use(guest, handler)
    assert guest.call(NUMBER) == -ENOSYS
    assert "ZeroDivisionError: a mistake of ours" in capfd.readouterr().err
    assert (guest.domain.is_shut_down, guest.domain.shutdown_code) == (True, SHUTDOWN_crash)
    assert not other.domain.is_shut_down
    assert other.call(HYPERCALLS["xen_version"], 0) == 4 << 16 | 17
