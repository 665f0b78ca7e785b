"""The hypervisor's records as Python objects: Host, Domain, Vcpu.

These are what the rare hypercalls, the control domain and the toolstack work with.  An object is a thin handle on
a C record (records.pxd); reading an attribute reads the record.  Everything except :meth:`Host.run` and the lock
itself must be used with the machine lock held (``with host.lock:``).
"""

from paravirt.hypervisor.views.domain import MAX_PORTS, NO_FRAME, Domain
from paravirt.hypervisor.views.host import MAX_DOMAINS, Host, MachineLock
from paravirt.hypervisor.views.vcpu import Vcpu

__all__ = ["MAX_DOMAINS", "MAX_PORTS", "NO_FRAME", "Domain", "Host", "MachineLock", "Vcpu"]
