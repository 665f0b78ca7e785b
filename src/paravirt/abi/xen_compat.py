"""The version of the interface itself.

Public header: ``xen/xen-compat.h`` (Xen 4.17).
"""

# Guests may ask the headers for an older one; hypervisors implement the latest.
__XEN_LATEST_INTERFACE_VERSION__ = 0x40E00
