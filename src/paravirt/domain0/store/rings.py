"""Which domains' rings the store serves: what xenstored does when it is told to introduce and to release a domain.

A domain's ring is in the page that it grants under GNTTAB_RESERVED_XENSTORE; its event channel is told by whoever
introduces it (introduce_domain in tools/xenstore/xenstored_domain.c).
"""

from __future__ import annotations

from typing import Final

from paravirt.abi.grant_table import GNTTAB_RESERVED_XENSTORE
from paravirt.domain0.grants import GrantError, Grants, MappedGrant
from paravirt.domain0.ring import STORE_REPLIES, STORE_REQUESTS, GuestProtocolError
from paravirt.domain0.services import Channel, Services
from paravirt.domain0.store.server import Connection, Store
from paravirt.domain0.store.service import StoreService
from paravirt.domain0.store.tree import StoreError

_INDICES: Final = tuple(at for ring in (STORE_REQUESTS, STORE_REPLIES) for at in (ring.consumer, ring.producer))


class StoreRings:
    """All rings of a machine's store. To be used in Domain 0's thread.

    The store calls it when a client of Domain 0's introduces or releases a domain; the toolstack introduces those that
    it makes.
    """

    def __init__(self, store: Store, services: Services, grants: Grants) -> None:
        self._store = store
        self._services = services
        self._grants = grants
        self._rings: dict[int, _Ring] = {}
        store.on_introduce = self.introduce
        store.on_release = self.close

    def introduce(self, domid: int, port: int) -> None:
        """Serve a domain's ring from its beginning. One that is served already gets the new event channel instead of
        the one it had; if that cannot be bound, it has none, as with xenstored.

        Raises:
            StoreError: EINVAL: there is no such guest, or not with such a page or port.
        """
        ring = self._rings.get(domid)
        if ring is None:
            ring = self._open(domid, port)
            self._store.introduce(domid)
        else:
            ring.rebind(self._services, port)
        for index in _INDICES:
            ring.page.write(index, bytes(4))

    def close(self, domid: int) -> None:
        """Serve a domain's ring no more, if it is served: its page is not touched again."""
        ring = self._rings.pop(domid, None)
        if ring is not None:
            ring.service.close()
            ring.unbind(self._services)
            ring.page.unmap()

    def _open(self, domid: int, port: int) -> _Ring:
        try:
            page = self._grants.map(domid, GNTTAB_RESERVED_XENSTORE)
        except GrantError as error:
            raise StoreError("EINVAL") from error
        ring = _Ring(domid, page, self._store.connect(domid), self._services)
        if not ring.rebind(self._services, port):
            ring.connection.close()
            page.unmap()
            raise StoreError("EINVAL")
        self._rings[domid] = ring
        return ring


class _Ring:
    """One domain's page, its connection to the store, and the event channel."""

    def __init__(self, domid: int, page: MappedGrant, connection: Connection, services: Services) -> None:
        self.page = page
        self.connection = connection
        self.service = StoreService(page, connection, self._notify, services.post)
        connection.on_output = lambda: services.post(self.service.on_event)
        self._domid = domid
        self._channel: Channel | None = None

    def rebind(self, services: Services, port: int) -> bool:
        """Use another event channel: whether it could be bound."""
        self.unbind(services)
        try:
            self._channel = services.bind(self._domid, port, self.service.on_event)
        except GuestProtocolError:
            return False
        return True

    def unbind(self, services: Services) -> None:
        """Close the event channel, if there is one."""
        if self._channel is not None:
            services.release(self._channel)
            self._channel = None

    def _notify(self) -> None:
        if self._channel is not None:
            self._channel.notify()
