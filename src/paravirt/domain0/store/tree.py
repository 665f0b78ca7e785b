"""The tree of nodes: values, permissions, ownership, and snapshots for transactions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

ABSOLUTE_PATH_MAX: Final = 3072
_NAME: Final = re.compile(rb"[A-Za-z0-9\-_@+.:,]+\Z")


class StoreError(Exception):
    """A request is refused; ``name`` is the error's name on the wire (EINVAL, ENOENT, ...)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Permission:
    """What a domain may do with a node: ``access`` is n(one), r(ead), w(rite) or b(oth)."""

    access: str
    domid: int

    def encode(self) -> bytes:
        """As on the wire, without the terminator."""
        return f"{self.access}{self.domid}".encode()

    @staticmethod
    def parse(text: bytes) -> Permission:
        """Read one from the wire.

        Raises:
            StoreError: EINVAL.
        """
        if re.fullmatch(rb"[nrwb][0-9]{1,5}", text) is None or int(text[1:]) > 0x7FFF:
            raise StoreError("EINVAL")
        return Permission(chr(text[0]), int(text[1:]))


@dataclass
class Node:
    """One node.  The first permission names the owner, and what everybody not named may do."""

    value: bytes = b""
    permissions: tuple[Permission, ...] = (Permission("n", 0),)
    children: dict[bytes, Node] = field(default_factory=dict)
    generation: int = 0

    @property
    def owner(self) -> int:
        """The domain that the node is counted for."""
        return self.permissions[0].domid

    def allows(self, domid: int, access: str) -> bool:
        """Whether ``domid`` may "r"ead or "w"rite.  Domain 0 and the owner may do everything."""
        if domid in (0, self.owner):
            return True
        granted = self.permissions[0].access
        for permission in self.permissions[1:]:
            if permission.domid == domid:
                granted = permission.access
                break
        return granted in (access, "b")


def split_path(path: bytes) -> list[bytes]:
    """The names in an absolute path.

    Raises:
        StoreError: EINVAL: not a well-formed absolute path.
    """
    if path == b"/":
        return []
    if not path.startswith(b"/") or path.endswith(b"/") or len(path) > ABSOLUTE_PATH_MAX:
        raise StoreError("EINVAL")
    names = path[1:].split(b"/")
    if any(_NAME.match(name) is None for name in names):
        raise StoreError("EINVAL")
    return names


class Tree:
    """All nodes.  ``generation`` counts changes; a node carries the one that touched it (or its list) last."""

    def __init__(self) -> None:
        self.root = Node()
        self.generation = 0
        self.owned: dict[int, int] = {0: 1}

    def find(self, path: bytes) -> Node | None:
        """The node at ``path``, or None."""
        node: Node | None = self.root
        for name in split_path(path):
            node = node.children.get(name) if node is not None else None
        return node

    def nearest(self, path: bytes) -> Node:
        """The node at ``path`` or, where there is none, its nearest ancestor."""
        node = self.root
        for name in split_path(path):
            child = node.children.get(name)
            if child is None:
                break
            node = child
        return node

    def write(self, path: bytes, value: bytes | None, domid: int) -> list[bytes]:
        """Set a node's value (None: leave it), with every missing ancestor: the paths that were created.

        New nodes have their parent's permissions, except that a guest owns what it makes.
        """
        self.generation += 1
        node = self.root
        created = []
        at = b""
        for name in split_path(path):
            at += b"/" + name
            child = node.children.get(name)
            if child is None:
                permissions = node.permissions
                if domid != 0:
                    permissions = (Permission(permissions[0].access, domid), *permissions[1:])
                child = Node(permissions=permissions, generation=self.generation)
                node.children[name] = child
                node.generation = self.generation
                self.owned[child.owner] = self.owned.get(child.owner, 0) + 1
                created.append(at)
            node = child
        if value is not None:
            node.value = value
            node.generation = self.generation
        return created

    def set_permissions(self, path: bytes, permissions: tuple[Permission, ...]) -> None:
        """Replace a node's permissions; the node may get another owner."""
        node = self.find(path)
        if node is None:
            raise StoreError("ENOENT")
        self.generation += 1
        self.owned[node.owner] -= 1
        node.permissions = permissions
        self.owned[node.owner] = self.owned.get(node.owner, 0) + 1
        node.generation = self.generation

    def remove(self, path: bytes) -> bool:
        """Remove a node and everything below it: false if there was none."""
        names = split_path(path)
        parent = self.find(b"/" + b"/".join(names[:-1])) if len(names) > 1 else self.root
        if not names or parent is None or names[-1] not in parent.children:
            return False
        self.generation += 1
        gone = [parent.children.pop(names[-1])]
        parent.generation = self.generation
        while gone:
            node = gone.pop()
            self.owned[node.owner] -= 1
            gone.extend(node.children.values())
        return True
