"""Machines of tests, audited: around every end of a domain, and whenever a test asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from paravirt import Domain, Machine, ShutdownReason
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.audit import require_clean


def check(machine: Machine, occasion: str) -> None:
    """Audit now.

    Raises:
        HypervisorBug: something is wrong; the message is the report.
    """
    with machine.host.lock:
        require_clean(machine.host, occasion)


@contextmanager
def audited(machine: Machine) -> Iterator[Machine]:
    """Audit before and after each domain is taken down, and at the end.

    Taking down happens in Domain 0's thread: what is found there is raised here, when the test is over.
    """
    found: list[HypervisorBug] = []
    end = machine._end

    def careful(domain: Domain, reason: ShutdownReason) -> None:
        note(f"before {domain.name} was taken down")
        end(domain, reason)
        note(f"after {domain.name} was taken down")

    def note(occasion: str) -> None:
        try:
            check(machine, occasion)
        except HypervisorBug as error:
            found.append(error)

    machine._end = careful  # type: ignore[method-assign]
    yield machine
    check(machine, "at the end")
    for domain in list(machine.domains.values()):
        domain.destroy()
    if found:
        raise found[0]
