"""Loading and starting another kernel in place of the hypervisor.

Public header: ``xen/kexec.h`` (Xen 4.17).
"""

# kexec_op: sub-operations.
KEXEC_CMD_kexec = 0
KEXEC_CMD_kexec_load_v1 = 1
KEXEC_CMD_kexec_unload_v1 = 2
KEXEC_CMD_kexec_get_range = 3
KEXEC_CMD_kexec_load = 4
KEXEC_CMD_kexec_unload = 5
KEXEC_CMD_kexec_status = 6

# Types of image.
KEXEC_TYPE_DEFAULT = 0
KEXEC_TYPE_CRASH = 1

# KEXEC_CMD_kexec_get_range: ranges.
KEXEC_RANGE_MA_CRASH = 0
KEXEC_RANGE_MA_XEN = 1
KEXEC_RANGE_MA_CPU = 2
KEXEC_RANGE_MA_XENHEAP = 3
KEXEC_RANGE_MA_BOOT_PARAM = 4
KEXEC_RANGE_MA_EFI_MEMMAP = 5
KEXEC_RANGE_MA_VMCOREINFO = 6

# Pages of an image.
KEXEC_XEN_NO_PAGES = 17
