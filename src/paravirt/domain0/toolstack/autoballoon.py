"""Auto-ballooning: memory for a new domain, taken from guests that are idle.

Xen's ``xl`` takes it from Domain 0 (freemem in tools/xl/xl_vmcontrol.c); here Domain 0 has none. How often it is tried
and how long is waited are xl's. Amounts are KiB.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from paravirt.domain0.toolstack.limits import FRAMES_PER_MIB, KIB_PER_MIB, MAXMEM_SLACK
from paravirt.domain0.toolstack.memory import KIB_PER_FRAME, node, set_target
from paravirt.errors import UserError

if TYPE_CHECKING:
    from paravirt.domain0.toolstack.domain import Domain
    from paravirt.domain0.toolstack.machine import Machine

ROUNDS: Final = 3
PATIENCE: Final = 10.0
"""Seconds that guests have in each round."""

WATCHED: Final = 0.5
"""Seconds for which guests are watched whether they are idle."""

IDLE_SHARE: Final = 0.1
"""Of one physical CPU: a guest that uses less is idle."""

LEAST_SHARE: Final = 2
"""A guest is left this part (a half) of what it was made with, unless its node ``memory/dynamic-min`` says more or
less."""

_LOOK: Final = 0.02


@dataclass(frozen=True)
class Lender:
    """A guest that can give memory: what it has, or has been asked to have, and the least that it is left."""

    domid: int
    has: int
    least: int

    @property
    def spare(self) -> int:
        """What it can give."""
        return max(0, self.has - self.least) // KIB_PER_FRAME * KIB_PER_FRAME


def targets(missing: int, lenders: Sequence[Lender]) -> dict[int, int]:
    """By number, what guests are to have so that they give ``missing`` together, each in proportion to what it can
    spare; empty, if they cannot."""
    total = sum(lender.spare for lender in lenders)
    if missing > total:
        return {}
    found = {}
    for lender in lenders:
        share = -(-missing * lender.spare // total)
        share = min(lender.spare, -(-share // KIB_PER_FRAME) * KIB_PER_FRAME)
        if share:
            found[lender.domid] = lender.has - share
    return found


def make_room(machine: Machine, memory: int, vcpus: int) -> None:
    """Have ``memory`` MiB, and what a domain needs beside, free on the machine. Not to be called in Domain 0's thread.

    A guest that does not give what it was asked for gets its target back.

    Raises:
        UserError: guests cannot give so much, or did not in time.
    """
    needed = (memory * FRAMES_PER_MIB + vcpus + MAXMEM_SLACK) * KIB_PER_FRAME
    deaf: set[int] = set()
    spare = 0
    for _ in range(ROUNDS):
        missing = needed - _free(machine)
        if missing <= 0:
            return
        lenders = _lenders(machine, deaf)
        spare = sum(lender.spare for lender in lenders)
        wanted = targets(missing, lenders)
        if not wanted:
            break
        deaf |= _ask(machine, wanted, needed)
    free = _free(machine)
    if free < needed:
        raise UserError(
            f"The machine has {free // KIB_PER_MIB} MiB of free memory, the domain needs {memory} MiB, and idle guests "
            f"can give {spare // KIB_PER_MIB} MiB."
        )


def _ask(machine: Machine, wanted: dict[int, int], needed: int) -> set[int]:
    """Set targets and wait for the memory: the guests that did not give theirs, which have their old ones again."""
    asked = [domain for domain in list(machine.domains.values()) if domain.domid in wanted]
    before = {domain.domid: machine.call(lambda domain=domain: node(domain, "target")) for domain in asked}  # type: ignore[misc]
    for domain in asked:
        _set(machine, domain, wanted[domain.domid])
    deadline = time.monotonic() + PATIENCE
    while _free(machine) < needed and time.monotonic() < deadline:
        time.sleep(_LOOK)
    late = [domain for domain in asked if _held(domain) > wanted[domain.domid]]
    for domain in late:
        _set(machine, domain, before[domain.domid])
    return {domain.domid for domain in late}


def _set(machine: Machine, domain: Domain, kib: int) -> None:
    def change() -> None:
        if not domain.ended:
            set_target(domain, kib)

    machine.call(change)


def _lenders(machine: Machine, without: Collection[int]) -> list[Lender]:
    """Guests that run, and are idle."""
    candidates = [domain for domain in list(machine.domains.values()) if domain.domid not in without]
    before = [_cpu_time(domain) for domain in candidates]
    began = time.monotonic()
    time.sleep(WATCHED)
    most = IDLE_SHARE * 1e9 * (time.monotonic() - began)
    found = []
    for domain, used in zip(candidates, before, strict=True):
        now = _cpu_time(domain)
        if used is not None and now is not None and now - used < most:
            found.append(_lender(machine, domain))
    return found


def _lender(machine: Machine, domain: Domain) -> Lender:
    target, least = machine.call(lambda: (node(domain, "target"), node(domain, "dynamic-min")))
    return Lender(domain.domid, min(target, _held(domain)), least or domain.memory * KIB_PER_MIB // LEAST_SHARE)


def _cpu_time(domain: Domain) -> int | None:
    """Nanoseconds for which a domain has run; None of one that is paused or has ended: it would not hear us."""
    with domain.machine.host.lock:
        view = domain._view
        if view is None or view.is_shut_down or view.is_paused:
            return None
        return sum(vcpu.cpu_time for vcpu in view.vcpus)


def _held(domain: Domain) -> int:
    with domain.machine.host.lock:
        return 0 if domain._view is None else domain._view.tot_pages * KIB_PER_FRAME


def _free(machine: Machine) -> int:
    with machine.host.lock:
        return machine.host.free_frames * KIB_PER_FRAME
