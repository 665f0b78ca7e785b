"""The store and its connections: every operation that a guest may ask for.

Paths that do not begin with a slash are relative to the connection's home, ``/local/domain/<domid>``.  Changes fire
watches at once; changes made in a transaction appear, and fire, when it ends well.  A transaction works on a copy
of the tree; it fails with EAGAIN if anybody changed the tree meanwhile in a node that it read or wrote.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from paravirt.abi.io import xs_wire
from paravirt.domain0.store.tree import ABSOLUTE_PATH_MAX, Node, Permission, StoreError, Tree, split_path
from paravirt.domain0.store.wire import PAYLOAD_MAX, Message, Parser, error_reply

# What one guest may use (xenstored's defaults).
QUOTA_NODES: Final = 1000
QUOTA_WATCHES: Final = 128
QUOTA_TRANSACTIONS: Final = 10
QUOTA_VALUE: Final = 2048
MAX_QUEUED_EVENTS: Final = 1024

SPECIAL: Final = (b"@introduceDomain", b"@releaseDomain")


@dataclass
class Watch:
    """A connection wants to know of changes at ``path`` and below."""

    connection: Connection
    path: bytes
    shown: bytes
    token: bytes
    relative: bool


@dataclass
class Transaction:
    """A copy of the tree, and what was done to it."""

    tree: Tree
    base: int
    touched: set[bytes] = field(default_factory=set)
    fired: list[bytes] = field(default_factory=list)
    changes: list[Callable[[Tree], None]] = field(default_factory=list)


class Store:
    """The tree and everybody's watches."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.watches: list[Watch] = []
        self.introduced: set[int] = {0}
        for path in (b"/tool", b"/local/domain", b"/vm", b"/libxl"):
            self.tree.write(path, b"", 0)

    def connect(self, domid: int) -> Connection:
        """A connection for ``domid``."""
        return Connection(self, domid)

    def introduce(self, domid: int) -> None:
        """A domain has come: its ring is served from now on."""
        self.introduced.add(domid)
        self.fire(b"@introduceDomain")

    def release(self, domid: int) -> None:
        """A domain has gone: its watches go with it, and so does its subtree."""
        self.introduced.discard(domid)
        self.watches = [watch for watch in self.watches if watch.connection.domid != domid]
        path = b"/local/domain/%d" % domid
        if self.tree.remove(path):
            self.fire(path)
        self.fire(b"@releaseDomain")

    def set(self, path: str, value: str | bytes, *permissions: Permission) -> None:
        """Domain 0 writes a node."""
        data = value.encode() if isinstance(value, str) else value
        self.tree.write(path.encode(), data, 0)
        if permissions:
            self.tree.set_permissions(path.encode(), permissions)
        self.fire(path.encode())

    def get(self, path: str) -> bytes | None:
        """Domain 0 reads a node: its value, or None."""
        node = self.tree.find(path.encode())
        return None if node is None else node.value

    def fire(self, path: bytes) -> None:
        """Tell everybody who watches ``path`` or something above it."""
        for watch in list(self.watches):
            if watch.path == path or (
                not path.startswith(b"@") and path.startswith(watch.path.rstrip(b"/") + b"/")
            ):
                watch.connection.queue_event(watch, path)


class Connection:
    """One client.  ``receive`` takes its bytes, ``take_output`` gives ours; ``on_output`` is called when there are
    new ones that it did not ask for."""

    def __init__(self, store: Store, domid: int) -> None:
        self.domid = domid
        self.on_output: Callable[[], None] = lambda: None
        self._store = store
        self._home = b"/local/domain/%d" % domid
        self._parser = Parser()
        self._output: deque[bytes] = deque()
        self._transactions: dict[int, Transaction] = {}
        self._next_transaction = 1
        self._watches = 0

    def receive(self, data: bytes) -> None:
        """Handle what is complete.

        Raises:
            WireError: the bytes are not messages.
        """
        for message in self._parser.feed(data):
            self._handle(message)

    def take_output(self, limit: int) -> bytes:
        """Up to ``limit`` bytes of replies and events."""
        taken = bytearray()
        while self._output and len(taken) < limit:
            chunk = self._output.popleft()
            if len(taken) + len(chunk) > limit:
                room = limit - len(taken)
                self._output.appendleft(chunk[room:])
                chunk = chunk[:room]
            taken += chunk
        return bytes(taken)

    def put_back(self, data: bytes) -> None:
        """Bytes from ``take_output`` that could not be delivered yet."""
        if data:
            self._output.appendleft(data)

    def queue_event(self, watch: Watch, path: bytes) -> None:
        """A watch fired.  A client that never reads loses events rather than filling our memory."""
        if len(self._output) >= MAX_QUEUED_EVENTS:
            return
        if watch.relative and path.startswith(self._home + b"/"):
            path = path[len(self._home) + 1 :]
        self._output.append(
            Message(xs_wire.XS_WATCH_EVENT, 0, 0, path + b"\0" + watch.token + b"\0").encode()
        )
        self.on_output()

    # --- requests ---------------------------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        handler = _HANDLERS.get(message.type)
        try:
            if handler is None:
                raise StoreError("ENOSYS")
            transaction = None
            if message.transaction_id and message.type != xs_wire.XS_TRANSACTION_START:
                transaction = self._transactions.get(message.transaction_id)
                if transaction is None:
                    raise StoreError("ENOENT")
            payload = handler(self, message, transaction)
            if len(payload) > PAYLOAD_MAX:
                raise StoreError("E2BIG")
            reply = Message(message.type, message.request_id, message.transaction_id, payload)
        except StoreError as error:
            reply = error_reply(message, error.name)
        # A watch's first event follows the reply to the request that set it.
        self._output.append(reply.encode())
        if message.type == xs_wire.XS_WATCH and reply.type == xs_wire.XS_WATCH:
            watch = self._store.watches[-1]
            shown = watch.shown
            self._output.append(
                Message(xs_wire.XS_WATCH_EVENT, 0, 0, shown + b"\0" + watch.token + b"\0").encode()
            )

    def _path(self, text: bytes) -> bytes:
        if text.startswith(b"/"):
            path = text
        else:
            if len(text) > xs_wire.XENSTORE_REL_PATH_MAX:
                raise StoreError("EINVAL")
            path = self._home + b"/" + text
        if len(path) > ABSOLUTE_PATH_MAX:
            raise StoreError("EINVAL")
        split_path(path)
        return path

    def _one_path(self, message: Message) -> bytes:
        strings = message.strings()
        if len(strings) != 2 or strings[1]:
            raise StoreError("EINVAL")
        return self._path(strings[0])

    def _readable(self, tree: Tree, path: bytes) -> Node:
        node = tree.find(path)
        if node is None:
            # Whether a node exists is told only to those who may read where it would be.
            raise StoreError("ENOENT" if tree.nearest(path).allows(self.domid, "r") else "EACCES")
        if not node.allows(self.domid, "r"):
            raise StoreError("EACCES")
        return node

    def _tree(self, transaction: Transaction | None) -> Tree:
        return self._store.tree if transaction is None else transaction.tree

    def _touch(self, transaction: Transaction | None, path: bytes) -> None:
        if transaction is not None:
            transaction.touched.add(path)

    def _change(self, transaction: Transaction | None, path: bytes, change: Callable[[Tree], None]) -> None:
        change(self._tree(transaction))
        if transaction is None:
            self._store.fire(path)
        else:
            transaction.touched.add(path)
            transaction.changes.append(change)
            transaction.fired.append(path)

    def _may_write(self, tree: Tree, path: bytes) -> None:
        if not tree.nearest(path).allows(self.domid, "w"):
            raise StoreError("EACCES")
        if self.domid and tree.find(path) is None:
            missing = len(split_path(path))
            if tree.owned.get(self.domid, 0) + min(missing, 1) > QUOTA_NODES:
                raise StoreError("ENOSPC")

    def _directory(self, message: Message, transaction: Transaction | None) -> bytes:
        path = self._one_path(message)
        self._touch(transaction, path)
        node = self._readable(self._tree(transaction), path)
        return b"".join(name + b"\0" for name in sorted(node.children))

    def _directory_part(self, message: Message, transaction: Transaction | None) -> bytes:
        strings = message.strings()
        if len(strings) != 3 or not strings[1].isdigit():
            raise StoreError("EINVAL")
        path = self._path(strings[0])
        self._touch(transaction, path)
        node = self._readable(self._tree(transaction), path)
        offset = int(strings[1])
        listing = b"".join(name + b"\0" for name in sorted(node.children))
        head = b"%d\0" % node.generation
        part = listing[offset : offset + PAYLOAD_MAX - len(head) - 1]
        if offset + len(part) >= len(listing):
            return head + part + b"\0"
        return head + part[: part.rfind(b"\0") + 1]

    def _read(self, message: Message, transaction: Transaction | None) -> bytes:
        path = self._one_path(message)
        self._touch(transaction, path)
        return self._readable(self._tree(transaction), path).value

    def _get_permissions(self, message: Message, transaction: Transaction | None) -> bytes:
        path = self._one_path(message)
        self._touch(transaction, path)
        node = self._readable(self._tree(transaction), path)
        return b"".join(permission.encode() + b"\0" for permission in node.permissions)

    def _write(self, message: Message, transaction: Transaction | None) -> bytes:
        name, separator, value = message.payload.partition(b"\0")
        if not separator:
            raise StoreError("EINVAL")
        path = self._path(name)
        self._may_write(self._tree(transaction), path)
        if self.domid and len(value) > QUOTA_VALUE:
            raise StoreError("ENOSPC")
        domid = self.domid
        self._change(transaction, path, lambda tree: void(tree.write(path, value, domid)))
        return b"OK\0"

    def _mkdir(self, message: Message, transaction: Transaction | None) -> bytes:
        path = self._one_path(message)
        tree = self._tree(transaction)
        self._may_write(tree, path)
        if tree.find(path) is None:
            domid = self.domid
            self._change(transaction, path, lambda tree: void(tree.write(path, None, domid)))
        return b"OK\0"

    def _remove(self, message: Message, transaction: Transaction | None) -> bytes:
        path = self._one_path(message)
        tree = self._tree(transaction)
        if path == b"/":
            raise StoreError("EINVAL")
        if tree.find(path) is None:
            # Xen's daemon is content if the parent is there.
            if tree.find(path.rpartition(b"/")[0] or b"/") is None:
                raise StoreError("ENOENT")
            return b"OK\0"
        if not tree.nearest(path).allows(self.domid, "w"):
            raise StoreError("EACCES")
        self._change(transaction, path, lambda tree: void(tree.remove(path)))
        return b"OK\0"

    def _set_permissions(self, message: Message, transaction: Transaction | None) -> bytes:
        strings = message.strings()
        if len(strings) < 3 or strings[-1]:
            raise StoreError("EINVAL")
        path = self._path(strings[0])
        permissions = tuple(Permission.parse(text) for text in strings[1:-1])
        node = self._tree(transaction).find(path)
        if node is None:
            raise StoreError("ENOENT")
        if self.domid not in (0, node.owner):
            raise StoreError("EACCES")
        if self.domid and permissions[0].domid != node.owner:
            raise StoreError("EPERM")
        self._change(transaction, path, lambda tree: tree.set_permissions(path, permissions))
        return b"OK\0"

    def _watch(self, message: Message, transaction: Transaction | None) -> bytes:
        strings = message.strings()
        if len(strings) < 3:
            raise StoreError("EINVAL")
        shown, token = strings[0], strings[1]
        relative = not shown.startswith((b"/", b"@"))
        path = shown if shown in SPECIAL else self._path(shown)
        if self.domid and self._watches >= QUOTA_WATCHES:
            raise StoreError("ENOSPC")
        if any(w.connection is self and w.path == path and w.token == token for w in self._store.watches):
            raise StoreError("EEXIST")
        self._store.watches.append(Watch(self, path, shown, token, relative))
        self._watches += 1
        return b"OK\0"

    def _unwatch(self, message: Message, transaction: Transaction | None) -> bytes:
        strings = message.strings()
        if len(strings) < 3:
            raise StoreError("EINVAL")
        path = strings[0] if strings[0] in SPECIAL else self._path(strings[0])
        for watch in self._store.watches:
            if watch.connection is self and watch.path == path and watch.token == strings[1]:
                self._store.watches.remove(watch)
                self._watches -= 1
                return b"OK\0"
        raise StoreError("ENOENT")

    def _reset_watches(self, message: Message, transaction: Transaction | None) -> bytes:
        self._store.watches = [w for w in self._store.watches if w.connection is not self]
        self._watches = 0
        self._transactions.clear()
        return b"OK\0"

    def _transaction_start(self, message: Message, transaction: Transaction | None) -> bytes:
        if message.transaction_id:
            raise StoreError("EBUSY")
        if self.domid and len(self._transactions) >= QUOTA_TRANSACTIONS:
            raise StoreError("ENOSPC")
        number = self._next_transaction
        self._next_transaction = number + 1 if number < 0x7FFFFFFF else 1
        tree = copy.deepcopy(self._store.tree)
        self._transactions[number] = Transaction(tree, self._store.tree.generation)
        return b"%d\0" % number

    def _transaction_end(self, message: Message, transaction: Transaction | None) -> bytes:
        if transaction is None:
            raise StoreError("ENOENT")
        if message.payload not in (b"T\0", b"F\0"):
            raise StoreError("EINVAL")
        del self._transactions[message.transaction_id]
        if message.payload == b"F\0":
            return b"OK\0"
        tree = self._store.tree
        for path in transaction.touched:
            if tree.nearest(path).generation > transaction.base:
                raise StoreError("EAGAIN")
        for change in transaction.changes:
            change(tree)
        for path in transaction.fired:
            self._store.fire(path)
        return b"OK\0"

    def _get_domain_path(self, message: Message, transaction: Transaction | None) -> bytes:
        return b"/local/domain/%d\0" % self._domid_argument(message)

    def _is_introduced(self, message: Message, transaction: Transaction | None) -> bytes:
        return b"T\0" if self._domid_argument(message) in self._store.introduced else b"F\0"

    def _domid_argument(self, message: Message) -> int:
        text = message.payload.rstrip(b"\0")
        if not text.isdigit() or len(text) > 5:
            raise StoreError("EINVAL")
        return int(text)

    def _privileged(self, message: Message, transaction: Transaction | None) -> bytes:
        raise StoreError("EACCES")


def void(_: object) -> None:
    """Forget a result."""


Handler = Callable[[Connection, Message, "Transaction | None"], bytes]

_HANDLERS: Final[dict[int, Handler]] = {
    xs_wire.XS_CONTROL: Connection._privileged,
    xs_wire.XS_DIRECTORY: Connection._directory,
    xs_wire.XS_READ: Connection._read,
    xs_wire.XS_GET_PERMS: Connection._get_permissions,
    xs_wire.XS_WATCH: Connection._watch,
    xs_wire.XS_UNWATCH: Connection._unwatch,
    xs_wire.XS_TRANSACTION_START: Connection._transaction_start,
    xs_wire.XS_TRANSACTION_END: Connection._transaction_end,
    xs_wire.XS_INTRODUCE: Connection._privileged,
    xs_wire.XS_RELEASE: Connection._privileged,
    xs_wire.XS_GET_DOMAIN_PATH: Connection._get_domain_path,
    xs_wire.XS_WRITE: Connection._write,
    xs_wire.XS_MKDIR: Connection._mkdir,
    xs_wire.XS_RM: Connection._remove,
    xs_wire.XS_SET_PERMS: Connection._set_permissions,
    xs_wire.XS_IS_DOMAIN_INTRODUCED: Connection._is_introduced,
    xs_wire.XS_RESUME: Connection._privileged,
    xs_wire.XS_SET_TARGET: Connection._privileged,
    xs_wire.XS_RESET_WATCHES: Connection._reset_watches,
    xs_wire.XS_DIRECTORY_PART: Connection._directory_part,
}
