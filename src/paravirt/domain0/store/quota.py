"""What one domain may use of the store.

The limits are those of xenstored 4.17.7 (``xenstore-control quota``), as it was seen to apply them: a domain may
set one watch and start one transaction more than the number says, and a node's size counts its header, its
permissions and the names of its children as well as its value.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quotas:
    """Limits for every unprivileged domain.

    Attributes:
        nodes: nodes that it owns.
        node_size: bytes of one node that it writes; the size must stay below.
        permissions: entries in one node's list.
        watches: watches, less one.
        transactions: transactions under way at once, less one.
        transaction_nodes: different nodes that one transaction may look at.
        memory: bytes of all its nodes, their paths, and its watches.
    """

    nodes: int = 1000
    node_size: int = 2048
    permissions: int = 5
    watches: int = 128
    transactions: int = 10
    transaction_nodes: int = 1024
    memory: int = 2621440


@dataclass
class Usage:
    """What a domain uses now; see :class:`Quotas`. ``memory`` is in bytes."""

    nodes: int = 0
    memory: int = 0
    watches: int = 0
    transactions: int = 0
