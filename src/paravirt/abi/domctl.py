"""Control of domains (for a privileged domain): operation numbers and the flags of a domain.

Public header: ``xen/domctl.h`` (Xen 4.17).
"""

# Must stand in the `interface_version` of every request.
XEN_DOMCTL_INTERFACE_VERSION = 0x15

# domctl: operations.
XEN_DOMCTL_createdomain = 1
XEN_DOMCTL_destroydomain = 2
XEN_DOMCTL_pausedomain = 3
XEN_DOMCTL_unpausedomain = 4
XEN_DOMCTL_getdomaininfo = 5
XEN_DOMCTL_setvcpuaffinity = 9
XEN_DOMCTL_shadow_op = 10
XEN_DOMCTL_max_mem = 11
XEN_DOMCTL_setvcpucontext = 12
XEN_DOMCTL_getvcpucontext = 13
XEN_DOMCTL_getvcpuinfo = 14
XEN_DOMCTL_max_vcpus = 15
XEN_DOMCTL_scheduler_op = 16
XEN_DOMCTL_setdomainhandle = 17
XEN_DOMCTL_setdebugging = 18
XEN_DOMCTL_irq_permission = 19
XEN_DOMCTL_iomem_permission = 20
XEN_DOMCTL_ioport_permission = 21
XEN_DOMCTL_hypercall_init = 22
XEN_DOMCTL_settimeoffset = 24
XEN_DOMCTL_getvcpuaffinity = 25
XEN_DOMCTL_real_mode_area = 26
XEN_DOMCTL_resumedomain = 27
XEN_DOMCTL_sendtrigger = 28
XEN_DOMCTL_subscribe = 29
XEN_DOMCTL_gethvmcontext = 33
XEN_DOMCTL_sethvmcontext = 34
XEN_DOMCTL_set_address_size = 35
XEN_DOMCTL_get_address_size = 36
XEN_DOMCTL_assign_device = 37
XEN_DOMCTL_bind_pt_irq = 38
XEN_DOMCTL_memory_mapping = 39
XEN_DOMCTL_ioport_mapping = 40
XEN_DOMCTL_set_ext_vcpucontext = 42
XEN_DOMCTL_get_ext_vcpucontext = 43
XEN_DOMCTL_set_opt_feature = 44
XEN_DOMCTL_test_assign_device = 45
XEN_DOMCTL_set_target = 46
XEN_DOMCTL_deassign_device = 47
XEN_DOMCTL_unbind_pt_irq = 48
XEN_DOMCTL_get_device_group = 50
XEN_DOMCTL_debug_op = 54
XEN_DOMCTL_gethvmcontext_partial = 55
XEN_DOMCTL_vm_event_op = 56
XEN_DOMCTL_mem_sharing_op = 57
XEN_DOMCTL_gettscinfo = 59
XEN_DOMCTL_settscinfo = 60
XEN_DOMCTL_getpageframeinfo3 = 61
XEN_DOMCTL_setvcpuextstate = 62
XEN_DOMCTL_getvcpuextstate = 63
XEN_DOMCTL_set_access_required = 64
XEN_DOMCTL_audit_p2m = 65
XEN_DOMCTL_set_virq_handler = 66
XEN_DOMCTL_set_broken_page_p2m = 67
XEN_DOMCTL_setnodeaffinity = 68
XEN_DOMCTL_getnodeaffinity = 69
XEN_DOMCTL_cacheflush = 71
XEN_DOMCTL_get_vcpu_msrs = 72
XEN_DOMCTL_set_vcpu_msrs = 73
XEN_DOMCTL_setvnumainfo = 74
XEN_DOMCTL_psr_cmt_op = 75
XEN_DOMCTL_monitor_op = 77
XEN_DOMCTL_psr_alloc = 78
XEN_DOMCTL_soft_reset = 79
XEN_DOMCTL_vuart_op = 81
XEN_DOMCTL_get_cpu_policy = 82
XEN_DOMCTL_set_cpu_policy = 83
XEN_DOMCTL_vmtrace_op = 84
XEN_DOMCTL_get_paging_mempool_size = 85
XEN_DOMCTL_set_paging_mempool_size = 86
XEN_DOMCTL_gdbsx_guestmemio = 1000
XEN_DOMCTL_gdbsx_pausevcpu = 1001
XEN_DOMCTL_gdbsx_unpausevcpu = 1002
XEN_DOMCTL_gdbsx_domstatus = 1003

# createdomain: flags.
_XEN_DOMCTL_CDF_hvm = 0
XEN_DOMCTL_CDF_hvm = 1 << _XEN_DOMCTL_CDF_hvm
_XEN_DOMCTL_CDF_hap = 1
XEN_DOMCTL_CDF_hap = 1 << _XEN_DOMCTL_CDF_hap
_XEN_DOMCTL_CDF_s3_integrity = 2
XEN_DOMCTL_CDF_s3_integrity = 1 << _XEN_DOMCTL_CDF_s3_integrity
_XEN_DOMCTL_CDF_oos_off = 3
XEN_DOMCTL_CDF_oos_off = 1 << _XEN_DOMCTL_CDF_oos_off
_XEN_DOMCTL_CDF_xs_domain = 4
XEN_DOMCTL_CDF_xs_domain = 1 << _XEN_DOMCTL_CDF_xs_domain
_XEN_DOMCTL_CDF_iommu = 5
XEN_DOMCTL_CDF_iommu = 1 << _XEN_DOMCTL_CDF_iommu
_XEN_DOMCTL_CDF_nested_virt = 6
XEN_DOMCTL_CDF_nested_virt = 1 << _XEN_DOMCTL_CDF_nested_virt
XEN_DOMCTL_CDF_vpmu = 1 << 7
XEN_DOMCTL_CDF_MAX = XEN_DOMCTL_CDF_vpmu

# getdomaininfo: flags; the shutdown reason is above XEN_DOMINF_shutdownshift.
_XEN_DOMINF_dying = 0
XEN_DOMINF_dying = 1 << _XEN_DOMINF_dying
_XEN_DOMINF_hvm_guest = 1
XEN_DOMINF_hvm_guest = 1 << _XEN_DOMINF_hvm_guest
_XEN_DOMINF_shutdown = 2
XEN_DOMINF_shutdown = 1 << _XEN_DOMINF_shutdown
_XEN_DOMINF_paused = 3
XEN_DOMINF_paused = 1 << _XEN_DOMINF_paused
_XEN_DOMINF_blocked = 4
XEN_DOMINF_blocked = 1 << _XEN_DOMINF_blocked
_XEN_DOMINF_running = 5
XEN_DOMINF_running = 1 << _XEN_DOMINF_running
_XEN_DOMINF_debugged = 6
XEN_DOMINF_debugged = 1 << _XEN_DOMINF_debugged
_XEN_DOMINF_xs_domain = 7
XEN_DOMINF_xs_domain = 1 << _XEN_DOMINF_xs_domain
_XEN_DOMINF_hap = 8
XEN_DOMINF_hap = 1 << _XEN_DOMINF_hap
XEN_DOMINF_shutdownmask = 255
XEN_DOMINF_shutdownshift = 16

# getdomaininfo: max_vcpu_id of a domain without vcpus.
XEN_INVALID_MAX_VCPU_ID = 0xFFFFFFFF

# getpageframeinfo3: what a frame is.
XEN_DOMCTL_PFINFO_LTAB_SHIFT = 28
XEN_DOMCTL_PFINFO_NOTAB = 0x0
XEN_DOMCTL_PFINFO_L1TAB = 0x10000000
XEN_DOMCTL_PFINFO_L2TAB = 0x20000000
XEN_DOMCTL_PFINFO_L3TAB = 0x30000000
XEN_DOMCTL_PFINFO_L4TAB = 0x40000000
XEN_DOMCTL_PFINFO_LTABTYPE_MASK = 0x70000000
XEN_DOMCTL_PFINFO_LPINTAB = 0x80000000
XEN_DOMCTL_PFINFO_XTAB = 0xF0000000
XEN_DOMCTL_PFINFO_XALLOC = 0xE0000000
XEN_DOMCTL_PFINFO_BROKEN = 0xD0000000
XEN_DOMCTL_PFINFO_LTAB_MASK = 0xF0000000

# shadow_op: operations and flags.
XEN_DOMCTL_SHADOW_OP_OFF = 0
XEN_DOMCTL_SHADOW_OP_ENABLE = 32
XEN_DOMCTL_SHADOW_OP_CLEAN = 11
XEN_DOMCTL_SHADOW_OP_PEEK = 12
XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION = 30
XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION = 31
XEN_DOMCTL_SHADOW_OP_ENABLE_TEST = 1
XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY = 2
XEN_DOMCTL_SHADOW_ENABLE_REFCOUNT = 1 << 1
XEN_DOMCTL_SHADOW_ENABLE_LOG_DIRTY = 1 << 2
XEN_DOMCTL_SHADOW_ENABLE_TRANSLATE = 1 << 3
XEN_DOMCTL_SHADOW_ENABLE_EXTERNAL = 1 << 4
XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL = 1 << 0

# setvcpuaffinity, getvcpuaffinity: flags.
_XEN_VCPUAFFINITY_HARD = 0
XEN_VCPUAFFINITY_HARD = 1 << _XEN_VCPUAFFINITY_HARD
_XEN_VCPUAFFINITY_SOFT = 1
XEN_VCPUAFFINITY_SOFT = 1 << _XEN_VCPUAFFINITY_SOFT
_XEN_VCPUAFFINITY_FORCE = 2
XEN_VCPUAFFINITY_FORCE = 1 << _XEN_VCPUAFFINITY_FORCE

# scheduler_op: schedulers.
XEN_SCHEDULER_CREDIT = 5
XEN_SCHEDULER_CREDIT2 = 6
XEN_SCHEDULER_ARINC653 = 7
XEN_SCHEDULER_RTDS = 8
XEN_SCHEDULER_NULL = 9

# scheduler_op: operations.
XEN_DOMCTL_SCHEDOP_putinfo = 0
XEN_DOMCTL_SCHEDOP_getinfo = 1
XEN_DOMCTL_SCHEDOP_putvcpuinfo = 2
XEN_DOMCTL_SCHEDOP_getvcpuinfo = 3

# sendtrigger: triggers.
XEN_DOMCTL_SENDTRIGGER_NMI = 0
XEN_DOMCTL_SENDTRIGGER_RESET = 1
XEN_DOMCTL_SENDTRIGGER_INIT = 2
XEN_DOMCTL_SENDTRIGGER_POWER = 3
XEN_DOMCTL_SENDTRIGGER_SLEEP = 4

# assign_device: kinds of device.
XEN_DOMCTL_DEV_PCI = 0
XEN_DOMCTL_DEV_DT = 1

# memory_mapping, ioport_mapping: operations.
DPCI_ADD_MAPPING = 1
DPCI_REMOVE_MAPPING = 0

# debug_op: operations.
XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_OFF = 0
XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_ON = 1

# vm_event_op: operations and rings.
XEN_VM_EVENT_ENABLE = 0
XEN_VM_EVENT_DISABLE = 1
XEN_VM_EVENT_RESUME = 2
XEN_VM_EVENT_GET_VERSION = 3
XEN_DOMCTL_VM_EVENT_OP_PAGING = 1
XEN_DOMCTL_VM_EVENT_OP_MONITOR = 2
XEN_DOMCTL_VM_EVENT_OP_SHARING = 3

# mem_sharing_op: operations.
XEN_DOMCTL_MEM_SHARING_CONTROL = 0

# monitor_op: operations and events.
XEN_DOMCTL_MONITOR_OP_ENABLE = 0
XEN_DOMCTL_MONITOR_OP_DISABLE = 1
XEN_DOMCTL_MONITOR_OP_GET_CAPABILITIES = 2
XEN_DOMCTL_MONITOR_OP_EMULATE_EACH_REP = 3
XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS = 4
XEN_DOMCTL_MONITOR_EVENT_WRITE_CTRLREG = 0
XEN_DOMCTL_MONITOR_EVENT_MOV_TO_MSR = 1
XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP = 2
XEN_DOMCTL_MONITOR_EVENT_SOFTWARE_BREAKPOINT = 3
XEN_DOMCTL_MONITOR_EVENT_GUEST_REQUEST = 4
XEN_DOMCTL_MONITOR_EVENT_DEBUG_EXCEPTION = 5
XEN_DOMCTL_MONITOR_EVENT_CPUID = 6
XEN_DOMCTL_MONITOR_EVENT_PRIVILEGED_CALL = 7
XEN_DOMCTL_MONITOR_EVENT_INTERRUPT = 8
XEN_DOMCTL_MONITOR_EVENT_DESC_ACCESS = 9
XEN_DOMCTL_MONITOR_EVENT_EMUL_UNIMPLEMENTED = 10
XEN_DOMCTL_MONITOR_EVENT_INGUEST_PAGEFAULT = 11
XEN_DOMCTL_MONITOR_EVENT_VMEXIT = 12

# psr_cmt_op, psr_alloc: operations.
XEN_DOMCTL_PSR_CMT_OP_DETACH = 0
XEN_DOMCTL_PSR_CMT_OP_ATTACH = 1
XEN_DOMCTL_PSR_CMT_OP_QUERY_RMID = 2
XEN_DOMCTL_PSR_SET_L3_CBM = 0
XEN_DOMCTL_PSR_GET_L3_CBM = 1
XEN_DOMCTL_PSR_SET_L3_CODE = 2
XEN_DOMCTL_PSR_SET_L3_DATA = 3
XEN_DOMCTL_PSR_GET_L3_CODE = 4
XEN_DOMCTL_PSR_GET_L3_DATA = 5
XEN_DOMCTL_PSR_SET_L2_CBM = 6
XEN_DOMCTL_PSR_GET_L2_CBM = 7
XEN_DOMCTL_PSR_SET_MBA_THRTL = 8
XEN_DOMCTL_PSR_GET_MBA_THRTL = 9

# vuart_op: operations and types.
XEN_DOMCTL_VUART_OP_INIT = 0
XEN_DOMCTL_VUART_TYPE_VPL011 = 0

# vmtrace_op: operations.
XEN_DOMCTL_vmtrace_enable = 1
XEN_DOMCTL_vmtrace_disable = 2
XEN_DOMCTL_vmtrace_reset_and_enable = 3
XEN_DOMCTL_vmtrace_output_position = 4
XEN_DOMCTL_vmtrace_get_option = 5
XEN_DOMCTL_vmtrace_set_option = 6
