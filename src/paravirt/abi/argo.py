"""Argo: copying messages between domains.

Public header: ``xen/argo.h`` (Xen 4.17).
"""

# argo_op: sub-operations.
XEN_ARGO_OP_register_ring = 1
XEN_ARGO_OP_unregister_ring = 2
XEN_ARGO_OP_sendv = 3
XEN_ARGO_OP_notify = 4

# XEN_ARGO_OP_register_ring: flags.
XEN_ARGO_REGISTER_FLAG_FAIL_EXIST = 0x1

# XEN_ARGO_OP_notify: state of a ring.
XEN_ARGO_RING_EXISTS = 1 << 0
XEN_ARGO_RING_SHARED = 1 << 1
XEN_ARGO_RING_EMPTY = 1 << 2
XEN_ARGO_RING_SUFFICIENT = 1 << 3
XEN_ARGO_RING_EMSGSIZE = 1 << 4
XEN_ARGO_RING_EBUSY = 1 << 5

# Limits and the wildcard.
XEN_ARGO_DOMID_ANY = 32756
XEN_ARGO_MAX_RING_SIZE = 0x1000000
XEN_ARGO_MAXIOV = 8
XEN_ARGO_MSG_SLOT_SIZE = 0x10
