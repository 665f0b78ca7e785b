"""How much memory a domain is to use, and may have. In Domain 0's thread; amounts are KiB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from paravirt.domain0.toolstack.limits import MAXMEM_SLACK
from paravirt.errors import UserError
from paravirt.hypervisor.views import Domain as DomainView

if TYPE_CHECKING:
    from paravirt.domain0.toolstack.domain import Domain

KIB_PER_FRAME: Final = 4


def set_target(domain: Domain, kib: int) -> None:
    """Ask a guest to use ``kib``, and let it have no more (libxl_set_memory_target).

    Raises:
        UserError: that is nothing, or more than its maximum; or the domain is gone.
    """
    most = node(domain, "static-max")
    if not KIB_PER_FRAME <= kib <= most:
        raise UserError(f"The domain {domain.name} can have {KIB_PER_FRAME} to {most} KiB of memory, not {kib}.")
    _limit(domain, kib)
    domain.machine.store.set(f"/local/domain/{domain.domid}/memory/target", str(kib))


def set_limit(domain: Domain, kib: int) -> None:
    """Limit what a domain may have, without asking it for anything (libxl_domain_setmaxmem).

    Raises:
        UserError: that is less than its target; or the domain is gone.
    """
    target = node(domain, "target")
    if kib < target:
        raise UserError(f"The domain {domain.name} has a target of {target} KiB, which {kib} is less than.")
    _limit(domain, kib)


def node(domain: Domain, name: str) -> int:
    """A number that Domain 0 keeps among a domain's ``memory`` nodes; 0 if it is not there."""
    text = domain.machine.store.get(f"/local/domain/{domain.domid}/memory/{name}") or b""
    return int(text) if text.isdigit() else 0


def _limit(domain: Domain, kib: int) -> None:
    def set_max(view: DomainView) -> None:
        view.max_pages = kib // KIB_PER_FRAME + MAXMEM_SLACK

    domain.control(set_max)
