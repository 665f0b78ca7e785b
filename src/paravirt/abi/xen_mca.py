"""Machine checks.

Public header: ``xen/arch-x86/xen-mca.h`` (Xen 4.17).
"""

# The hypercall and the interrupt.
__HYPERVISOR_mca = 48
VIRQ_MCA = 16

# Must stand in the `interface_version` of every request.
XEN_MCA_INTERFACE_VERSION = 0x1ECC003

# mca: sub-operations.
XEN_MC_fetch = 1
XEN_MC_notifydomain = 2
XEN_MC_physcpuinfo = 3
XEN_MC_msrinject = 4
XEN_MC_mceinject = 5
XEN_MC_inject_v2 = 6

# XEN_MC_inject_v2: flags.
XEN_MC_INJECT_TYPE_MASK = 0x7
XEN_MC_INJECT_TYPE_MCE = 0x0
XEN_MC_INJECT_TYPE_CMCI = 0x1
XEN_MC_INJECT_TYPE_LMCE = 0x2
XEN_MC_INJECT_CPU_BROADCAST = 0x8

# XEN_MC_fetch: flags.
XEN_MC_NONURGENT = 0x1
XEN_MC_URGENT = 0x2
XEN_MC_ACK = 0x4
XEN_MC_OK = 0x0
XEN_MC_FETCHFAILED = 0x1
XEN_MC_NODATA = 0x2
XEN_MC_NOMATCH = 0x4
XEN_MC_CANNOTHANDLE = 0x8
XEN_MC_NOTDELIVERED = 0x10
XEN_MC_VCPUID_INVALID = 0xFFFF
