"""One frame of a guest's, mapped by Domain 0."""

from __future__ import annotations

from typing import Final

from paravirt.errors import HypervisorBug
from paravirt.hypervisor.views import Domain as DomainView
from paravirt.machine.memory import FRAME_SIZE

FRAME_WRITABLE: Final = 7  # records.pxd: the type of a frame that is written to


class GuestPage:
    """One frame of a guest, mapped by Domain 0: a service's door to a shared ring (see ``domain0.ring``).

    The mapping holds a reference and a use as writable, so that a guest that gives the frame back, or makes a page
    table of it, does not have Domain 0 write into somebody else's memory.

    Raises:
        HypervisorBug: the frame is not the domain's, or in use as something else; and when it is used after
            :meth:`release`.
    """

    def __init__(self, domain: DomainView, mfn: int) -> None:
        self._domain = domain
        self._memory = domain.host.memory
        self._mfn: int | None = mfn
        with domain.host.lock:
            if domain.host.get_page_and_type(mfn, domain.domid, FRAME_WRITABLE) != 0:
                raise HypervisorBug(f"Domain 0 cannot map frame {mfn:#x} of domain {domain.domid}")
            domain.state.service_pages.append(mfn)

    def release(self) -> None:
        """Unmap the frame; the caller holds the machine lock."""
        if self._mfn is not None:
            self._domain.state.service_pages.remove(self._mfn)
            self._domain.host.put_page_and_type(self._mfn)
            self._mfn = None

    def read(self, offset: int, length: int) -> bytes:
        """A copy of untrusted bytes."""
        return self._memory.read(self._address(offset), length)

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes for the guest to see."""
        self._memory.write(self._address(offset), data)

    def _address(self, offset: int) -> int:
        if self._mfn is None:
            raise HypervisorBug("a page of a domain that has ended is used")
        return self._mfn * FRAME_SIZE + offset
