"""The hypervisor: Xen's mechanism, between the bare machine and the control domain."""
