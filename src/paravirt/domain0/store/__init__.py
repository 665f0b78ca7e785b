"""xenstore: the tree through which Domain 0 and its guests tell each other what there is.

Free of I/O: a :class:`Store` holds the tree, a :class:`Connection` turns bytes of requests into bytes of replies, and
a :class:`StoreService` joins a connection to a guest's ring (docs/misc/xenstore.txt in Xen's tree).
"""

from paravirt.domain0.store.quota import Quotas
from paravirt.domain0.store.server import Connection, Store
from paravirt.domain0.store.service import StoreService
from paravirt.domain0.store.tree import Permission, StoreError

__all__ = ["Connection", "Permission", "Quotas", "Store", "StoreError", "StoreService"]
