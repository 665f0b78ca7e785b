"""Transactions: look at and change nodes as if alone, then make all of it true at once, or none.

A node is copied into the transaction (by reference: nodes do not change) when it is first looked at. At the end
the transaction conflicts, and fails with EAGAIN, if any node it looked at is not the same any more; the nodes
that it changes it has looked at before, and creating or removing a node changes its parent. This is xenstored's
rule (tools/xenstore/xenstored_transaction.c), and so is the order of the events that follow.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from paravirt.domain0.store.quota import Quotas
from paravirt.domain0.store.tree import Node, Permissions, StoreError, Tree


class Change(NamedTuple):
    """Something to tell watchers.

    Attributes:
        node: what is, or was, at the path; None if it is not there any more and only ``old`` tells who may know.
        old: what permissions it had before.
        exact: only watches on this very path are meant, not those above: it went with something above it.
    """

    path: bytes
    node: Node | None
    old: Permissions | None
    exact: bool


class Transaction:
    """One transaction: a view of the tree.

    Parameters:
        quotas: limits for the domain it belongs to; None for Domain 0.

    Attributes:
        failed: it has asked for more than it may have, and will not end well.
    """

    def __init__(self, tree: Tree, quotas: Quotas | None) -> None:
        self._tree = tree
        self._quotas = quotas
        self.failed = False
        self._seen: dict[bytes, Node | None] = {}
        self._now: dict[bytes, Node | None] = {}
        self._changed: dict[bytes, None] = {}
        self._events: dict[bytes, bool] = {}
        self._nodes: defaultdict[int, int] = defaultdict(int)
        self._memory: defaultdict[int, int] = defaultdict(int)

    def get(self, path: bytes) -> Node | None:
        """The node at ``path`` as this transaction sees it.

        Raises:
            StoreError: ENOSPC: it has looked at too many nodes.
        """
        if path in self._now:
            return self._now[path]
        if self._quotas is not None and len(self._seen) >= self._quotas.transaction_nodes:
            self.failed = True
            raise StoreError("ENOSPC")
        node = self._seen[path] = self._now[path] = self._tree.get(path)
        return node

    def put(self, path: bytes, value: bytes, permissions: Permissions, children: bytes) -> Node:
        """Put a new node there, for this transaction."""
        self._discharge(path, self.get(path))
        self._tree.generation += 1
        node = self._now[path] = Node(value, permissions, children, self._tree.generation)
        self._changed[path] = None
        self._nodes[node.owner] += 1
        self._memory[node.owner] += node.size + len(path)
        return node

    def delete(self, path: bytes) -> None:
        """Take the node away, for this transaction."""
        self._discharge(path, self.get(path))
        self._now[path] = None
        self._changed[path] = None

    def nodes_of(self, domid: int) -> int:
        """How many nodes the domain owns. Those that are to go still count, until they have gone."""
        return self._tree.nodes_of(domid) + max(0, self._nodes[domid])

    def memory_of(self, domid: int) -> int:
        """How much memory, in bytes, the domain uses."""
        return self._tree.memory_of(domid) + self._memory[domid]

    def note(self, path: bytes, exact: bool) -> None:
        """Remember to tell the watchers of ``path``, at the end: those above it too unless it is always ``exact``."""
        self._events[path] = exact and self._events.get(path, True)

    def commit(self) -> list[Change]:
        """Make it true: what the watchers are to be told.

        Raises:
            StoreError: EAGAIN: a node that it looked at has changed since. ENOSPC: a domain would own too many.
                ENOMEM: it failed before.
        """
        if self.failed:
            raise StoreError("ENOMEM")
        tree = self._tree
        if self._quotas is not None:
            for domid, more in self._nodes.items():
                if domid and more > 0 and tree.nodes_of(domid) + more > self._quotas.nodes:
                    raise StoreError("ENOSPC")
        if any(tree.get(path) is not node for path, node in self._seen.items()):
            raise StoreError("EAGAIN")
        events = [
            Change(path, self._now[path], before.permissions if before is not None else None, self._events[path])
            for path, before in self._seen.items()
            if path in self._events and not (before is None and self._now[path] is None)
        ]
        for path in self._changed:
            node = self._now[path]
            if node is not None:
                tree.put(path, node.value, node.permissions, node.children)
            elif self._seen[path] is not None:
                tree.delete(path)
        return events

    def _discharge(self, path: bytes, node: Node | None) -> None:
        if node is not None:
            self._nodes[node.owner] -= 1
            self._memory[node.owner] -= node.size + len(path)
