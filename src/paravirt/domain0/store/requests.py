"""What clients may ask the store to do: one function for each type of message.

A function gets the connection, the request, and the transaction that it belongs to, if any; it returns the reply's
payload or raises :class:`StoreError`. Where a request has a wrong number of strings, xenstored answers whatever
error it met last; here that is EINVAL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from paravirt.abi.io import xs_wire
from paravirt.abi.xen import DOMID_SELF
from paravirt.domain0.store.transactions import Change, Transaction
from paravirt.domain0.store.tree import (
    NODE_HEADER_SIZE,
    OWNER,
    PERMISSION_SIZE,
    READ,
    ROOT,
    WRITE,
    Node,
    Permission,
    Permissions,
    StoreError,
    View,
    check_path,
    child_of,
    has_child,
    parent_of,
    without_child,
)
from paravirt.domain0.store.wire import Message, strings

if TYPE_CHECKING:
    from paravirt.domain0.store.server import Connection

OK: Final = b"OK\0"
_NUMBER: Final = re.compile(rb"[ \t\n\v\f\r]*([+-]?[0-9]+)")


# --- nodes -----------------------------------------------------------------------------------------------------


def create(
    view: View,
    path: bytes,
    value: bytes,
    live: Callable[[Node], Permissions],
    owner: int | None = None,
    check: Callable[[bytes, Node | None, int, int], None] | None = None,
) -> Node:
    """Make a node that is not there, and its missing parents.

    New nodes have the permissions of the nearest node above, but belong to ``owner`` if one is given.

    Parameters:
        live: gives the permissions of a node that still mean somebody.
        check: called for each node that would be written, before any is, with its path, the node that is there
            already, its new size, and how many nodes are new; may raise StoreError.
    """
    new = [path]
    above = parent_of(path)
    while (parent := view.get(above)) is None:
        new.append(above)
        above = parent_of(above)
    inherited = live(parent)
    permissions = inherited
    if owner is not None:
        permissions = (Permission(inherited[0].access, owner), *inherited[1:])
    names = [one[one.rindex(b"/") + 1 :] for one in new]
    if check is not None:
        bare = NODE_HEADER_SIZE + PERMISSION_SIZE * len(permissions)
        check(path, None, bare + len(value), len(new))
        for one, child in zip(new[1:], names, strict=False):
            check(one, None, bare + len(child) + 1, len(new))
        check(above, parent, parent.size + len(names[-1]) + 1, len(new))
    view.put(above, parent.value, inherited, parent.children + names[-1] + b"\0")
    for one, child in zip(reversed(new[1:]), reversed(names[:-1]), strict=True):
        view.put(one, b"", permissions, child + b"\0")
    return view.put(path, value, permissions, b"")


def remove(
    view: View,
    path: bytes,
    live: Callable[[Node], Permissions],
    fire: Callable[[Change], None],
) -> None:
    """Remove a node that is not the root, and all below it; its watchers are told from the bottom upwards.

    Raises:
        StoreError: EIO, EINVAL: a transaction has seen a parent and its child at times when they did not agree.
            It is doomed anyway.
    """
    doomed = []
    waiting = [path]
    while waiting:
        # Nodes are looked at from the top downwards, which is the order of a transaction's events.
        one_path = waiting.pop()
        one = view.get(one_path)
        if one is None:
            raise StoreError("EIO")
        doomed.append((one_path, one))
        waiting += [child_of(one_path, name) for name in reversed(one.names())]
    above = parent_of(path)
    name = path[path.rindex(b"/") + 1 :]
    parent = view.get(above)
    if parent is None:
        raise StoreError("EINVAL")
    if not has_child(parent.children, name):
        raise StoreError("EIO")
    for one_path, one in _bottom_up(doomed):
        fire(Change(one_path, one, None, exact=one_path != path))
    for one_path, _ in doomed:
        view.delete(one_path)
    view.put(above, parent.value, live(parent), without_child(parent.children, name))


def _bottom_up(nodes: list[tuple[bytes, Node]]) -> Iterator[tuple[bytes, Node]]:
    """Nodes that come after those above them, in the order in which they come after those below them."""
    above: list[tuple[bytes, Node]] = []
    for path, node in nodes:
        while above and not path.startswith(above[-1][0] + b"/"):
            yield above.pop()
        above.append((path, node))
    yield from reversed(above)


class _Request:
    """A connection's look at the nodes, within a transaction or without."""

    def __init__(self, connection: Connection, transaction: Transaction | None) -> None:
        self.connection = connection
        self.transaction = transaction
        self.tree = connection.store.tree
        self.view: View = self.tree if transaction is None else transaction

    def path(self, text: bytes) -> bytes:
        """An absolute path; a relative one is below the client's home."""
        if not text:
            raise StoreError("EINVAL")
        if text[0] in b"/@":
            return check_path(text)
        return check_path(self.connection.home + b"/" + text)

    def only_path(self, payload: bytes) -> bytes:
        """The path that is the whole payload."""
        return self.path(_only(payload))

    def rights(self, node: Node) -> int:
        """What the client may do with a node."""
        return self.tree.rights(node, self.connection.domid, self.connection.target)

    def node(self, path: bytes, needed: int) -> Node:
        """The node, if the client may do with it all that is ``needed``.

        Raises:
            StoreError: EACCES; ENOENT, but only if it might do something of that in the nearest node above:
                otherwise it is not to know what exists.
        """
        node = self.view.get(path)
        if node is not None and self.rights(node) & needed == needed:
            return node
        # Above is looked even if the answer is clear: a transaction conflicts with changes there.
        above = parent_of(path)
        while (parent := self.view.get(above)) is None:
            above = parent_of(above)
        raise StoreError("ENOENT" if node is None and self.rights(parent) & needed else "EACCES")

    def fire(self, change: Change) -> None:
        """Tell the watchers, or have the transaction tell them when it ends."""
        if self.transaction is None:
            self.connection.store.fire(change)
        else:
            self.transaction.note(change.path, change.exact)

    def check_node(self, path: bytes, before: Node | None, size: int, new: int = 0) -> None:
        """Whether the quotas let the client write a node of ``size`` bytes, and make ``new`` ones.

        Raises:
            StoreError: ENOSPC; ENOMEM: all that it has is too much.
        """
        quotas = self.connection.quotas
        if quotas is None:
            return
        domid = self.connection.domid
        if new and self.view.nodes_of(domid) + new > quotas.nodes:
            raise StoreError("ENOSPC")
        if size >= quotas.node_size:
            if self.transaction is not None:
                self.transaction.failed = True
            raise StoreError("ENOSPC")
        more = size - before.size if before is not None else size + len(path)
        if more > 0 and self.view.memory_of(domid) + more > quotas.memory:
            raise StoreError("ENOMEM")

    def create(self, path: bytes, value: bytes) -> None:
        """Make a node and its missing parents, which the client will own."""
        owner = self.connection.domid or None
        node = create(self.view, path, value, self.tree.live_permissions, owner, self.check_node)
        self.fire(Change(path, node, None, exact=False))


Handler = Callable[["Connection", Message, "Transaction | None"], bytes]


def _directory(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    request = _Request(connection, transaction)
    return request.node(request.only_path(message.payload), READ).children


def _directory_part(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    request = _Request(connection, transaction)
    path, offset_text = _exactly(2, message.payload)
    node = request.node(request.path(path), READ)
    offset = _number(offset_text)
    head = b"%d\0" % node.generation
    if not 0 <= offset < len(node.children):
        return head + b"\0"
    end = len(node.children)
    room = xs_wire.XENSTORE_PAYLOAD_MAX - len(head) - 1
    if end - offset > room:
        # Whole names only.
        end = node.children.rindex(b"\0", offset, offset + room) + 1
        return head + node.children[offset:end]
    return head + node.children[offset:] + b"\0"


def _read(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    request = _Request(connection, transaction)
    return request.node(request.only_path(message.payload), READ).value


def _get_permissions(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    request = _Request(connection, transaction)
    node = request.node(request.only_path(message.payload), READ)
    return b"".join(permission.encode() + b"\0" for permission in node.permissions)


def _write(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    request = _Request(connection, transaction)
    name, separator, value = message.payload.partition(b"\0")
    if not separator:
        raise StoreError("EINVAL")
    path = request.path(name)
    try:
        node = request.node(path, WRITE)
    except StoreError as error:
        if error.name != "ENOENT":
            raise
        request.create(path, value)
        return OK
    permissions = request.tree.live_permissions(node)
    changed = Node(value, permissions, node.children, 0)
    request.check_node(path, node, changed.size)
    changed = request.view.put(path, value, permissions, node.children)
    request.fire(Change(path, changed, None, exact=False))
    return OK


def _mkdir(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    request = _Request(connection, transaction)
    path = request.only_path(message.payload)
    try:
        request.node(path, WRITE)
    except StoreError as error:
        if error.name != "ENOENT":
            raise
        request.create(path, b"")
    return OK


def _remove(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    request = _Request(connection, transaction)
    path = request.only_path(message.payload)
    try:
        request.node(path, WRITE)
    except StoreError as error:
        # It is fine that it is not there, if its parent is.
        if error.name != "ENOENT" or request.view.get(parent_of(path)) is None:
            raise
        return OK
    if path == ROOT:
        raise StoreError("EINVAL")
    remove(request.view, path, request.tree.live_permissions, request.fire)
    return OK


def _set_permissions(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    request = _Request(connection, transaction)
    name, *entries = strings(message.payload) or [b""]
    if not entries:
        raise StoreError("EINVAL")
    if connection.quotas is not None and len(entries) > connection.quotas.permissions:
        raise StoreError("ENOSPC")
    permissions = tuple(Permission.parse(entry) for entry in entries)
    if name.startswith(b"@"):
        if connection.domid:
            raise StoreError("EACCES")
        connection.store.set_special_permissions(name, permissions)
        return OK
    path = request.path(name)
    node = request.node(path, WRITE | OWNER)
    if connection.domid and permissions[0].domid != node.owner:
        raise StoreError("EPERM")
    changed = Node(node.value, permissions, node.children, 0)
    request.check_node(path, node, changed.size)
    changed = request.view.put(path, node.value, permissions, node.children)
    request.fire(Change(path, changed, node.permissions, exact=False))
    return OK


# --- watches ---------------------------------------------------------------------------------------------------


def _watch(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    name, token = _exactly(2, message.payload)
    request = _Request(connection, transaction)
    hidden = 0
    if name.startswith(b"@"):
        if len(name) > xs_wire.XENSTORE_REL_PATH_MAX:
            raise StoreError("EINVAL")
        path = name
    else:
        path = request.path(name)
        hidden = 0 if name.startswith(b"/") else len(connection.home) + 1
    if (path, token) in connection.watches:
        raise StoreError("EEXIST")
    quotas = connection.quotas
    usage = connection.store.tree.usage[connection.domid]
    size = len(path) + len(token)
    if quotas is not None:
        if usage.watches > quotas.watches:
            raise StoreError("E2BIG")
        if usage.memory + size > quotas.memory:
            raise StoreError("ENOMEM")
    usage.watches += 1
    usage.memory += size
    watch = connection.store.watches.add(connection, path, token, hidden)
    connection.watches[path, token] = connection.new_watch = watch
    return OK


def _unwatch(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    name, token = _exactly(2, message.payload)
    path = name if name[:1] in (b"/", b"@") else connection.home + b"/" + name
    watch = connection.watches.pop((path, token), None)
    if watch is None:
        raise StoreError("ENOENT")
    connection.store.watches.remove(watch)
    usage = connection.store.tree.usage[connection.domid]
    usage.watches -= 1
    usage.memory -= len(path) + len(token)
    return OK


def _reset_watches(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    connection.drop_watches_and_transactions()
    return OK


# --- transactions ----------------------------------------------------------------------------------------------


def _transaction_start(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    if transaction is not None:
        raise StoreError("EBUSY")
    usage = connection.store.tree.usage[connection.domid]
    quotas = connection.quotas
    if quotas is not None and usage.transactions > quotas.transactions:
        raise StoreError("ENOSPC")
    number = connection.next_transaction
    while number in connection.transactions:
        number = _next_number(number)
    connection.next_transaction = _next_number(number)
    connection.transactions[number] = Transaction(connection.store.tree, quotas)
    usage.transactions += 1
    return b"%d\0" % number


def _next_number(number: int) -> int:
    return number + 1 if number < 0xFFFFFFFF else 1


def _transaction_end(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    if message.payload not in (b"T\0", b"F\0"):
        raise StoreError("EINVAL")
    if transaction is None:
        raise StoreError("ENOENT")
    del connection.transactions[message.transaction_id]
    connection.store.tree.usage[connection.domid].transactions -= 1
    if message.payload == b"T\0":
        for change in transaction.commit():
            connection.store.fire(change)
    return OK


# --- domains ---------------------------------------------------------------------------------------------------


def _get_domain_path(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    return b"/local/domain/%d\0" % (_number(_only(message.payload)) & 0xFFFFFFFF)


def _is_domain_introduced(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    domid = _number(_only(message.payload))
    return b"T\0" if domid == DOMID_SELF or domid in connection.store.introduced else b"F\0"


def _introduce(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    arguments = [_number(text) & 0xFFFFFFFF for text in strings(message.payload)]
    if len(arguments) < 3 or arguments[2] == 0:
        raise StoreError("EINVAL")
    store = connection.store
    # The frame in between is what it was called for once; the ring's page is found by its grant.
    domid, _, port = arguments[:3]
    if domid == 0:
        return OK  # it has come long ago, and its clients have no rings
    if store.on_introduce is None:
        raise StoreError("EINVAL")
    store.on_introduce(domid, port)
    introduced = store.connection_of(domid)
    if introduced is not None:
        introduced.reset()
    return OK


def _release(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    domid = _guest(connection, message)
    if connection.store.on_release is not None:
        connection.store.on_release(domid)
    connection.store.part_with(domid)
    return OK


def _resume(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    connection.store.resume(_guest(connection, message))
    return OK


def _guest(connection: Connection, message: Message) -> int:
    """The introduced domain, not Domain 0, that is the only argument."""
    domid = _number(_only(message.payload))
    if domid == 0:
        raise StoreError("EINVAL")
    if domid not in connection.store.introduced:
        raise StoreError("ENOENT")
    return domid


def _set_target(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    arguments = strings(message.payload)
    if len(arguments) < 2:
        raise StoreError("EINVAL")
    domid, target = _number(arguments[0]), _number(arguments[1])
    client = connection.store.connection_of(domid)
    if client is None or target not in connection.store.introduced:
        raise StoreError("ENOENT")
    client.target = target
    return OK


def _control(connection: Connection, message: Message, transaction: Transaction | None) -> bytes:
    """``help`` and ``quota [DOMID]``; the daemon's other commands concern what we do not have."""
    command, *arguments = strings(message.payload) or [b""]
    if command == b"help":
        return b"quota\t[<domid>]\nhelp\t\n\0"
    if command != b"quota" or len(arguments) > 1:
        raise StoreError("EINVAL")
    if not arguments:
        rows = vars(connection.store.quotas)
        title = "Quota settings:"
    else:
        domid = _number(arguments[0])
        if domid not in connection.store.introduced:
            raise StoreError("ENOENT")
        rows = vars(connection.store.tree.usage[domid])
        title = f"Domain {domid}:"
    lines = [title, *(f"{name.replace('_', '-'):<17}: {value:8}" for name, value in rows.items())]
    return "".join(line + "\n" for line in lines).encode() + b"\0"


def _only(payload: bytes) -> bytes:
    """The string that is the whole payload."""
    if payload.find(b"\0") != len(payload) - 1 or not payload:
        raise StoreError("EINVAL")
    return payload[:-1]


def _exactly(number: int, payload: bytes) -> list[bytes]:
    found = strings(payload)
    if len(found) != number:
        raise StoreError("EINVAL")
    return found


def _number(text: bytes) -> int:
    """As C's atoi: the number that the text begins with, or 0."""
    match = _NUMBER.match(text)
    return int(match[1]) if match is not None else 0


class Operation(NamedTuple):
    """How a type of message is treated.

    Attributes:
        privileged: refused to everybody but Domain 0, with EACCES.
        alone: a transaction's number in the message is ignored.
    """

    handler: Handler
    privileged: bool = False
    alone: bool = False


OPERATIONS: Final = {
    xs_wire.XS_CONTROL: Operation(_control, privileged=True),
    xs_wire.XS_DIRECTORY: Operation(_directory),
    xs_wire.XS_READ: Operation(_read),
    xs_wire.XS_GET_PERMS: Operation(_get_permissions),
    xs_wire.XS_WATCH: Operation(_watch, alone=True),
    xs_wire.XS_UNWATCH: Operation(_unwatch, alone=True),
    xs_wire.XS_TRANSACTION_START: Operation(_transaction_start),
    xs_wire.XS_TRANSACTION_END: Operation(_transaction_end),
    xs_wire.XS_INTRODUCE: Operation(_introduce, privileged=True),
    xs_wire.XS_RELEASE: Operation(_release, privileged=True),
    xs_wire.XS_GET_DOMAIN_PATH: Operation(_get_domain_path),
    xs_wire.XS_WRITE: Operation(_write),
    xs_wire.XS_MKDIR: Operation(_mkdir),
    xs_wire.XS_RM: Operation(_remove),
    xs_wire.XS_SET_PERMS: Operation(_set_permissions),
    xs_wire.XS_IS_DOMAIN_INTRODUCED: Operation(_is_domain_introduced, privileged=True),
    xs_wire.XS_RESUME: Operation(_resume, privileged=True),
    xs_wire.XS_SET_TARGET: Operation(_set_target, privileged=True),
    xs_wire.XS_RESET_WATCHES: Operation(_reset_watches),
    xs_wire.XS_DIRECTORY_PART: Operation(_directory_part),
}
