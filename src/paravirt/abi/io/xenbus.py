"""States of the two ends of a device.

Public header: ``xen/io/xenbus.h`` (Xen 4.17).
"""

# Values of a device's `state` node.
XenbusStateUnknown = 0
XenbusStateInitialising = 1
XenbusStateInitWait = 2
XenbusStateInitialised = 3
XenbusStateConnected = 4
XenbusStateClosing = 5
XenbusStateClosed = 6
XenbusStateReconfiguring = 7
XenbusStateReconfigured = 8
