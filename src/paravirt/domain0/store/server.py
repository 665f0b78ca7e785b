"""The store and its connections, free of I/O.

A :class:`Connection` turns bytes of requests into bytes of replies and events. What it answers is what xenstored
4.17.7 was seen to answer; the requests themselves are in :mod:`paravirt.domain0.store.requests`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from paravirt.abi.io import xs_wire
from paravirt.domain0.store.quota import Quotas
from paravirt.domain0.store.requests import OPERATIONS, create, remove
from paravirt.domain0.store.transactions import Change, Transaction
from paravirt.domain0.store.tree import READ, Permission, Permissions, StoreError, Tree, check_path, parent_of
from paravirt.domain0.store.watches import Watch, Watches
from paravirt.domain0.store.wire import Message, Parser, WireError, error_reply

INTRODUCE_DOMAIN: Final = b"@introduceDomain"
RELEASE_DOMAIN: Final = b"@releaseDomain"

OUTPUT_BACKLOG: Final = 64 << 10
"""With more bytes of output waiting than this, no further request of a connection is looked at."""

EVENT_BACKLOG: Final = 1 << 20
"""With more bytes of events waiting, they are forgotten; when the client reads again, all its watches fire."""

_NOBODY_ELSE: Final[Permissions] = (Permission("n", 0),)


class LocalWatcher:
    """A part of Domain 0 that is told by a call."""

    domid = 0
    target: int | None = None

    def __init__(self, store: Store, callback: Callable[[str], None]) -> None:
        self._store = store
        self._callback = callback

    def tell(self, watch: Watch, path: bytes) -> None:
        """Called soon: when the request that changed something has been done."""
        self._store.calls.append((self._callback, path.decode()))


class Store:
    """The tree, everybody's watches, and which domains there are.

    Everything here happens in one thread, Domain 0's.

    Attributes:
        quotas: limits for every domain but Domain 0.
        introduced: the domains that the store talks to.
        on_introduce: has a domain's ring served, and the domain introduced: called with domid and port when a client
            of Domain 0 asks for it; raises StoreError. Without it, introducing is refused.
        on_release: has a domain's ring served no more: called with the domid when a client of Domain 0 asks for it.
    """

    def __init__(self, quotas: Quotas | None = None) -> None:
        self.quotas = quotas or Quotas()
        self.tree = Tree()
        self.watches = Watches()
        self.introduced: set[int] = {0}
        self.on_introduce: Callable[[int, int], None] | None = None
        self.on_release: Callable[[int], None] | None = None
        self.calls: deque[tuple[Callable[[str], None], str]] = deque()
        self._settling = False
        self._connections: dict[int, list[Connection]] = {}
        self._shut_down: set[int] = set()
        self._belongings: dict[int, list[str]] = {}
        self._special: dict[bytes, Permissions] = {INTRODUCE_DOMAIN: _NOBODY_ELSE, RELEASE_DOMAIN: _NOBODY_ELSE}
        self.set("/tool/xenstored", "")

    # --- domains ----------------------------------------------------------------------------------------------

    def connect(self, domid: int) -> Connection:
        """A connection for ``domid``."""
        connection = Connection(self, domid)
        self._connections.setdefault(domid, []).append(connection)
        return connection

    def introduce(self, domid: int) -> None:
        """A domain has come: its ring is served from now on."""
        self.introduced.add(domid)
        self._shut_down.discard(domid)
        self._fire_special(INTRODUCE_DOMAIN)
        self.settle()

    def shut_down(self, domid: int) -> None:
        """A domain has shut down or crashed but is still there: who watches @releaseDomain is told, once."""
        if domid in self.introduced and domid not in self._shut_down:
            self._shut_down.add(domid)
            self._fire_special(RELEASE_DOMAIN)
            self.settle()

    def resume(self, domid: int) -> None:
        """A domain that had shut down runs again."""
        self._shut_down.discard(domid)

    def belongs(self, domid: int, *paths: str) -> None:
        """``paths``, and what is below them, are to go when the domain goes."""
        self._belongings.setdefault(domid, []).extend(paths)

    def release(self, domid: int) -> None:
        """A domain has gone, and with it its belongings and all that :meth:`part_with` takes."""
        self._disconnect(domid)
        for path in self._belongings.pop(domid, []):
            self.remove(path)
        self.part_with(domid)

    def part_with(self, domid: int) -> None:
        """Talk to a domain no more: its connection, its watches and the nodes that it owned are gone."""
        self._disconnect(domid)
        for owned in self.tree.owned_by(domid):
            node = self.tree.get(owned)
            if node is not None and node.owner == domid:  # it may have gone with one above it
                remove(self.tree, owned, self.tree.live_permissions, self.fire)
        self.tree.forget(domid)
        self._shut_down.discard(domid)
        if domid in self.introduced:
            self.introduced.discard(domid)
            self._fire_special(RELEASE_DOMAIN)
        self.settle()

    def _disconnect(self, domid: int) -> None:
        for connection in self._connections.pop(domid, []):
            connection.close()

    def forget(self, connection: Connection) -> None:
        """A connection was closed."""
        connections = self._connections.get(connection.domid, [])
        if connection in connections:
            connections.remove(connection)

    def connection_of(self, domid: int) -> Connection | None:
        """The (first) connection of an introduced domain."""
        connections = self._connections.get(domid)
        return connections[0] if connections and domid in self.introduced else None

    # --- what Domain 0's own services do ----------------------------------------------------------------------

    def get(self, path: str) -> bytes | None:
        """A node's value, or None."""
        node = self.tree.get(check_path(path.encode()))
        return None if node is None else node.value

    def directory(self, path: str) -> list[str]:
        """The names of a node's children; none if there is no such node."""
        node = self.tree.get(check_path(path.encode()))
        return [] if node is None else [name.decode() for name in node.names()]

    def permissions(self, path: str) -> Permissions | None:
        """A node's permissions, or None."""
        node = self.tree.get(check_path(path.encode()))
        return None if node is None else node.permissions

    def set(self, path: str, value: str | bytes, *permissions: Permission) -> None:
        """Write a node, with its missing parents; with ``permissions``, set these too.

        Raises:
            StoreError: EINVAL: the path is not one.
        """
        where = check_path(path.encode())
        data = value.encode() if isinstance(value, str) else value
        before = self.tree.get(where)
        if before is None:
            node = create(self.tree, where, data, self.tree.live_permissions)
        else:
            node = self.tree.put(where, data, self.tree.live_permissions(before), before.children)
        if permissions:
            node = self.tree.put(where, data, permissions, node.children)
        self.fire(Change(where, node, None if before is None else before.permissions, exact=False))
        self.settle()

    def remove(self, path: str) -> bool:
        """Remove a node and everything below it: false if there was none."""
        where = check_path(path.encode())
        if self.tree.get(where) is None:
            return False
        remove(self.tree, where, self.tree.live_permissions, self.fire)
        self.settle()
        return True

    def watch(self, path: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback`` with the path of every change at ``path`` or below, and once with ``path`` soon.

        Returns how to end that.
        """
        watcher = LocalWatcher(self, callback)
        watch = self.watches.add(watcher, path.encode(), b"")
        watcher.tell(watch, watch.path)
        self.settle()
        return lambda: self.watches.remove(watch)

    # --- telling ----------------------------------------------------------------------------------------------

    def fire(self, change: Change) -> None:
        """Tell everybody who watches the changed path, and may know."""
        for watch in self.watches.find(change.path, change.exact):
            if self._may_know(watch, change):
                watch.watcher.tell(watch, change.path)

    def _may_know(self, watch: Watch, change: Change) -> bool:
        """Who may read the node, could read it before, or may read its parent's list."""
        domid, target = watch.watcher.domid, watch.watcher.target
        if domid == 0:
            return True
        node, rights = change.node, self.tree.rights
        if change.old is not None:
            before = node or self.tree.get(b"/")
            if before is not None and rights(before._replace(permissions=change.old), domid, target) & READ:
                return True
        if node is None:
            return False
        parent = self.tree.get(parent_of(change.path))
        return bool(rights(node, domid, target) & READ or (parent and rights(parent, domid, target) & READ))

    def _fire_special(self, name: bytes) -> None:
        for watch in self.watches.find(name, exact=True):
            if watch.watcher.domid == 0 or self._may_see_special(watch, name):
                watch.watcher.tell(watch, name)

    def _may_see_special(self, watch: Watch, name: bytes) -> bool:
        root = self.tree.get(b"/")
        assert root is not None
        node = root._replace(permissions=self._special[name], generation=self.tree.generation)
        return bool(self.tree.rights(node, watch.watcher.domid, watch.watcher.target) & READ)

    def set_special_permissions(self, name: bytes, permissions: Permissions) -> None:
        """Say who, beside Domain 0, may learn that domains come and go.

        Raises:
            StoreError: EINVAL: there is no such event.
        """
        if name not in self._special:
            raise StoreError("EINVAL")
        self._special[name] = permissions

    def settle(self) -> None:
        """Make the calls that are due. A call may change the store; what follows from that is done here too."""
        if self._settling:
            return
        self._settling = True
        try:
            while self.calls:
                callback, path = self.calls.popleft()
                callback(path)
        finally:
            self._settling = False


class Connection:
    """One client: ``receive`` takes its bytes, ``take_output`` gives ours.

    Attributes:
        domid: whose it is.
        target: the domain on whose behalf it may act too (SET_TARGET), or None.
        broken: why nothing is read from it or sent to it any more, or None.
        on_output: called when there is something to send that the client did not ask for.
    """

    def __init__(self, store: Store, domid: int) -> None:
        self.domid = domid
        self.target: int | None = None
        self.broken: str | None = None
        self.on_output: Callable[[], None] = lambda: None
        self.store = store
        self.home = b"/local/domain/%d" % domid
        self.watches: dict[tuple[bytes, bytes], Watch] = {}
        self.transactions: dict[int, Transaction] = {}
        self.next_transaction = 1
        self.new_watch: Watch | None = None
        self._parser = Parser()
        self._output: deque[bytes] = deque()
        self._output_size = 0
        self._events: set[bytes] = set()
        self._events_size = 0
        self._events_lost = False
        self._announced = False
        self._handling = False

    @property
    def quotas(self) -> Quotas | None:
        """The limits for this client; None for Domain 0."""
        return self.store.quotas if self.domid else None

    @property
    def waiting(self) -> int:
        """Bytes of replies and events that the client has not taken yet."""
        return self._output_size

    @property
    def congested(self) -> bool:
        """Whether the client must read before more of its requests are looked at."""
        return self._output_size > OUTPUT_BACKLOG

    def receive(self, data: bytes) -> None:
        """Handle what is complete, as long as the client is not congested; the rest is kept.

        Raises:
            WireError: the bytes are not messages. The connection is broken.
        """
        if self.broken is None:
            self._parser.feed(data)
            self._process()

    def take_output(self, limit: int) -> bytes:
        """Up to ``limit`` bytes of replies and events.

        Raises:
            WireError: a request that had to wait is not one. The connection is broken.
        """
        self._announced = False
        taken = bytearray()
        while len(taken) < limit and (self._output or self._refill()):
            message = self._output.popleft()
            if message in self._events:
                self._events.remove(message)
                self._events_size -= len(message)
            room = limit - len(taken)
            if len(message) > room:
                self._output.appendleft(message[room:])
                message = message[:room]
            self._output_size -= len(message)
            taken += message
        return bytes(taken)

    def tell(self, watch: Watch, path: bytes) -> None:
        """A watch fired. An event that the client has not been sent yet is not repeated."""
        payload = watch.shown(path) + b"\0" + watch.token + b"\0"
        if len(payload) > xs_wire.XENSTORE_PAYLOAD_MAX or self.broken is not None:
            return
        message = Message(xs_wire.XS_WATCH_EVENT, 0, 0, payload).encode()
        if message in self._events or self._events_lost:
            return
        self._events.add(message)
        self._events_size += len(message)
        self._send(message)
        if self._events_size > EVENT_BACKLOG:
            self._lose_events()
        if not self._handling and not self._announced:
            self._announced = True
            self.on_output()

    def break_off(self, reason: str) -> None:
        """Say no more, and listen no more."""
        self.close()
        self.broken = reason

    def close(self) -> None:
        """Forget its watches, its transactions and what it has not read."""
        self.reset()
        self.store.forget(self)
        self.broken = "the connection was closed"

    def reset(self) -> None:
        """Begin anew: no watches, no transactions, no request half read and no reply half sent."""
        self.drop_watches_and_transactions()
        self._parser = Parser()
        self._output.clear()
        self._output_size = 0
        self._events.clear()
        self._events_size = 0
        self._events_lost = False

    def drop_watches_and_transactions(self) -> None:
        """As RESET_WATCHES does."""
        for watch in self.watches.values():
            self.store.watches.remove(watch)
        usage = self.store.tree.usage[self.domid]
        usage.watches -= len(self.watches)
        usage.memory -= sum(len(path) + len(token) for path, token in self.watches)
        usage.transactions -= len(self.transactions)
        self.watches.clear()
        self.transactions.clear()

    def _process(self) -> None:
        self._handling = True
        try:
            while self.broken is None and not self.congested and (message := self._parser.next()) is not None:
                self._handle(message)
                self.store.settle()
        except WireError as error:
            self.break_off(str(error))
            raise
        finally:
            self._handling = False

    def _handle(self, message: Message) -> None:
        try:
            operation = OPERATIONS.get(message.type)
            if operation is None:
                raise StoreError("ENOSYS")
            if self.domid and operation.privileged:
                raise StoreError("EACCES")
            transaction = None
            if message.transaction_id and not operation.alone:
                transaction = self.transactions.get(message.transaction_id)
                if transaction is None:
                    raise StoreError("ENOENT")
            payload = operation.handler(self, message, transaction)
            if len(payload) > xs_wire.XENSTORE_PAYLOAD_MAX:
                raise StoreError("E2BIG")
            reply = Message(message.type, message.request_id, message.transaction_id, payload)
        except StoreError as error:
            reply = error_reply(message, error.name)
        self._send(reply.encode())
        if self.new_watch is not None:
            # A watch's first event follows the reply to the request that set it.
            watch, self.new_watch = self.new_watch, None
            self.tell(watch, watch.path)

    def _send(self, message: bytes) -> None:
        self._output.append(message)
        self._output_size += len(message)

    def _lose_events(self) -> None:
        kept: Iterable[bytes] = [message for message in self._output if message not in self._events]
        self._output = deque(kept)
        self._output_size -= self._events_size
        self._events.clear()
        self._events_size = 0
        self._events_lost = True

    def _refill(self) -> bool:
        """All is sent: look at requests that had to wait, and make good for events that were lost."""
        if self._events_lost:
            self._events_lost = False
            for watch in list(self.watches.values()):
                self.tell(watch, watch.path)
        else:
            self._process()
        return bool(self._output)
