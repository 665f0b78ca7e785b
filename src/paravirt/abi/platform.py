"""Platform operations (for a privileged domain).

Public header: ``xen/platform.h`` (Xen 4.17).
"""

# Must stand in the `interface_version` of every request.
XENPF_INTERFACE_VERSION = 0x3000001

# platform_op: sub-operations.
XENPF_settime32 = 17
XENPF_settime64 = 62
XENPF_settime = 62
XENPF_add_memtype = 31
XENPF_del_memtype = 32
XENPF_read_memtype = 33
XENPF_microcode_update = 35
XENPF_platform_quirk = 39
XENPF_efi_runtime_call = 49
XENPF_firmware_info = 50
XENPF_enter_acpi_sleep = 51
XENPF_change_freq = 52
XENPF_getidletime = 53
XENPF_set_processor_pminfo = 54
XENPF_get_cpuinfo = 55
XENPF_get_cpu_version = 48
XENPF_cpu_online = 56
XENPF_cpu_offline = 57
XENPF_cpu_hotadd = 58
XENPF_mem_hotadd = 59
XENPF_core_parking = 60
XENPF_resource_op = 61
XENPF_get_symbol = 63

# XENPF_efi_runtime_call: functions.
XEN_EFI_get_time = 1
XEN_EFI_set_time = 2
XEN_EFI_get_wakeup_time = 3
XEN_EFI_set_wakeup_time = 4
XEN_EFI_get_next_high_monotonic_count = 5
XEN_EFI_get_variable = 6
XEN_EFI_set_variable = 7
XEN_EFI_get_next_variable_name = 8
XEN_EFI_query_variable_info = 9
XEN_EFI_query_capsule_capabilities = 10
XEN_EFI_update_capsule = 11

# XENPF_firmware_info: types and indices.
XEN_FW_DISK_INFO = 1
XEN_FW_DISK_MBR_SIGNATURE = 2
XEN_FW_VBEDDC_INFO = 3
XEN_FW_EFI_INFO = 4
XEN_FW_EFI_VERSION = 0
XEN_FW_EFI_CONFIG_TABLE = 1
XEN_FW_EFI_VENDOR = 2
XEN_FW_EFI_MEM_INFO = 3
XEN_FW_EFI_RT_VERSION = 4
XEN_FW_EFI_PCI_ROM = 5
XEN_FW_EFI_APPLE_PROPERTIES = 6
XEN_FW_KBD_SHIFT_FLAGS = 5

# XENPF_set_processor_pminfo: types.
XEN_PM_CX = 0
XEN_PM_PX = 1
XEN_PM_TX = 2
XEN_PM_PDC = 3

# XENPF_core_parking: operations.
XEN_CORE_PARKING_SET = 1
XEN_CORE_PARKING_GET = 2

# XENPF_resource_op: operations.
XEN_RESOURCE_OP_MSR_READ = 0
XEN_RESOURCE_OP_MSR_WRITE = 1
