"""The nodes: values, permissions, children, and who is charged for them.

A node never changes: writing one puts a new node in its place. So a reference to a node is a snapshot of it, and
whether anybody touched a path meanwhile is whether the same object is still there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Final, NamedTuple, Protocol

from paravirt.abi.io.xs_wire import XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX
from paravirt.domain0.store.quota import Usage

READ: Final = 1
WRITE: Final = 2
OWNER: Final = 4
EVERYTHING: Final = READ | WRITE | OWNER
_RIGHTS: Final = {"n": 0, "r": READ, "w": WRITE, "b": READ | WRITE}

ROOT: Final = b"/"
NODE_HEADER_SIZE: Final = 24
PERMISSION_SIZE: Final = 8

_PATH: Final = re.compile(rb"/|(?:/[A-Za-z0-9\-_@]+)+")
_HOME: Final = re.compile(rb"/local/domain/[0-9]{1,5}/")
_PERMISSION: Final = re.compile(rb"([nrwb])[ \t\n\v\f\r]*([+-]?[0-9]+)")


class StoreError(Exception):
    """A request is refused; ``name`` is the error's name on the wire (EINVAL, ENOENT, ...)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Permission(NamedTuple):
    """What a domain may do with a node: ``access`` is n(one), r(ead), w(rite) or b(oth)."""

    access: str
    domid: int

    def encode(self) -> bytes:
        """As on the wire, without the terminator."""
        return b"%c%d" % (ord(self.access), self.domid)

    @staticmethod
    def parse(text: bytes) -> Permission:
        """Read one from the wire: a letter and a number, which xenstored keeps in a C int.

        Raises:
            StoreError: EINVAL.
        """
        match = _PERMISSION.fullmatch(text)
        if match is None:
            raise StoreError("EINVAL")
        number = max(-(1 << 63), min(int(match[2]), (1 << 63) - 1))
        number = (number + (1 << 31)) % (1 << 32) - (1 << 31)
        return Permission(match[1].decode(), number)


Permissions = tuple[Permission, ...]


class Node(NamedTuple):
    """One node.

    The first permission names the owner, and what everybody not named may do. ``children`` are the children's
    names in the order of their creation, each with a NUL behind it, as a reply lists them. ``generation`` is that
    of the change that made this node.
    """

    value: bytes
    permissions: Permissions
    children: bytes
    generation: int

    @property
    def owner(self) -> int:
        """The domain that the node is counted for."""
        return self.permissions[0].domid

    @property
    def size(self) -> int:
        """Bytes, as xenstored counts them."""
        permissions = PERMISSION_SIZE * len(self.permissions)
        return NODE_HEADER_SIZE + permissions + len(self.value) + len(self.children)

    def names(self) -> list[bytes]:
        """The children's names."""
        return self.children.split(b"\0")[:-1]


def check_path(path: bytes) -> bytes:
    """The path itself, if it is a well-formed absolute one.

    A path may have 2048 bytes, to which a domain's home directory adds.

    Raises:
        StoreError: EINVAL.
    """
    if _PATH.fullmatch(path) is None:
        raise StoreError("EINVAL")
    if len(path) > XENSTORE_REL_PATH_MAX:
        home = _HOME.match(path)
        below = len(path) - (home.end() if home else 0)
        if below > XENSTORE_REL_PATH_MAX or len(path) > XENSTORE_ABS_PATH_MAX:
            raise StoreError("EINVAL")
    return path


def parent_of(path: bytes) -> bytes:
    """The path of a node's parent; the root is its own."""
    return path[: path.rindex(b"/")] or ROOT


def child_of(path: bytes, name: bytes) -> bytes:
    """The path of a node's child."""
    return path + name if path == ROOT else path + b"/" + name


def has_child(children: bytes, name: bytes) -> bool:
    """Whether a name is in a list of names."""
    return b"\0" + name + b"\0" in b"\0" + children


def without_child(children: bytes, name: bytes) -> bytes:
    """A list of names without one of them, which is there."""
    start = (b"\0" + children).index(b"\0" + name + b"\0")
    return children[:start] + children[start + len(name) + 1 :]


class View(Protocol):
    """Nodes to look at and to change: the store's own, or a transaction's."""

    def get(self, path: bytes) -> Node | None:
        """The node at ``path``, or None."""

    def put(self, path: bytes, value: bytes, permissions: Permissions, children: bytes) -> Node:
        """Put a new node there."""

    def delete(self, path: bytes) -> None:
        """Take the node away; its parent's list is another matter."""

    def nodes_of(self, domid: int) -> int:
        """How many nodes the domain owns."""

    def memory_of(self, domid: int) -> int:
        """How much memory, in bytes, the domain uses."""


class Tree:
    """All nodes, by path.

    Attributes:
        generation: counts changes.
        usage: what each domain uses.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.usage: defaultdict[int, Usage] = defaultdict(Usage)
        self._nodes: dict[bytes, Node] = {}
        self._owned: defaultdict[int, dict[bytes, None]] = defaultdict(dict)
        self._released: dict[int, int] = {}
        self.put(ROOT, b"", (Permission("n", 0),), b"")

    def get(self, path: bytes) -> Node | None:
        """The node at ``path``, or None."""
        return self._nodes.get(path)

    def put(self, path: bytes, value: bytes, permissions: Permissions, children: bytes) -> Node:
        """Put a new node there."""
        if path in self._nodes:
            self._discharge(path)
        self.generation += 1
        node = self._nodes[path] = Node(value, permissions, children, self.generation)
        usage = self.usage[node.owner]
        usage.nodes += 1
        usage.memory += node.size + len(path)
        if node.owner:
            self._owned[node.owner][path] = None
        return node

    def delete(self, path: bytes) -> None:
        """Take the node away; its parent's list is another matter."""
        self.generation += 1
        self._discharge(path)
        del self._nodes[path]

    def nodes_of(self, domid: int) -> int:
        """How many nodes the domain owns."""
        return self.usage[domid].nodes

    def memory_of(self, domid: int) -> int:
        """How much memory, in bytes, the domain uses."""
        return self.usage[domid].memory

    def owned_by(self, domid: int) -> list[bytes]:
        """The paths of a guest's nodes, in the order in which they became its own."""
        return list(self._owned.get(domid, ()))

    def forget(self, domid: int) -> None:
        """A domain is gone: what nodes of today permit its number is not for a later domain of that number."""
        self.generation += 1
        self._released[domid] = self.generation
        self._owned.pop(domid, None)
        self.usage.pop(domid, None)

    def live_permissions(self, node: Node) -> Permissions:
        """A node's permissions without those for domains that are gone."""
        permissions = node.permissions
        if self._released and any(self._is_stale(node, entry.domid) for entry in permissions[1:]):
            kept = (entry for entry in permissions[1:] if not self._is_stale(node, entry.domid))
            return (permissions[0], *kept)
        return permissions

    def rights(self, node: Node, domid: int, target: int | None = None) -> int:
        """What a domain may do with a node: READ, WRITE and OWNER, added up.

        Domain 0 and the owner may do everything. ``target`` is the domain on whose behalf it acts, if any.
        """
        owner = node.permissions[0]
        if domid == 0 or owner.domid == domid or owner.domid == target:
            return EVERYTHING
        for entry in node.permissions[1:]:
            if (entry.domid == domid or entry.domid == target) and not self._is_stale(node, entry.domid):
                return _RIGHTS[entry.access]
        return _RIGHTS[owner.access]

    def _is_stale(self, node: Node, domid: int) -> bool:
        return node.generation < self._released.get(domid, 0)

    def _discharge(self, path: bytes) -> None:
        node = self._nodes[path]
        usage = self.usage[node.owner]
        usage.nodes -= 1
        usage.memory -= node.size + len(path)
        if node.owner:
            del self._owned[node.owner][path]

    def __len__(self) -> int:
        return len(self._nodes)
